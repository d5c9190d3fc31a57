"""Zip archives from outside (npz, checkpoints), looked at before memory is taken for them.

An archive's directory says how large each member is, and each array's header says how large the
array is; both are written by whoever made the file. Here they are held against the file itself:
members lie in it as they are (nothing is compressed, so nothing can swell), and an array takes no
more bytes than its member has.
"""

import os
import pickletools
import struct
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from local.io.limits import regular_size

if TYPE_CHECKING:
    import torch

# A directory entry takes some ten times its bytes in memory; a million members need 64 MiB.
MAX_DIRECTORY_BYTES = 64 * 2**20
# The structure of a checkpoint, without its tensors.
MAX_PICKLE_BYTES = 16 * 2**20
# Published files have some thousands of tensors; their directory is a few hundred kilobytes.
MAX_SAFETENSORS_HEADER_BYTES = 16 * 2**20

# What reading a damaged or forged archive of arrays raises.
UNREADABLE = (
    zipfile.BadZipFile,
    ValueError,
    EOFError,
    struct.error,
    NotImplementedError,
    SyntaxError,
    TypeError,
    RecursionError,
    OverflowError,
    MemoryError,
    tokenize.TokenError,
)

_END = struct.Struct("<4s4xHHII2x")
_END64_LOCATOR = struct.Struct("<4s4xQ4x")
_END64 = struct.Struct("<4s36xQ8x")
# The end record and the longest comment behind it.
_TAIL_BYTES = 22 + 65_535
# How many times the bytes of a file its tensors may have together, views of one storage counted.
_MAX_SHARING = 16
# What archives begin with, by which torch tells them from the older format.
ZIP_START = b"PK\x03\x04"
# Pickles before the numbers in the older format: magic, protocol, system, structure, keys.
_LEGACY_PICKLES = 5
# Allowed by torch in a checkpoint, and able to take any amount of memory from a few bytes.
_SWELLING = ("bytearray",)


@contextmanager
def open_archive(file: Path | str | BinaryIO) -> Iterator[zipfile.ZipFile]:
    """A zip file whose directory fits the file and whose members cannot swell; read once.

    `file` is its path, or the file itself, open; where it stands in it is then left anywhere.

    Raises
    ------
    zipfile.BadZipFile
        With the fault; callers name the file and say what to do. Also what `zipfile` raises.
    """
    if isinstance(file, str | Path):
        regular_size(file)
        with open(file, "rb") as stream, open_archive(stream) as archive:
            yield archive
        return
    size = file.seek(0, os.SEEK_END)
    directory = _directory_bytes(file, size)
    if directory > min(size, MAX_DIRECTORY_BYTES):
        raise zipfile.BadZipFile(
            f"its directory claims {directory} bytes, at most {min(size, MAX_DIRECTORY_BYTES)} "
            "can be right"
        )
    with zipfile.ZipFile(file) as archive:
        seen: set[str] = set()
        for entry in archive.infolist():
            name = f"member {entry.filename!r:.80}"
            # Bit 0: encrypted.
            plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
            if not plain or entry.file_size != entry.compress_size:
                raise zipfile.BadZipFile(f"{name} is compressed or encrypted")
            if not 0 <= entry.header_offset < size:
                raise zipfile.BadZipFile(f"{name} lies outside the file")
            if entry.filename in seen:
                raise zipfile.BadZipFile(f"{name} stands twice")
            seen.add(entry.filename)
        total = sum(entry.file_size for entry in archive.infolist())
        if total > size:
            raise zipfile.BadZipFile(f"its members claim {total} bytes, the file has {size}")
        yield archive


def _directory_bytes(stream: BinaryIO, size: int) -> int:
    """What the end record (or its 64-bit form, when that is in use) says of the directory."""
    stream.seek(max(0, size - _TAIL_BYTES))
    tail = stream.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise zipfile.BadZipFile("File is not a zip file")
    _, _, _, directory, _ = _END.unpack_from(tail, place)
    before = place - _END64_LOCATOR.size
    if before >= 0 and tail[before : before + 4] == b"PK\x06\x07":
        _, at = _END64_LOCATOR.unpack_from(tail, before)
        stream.seek(min(at, size))
        record = stream.read(_END64.size)
        if len(record) < _END64.size or record[:4] != b"PK\x06\x06":
            raise zipfile.BadZipFile("its 64-bit end record is not where it should be")
        directory = _END64.unpack(record)[1]
    return directory


# --------------------------------------------------------------------------------------------- npz


@dataclass(frozen=True)
class StoredArray:
    """An array of an npz; its numbers begin at byte `start` of the file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int


def stored_arrays(archive: zipfile.ZipFile) -> dict[str, StoredArray]:
    """All arrays of an open npz by name, each held against its member's size.

    Raises
    ------
    Any of UNREADABLE
        Damaged, with Python objects, or with sizes that contradict each other.
    """
    file: Any = archive.fp
    size = file.seek(0, os.SEEK_END)
    found = {}
    for entry in archive.infolist():
        array = _stored(archive, entry, file)
        if array.start + prod(array.shape) * array.dtype.itemsize > size:
            raise ValueError(f"member {entry.filename!r:.80} reaches beyond the end of the file")
        found[entry.filename.removesuffix(".npy")] = array
    return found


def _stored(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Any) -> StoredArray:
    with archive.open(entry) as stream:
        version = npy_format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"has an array of npy version {version}")
        first = version == (1, 0)
        read = npy_format.read_array_header_1_0 if first else npy_format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        header = stream.tell()
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are not read")
    needed, there = prod(shape) * dtype.itemsize, entry.file_size - header
    if min(shape, default=0) < 0 or needed != there:
        raise ValueError(
            f"member {entry.filename!r:.80} of shape {shape} needs {needed} bytes but holds {there}"
        )
    # The numbers lie behind the member's local header, whose lengths are its own.
    file.seek(entry.header_offset + 26)
    local = 30 + sum(struct.unpack("<HH", file.read(4)))
    return StoredArray(shape, fortran, dtype, entry.header_offset + local + header)


def read_npz(path: Path | str) -> dict[str, np.ndarray]:
    """All arrays of an uncompressed npz, each held against its member's size before it is read.

    Raises
    ------
    OSError, and any of UNREADABLE
        Missing, damaged, compressed, with objects, or with sizes that contradict each other.
    """
    with open_archive(path) as archive:
        arrays = {}
        for name in stored_arrays(archive):
            # By zipfile, which holds the numbers against their checksum.
            with archive.open(name if name in archive.namelist() else f"{name}.npy") as stream:
                arrays[name] = npy_format.read_array(stream, allow_pickle=False)
        return arrays


# ----------------------------------------------------------------------------------------- tensors


def check_structure(archive: zipfile.ZipFile) -> None:
    """Refuse a checkpoint, opened by `open_archive`, whose structure torch should not unpickle.

    Raises
    ------
    ValueError
        It is too large, or names what could take any amount of memory.
    """
    for entry in archive.infolist():
        if entry.filename.endswith("data.pkl"):
            if entry.file_size > MAX_PICKLE_BYTES:
                raise ValueError(f"its structure alone has {entry.file_size} bytes")
            with archive.open(entry) as stream:
                _check_pickle(stream)


def check_checksums(archive: zipfile.ZipFile) -> None:
    """Refuse flipped bits, which torch reads past and the archive's own checksums do not."""
    damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"checksum of {damaged}")


def check_foreign_checkpoint(path: Path | str) -> None:
    """Refuse a checkpoint of others that claims more than it has, before torch reads it.

    Files of the format before torch 1.6, which is no archive, are known too.
    """
    regular_size(path)
    with open(path, "rb") as stream:
        if stream.read(len(ZIP_START)) != ZIP_START:
            stream.seek(0)
            for _ in range(_LEGACY_PICKLES):
                _check_pickle(stream)
            return
        with open_archive(stream) as archive:
            check_structure(archive)
            check_checksums(archive)


def _check_pickle(stream: Any) -> None:
    """Refuse what torch would let through and what could take any amount of memory."""
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE", "UNICODE"):
            name = str(argument).replace(" ", ".")
            if str(argument).split(" ")[-1] in _SWELLING:
                raise ValueError(f"names {name}, which holds no tensor")


def check_tensors(state: Any, path: Path | str) -> None:
    """Refuse tensors that claim far more numbers than the file has bytes for.

    A few bytes can describe a tensor of any size as a view of one number; it takes memory only
    when somebody works with it. Weights that are shared or spread out are let through.

    Raises
    ------
    OSError, ValueError
        With what is claimed.
    """
    import torch

    size = regular_size(path)
    claimed = 0
    for tensor in _tensors(state):
        if tensor.device.type == "meta" or tensor.layout != torch.strided:
            raise ValueError("holds a tensor without numbers, or a sparse one")
        claimed += tensor.numel() * tensor.element_size()
    if claimed > _MAX_SHARING * size:
        raise ValueError(f"its tensors claim {claimed} bytes, the file has {size}")


def _tensors(state: Any) -> Iterator["torch.Tensor"]:
    """Tensors within dicts, lists and tuples, whatever the depth; each container once."""
    import torch

    waiting, seen = [state], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def check_safetensors(path: Path | str) -> None:
    """Refuse a safetensors file whose header claims more than the file has, or than is sensible.

    Raises
    ------
    OSError, ValueError
        With the fault.
    """
    size = regular_size(path)
    with open(path, "rb") as stream:
        start = stream.read(8)
    header = int.from_bytes(start, "little")
    most = min(size - 8, MAX_SAFETENSORS_HEADER_BYTES)
    if len(start) < 8 or header > most:
        raise ValueError(f"its header claims {header} bytes, at most {max(0, most)} can be right")
