#!/usr/bin/env python3
"""Pack the features of stage 0 into a few large files, for disks that hate many small ones.

    bin/pack.py --recipe demo                   packs of 256 MB beside the features
    bin/pack.py --recipe demo --remove          then remove what lies in packs, file by file
    bin/pack.py --recipe demo --verify          read all packs and hold them against their digests

Writes DUMPDIR/<feature-id>/packs/pack-<n>.tar, each an ordinary tar of npz files, and
pack-<n>.csv, which tells where each lies in it; also of stretched recordings. All stages read
packed and unpacked features alike, and results are the same. Recordings that are not in a pack yet
are packed when the command is given again, and one that was stopped goes on so. With --remove no
training and no inference may be reading the dump.
"""

import logging
import math
import sys

from local.jobs.exit_codes import run_script
from local.stages.stage_options import stage_parser

SIZE_MB = 256


def main(argv: list[str] | None = None) -> int:
    """Pack, remove or verify."""
    parser = stage_parser(__doc__)
    parser.add_argument("--size-mb", type=float, default=SIZE_MB, help="of a pack (%(default)s)")
    parser.add_argument("--remove", action="store_true", help="remove what lies in packs")
    parser.add_argument("--verify", action="store_true", help="read all packs again")
    args = parser.parse_args(argv)

    from local.features.npz import stretched_folder
    from local.features.pack_dump import pack_dump
    from local.io.errors import CanopyError
    from local.jobs.locks import lock_folder
    from local.stages.starting import plan

    if not 0 < args.size_mb < math.inf:
        raise CanopyError(f"--size-mb is {args.size_mb:g}, expected a size above 0")
    run = plan(args, "pack")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for factor in (1.0, *run.config.features.stretches):
        folder = stretched_folder(run.features, factor)
        if not (folder / "manifest.csv").is_file():
            raise CanopyError(f"{folder}: there are no features to pack; run stage 0 first")
        with lock_folder(folder, "this dump", wait_s=math.inf):
            pack_dump(folder, round(args.size_mb * 1e6), args.remove, args.verify)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
