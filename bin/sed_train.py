#!/usr/bin/env python3
"""Stage 2: train one model a fold.

    bin/sed_train.py --recipe demo --cycle 0 --folds "0 1"

Folds are shared out to processes, several at a time (one a GPU). Each writes best.pt, last.pt,
previous.pt, log.csv, timing.csv and TensorBoard events to EXPDIR/TAG/cycle<c>/fold<k>/. A fold that
was stopped goes on from where its state was saved; one that is done is skipped. Exit code 75:
stopped on request, the same command goes on.

--ranks N trains each fold in N processes (on N GPUs) that share every batch, --n-nodes M on as many
nodes; docs/cluster.md says how far what comes out is what one process makes.
"""

import sys

from local.jobs.exit_codes import run_script
from local.stages.stage_options import folds_parser


def main(argv: list[str] | None = None) -> int:
    """Run the stage for the folds asked for."""
    argv = sys.argv[1:] if argv is None else argv
    parser = folds_parser(__doc__)
    add = parser.add_argument
    add("--ranks", type=int, default=1, help="processes that train a fold together, on each node")
    add("--n-nodes", type=int, default=1, help="nodes that train a fold together (default: 1)")
    add("--master-addr", default="", help="HOST[:PORT] of the first node, outside Slurm")
    add("--node-rank", type=int, default=-1, help="number of this node, from 0, outside Slurm")
    add("--max-restarts", type=int, default=3, help="how often ranks that died are started again")
    args = parser.parse_args(argv)

    from local.stages.train import train

    return train(args, argv)


if __name__ == "__main__":
    sys.exit(run_script(main))
