"""One child process after another, and what is sent to this process meanwhile.

Signals are for the child, which saves what it has and says so by exit code 75. SIGTERM and SIGUSR1
are passed on. Ctrl-C goes to all processes of a terminal, so the child has it already: it is passed
on as SIGTERM, which asks for no more; a second one aborts.
"""

import os
import signal
import subprocess
import time
from types import FrameType

from local.jobs.interruption import EXIT_ABORTED, EXIT_CONTINUE, SIGNALS, bound_to_this_process


class Supervisor:
    """Runs children and notes the first signal that asked this process to stop (`caught`)."""

    def __init__(self) -> None:
        self.caught = ""
        self.n_interrupts = 0
        self._n_caught = 0
        self._child: subprocess.Popen | None = None

    def listen(self) -> None:
        """From now on signals are noted and passed on."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.caught = self.caught or signal.Signals(number).name
        self._n_caught += 1
        self.n_interrupts += number == signal.SIGINT
        if self._child is not None:
            self._pass_on(number)
        elif self.n_interrupts > 1:
            raise KeyboardInterrupt

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGINT and self.n_interrupts < 2:
            number = signal.SIGTERM
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def call(
        self,
        command: list[str],
        environment: dict[str, str] | None = None,
        descriptors: tuple[int, ...] = (),
    ) -> int:
        """Exit code of a command, as a shell gives it; it ends when this process dies.

        A child that was asked to stop and ended by the signal, or in peace, counts as stopped: 75.

        environment, descriptors : what it finds in its environment, and open, besides.
        """
        before = self._n_caught
        child = subprocess.Popen(
            command,
            env=os.environ | bound_to_this_process() | (environment or {}),
            pass_fds=descriptors,
        )
        self._child = child
        if self._n_caught > before:
            # It came when there was a child, but not yet its name.
            self._pass_on(signal.Signals[self.caught])
        code = child.wait()
        self._child = None
        code = 128 - code if code < 0 else code
        if self.caught and (code == 0 or code > 128) and not self.aborted(code):
            return EXIT_CONTINUE
        return code

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a further signal comes."""
        end, before = time.monotonic() + seconds, self._n_caught
        while time.monotonic() < end and self._n_caught == before:
            time.sleep(0.1)

    def aborted(self, code: int) -> bool:
        """Whether a second Ctrl-C ended a child that had this exit code."""
        return code == EXIT_ABORTED and self.n_interrupts > 1
