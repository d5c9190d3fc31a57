"""A folder that its network disk lost: the kernel itself says ESTALE to every call."""

import errno
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_INIT, _UNANSWERED = 26, (2, 42)
_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
# fuse_init_out of protocol 7.31: version, read-ahead, flags, requests at once, size of writes.
_GREETING = struct.pack("<IIIIHHIIHH32x", 7, 31, 0, 0, 12, 9, 4096, 1, 1, 0)


@contextmanager
def stale_folder(folder: Path) -> Iterator[None]:
    """Mount a file system over `folder` that answers everything with "stale file handle".

    Raises
    ------
    OSError
        This machine allows no such mount.
    """
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    ran = subprocess.run(
        ["mount", "-i", "-t", "fuse", "-o", options, "stale", str(folder)],
        pass_fds=[device],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        os.close(device)
        raise OSError(ran.stderr.strip())
    threading.Thread(target=_answer, args=(device,), daemon=True).start()
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _answer(device: int) -> None:
    try:
        while request := os.read(device, 1 << 17):
            _, operation, number, *_ = _IN.unpack_from(request)
            if operation == _INIT:
                head = _OUT.pack(_OUT.size + len(_GREETING), 0, number)
                os.write(device, head + _GREETING)
            elif operation not in _UNANSWERED:
                os.write(device, _OUT.pack(_OUT.size, -errno.ESTALE, number))
    except OSError:  # unmounted
        os.close(device)
