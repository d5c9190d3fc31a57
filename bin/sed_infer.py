#!/usr/bin/env python3
"""Stage 3: sliding-window inference, out-of-fold and on the test recordings.

    bin/sed_infer.py --recipe demo --cycle 0

Every fold's model scores the recordings that its training did not see, and all test recordings
(EXPDIR/TAG/cycle<c>/fold<k>/scores.npz). Merged: oof.npz, each recording scored only by models that
never saw its group (`used` says which), and test.npz, the mean of all folds in probability. Where
prevalence is to be estimated, each fold also leaves inserted.npz: test recordings scored with a
held-out call inserted. A --worker scores and merges nothing; with --shard K/N it scores only that
share of one fold's recordings, which the same call without --shard then takes over.
"""

import sys

from local.jobs.exit_codes import run_script
from local.jobs.shards import parse_shard
from local.stages.stage_options import folds_parser


def main(argv: list[str] | None = None) -> int:
    """Run the stage for the folds asked for, then merge them."""
    argv = sys.argv[1:] if argv is None else argv
    parser = folds_parser(__doc__)
    parser.add_argument("--shard", metavar="K/N", help="of a --worker: score this share only")
    args = parser.parse_args(argv)
    shard = parse_shard(args.shard)
    if shard is not None and (not args.worker or args.force):
        parser.error("--shard goes with --worker and one of --folds, and not with --force")

    from local.stages.infer import infer_as_worker, infer_folds
    from local.stages.starting import started

    # One fold beside others; merging is one process's alone.
    with started(args, "infer", shared=args.worker) as run:
        if args.worker:
            infer_as_worker(run, args, shard)
        else:
            infer_folds(run, args, argv)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
