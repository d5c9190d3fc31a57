"""Stage 2: train one model a fold, each alone or in several processes that train it together."""

import logging
import sys
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from local.io.errors import CanopyError
from local.io.files import write_json
from local.jobs.devices import set_threads
from local.jobs.interruption import Interrupted
from local.jobs.locks import clear_folder, lock_folder, move_aside
from local.models.checkpoint import load_checkpoint
from local.stages.checks import check_data
from local.stages.experiment import Experiment, is_over
from local.stages.fold_processes import run_folds
from local.stages.logs import start_log
from local.stages.run import Run
from local.stages.run_record import environment_record, note_work
from local.stages.stage_options import chosen_folds
from local.stages.stamps import Stamp
from local.stages.starting import plan, started
from local.training.fold_loop import Trainer
from local.training.ranks import Ranks, is_rank, joined
from local.training.torchrun import (
    LaunchConfig,
    has_failed_before,
    run_ranks,
    tell_fault,
    was_restarted,
)

log = logging.getLogger("canopy")

# Seconds until the lock of a rank that was killed is free.
_LOCK_WAIT_S = 30.0


def train(args: Namespace, argv: list[str]) -> int:
    """Run the stage for the folds asked for; `argv` is the command line that says so."""
    if is_rank():
        return train_as_rank(args)
    launch = LaunchConfig(
        args.ranks, args.n_nodes, args.master_addr, args.node_rank, args.max_restarts
    )
    # The experiment's lock is held by whoever starts the nodes; the first rank takes the fold's.
    if args.master_addr and args.worker:
        run = plan(args, "train")
        if not is_over(run, args.cycle):
            train_in_ranks(run, args, launch, argv)
        return 0
    # Shared: folds may be trained by processes of their own, on other machines as well.
    with started(args, "train", shared=True) as run:
        if is_over(run, args.cycle):
            return 0
        if not args.worker:
            launch.check(run.device)
            train_folds(run, args, argv)
        elif launch.alone:
            set_threads()
            for fold in chosen_folds(args.folds, run.config.split.n_folds):
                with lock_folder(run.fold(args.cycle, fold), f"fold {fold}"):
                    train_fold(run, args.cycle, fold)
        else:
            train_in_ranks(run, args, launch, argv)
    return 0


def train_folds(run: Run, args: Namespace, argv: list[str]) -> None:
    """Train the folds asked for that are not trained, in processes of their own."""
    if 0 < args.n_gpus < args.ranks:
        raise CanopyError(f"--ranks is {args.ranks}, more than --n-gpus {args.n_gpus}; lower it")
    experiment = Experiment(run)
    experiment.dump.check_lengths()
    folds = chosen_folds(args.folds, run.config.split.n_folds)
    waiting = [
        fold for fold in folds if not experiment.stamp("train", args.cycle, fold).is_done(run.force)
    ]
    if waiting:
        # Here, once, as settings may differ from those that stage 0 was checked with.
        check_data(run)
    if args.n_nodes > 1:
        # All that the nodes have is one fold's.
        run_folds(replace(run, nj=1), waiting, args.ranks, argv, args.ranks)
    else:
        run_folds(run, waiting, args.n_gpus, argv, args.ranks)


def train_in_ranks(run: Run, args: Namespace, launch: LaunchConfig, argv: list[str]) -> None:
    """Train one fold in several processes, which are this script again."""
    launch.check(run.device)
    fold = _only_fold(run, args)
    note = run.exp / "logs" / f"cycle{args.cycle}-fold{fold}.fault.txt"
    run_ranks(Path(sys.argv[0]).resolve(), argv, launch, note)
    if not Experiment(run).stamp("train", args.cycle, fold).matches():
        raise Interrupted("a signal to one of its ranks", f"fold {fold}")


def _only_fold(run: Run, args: Namespace) -> int:
    folds = chosen_folds(args.folds, run.config.split.n_folds)
    if len(folds) > 1:
        raise CanopyError(
            "--ranks, --n-nodes and --master-addr go with one fold a --worker; name it, as in "
            "--folds 0"
        )
    return folds[0]


def train_as_rank(args: Namespace) -> int:
    """Train one fold together with the others that torchrun started."""
    if has_failed_before():
        return 0
    set_threads()
    try:
        run = plan(args, "train")
        fold = _only_fold(run, args)
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
    stamp = experiment.stamp("train", cycle, fold)
    if ranks.any(ranks.first and stamp.is_done(run.force))[0]:
        return
    initial = None
    if cycle > 0 and run.config.relabel.start == "cycle0":
        initial = load_checkpoint(run.fold(0, fold) / "best.pt")["model"]
    elif (path := run.config.model.init_of(fold)) is not None:
        initial = experiment.task.load_initial(experiment, path)
    if ranks.first:
        _make_room(run, stamp, folder)
        stamp.clear()
        note_work(run, "train")
        seen = experiment.write_seen(cycle, fold)
        write_json(folder / "run.json", environment_record(run.config, run.device))
    fold_data = experiment.task.fold_data(experiment, cycle, fold)
    Trainer(fold_data, run.config, initial, ranks).run()
    if ranks.first:
        stamp.write([folder / "best.pt", folder / "log.csv", seen])
        log.info("%s: trained, %s", fold_data.name, folder / "best.pt")


def _make_room(run: Run, stamp: Stamp, folder: Path) -> None:
    """Move aside what was trained otherwise; checkpoints of this very training are gone on from.

    A stamp that is still there says that the fold was done and lost a file since, or is to be
    trained again.
    """
    mark = folder / "training.json"
    why = "--force" if run.force else ""
    if not why and stamp.path.exists():
        why = stamp.changes()
    if not why and mark.is_file():
        why = stamp.differences(mark)
        if not why:
            return
    if any(folder.glob("*.pt")):
        aside = move_aside(folder)
        why = why or "there is no training.json"
        log.info("%s: trained before, moved to %s: %s", folder, aside.name, why)
    else:
        clear_folder(folder)
    write_json(mark, stamp.made_of)
