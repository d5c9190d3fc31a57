"""One run at a time on a folder: a lock that the system takes back when its holder dies.

The lock is `flock` on the file `.lock` in the folder. The kernel lets go of it on any end of a
process, so nothing has to be cleaned up after a crash; the file itself stays and means nothing.
Processes that a holder starts with `inherited` go on under its lock, and hold it for as long as
they live. On network disks the lock holds between machines where these know it (NFS from version 4,
Lustre mounted with `flock`); where the disk knows no locks a warning says so and nothing is locked.
"""

import json
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from local.io.errors import CanopyError
from local.io.files import disk_fault, make_folder, remove_leftovers, try_lock

log = logging.getLogger("canopy")

LOCK_NAME = ".lock"
# Environment: descriptors of locks that the process which started this one holds.
_HANDED_ON = "CANOPY_LOCKS"
_POLL_S = 0.2

# Locks of this process, and those it was handed that turned out to be what they were said to be:
# the file (device, inode) -> descriptor.
_held: dict[tuple[int, int], int] = {}
_handed: dict[tuple[int, int], int] = {}


@contextmanager
def lock_folder(
    folder: Path | str,
    what: str,
    *,
    shared: bool = False,
    wait_s: float = 0.0,
    keep: bool = True,
) -> Iterator[None]:
    """Hold a folder's lock inside the block, and clear the folder of what killed writers left.

    A process that holds it already, itself or through the one that started it, holds it still.

    Parameters
    ----------
    what : what is worked on, in words, for the message.
    shared : others that share may hold it too; who does not share is kept out.
    wait_s : how long to wait for another; infinity waits for as long as it takes.
    keep : leave the file `.lock`; without, a folder that is given away holds nothing of ours, and
        one in which nothing was made is not there.

    Raises
    ------
    CanopyError
        Another holds it: host, process, command and since when are named. Or the folder cannot be
        written to.
    """
    was_there = Path(folder).is_dir()
    folder = make_folder(folder)
    path = folder / LOCK_NAME
    descriptor = _open(path)
    key = _identity(descriptor)
    if (number := _handed_descriptor(key)) is not None:
        _handed[key] = number
    if key in _held or key in _handed:
        os.close(descriptor)
        yield
        return
    try:
        _take(descriptor, folder, what, shared, wait_s)
        while not _is_at(descriptor, path):  # its last holder took the file away
            os.close(descriptor)
            descriptor = _open(path)
            _take(descriptor, folder, what, shared, wait_s)
        key = _identity(descriptor)
        _held[key] = descriptor
        remove_leftovers(folder)
        yield
        if keep and not shared:
            # Nobody's now: a folder at rest is the same bytes whoever worked on it.
            os.ftruncate(descriptor, 0)
    finally:
        # A shared one goes with the last that shares it.
        if _held.pop(key, None) is not None and not keep and try_lock(descriptor):
            path.unlink(missing_ok=True)
            if not was_there and not any(folder.iterdir()):
                folder.rmdir()
        os.close(descriptor)


def clear_folder(folder: Path) -> None:
    """Remove all that is in a folder but its lock, which stays whole for who holds it."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()


def move_aside(folder: Path) -> Path:
    """Move all that is in a folder but its lock to `<folder>.old-<n>`, n counting up; that path."""
    n = 1
    while (aside := folder.with_name(f"{folder.name}.old-{n}")).exists():
        n += 1
    make_folder(aside)
    for path in sorted(folder.iterdir()):
        if path.name != LOCK_NAME:
            os.rename(path, aside / path.name)
    return aside


def inherited() -> tuple[dict[str, str], tuple[int, ...]]:
    """What hands this process's locks on: environment and open descriptors of a new process."""
    descriptors = tuple(dict.fromkeys([*_handed.values(), *_held.values()]))
    return {_HANDED_ON: " ".join(map(str, descriptors))}, descriptors


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == _identity(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise disk_fault(path, error) from None


def _take(descriptor: int, folder: Path, what: str, shared: bool, wait_s: float) -> None:
    end, told = time.monotonic() + wait_s, False
    while (got := try_lock(descriptor, shared)) is False:
        if time.monotonic() >= end:
            raise CanopyError(
                f"{folder}: {what} is being worked on by {_holder(folder / LOCK_NAME)}; wait until "
                "that has ended, or end it"
            )
        if not told:
            log.info("%s: waiting for %s, %s", folder, what, _holder(folder / LOCK_NAME))
            told = True
        time.sleep(_POLL_S)
    if got is None:
        log.warning("%s: this disk knows no locks; start no second run on this folder", folder)
    _note(descriptor, folder, shared)


def _note(descriptor: int, folder: Path, shared: bool) -> None:
    holder = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "shared": shared,
        "command": " ".join(" ".join(sys.argv).split())[:300],
        "since": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    content = json.dumps(holder).encode()
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
    except OSError as error:
        raise disk_fault(folder / LOCK_NAME, error, len(content)) from None


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        pid, host = int(holder["pid"]), holder["host"]
        who = f"process {pid}"
        if host == socket.gethostname() and not _lives(pid):
            # Another that shares goes on, or what it started itself, which holds its lock as well.
            who = f"one beside {who}" if holder.get("shared") else f"what is left of {who}"
        return f"{who} on {host} ({holder['command']}) since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"  # that has not noted itself yet


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _handed_descriptor(key: tuple[int, int]) -> int | None:
    """The open descriptor of this lock file that the process which started this one holds."""
    numbers = [int(text) for text in os.environ.get(_HANDED_ON, "").split() if text.isdigit()]
    return next((n for n in numbers if _is_open(n) and _identity(n) == key), None)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _forget() -> None:
    """A forked worker keeps no lock: it may outlive its holder by a little."""
    for descriptor in inherited()[1]:
        os.close(descriptor)
    os.environ.pop(_HANDED_ON, None)
    _held.clear()
    _handed.clear()


os.register_at_fork(after_in_child=_forget)
