"""Stage 2 for one fold: from the experiment's files to the stamp, alone or as one of some ranks."""

import logging
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from local.io.errors import CanopyError
from local.io.files import read_json, write_json
from local.jobs.interruption import Interrupted
from local.jobs.locks import clear_folder, lock_folder
from local.models.checkpoint import load_checkpoint, load_initial
from local.stages.checks import check_init
from local.stages.experiment import Experiment
from local.stages.runs import Run, environment_record, plan, set_threads, start_log
from local.stages.stamps import Stamp
from local.training.epoch_plan import make_training_set
from local.training.fold_data import FoldData
from local.training.fold_loop import Trainer
from local.training.launching import has_failed_before, tell_fault, was_restarted
from local.training.ranks import Ranks, joined

log = logging.getLogger("canopy")

# Seconds until the lock of a rank that was killed is free.
_LOCK_WAIT_S = 30.0


def train_as_rank(args: Namespace) -> int:
    """Train one fold together with the others that torchrun started."""
    if has_failed_before():
        return 0
    set_threads()
    (fold,) = args.fold
    try:
        run = plan(args, "train")
        if was_restarted():
            run = replace(run, force=False)
        with joined(run.device) as ranks, ExitStack() as locks:
            if ranks.first:
                start_log(run.exp / "logs" / "train.log")
                folder = run.fold(args.cycle, fold)
                locks.enter_context(lock_folder(folder, f"fold {fold}", wait_s=_LOCK_WAIT_S))
            train_fold(run, args.cycle, fold, ranks)
    except CanopyError as error:
        tell_fault(error)
        return 1
    except Interrupted as stop:
        # Torchrun would take any other code for a death.
        log.info("%s", stop)
    return 0


def train_fold(run: Run, cycle: int, fold: int, ranks: Ranks | None = None) -> None:
    """Train one fold to its end; of several ranks the first alone writes."""
    ranks = ranks or Ranks()
    experiment = Experiment(run)
    folder = run.fold(cycle, fold)
    stamp = experiment.training_stamp(cycle, fold)
    if ranks.any(ranks.first and stamp.is_done(run.force))[0]:
        return
    check_init(run.config, experiment.tables.labels, fold)
    if ranks.first:
        _clear_stale(run, stamp, folder)
        stamp.clear()
        seen = experiment.write_seen(cycle, fold)
        write_json(folder / "run.json", environment_record(run.config, run.device))
    events = experiment.events(cycle)
    names = experiment.training_ids(cycle, fold)
    background_ids = experiment.background_ids(fold)
    experiment.dump.bring([*names, *background_ids, *experiment.held_out_ids(fold)])
    fold_data = FoldData(
        name=f"cycle{cycle}/fold{fold}",
        training_set=make_training_set(
            experiment.tables, events, names, experiment.dump, background_ids
        ),
        held_out=experiment.held_out_ids(fold),
        events=experiment.tables.events,
        labels=experiment.tables.labels,
        dump=experiment.dump,
        folder=folder,
        device=run.device,
    )
    initial = None
    if cycle > 0 and run.config.relabel.start == "cycle0":
        initial = load_checkpoint(run.fold(0, fold) / "best.pt")["model"]
    elif (path := run.config.model.init_of(fold)) is not None:
        initial = load_initial(path, experiment.tables.labels)
    Trainer(fold_data, run.config, initial, ranks).run()
    if ranks.first:
        stamp.write([folder / "best.pt", folder / "log.csv", seen])
        log.info("%s: trained, %s", fold_data.name, folder / "best.pt")


def _clear_stale(run: Run, stamp: Stamp, folder: Path) -> None:
    """Take away what another configuration left; checkpoints of this one are kept to go on from.

    A stamp that is still there says that the fold was done and lost a file since: nothing is kept.
    """
    mark = folder / "training.json"
    now = {"fingerprint": stamp.fingerprint}
    unfinished = mark.is_file() and not stamp.path.exists()
    if unfinished and not run.force and read_json(mark) == now:
        return
    clear_folder(folder)
    write_json(mark, now)
