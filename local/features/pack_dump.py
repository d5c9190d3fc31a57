"""Pack one dump, and say what was done."""

import logging
from pathlib import Path

from local.data.tables import read_table
from local.features.corpus import all_there
from local.features.pack_files import pack_files, packed_files, remove_originals, verify
from local.io.errors import CanopyError

log = logging.getLogger("canopy")


def pack_dump(folder: Path, pack_bytes: int, remove: bool, again: bool) -> None:
    """Pack what is in no pack; `remove` removes what is, `again` reads what was packed before."""
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
