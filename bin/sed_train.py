#!/usr/bin/env python3
"""Stage 2: train one model a fold.

    bin/sed_train.py --recipe demo --cycle 0 --folds "0 1"

Folds are shared out to processes, several at a time (one a GPU). Each writes best.pt, last.pt,
previous.pt, log.csv, timing.csv and TensorBoard events to EXPDIR/TAG/cycle<c>/fold<k>/. A fold that
was stopped goes on from where its state was saved; one that is done is skipped. Exit code 75:
stopped on request, the same command goes on.

--ranks N trains each fold in N processes (on N GPUs) that share every batch, --n-nodes M on as many
nodes; what comes out is what one process makes.
"""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from local.io.errors import CanopyError
from local.jobs.interruption import Interrupted
from local.jobs.locks import lock_folder
from local.stages.experiment import Experiment
from local.stages.runs import (
    Run,
    chosen_folds,
    folds_parser,
    plan,
    run_folds,
    run_script,
    set_threads,
    started,
)
from local.stages.train import train_as_rank, train_fold
from local.training.launching import LaunchConfig, run_ranks
from local.training.ranks import is_rank


def parse_args(argv: list[str]) -> Namespace:
    """The command line."""
    parser = folds_parser(__doc__)
    add = parser.add_argument
    add("--ranks", type=int, default=1, help="processes that train a fold together, on each node")
    add("--n-nodes", type=int, default=1, help="nodes that train a fold together (default: 1)")
    add("--master-addr", default="", help="HOST[:PORT] of the first node, outside Slurm")
    add("--node-rank", type=int, default=-1, help="number of this node, from 0, outside Slurm")
    add("--max-restarts", type=int, default=3, help="how often ranks that died are started again")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the stage for the folds asked for."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    if is_rank():
        return train_as_rank(args)
    launch = LaunchConfig(
        args.ranks, args.n_nodes, args.master_addr, args.node_rank, args.max_restarts
    )
    if len(args.fold or ()) > 1 and (args.master_addr or not launch.alone):
        raise CanopyError("--ranks, --n-nodes and --master-addr go with one --fold; name one")
    # The experiment's lock is held by whoever starts the nodes; the first rank takes the fold's.
    if args.master_addr and args.fold is not None:
        train_in_ranks(plan(args, "train"), args, launch, argv)
        return 0
    # Shared: folds may be trained by processes of their own, on other machines as well.
    with started(args, "train", shared=True) as run:
        if args.fold is None:
            launch.check(run.device)
            train_folds(run, args, argv)
        elif launch.alone:
            set_threads()
            for fold in args.fold:
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
        fold for fold in folds if not experiment.training_stamp(args.cycle, fold).is_done(run.force)
    ]
    if args.n_nodes > 1:
        # All that the nodes have is one fold's.
        run_folds(replace(run, nj=1), waiting, args.ranks, argv, args.ranks)
    else:
        run_folds(run, waiting, args.n_gpus, argv, args.ranks)


def train_in_ranks(run: Run, args: Namespace, launch: LaunchConfig, argv: list[str]) -> None:
    """Train one fold in several processes, which are this script again."""
    launch.check(run.device)
    (fold,) = args.fold
    note = run.exp / "logs" / f"cycle{args.cycle}-fold{fold}.fault.txt"
    run_ranks(Path(__file__).resolve(), argv, launch, note)
    if not Experiment(run).training_stamp(args.cycle, fold).matches():
        raise Interrupted("a signal to one of its ranks", f"fold {fold}")


if __name__ == "__main__":
    sys.exit(run_script(main))
