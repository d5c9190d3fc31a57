"""Stage 4: what a task learns from out-of-fold outputs: labels of the next cycle, a calibration."""

from local.io.errors import CanopyError
from local.io.files import file_digest
from local.relabel.pseudo_labels import check_provenance
from local.stages.experiment import Experiment
from local.stages.run import Run
from local.stages.run_record import note_work


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
    before = max(0, cycle - 1)
    stamp = experiment.stamp("relabel", cycle)
    if stamp.is_done(run.force):
        return
    stamp.clear()
    note_work(run, "relabel")
    outputs, arrays = experiment.task.load(run.cycle(before) / "oof.npz")
    check_provenance(
        outputs.recording_ids,
        experiment.groups,
        arrays["used"],
        [experiment.seen_groups(before, fold) for fold in experiment.folds],
    )
    written = experiment.task.revise(experiment, cycle, outputs)
    stamp.write(written, made_from=file_digest(run.cycle(before) / "oof.npz"))
