"""Stage 4: what a task learns from out-of-fold outputs: labels of the next cycle, a calibration."""

import logging

from local.io.errors import CanopyError
from local.io.files import file_digest, write_json
from local.relabel.pseudo_labels import check_provenance
from local.stages.experiment import ENDED, Experiment
from local.stages.run import Run
from local.stages.run_record import note_work

log = logging.getLogger("canopy")


def relabel(run: Run, cycle: int) -> None:
    """Let the task learn from the outputs of the cycle before (of cycle 0: its own), unless done.

    That no output comes from a model which saw the recording's group is proved first. Where the
    task wants no such cycle, that is written down, and nothing is made of it or of any after it.
    """
    experiment = Experiment(run)
    if cycle == 0 and 0 not in experiment.task.revised_cycles:
        raise CanopyError(
            f"--cycle is 0, but task {run.config.task} makes labels for cycles from 1 on: cycle 0 "
            "knows true labels only"
        )
    before = max(0, cycle - 1)
    if why := experiment.ended(before):
        log.info("no cycle %d: %s", cycle, why)
        return
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
    note = run.cycle(cycle) / ENDED
    if why := experiment.task.stop_reason(experiment, cycle):
        log.info("no cycle %d: %s", cycle, why)
        write_json(note, {"reason": why})
        written = [note]
    else:
        note.unlink(missing_ok=True)
        written = experiment.task.revise(experiment, cycle, outputs)
    stamp.write(written, made_from=file_digest(run.cycle(before) / "oof.npz"))
