"""Processes that die where they are told to: scripts run in forks of one that has all imported.

Points are the calls by which a script changes a disk. They are counted in a run that is left alone,
so that a later one can be ended at any of them; nothing of this is known to the code under test.
"""

import ast
import builtins
import contextlib
import importlib
import io
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = (
    "recipes/demo/prepare.py",
    *(f"bin/{name}.py" for name in ("preprocess", "split", "sed_train", "sed_infer")),
    *(f"bin/{name}.py" for name in ("relabel", "submit", "export", "detect")),
)
# Calls that change a disk; opening for writing and writing to a journal are counted as well.
CALLS = ("replace", "fsync", "unlink", "rmdir", "mkdir", "ftruncate", "pwrite")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
YEARS_S = 3 * 365 * 24 * 3600
CRASHED = 99


@dataclass(frozen=True)
class Fate:
    """What happens to a process: `number` is sent at the `at`-th point, or after `after_s`."""

    number: int = signal.SIGKILL
    at: int = 0
    after_s: float | None = None
    clock_back: bool = False


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code (negative: the signal), points passed, seconds, words."""

    code: int
    n_points: int
    seconds: float
    told: str


def preload() -> None:
    """Import once what the scripts import, also late."""
    import matplotlib.figure  # noqa: F401
    import torch._dynamo
    import torch.utils.tensorboard

    torch.set_num_threads(1)
    for script in SCRIPTS:
        for node in ast.walk(ast.parse((ROOT / script).read_text())):
            if isinstance(node, ast.ImportFrom):
                importlib.import_module(node.module)


def begin(command: list[str], fate: Fate | None, log: Path) -> int:
    """Start a script in a process of its own; its id. What it says goes to `log`."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        code = CRASHED
        try:
            code = _live(command, fate, log)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return process


def run(command: list[str], fate: Fate | None, log: Path) -> End:
    """Run a script to its end or to its fate."""
    begun = time.monotonic()
    start = log.stat().st_size if log.exists() else 0
    process = begin(command, fate, log)
    if fate is not None and fate.after_s is not None:
        time.sleep(fate.after_s)
        os.kill(process, fate.number)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    seconds = time.monotonic() - begun
    told = log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""
    counted = log.with_suffix(".points")
    n_points = int(counted.read_text()) if code == 0 and counted.exists() else 0
    counted.unlink(missing_ok=True)
    return End(code, n_points, seconds, told)


def _live(command: list[str], fate: Fate | None, log: Path) -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = [str(ROOT / command[0]), *command[1:]]
    if fate is not None and fate.clock_back:
        _set_clock_back()
    with _points(fate) as points:
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    log.with_suffix(".points").write_text(str(points.n))
    return code


def _set_clock_back() -> None:
    now = time.time
    time.time = lambda: now() - YEARS_S
    nanoseconds = time.time_ns
    time.time_ns = lambda: nanoseconds() - YEARS_S * 10**9


class _Points:
    """Counts points and sends the signal at the one that is meant."""

    def __init__(self, fate: Fate | None) -> None:
        self.n, self._fate = 0, fate

    def is_the_one(self) -> bool:
        self.n += 1
        return self._fate is not None and self.n == self._fate.at

    def pass_one(self) -> None:
        if self.is_the_one():
            os.kill(os.getpid(), self._fate.number)

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def passing(*given: Any, **more: Any) -> Any:
            self.pass_one()
            return call(*given, **more)

        return passing


@contextlib.contextmanager
def _points(fate: Fate | None) -> Iterator[_Points]:
    points = _Points(fate)
    plain_open, plain_os_open = builtins.open, os.open

    class Torn(io.FileIO):
        """A file of which half of what is written reaches the disk before the end."""

        def write(self, content: Any) -> int:
            if points.is_the_one():
                super().write(content[: len(content) // 2])
                os.kill(os.getpid(), fate.number)
                return len(content) // 2
            return super().write(content)

    def watched_open(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any):
        if set(mode) & set("wax+"):
            points.pass_one()
            if mode == "ab" and buffering == 0:
                return Torn(file, "ab")
        return plain_open(file, mode, buffering, *rest, **more)

    def watched_os_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & _WRITING:
            points.pass_one()
        return plain_os_open(path, flags, *rest, **more)

    for name in CALLS:
        setattr(os, name, points.watched(getattr(os, name)))
    os.open = watched_os_open
    builtins.open = io.open = watched_open
    yield points
