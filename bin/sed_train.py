#!/usr/bin/env python3
"""Stage 2: train one model a fold.

    bin/sed_train.py --recipe demo --cycle 0 --folds "0 1"

Folds run in processes of their own, several at a time (one a GPU). Each writes best.pt, last.pt,
previous.pt, log.csv and TensorBoard events to EXPDIR/TAG/cycle<c>/fold<k>/. A fold that was stopped
goes on from its last checkpoint; one that is done is skipped.
"""

import shutil
import sys
from pathlib import Path

from local.checkpoint import load_checkpoint, load_initial
from local.checks import check_init
from local.dataset import make_pool
from local.experiment import Experiment
from local.files import read_json, write_json
from local.runs import (
    Run,
    Stamp,
    chosen_folds,
    environment_record,
    folds_parser,
    log,
    run_folds,
    run_script,
    set_threads,
    start,
)
from local.training import FoldTask, Trainer


def main(argv: list[str] | None = None) -> int:
    """Run the stage for the folds asked for."""
    argv = sys.argv[1:] if argv is None else argv
    args = folds_parser(__doc__).parse_args(argv)
    run = start(args, "train")
    if args.fold is not None:
        set_threads()
        train_fold(run, args.cycle, args.fold)
        return 0
    experiment = Experiment(run)
    experiment.dump.check_lengths()
    folds = chosen_folds(args.folds, run.config.split.n_folds)
    waiting = [
        fold for fold in folds if not experiment.training_stamp(args.cycle, fold).is_done(run.force)
    ]
    run_folds(run, waiting, args.n_gpus, argv)
    return 0


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
    if folder.exists():
        shutil.rmtree(folder)
    write_json(mark, now)


if __name__ == "__main__":
    sys.exit(run_script(main))
