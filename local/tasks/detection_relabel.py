"""Labels of a cycle, soft or events, from the out-of-fold scores of the cycle before."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.io.limits import spreadsheet_safe
from local.labels.soft_labels import SOFT_LABELS, save_soft_labels
from local.relabel.pseudo_labels import (
    allowed_by_confirmed,
    allowed_by_prevalence,
    bound,
    check_scores,
    make_pseudo_events,
    summarise,
)
from local.relabel.soft_targets import confidence, make_soft_labels, mass_by_class
from local.tasks.detection_results import corrected_test

if TYPE_CHECKING:
    from local.models.task_contract import Experiment

log = logging.getLogger("canopy")

# What each kind leaves in the folder of a cycle, beside the summary that both have.
_FILES = {"soft": (SOFT_LABELS, "soft_recordings.csv"), "events": ("pseudo_events.csv",)}


def write_labels(experiment: "Experiment", cycle: int, scores: Scores) -> list[Path]:
    """Write the labels of a cycle from `scores` of the one before, of the kind that is asked for.

    What another kind left there is taken away.
    """
    check_scores(scores)
    kind = experiment.run.config.relabel.kind
    for name in (name for other, names in _FILES.items() if other != kind for name in names):
        (experiment.run.cycle(cycle) / name).unlink(missing_ok=True)
    if kind == "soft":
        return _write_soft_labels(experiment, cycle, scores)
    return _write_pseudo_events(experiment, cycle, scores)


def _labelled_ids(experiment: "Experiment", scores: Scores) -> list[str]:
    """Recordings that get labels: of the subsets asked for, readable and scored."""
    subsets = experiment.run.config.relabel.subsets
    scored = set(scores.recording_ids)
    names = [name for name in experiment.ids(*subsets) if name in scored]
    if not names:
        raise CanopyError(
            f"relabel.subsets is {', '.join(subsets) or 'empty'}: no recording of it is "
            "readable and has an out-of-fold score; name another subset, or set relabel.n_cycles "
            "to 0"
        )
    return names


def _write_soft_labels(experiment: "Experiment", cycle: int, scores: Scores) -> list[Path]:
    folder, config = experiment.run.cycle(cycle), experiment.run.config.relabel
    shift = corrected_test(experiment, cycle - 1)[2].shift if config.use_prior else None
    power, names = config.power_of(cycle), _labelled_ids(experiment, scores)
    soft = make_soft_labels(scores, names, power, config.weight, shift)
    summary = mass_by_class(soft)
    written = [folder / name for name in (*_FILES["soft"], "pseudo_summary.csv")]
    save_soft_labels(written[0], soft, power)
    write_csv(written[1], confidence(soft))
    write_csv(written[2], spreadsheet_safe(summary))
    expected = summary["recordings"].to_numpy()
    log.info(
        "relabel: cycle %d has soft labels of %d recordings, power %g: %.1f to %.1f expected "
        "recordings a class",
        *(cycle, len(soft.recording_ids), power, expected.min(), expected.max()),
    )
    return written


def _write_pseudo_events(experiment: "Experiment", cycle: int, scores: Scores) -> list[Path]:
    run, folder = experiment.run, experiment.run.cycle(cycle)
    config, names = run.config.relabel, _labelled_ids(experiment, scores)
    shift = None
    if config.use_prior or config.prevalence_share is not None:
        correction = corrected_test(experiment, cycle - 1)[2]
        shift = correction.shift if config.use_prior else None
    allowed = np.full(len(scores.labels), len(names))
    if config.prevalence_share is not None and correction.distrust:
        log.info("relabel.prevalence_share bounds nothing: %s", correction.distrust)
    elif config.prevalence_share is not None:
        share = config.prevalence_share, len(names)
        allowed = np.minimum(allowed, allowed_by_prevalence(correction.target, *share))
    if config.max_per_confirmed is not None:
        rule = config.max_per_confirmed, config.threshold, shift
        known = allowed_by_confirmed(scores, experiment.known_events, *rule)
        allowed = np.minimum(allowed, known)
    cut, n_passed = bound(scores, names, allowed, config.threshold, shift)
    _say_cut(scores.labels, n_passed, allowed)
    durations = experiment.tables.recordings.set_index("recording_id")["duration"].to_dict()
    pseudo = make_pseudo_events(
        scores,
        names,
        experiment.known_events,
        durations,
        config,
        cycle,
        shift,
        cut,
    )
    summary = summarise(pseudo, experiment.tables.labels)
    written = [folder / name for name in (*_FILES["events"], "pseudo_summary.csv")]
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


def _say_cut(labels: list[str], n_passed: np.ndarray, allowed: np.ndarray) -> None:
    """One line on the classes that would have been labelled in more recordings than allowed."""
    told = [
        f"{label} from {before} to {most}"
        for label, before, most in zip(labels, n_passed, allowed, strict=True)
        if before > most
    ]
    if told:
        log.info(
            "relabel: recordings with pseudo events are bounded (relabel.max_per_confirmed, "
            "prevalence_share) for %d of %d classes: %s",
            *(len(told), len(labels), ", ".join(told)),
        )
