"""Files that are either whole or absent: write beside, flush, sync, rename, sync the folder.

Every output of a stage goes through `atomic_path`, so a run that dies leaves the earlier file as it
was. What a killed run leaves beside it is known by its name and by the lock that its writer held,
and goes with `remove_leftovers`. Fingerprints of files and settings live here as well, because a
stage stamp, a feature id and a table stamp all need the same one.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from local.io.errors import CanopyError, MachineError, first_line
from local.io.limits import MAX_JSON_BYTES, read_text

if TYPE_CHECKING:
    import pandas as pd

# `.<stem>.<eight letters>.tmp<suffix>`; in the name of an output no such thing stands.
_TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.tmp(\.[^.]*)?")

# Faults of the disk or of the rights on it, which nothing in the code can mend.
DISK_FAULTS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not be that large here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "it may not be written or read by this user",
    errno.EPERM: "it may not be written or read by this user",
    errno.EIO: "the disk fails",
    errno.ESTALE: "the network disk lost it",
    errno.ENOTCONN: "the network disk is not connected",
    errno.ESHUTDOWN: "the network disk is not connected",
    errno.EHOSTDOWN: "the network disk is not connected",
    errno.EMFILE: "this process has too many open files",
    errno.ENFILE: "this machine has too many open files",
    errno.ENOTDIR: "a part of its path is a file",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "its name is too long",
}
# Those that another try, or another process, may not meet: no file is bad because of them.
PASSING_FAULTS = (
    *(errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN),
    *(errno.EHOSTDOWN, errno.EACCES, errno.EPERM),
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a folder says that cannot be synced, as on some network disks: it then syncs by itself.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
# What libraries raise, without a number, when the system did not take their bytes.
_NAMELESS = (OSError, RuntimeError, AssertionError)


def disk_fault(path: Path | str, error: OSError, n_bytes: int | None = None) -> MachineError:
    """A fault of the disk in one sentence; `n_bytes` is what was to be written, where known."""
    found = DISK_FAULTS.get(error.errno or 0, error.strerror or str(error))
    if error.errno not in _FULL:
        return MachineError(
            f"{path}: {found} ({type(error).__name__}: {error.strerror}); mend that and give the "
            "same command again, what was written before is whole"
        )
    needs = "" if not n_bytes else f", it needs {n_bytes} bytes"
    free = shutil.disk_usage(_existing(Path(path))).free
    return MachineError(
        f"{path}: not written, {found}{needs}, {free} bytes are free; make room and give the same "
        "command again, what was written before is whole"
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def make_folder(folder: Path | str) -> Path:
    """Make a folder and those above it, and sync the names of the new ones."""
    folder = Path(folder)
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in absent:
            _sync_folder(path.parent)
    except OSError as error:
        raise disk_fault(folder, error) from None
    return folder


@contextmanager
def atomic_path(target: Path | str, n_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary path beside `target`; on a clean exit sync it and rename it to `target`.

    The temporary name keeps the suffix of `target`, so that writers which look at it behave. When
    the block raises, the temporary file is removed and `target` is left as it was. `n_bytes` is
    the size to come, where it is known, for the message of a full disk.

    Raises
    ------
    CanopyError
        The disk is full, read-only or fails, or this user may not write here.
    """
    target = Path(target)
    make_folder(target.parent)
    try:
        descriptor, temporary = _make_temporary(target)
    except OSError as error:
        raise disk_fault(target, error, n_bytes) from None
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException as error:
        fault = _cause(error, temporary, target)
        n_bytes = n_bytes or _size(temporary)
        temporary.unlink(missing_ok=True)
        if fault is None:
            raise
        raise disk_fault(target, fault, n_bytes) from None
    finally:
        os.close(descriptor)


def _make_temporary(target: Path) -> tuple[int, Path]:
    """A new file whose lock this process holds while it writes: who gets the lock may remove it.

    The system takes the umask off its rights, so that whoever may read the folder may read it.
    """
    while True:
        temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        try_lock(descriptor)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        # Taken for a leftover before it was locked.
        os.close(descriptor)


def try_lock(descriptor: int, shared: bool = False) -> bool | None:
    """Lock an open file unless another holds it; None where the disk knows no locks."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return None
        raise
    return True


def _cause(error: BaseException, temporary: Path, target: Path) -> OSError | None:
    """The disk's fault behind what a writer raised, if it is one."""
    if isinstance(error, OSError) and error.errno is not None:
        ours = error.filename in (None, str(temporary), str(target), str(target.parent))
        return error if ours and error.errno in DISK_FAULTS else None
    if isinstance(error, _NAMELESS):
        # Asked again, the disk says it by number.
        try:
            with open(temporary, "ab") as stream:
                stream.write(bytes(1 << 16))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as found:
            return found if found.errno in DISK_FAULTS else None
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def is_temporary(path: Path) -> bool:
    """Whether a file is one that is being written, or that a killed run left half written."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_leftovers(folder: Path | str) -> int:
    """Remove what killed writers left in a folder and below it; how many files.

    A file whose writer lives is locked and stays.
    """
    folder, removed = Path(folder), 0
    for path in folder.glob("**/.*.tmp*"):
        if not is_temporary(path):
            continue
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise disk_fault(path, error) from None
        try:
            if try_lock(descriptor):
                path.unlink(missing_ok=True)
                removed += 1
        finally:
            os.close(descriptor)
    return removed


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def copy_file(source: Path | str, target: Path | str) -> None:
    """Copy a file's content atomically."""
    with atomic_path(target, os.path.getsize(source)) as temporary:
        shutil.copyfile(source, temporary)


def write_bytes(target: Path | str, content: bytes) -> None:
    """Write a file's content atomically."""
    with atomic_path(target, len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(target, text.encode("utf-8"))


def write_json(target: Path | str, value: Any) -> None:
    """Write `value` as indented JSON atomically; NaN and infinity become null."""
    write_text(target, json.dumps(plain_json(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a missing or damaged one is a `CanopyError` that names it."""
    try:
        return json.loads(read_text(path, MAX_JSON_BYTES, "JSON file"))
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such file; run the stage that writes it first") from None
    except (ValueError, RecursionError) as error:
        raise CanopyError(
            f"{path}: not readable as JSON ({error}); delete it and run its stage again"
        ) from None


@contextmanager
def as_written(path: Path | str) -> Iterator[None]:
    """Report values that are missing or odd in a file of this program as a fault of that file.

    Raises
    ------
    CanopyError
        In place of what Python raises of a missing or an odd value.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise CanopyError(
            f"{path}: not as this version writes it ({type(error).__name__}: {first_line(error)}); "
            "it was changed or is of another version: make it again"
        ) from None


def write_csv(target: Path | str, frame: "pd.DataFrame", **options: Any) -> None:
    """Write a table as CSV (UTF-8, no index) atomically."""
    text = io.StringIO()
    frame.to_csv(text, index=False, **options)
    write_text(target, text.getvalue())


def write_npz(target: Path | str, **arrays: np.ndarray | np.generic) -> None:
    """Write an uncompressed npz atomically; object arrays are refused."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"member {name!r} of {target} is an object array")
    n_bytes = sum(np.asarray(array).nbytes for array in arrays.values())
    with atomic_path(target, n_bytes) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def file_digest(path: Path | str) -> str:
    """SHA-256 (hex) of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """Hex digest of settings: the same for the same values, whatever the order of keys."""
    canonical = json.dumps(plain_json(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def plain_json(value: Any) -> Any:
    """Plain JSON types out of numpy scalars, arrays, paths and non-finite numbers (None)."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain_json(item) for item in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, np.generic):
        return plain_json(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value
