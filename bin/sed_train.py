#!/usr/bin/env python3
"""Stage 2: train one model a fold.

    bin/sed_train.py --recipe demo --cycle 0 --folds "0 1"

Folds run in processes of their own, several at a time (one a GPU). Each writes best.pt, last.pt,
previous.pt, log.csv, timing.csv and TensorBoard events to EXPDIR/TAG/cycle<c>/fold<k>/. A fold that
was stopped goes on from where its state was saved; one that is done is skipped. Exit code 75:
stopped on request, the same command goes on.
"""

import sys
from argparse import Namespace
from pathlib import Path

from local.checkpoint import load_checkpoint, load_initial
from local.checks import check_init
from local.dataset import make_pool
from local.experiment import Experiment
from local.files import read_json, write_json
from local.locks import clear_folder, lock_folder
from local.runs import (
    Run,
    chosen_folds,
    environment_record,
    folds_parser,
    log,
    run_folds,
    run_script,
    set_threads,
    started,
)
from local.stamps import Stamp
from local.training import FoldTask, Trainer


def main(argv: list[str] | None = None) -> int:
    """Run the stage for the folds asked for."""
    argv = sys.argv[1:] if argv is None else argv
    args = folds_parser(__doc__).parse_args(argv)
    # Shared: folds may be trained by processes of their own, on other machines as well.
    with started(args, "train", shared=True) as run:
        if args.fold is not None:
            set_threads()
            with lock_folder(run.fold(args.cycle, args.fold), f"fold {args.fold}"):
                train_fold(run, args.cycle, args.fold)
        else:
            train_folds(run, args, argv)
    return 0


def train_folds(run: Run, args: Namespace, argv: list[str]) -> None:
    """Train the folds asked for that are not trained, each in a process of its own."""
    experiment = Experiment(run)
    experiment.dump.check_lengths()
    folds = chosen_folds(args.folds, run.config.split.n_folds)
    waiting = [
        fold for fold in folds if not experiment.training_stamp(args.cycle, fold).is_done(run.force)
    ]
    run_folds(run, waiting, args.n_gpus, argv)


def train_fold(run: Run, cycle: int, fold: int) -> None:
    """Train one fold to its end."""
    experiment = Experiment(run)
    folder = run.fold(cycle, fold)
    stamp = experiment.training_stamp(cycle, fold)
    if stamp.is_done(run.force):
        return
    check_init(run.config, experiment.tables.labels, fold)
    _clear_stale(run, stamp, folder)
    stamp.clear()
    seen = experiment.write_seen(cycle, fold)
    events = experiment.events(cycle)
    names = experiment.training_ids(cycle, fold)
    task = FoldTask(
        name=f"cycle{cycle}/fold{fold}",
        pool=make_pool(experiment.tables, events, names, experiment.dump),
        held_out=experiment.held_out_ids(fold),
        events=experiment.tables.events,
        labels=experiment.tables.labels,
        dump=experiment.dump,
        folder=folder,
        device=run.device,
    )
    write_json(folder / "run.json", environment_record(run.config, run.device))
    initial = None
    if cycle > 0 and run.config.relabel.start == "cycle0":
        initial = load_checkpoint(run.fold(0, fold) / "best.pt")["model"]
    elif (path := run.config.model.init_of(fold)) is not None:
        initial = load_initial(path, experiment.tables.labels)
    Trainer(task, run.config, initial).run()
    stamp.write([folder / "best.pt", folder / "log.csv", seen])
    log.info("%s: trained, %s", task.name, folder / "best.pt")


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


if __name__ == "__main__":
    sys.exit(run_script(main))
