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
from pathlib import Path

from local.data.tables import read_table
from local.features.corpus import all_there
from local.features.npz import stretched_folder
from local.features.pack import pack_files, packed_files, remove_originals, verify
from local.io.errors import CanopyError
from local.jobs.exit_codes import run_script
from local.jobs.locks import lock_folder
from local.stages.options import stage_parser
from local.stages.starting import plan

log = logging.getLogger("canopy")

SIZE_MB = 256


def main(argv: list[str] | None = None) -> int:
    """Pack, remove or verify."""
    parser = stage_parser(__doc__)
    parser.add_argument("--size-mb", type=float, default=SIZE_MB, help="of a pack (%(default)s)")
    parser.add_argument("--remove", action="store_true", help="remove what lies in packs")
    parser.add_argument("--verify", action="store_true", help="read all packs again")
    args = parser.parse_args(argv)
    if not 0 < args.size_mb < math.inf:
        raise CanopyError(f"--size-mb is {args.size_mb:g}, expected a size above 0")
    run = plan(args, "pack")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for factor in (1.0, *run.config.features.stretches):
        folder = stretched_folder(run.features, factor)
        if not (folder / "manifest.csv").is_file():
            raise CanopyError(f"{folder}: there are no features to pack; run stage 0 first")
        with lock_folder(folder, "this dump", wait_s=math.inf):
            pack(folder, round(args.size_mb * 1e6), args.remove, args.verify)
    return 0


def pack(folder: Path, pack_bytes: int, remove: bool, again: bool) -> None:
    """Pack one dump; `again` reads what was packed before, too."""
    if not all_there(folder):
        raise CanopyError(f"{folder}: features are missing or damaged; run stage 0 first")
    manifest = read_table(folder / "manifest.csv", ("file", "status"))
    before = packed_files(folder)
    n = pack_files(folder, list(manifest["file"][manifest["status"] == "ok"]), pack_bytes)
    places = packed_files(folder).values()
    n_packs, total = len({place.path for place in places}), sum(place.size for place in places)
    log.info(
        "%s: %d files packed, %d are in %d packs of %.1f MB together",
        *(folder, n, len(places), n_packs, total / 1e6),
    )
    if again:
        verify(before.values())
        log.info("%s: %d files packed before are what they were", folder, len(before))
    if remove:
        n, size = remove_originals(folder)
        log.info("%s: %d files removed that lie in packs, %.1f MB", folder, n, size / 1e6)


if __name__ == "__main__":
    sys.exit(run_script(main))
