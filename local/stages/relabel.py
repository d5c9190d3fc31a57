"""Stage 4: out-of-fold scores of one cycle -> pseudo events for the next."""

import logging

import numpy as np

from local.inference.score_files import load_scores
from local.io.files import file_digest, write_csv
from local.io.limits import spreadsheet_safe
from local.relabel.pseudo_labels import (
    bound_by_prevalence,
    check_provenance,
    make_pseudo_events,
    summarise,
)
from local.stages.experiment import Experiment
from local.stages.places import Run
from local.stages.results import corrected_test
from local.stages.stamps import Stamp

log = logging.getLogger("canopy")


def relabel(run: Run, cycle: int) -> None:
    """Write the pseudo events of a cycle, unless they are there of these scores and settings."""
    experiment = Experiment(run)
    config = run.config.relabel
    before, folder = cycle - 1, run.cycle(cycle)
    seen = [run.fold(before, fold) / "seen.csv" for fold in experiment.folds]
    needs_prior = config.use_prior or config.prevalence_share is not None
    settings = {
        "relabel": config.model_dump(mode="json", exclude={"n_cycles", "start"}),
        "prior": run.config.prior.model_dump(mode="json") if needs_prior else None,
        **experiment.reviewed_settings,
    }
    inputs = [run.cycle(before) / "oof.npz", *seen, run.tables / "events.csv"]
    inputs += experiment.reviewed_paths
    if needs_prior:
        inputs.append(run.cycle(before) / "test.npz")
        inputs += [run.datadir / run.config.prior.given] if run.config.prior.given else []
    stamp = Stamp(folder / "relabel.done.json", settings, inputs)
    if stamp.is_done(run.force):
        return
    stamp.clear()
    scores, members = load_scores(run.cycle(before) / "oof.npz")
    check_provenance(
        scores.recording_ids,
        experiment.groups,
        members["used"],
        [experiment.seen_groups(before, fold) for fold in experiment.folds],
    )
    shift = None
    if needs_prior:
        correction = corrected_test(experiment, before)[2]
        shift = correction.shift if config.use_prior else None
    if config.prevalence_share is not None:
        names = experiment.ids(*config.subsets)
        shift = bound_by_prevalence(scores, names, correction.target, config, shift)
    durations = experiment.tables.recordings.set_index("recording_id")["duration"].to_dict()
    pseudo = make_pseudo_events(
        scores,
        experiment.ids(*config.subsets),
        experiment.known_events,
        durations,
        config,
        cycle,
        shift,
    )
    summary = summarise(pseudo, experiment.tables.labels)
    write_csv(folder / "pseudo_events.csv", pseudo)
    write_csv(folder / "pseudo_summary.csv", spreadsheet_safe(summary))
    stamp.write(
        [folder / "pseudo_events.csv", folder / "pseudo_summary.csv"],
        made_from=file_digest(run.cycle(before) / "oof.npz"),
    )
    per_class = summary["events"].to_numpy()
    log.info(
        "relabel: cycle %d has %d pseudo events, %d to %d a class",
        cycle,
        len(pseudo),
        np.min(per_class),
        np.max(per_class),
    )
