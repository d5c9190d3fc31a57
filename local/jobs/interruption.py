"""Signals that ask a run to stop: noted when they come, obeyed where work is whole.

SIGTERM, SIGINT and SIGUSR1 set a flag. Loops call `stop_if_asked` between items; what it raises is
caught by whoever has something to save, and by `exit_codes.run_script`, which turns it into the
exit code that says "start me again".
"""

import os
import signal
import threading
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

# EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on.
EXIT_CONTINUE = 75
# A second Ctrl-C, in the words of a shell: 128 and the signal's number.
EXIT_ABORTED = 130
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Set by a process for the children that must not go on without it: its id.
PARENT = "CANOPY_PARENT"
# Seconds that a reader of windows stays after SIGTERM, so that the step at work gets its batches.
LINGER_S = 60


class Interrupted(Exception):  # noqa: N818 (a request that was met is no error)
    """Work was stopped on request at a place from which it goes on: `signal_name`, `place`."""

    def __init__(self, signal_name: str, place: str) -> None:
        super().__init__(f"stopped by {signal_name} at {place}")
        self.signal_name = signal_name
        self.place = place


@dataclass
class _Caught:
    """What this process has caught, whom it must not outlive, and the handlers of before."""

    name: str = ""
    n_interrupts: int = 0
    process: int = 0
    parent: int | None = None
    before: dict[int, Any] = field(default_factory=dict)


_caught = _Caught()


def listen() -> None:
    """From now on SIGTERM, SIGINT and SIGUSR1 only set a flag; a second SIGINT aborts at once.

    Outside the main thread, where Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    forget()
    _caught.before = {number: signal.signal(number, _note) for number in SIGNALS}
    # Taken away, so that what this process starts of its own is not bound by it.
    parent = os.environ.pop(PARENT, "")
    _caught.process, _caught.parent = os.getpid(), int(parent) if parent.isdigit() else None


def forget() -> None:
    """Undo `listen`: the handlers of before, and nothing caught."""
    for number, handler in _caught.before.items():
        signal.signal(number, handler)
    _caught.name, _caught.n_interrupts, _caught.parent, _caught.before = "", 0, None, {}


def _note(number: int, _frame: FrameType | None) -> None:
    _caught.name = _caught.name or signal.Signals(number).name
    if number == signal.SIGINT:
        _caught.n_interrupts += 1
        if _caught.n_interrupts > 1:
            raise KeyboardInterrupt


def requested() -> str:
    """Name of the signal that asked to stop; "" for none.

    A process whose parent must not be outlived stops when that has died, as if it had been asked.
    """
    bound = _caught.parent is not None and os.getpid() == _caught.process
    if not _caught.name and bound and os.getppid() != _caught.parent:
        _caught.name = "the end of the process that started it"
    return _caught.name


def stop_if_asked(place: str) -> None:
    """Raise `Interrupted` when a signal was caught; `place` tells the user where work stands."""
    if requested():
        raise Interrupted(requested(), place)


def bound_to_this_process() -> dict[str, str]:
    """What to add to the environment of a child that listens and must end when this one dies."""
    return {PARENT: str(os.getpid())}


def leave_to_parent(_worker: int = 0) -> None:
    """In a worker process: what is sent to the whole group is the parent's to answer.

    The parent may need the worker for the step that is being ended. SIGTERM, which the parent also
    sends itself to a worker that hangs, therefore ends it a while later.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LINGER_S))
