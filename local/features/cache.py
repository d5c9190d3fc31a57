"""Copies of feature files and packs on a disk of this machine, made once and held against the
originals, for the many small reads that a shared disk answers slowly.

All processes of a user on a machine share the copies: one makes them, the others wait for it. A
journal tells which are whole, and of which original; what was stopped goes on behind the last.
"""

import hashlib
import logging
import os
import shutil
import stat
from pathlib import Path

from local.features.pack_files import Packed, verify
from local.io.errors import CanopyError
from local.io.files import atomic_path, file_digest, fingerprint
from local.jobs.interruption import stop_if_asked
from local.jobs.journal import Journal
from local.jobs.locks import lock_folder

log = logging.getLogger("canopy")

# Left free on the disk for others.
RESERVE_BYTES = 256 * 2**20
_JOURNAL = "copied.journal"
_BLOCK = 1 << 20


def copy_here(
    folder: Path, files: dict[Path, list[Packed] | None], cache: Path
) -> dict[Path, Path]:
    """Copy files of a dump into a cache, unless all that is wanted does not fit.

    Parameters
    ----------
    folder : the dump.
    files : paths in it; of a pack, the files in it that its copy is held against.
    cache : folder on a disk of this machine; the copies lie in a folder of this user's in it.

    Returns
    -------
    Of each file that has a whole copy, where that is. When there is no room for the rest, or the
    cache cannot be written, a warning says so and the others are read where they lie.

    Raises
    ------
    CanopyError
        A copy that is not what was to be copied: one of the disks fails.
    """
    name = f"{folder.name}-{fingerprint(str(folder.resolve()))[:10]}"
    try:
        own = _own_folder(cache)
        with lock_folder(own / name, "these copies", wait_s=float("inf")):
            return _copy_all(folder, files, own / name)
    except _BadCopyError:
        raise
    except CanopyError as error:
        log.warning("cache: %s; the dump is read where it lies", error)
        return {}


class _BadCopyError(CanopyError):
    """One of the two disks fails."""


def _own_folder(cache: Path) -> Path:
    """The user's folder in a place that others may write to as well, which nobody else can."""
    own = cache / f"canopy-{os.getuid()}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        own.mkdir(mode=0o700, exist_ok=True)
        status = os.lstat(own)
    except OSError as error:
        raise CanopyError(f"{own}: cannot be made ({error.strerror})") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise CanopyError(f"{own}: is another user's, or no folder")
    return own


def _copy_all(folder: Path, files: dict[Path, list[Packed] | None], to: Path) -> dict[Path, Path]:
    # What is gone is not looked for here: who reads it says so.
    targets = {path: to / path.relative_to(folder) for path in files if path.is_file()}
    with Journal(to / _JOURNAL, "copies") as journal:
        keys = {path: str(path.relative_to(folder)) for path in targets}
        there = {p: t for p, t in targets.items() if _is_whole(p, t, journal.get(keys[p]))}
        waiting = [path for path in targets if path not in there]
        needed = sum(path.stat().st_size for path in waiting)
        free = shutil.disk_usage(to).free
        if needed + RESERVE_BYTES > free:
            log.warning(
                "cache: %s has %d bytes free, the dump needs %d more and %d are left to others; "
                "it is read where it lies",
                *(to, free, needed, RESERVE_BYTES),
            )
            return there
        if waiting:
            log.info("cache: %d files, %.1f GB, are copied to %s", len(waiting), needed / 1e9, to)
        for path in waiting:
            stop_if_asked(f"the copy of {path.name}")
            before = _state(path)
            _copy(path, targets[path], files[path])
            journal.add(keys[path], original=before, copy=_state(targets[path]))
            there[path] = targets[path]
    return there


def _is_whole(path: Path, copy: Path, entry: dict[str, list[int]] | None) -> bool:
    """Whether a copy is the one that was held against this very original."""
    if entry is None or not copy.is_file():
        return False
    return entry["original"] == _state(path) and entry["copy"] == _state(copy)


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _copy(path: Path, target: Path, members: list[Packed] | None) -> None:
    digest = hashlib.sha256()
    with atomic_path(target, path.stat().st_size) as temporary:
        with open(path, "rb") as original, open(temporary, "wb") as copy:
            while block := original.read(_BLOCK):
                digest.update(block)
                copy.write(block)
        try:
            if members is not None:
                verify(members, temporary)
            elif file_digest(temporary) != digest.hexdigest():
                raise CanopyError(f"{target}: is not what was copied from {path}, the disk fails")
        except CanopyError as error:
            raise _BadCopyError(str(error)) from None
