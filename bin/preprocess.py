#!/usr/bin/env python3
"""Stage 0: recordings -> one npz of features each, and a manifest.

    bin/preprocess.py --recipe demo --nj 2

Reads the tables in DUMPDIR/tables and the recordings they name below DATADIR; writes
DUMPDIR/<feature-id>/<recording_id>.npz, manifest.csv and statistics.json, and for each factor of
features.stretches the same of the stretched recordings in DUMPDIR/<feature-id>_x<factor>/.
preprocess.journal keeps what is done, for a run that was killed and for recordings that change.
Recordings that cannot be read are listed in the manifest; above audio.max_invalid_share they stop
the run. With --shard K/N only that share of the recordings is made, evened out by duration; once
all shares are, the same call without --shard writes manifest and statistics.
"""

import sys

from local.jobs.exit_codes import run_script
from local.jobs.shards import parse_shard
from local.stages.stage_options import stage_parser


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--shard", metavar="K/N", help="make this share of the recordings only")
    args = parser.parse_args(argv)

    from local.jobs.devices import set_threads
    from local.stages.preprocess import preprocess
    from local.stages.starting import started

    shard = parse_shard(args.shard)
    name = "preprocess" if shard is None else f"preprocess-{shard.name}"
    with started(args, name, shared=shard is not None) as run:
        set_threads()
        preprocess(run, shard)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
