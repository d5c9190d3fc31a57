"""What a kind of bad file is: how it is made, who reads it, and what must come of it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20


@dataclass(frozen=True)
class Kind:
    """A way in which a file from outside can be bad, or only unusual.

    `make(folder)` gives the path to read. Either `refused` is a part of the one sentence that is
    to come, or `check` looks at what is read. `memory` bounds what reading may take, in bytes.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    refused: str = ""
    check: Callable[[Any], bool] | None = None
    memory: int = 64 * MIB

    @property
    def expected(self) -> str:
        """In words, for the table."""
        return f"refused: {self.refused}" if self.refused else "handled"


def put(name: str, content: bytes | str) -> Callable[[Path], Path]:
    """A maker that writes `content` to a file of that name."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def changed(make: Callable[[Path], Path], change: Callable[[bytes], bytes]) -> Callable:
    """A maker whose file has its bytes changed."""

    def make_changed(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make_changed


def cut(make: Callable[[Path], Path], end: int) -> Callable[[Path], Path]:
    """A maker whose file ends after `end` bytes (before the end, when negative)."""
    return changed(make, lambda content: content[:end])


def pipe(folder: Path) -> Path:
    """A pipe that nobody writes to: opening it would wait for ever."""
    path = folder / "pipe"
    os.mkfifo(path)
    return path


def endless(folder: Path) -> Path:
    """A file that never ends."""
    path = folder / "endless"
    path.symlink_to("/dev/zero")
    return path


def here(folder: Path) -> Path:
    """The folder itself."""
    return folder


def canary(folder: Path) -> Path:
    """The file that exists only when something ran that must not."""
    return folder.parent / f"{folder.name}.canary"


class Bomb:
    """Unpickled, it makes the canary."""

    def __init__(self, folder: Path) -> None:
        self.path = canary(folder)

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)
