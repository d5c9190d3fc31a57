"""Packs: feature files of a dump in a few large files, for disks that hate many small ones.

`packs/pack-00000.tar` below a dump holds files byte for byte, and `pack-00000.csv` beside it, its
index, tells where each lies in it (`file, first_byte, bytes, sha256`). The index is written last,
once the pack was read back, so that a pack without one is none. What an index names is read from
its pack, whether the file itself is there still or not; a file that is made anew is taken from the
index (`forget`). Any tar takes files out again.
"""

import hashlib
import io
import logging
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from local.data.tables import read_table
from local.io.errors import CanopyError
from local.io.files import atomic_path, disk_fault, write_csv
from local.jobs.interruption import stop_if_asked
from local.jobs.locks import lock_folder

log = logging.getLogger("canopy")

FOLDER = "packs"
COLUMNS = ("file", "first_byte", "bytes", "sha256")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Packed:
    """A file in a pack: `size` bytes of `path` from `offset` on, and their SHA-256."""

    path: Path
    name: str
    offset: int
    size: int
    sha256: str

    def __str__(self) -> str:
        """Pack and file, for messages."""
        return f"{self.path} ({self.name})"


Place = Path | str | Packed


class Window(io.RawIOBase):
    """`size` bytes of an open file from `first` on, as a file of their own; it closes nothing."""

    def __init__(self, descriptor: int, first: int, size: int) -> None:
        super().__init__()
        self._descriptor, self._first, self._size = descriptor, first, size
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative place {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        n = max(0, min(len(buffer), self._size - self._at))
        data = os.pread(self._descriptor, n, self._first + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


# ------------------------------------------------------------------------------------------ index


def packed_files(folder: Path) -> dict[str, Packed]:
    """Files of a dump that lie in packs, by name; none where it has no packs."""
    found: dict[str, Packed] = {}
    for index in sorted((folder / FOLDER).glob("pack-*.csv")):
        found |= {one.name: one for one in _read_index(index)}
    return found


def _read_index(index: Path) -> list[Packed]:
    table, pack = read_table(index, COLUMNS), index.with_suffix(".tar")
    numbers = table[["first_byte", "bytes"]]
    if not numbers.map(lambda text: re.fullmatch(r"\d{1,18}", text) is not None).all(axis=None):
        raise CanopyError(
            f"{index}: first_byte and bytes must be whole numbers; take a whole copy of it, or "
            "remove the packs and run stage preprocess again"
        )
    columns = (table["file"], *(numbers[name].astype(int) for name in numbers), table["sha256"])
    return [Packed(pack, *row) for row in zip(*columns, strict=True)]


def forget(folder: Path, names: Iterable[str]) -> None:
    """Take files that are about to be made anew from the indexes of the packs they lie in."""
    names = set(names)
    if not names or not (folder / FOLDER).is_dir():
        return
    with lock_folder(folder / FOLDER, "these packs", wait_s=float("inf")):
        for index in sorted((folder / FOLDER).glob("pack-*.csv")):
            table = read_table(index, COLUMNS)
            kept = table[~table["file"].isin(names)]
            if len(kept) < len(table):
                write_csv(index, kept)


# ---------------------------------------------------------------------------------------- packing


def pack_files(folder: Path, names: list[str], pack_bytes: int) -> int:
    """Pack the files of a dump that are in no pack, in the order given; how many.

    Each pack is whole and read back before its index is written: what was stopped goes on behind
    the last. A file larger than `pack_bytes` has a pack of its own. The caller holds the dump's
    lock.
    """
    packs = folder / FOLDER
    packs.mkdir(exist_ok=True)
    with lock_folder(packs, "these packs", wait_s=float("inf")):
        known = packed_files(folder)
        used = {place.path for place in known.values()}
        for path in sorted(packs.glob("pack-*.tar")):
            if path not in used:  # unfinished, or nothing in it is read any more
                path.with_suffix(".csv").unlink(missing_ok=True)
                path.unlink()
        waiting = [name for name in names if name not in known]
        number = max((int(path.stem[5:]) for path in used), default=-1) + 1
        for group in _groups(folder, waiting, pack_bytes):
            stop_if_asked(f"pack {number}")
            _write_pack(folder, packs / f"pack-{number:05d}.tar", group)
            number += 1
    return len(waiting)


def _groups(folder: Path, names: list[str], pack_bytes: int) -> Iterator[list[str]]:
    group: list[str] = []
    total = 0
    for name in names:
        size = (folder / name).stat().st_size
        if group and total + size > pack_bytes:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    if group:
        yield group


def _write_pack(folder: Path, pack: Path, names: list[str]) -> None:
    digests = {}
    with (
        atomic_path(pack) as temporary,
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            # The same bytes of the same files, whoever packs them when.
            about = tarfile.TarInfo(name)
            about.size, about.mode = (folder / name).stat().st_size, 0o644
            with open(folder / name, "rb") as stream:
                hashed = _Hashed(stream)
                tar.addfile(about, hashed)  # type: ignore[arg-type]
            digests[name] = hashed.sha256.hexdigest()
    _drop_from_memory(pack)
    with tarfile.open(pack, "r:") as tar:
        members = [
            Packed(pack, one.name, one.offset_data, one.size, digests[one.name])
            for one in tar.getmembers()
        ]
    verify(members)
    rows = [(one.name, one.offset, one.size, one.sha256) for one in members]
    write_csv(pack.with_suffix(".csv"), pd.DataFrame(rows, columns=list(COLUMNS)))


class _Hashed:
    """A stream to read from that takes the digest of what was read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, n: int) -> bytes:
        data = self._stream.read(n)
        self.sha256.update(data)
        return data


def _drop_from_memory(path: Path) -> None:
    """Have what follows read from the disk, where the system knows how."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def verify(places: Iterable[Packed], copy: Path | None = None) -> None:
    """Read packed files and hold them against their digests; from a `copy` of their pack if given.

    Raises
    ------
    CanopyError
        A file that is not, to the byte, what was packed.
    """
    for path, group in groupby(places, key=lambda place: copy or place.path):
        try:
            with open(path, "rb") as stream:
                for place in group:
                    _check(place, path, stream)
        except OSError as error:
            raise disk_fault(path, error) from None


def _check(place: Packed, path: Path, stream: Any) -> None:
    digest, left = hashlib.sha256(), place.size
    stream.seek(place.offset)
    while left and (data := stream.read(min(_BLOCK, left))):
        digest.update(data)
        left -= len(data)
    if digest.hexdigest() != place.sha256:
        raise CanopyError(
            f"{path}: {place.name} is not what was packed; the disk or a copy of it fails, run "
            "stage preprocess with --force to make the features anew"
        )


def remove_originals(folder: Path) -> tuple[int, int]:
    """Remove files that lie in packs as well, each once both were read and are the same.

    Returns
    -------
    How many files, and their bytes.
    """
    doubled = [place for name, place in packed_files(folder).items() if (folder / name).is_file()]
    n_bytes = 0
    for place in doubled:
        stop_if_asked(f"the removal of {place.name}")
        loose = folder / place.name
        verify([place])
        verify([Packed(loose, place.name, 0, loose.stat().st_size, place.sha256)])
        loose.unlink()
        n_bytes += place.size
    return len(doubled), n_bytes
