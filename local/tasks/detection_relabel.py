"""Pseudo events of a cycle, from the out-of-fold scores of the cycle before."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.io.limits import spreadsheet_safe
from local.relabel.pseudo_labels import bound_by_prevalence, make_pseudo_events, summarise
from local.tasks.detection_results import corrected_test

if TYPE_CHECKING:
    from local.models.task_contract import Experiment

log = logging.getLogger("canopy")


def write_pseudo_events(experiment: "Experiment", cycle: int, scores: Scores) -> list[Path]:
    """Write pseudo_events.csv and pseudo_summary.csv of a cycle; `scores` of the one before."""
    run, folder = experiment.run, experiment.run.cycle(cycle)
    config = run.config.relabel
    scored = set(scores.recording_ids)
    names = [name for name in experiment.ids(*config.subsets) if name in scored]
    if not names:
        raise CanopyError(
            f"relabel.subsets is {', '.join(config.subsets) or 'empty'}: no recording of it is "
            "readable and has an out-of-fold score; name another subset, or set relabel.n_cycles "
            "to 0"
        )
    shift = None
    if config.use_prior or config.prevalence_share is not None:
        correction = corrected_test(experiment, cycle - 1)[2]
        shift = correction.shift if config.use_prior else None
    if config.prevalence_share is not None:
        shift = bound_by_prevalence(scores, names, correction.target, config, shift)
    durations = experiment.tables.recordings.set_index("recording_id")["duration"].to_dict()
    pseudo = make_pseudo_events(
        scores,
        names,
        experiment.known_events,
        durations,
        config,
        cycle,
        shift,
    )
    summary = summarise(pseudo, experiment.tables.labels)
    written = [folder / "pseudo_events.csv", folder / "pseudo_summary.csv"]
    write_csv(written[0], pseudo)
    write_csv(written[1], spreadsheet_safe(summary))
    per_class = summary["events"].to_numpy()
    log.info(
        "relabel: cycle %d has %d pseudo events, %d to %d a class",
        cycle,
        len(pseudo),
        np.min(per_class),
        np.max(per_class),
    )
    return written
