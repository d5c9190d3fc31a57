"""Stage 4: what a task learns from out-of-fold outputs: labels of the next cycle, a calibration."""

from local.io.errors import CanopyError
from local.io.files import file_digest
from local.relabel.pseudo_labels import check_provenance
from local.stages.experiment import Experiment
from local.stages.places import Run
from local.stages.stamps import Stamp


def relabel(run: Run, cycle: int) -> None:
    """Let the task learn from the outputs of the cycle before (of cycle 0: its own), unless done.

    That no output comes from a model which saw the recording's group is proved first.
    """
    experiment = Experiment(run)
    if cycle == 0 and 0 not in experiment.task.revised_cycles:
        raise CanopyError(
            f"--cycle is 0, but task {run.config.task} makes labels for cycles from 1 on: cycle 0 "
            "knows true labels only"
        )
    config = run.config.relabel
    before, folder = max(0, cycle - 1), run.cycle(cycle)
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
    outputs, arrays = experiment.task.load(run.cycle(before) / "oof.npz")
    check_provenance(
        outputs.recording_ids,
        experiment.groups,
        arrays["used"],
        [experiment.seen_groups(before, fold) for fold in experiment.folds],
    )
    written = experiment.task.revise(experiment, cycle, outputs)
    stamp.write(written, made_from=file_digest(run.cycle(before) / "oof.npz"))
