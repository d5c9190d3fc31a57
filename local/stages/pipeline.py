"""A run of `./run.sh`: the stages asked for, one script after another, where there is work to do.

What is done is found out here, in one process without PyTorch, by the stamps that the scripts go by
themselves. A script starts only for what is not done, the check of the whole configuration before
the first of them. This process holds the lock of the run's folder and hands it on.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from local.io.errors import CanopyError
from local.jobs.interruption import EXIT_ABORTED, EXIT_CONTINUE
from local.jobs.supervision import Supervisor
from local.stages.stage_graph import CHECK, STAGES, Part, Work, command, order

MAX_REQUEUES = 20
# Slurm ends a job that it requeues; until then it must not end by itself.
_WAIT_FOR_END_S = 90.0
_CHECKED = "the check of the configuration"


def say(words: str) -> None:
    """A line of run.sh on stderr."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    print(f"{now} run.sh: {words}", file=sys.stderr, flush=True)


class Stopped(Exception):  # noqa: N818 (the end of a run that was asked for, or told why)
    """The run ends here: `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Pipeline:
    """The stages of one run.

    values : options of `run_options.complete`. python : of the environment. again : the command
    line that was given, without the stage to go on from.
    """

    def __init__(self, values: dict[str, Any], python: str, again: str) -> None:
        self.values, self.python, self.again = values, python, again
        self.stages = range(values["stage"], values["stop-stage"] + 1)
        self._supervisor = Supervisor()
        self._now, self._stage = _CHECKED, values["stage"]
        # Whether the configuration was checked, and whether that was with what the tables suggest.
        self._checked = self._prepared = False
        self._handed_on: tuple[dict[str, str], tuple[int, ...]] = ({}, ())

    def greet(self) -> None:
        """Say what will run."""
        values = self.values
        say(
            f"recipe {values['recipe']}, conf {values['conf']}, tag {values['tag']}, data "
            f"{values['datadir']}, dump {values['dumpdir']}, exp {values['expdir']}, stages "
            f"{values['stage']}-{values['stop-stage']}, {values['nj']} processes, device "
            f"{values['device']}"
        )

    def show(self, read_cycles: Callable[[], list[int]]) -> int:
        """Print the commands of the run, with the cycles of stage 4; the exit code."""
        try:
            with self._explained():
                cycles = read_cycles()
        except Stopped as end:
            return end.code
        parts = [(CHECK, 0)] + [
            (work.part, work.cycle) for work in order(self.stages, cycles) if not work.part.gathers
        ]
        for part, cycle in parts:
            print(shlex.join([self.python, *self._command(part, cycle)]))
        return 0

    def run(self) -> int:
        """Run what is not done; the exit code."""
        began = time.monotonic()
        self._supervisor.listen()
        try:
            with ExitStack() as held:
                self._run(held)
        except Stopped as end:
            return end.code
        except KeyboardInterrupt:
            return EXIT_ABORTED
        if self.values["stop-stage"] == STAGES[-1].number:
            say(f"report: {self.values['expdir']}/{self.values['tag']}/report.html")
        say(f"done in {time.monotonic() - began:.0f} s")
        return 0

    def _run(self, held: ExitStack) -> None:
        # What takes a second to import, once signals are listened to.
        from local.stages.completion import Completion

        with self._explained():
            completion = Completion(self.values)
            cycles = completion.cycles
            self._handed_on = completion.hold(held)
        for work in order(self.stages, cycles):
            if work.part.gathers:  # done by the script of the part before
                continue
            if self._supervisor.caught:
                self._stop()
            self._enter(work, cycles)
            with self._explained():
                done = completion.is_done(work)
            if not done:
                self._check()
                self._call(work.part, work.cycle)
            if work.part.name == "prepare":
                with self._explained():
                    self._prepared = completion.take_tables()
                # What they suggest is to be checked as well, by whatever stage comes next.
                self._checked &= not self._prepared
        if not self._checked:
            with self._explained():
                completion.note_configuration()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from local.jobs.exit_codes import explain

        try:
            yield
        except (CanopyError, OSError) as error:
            self._fail(explain(error))

    def _enter(self, work: Work, cycles: list[int]) -> None:
        now = f"stage {work.stage.number} ({work.stage.name})"
        if now != self._now:
            self._now, self._stage = now, work.stage.number
            say(now)
        if work.stage.repeated and work.part.name == work.stage.parts[0]:
            say(f"cycle {work.cycle} of {cycles[-1]}")

    def _check(self) -> None:
        """Check the whole configuration, once, before the first stage that has work to do."""
        if not self._checked:
            self._checked, now = True, self._now
            self._now = _CHECKED
            self._call(CHECK, 0)
            self._now = now

    def _command(self, part: Part, cycle: int) -> list[str]:
        tables = f"{self.values['dumpdir']}/tables"
        stages = " ".join(str(n) for n in self.stages if n >= self._stage)
        more = {"cycle": cycle, "out": tables, "stages": stages, "prepared": self._prepared}
        return command(part, self.values | more)

    def _call(self, part: Part, cycle: int) -> None:
        """Start a script and wait for its end; `Stopped` where that is the end of the run."""
        if self._supervisor.caught:
            self._stop()
        code = self._supervisor.call([self.python, *self._command(part, cycle)], *self._handed_on)
        if self._supervisor.aborted(code):
            raise Stopped(EXIT_ABORTED)
        if code == EXIT_CONTINUE:
            self._stop()
        if code != 0:
            self._fail(code)

    def _go_on(self, words: str) -> None:
        say(f"{words} {self.again} --stage {self._stage}")

    def _fail(self, code: int) -> None:
        self._go_on(
            f"{self._now} failed with exit code {code} (the reason is above); to go on once it is "
            "mended:"
        )
        raise Stopped(code)

    def _stop(self) -> None:
        caught = self._supervisor.caught or "a signal to one of its processes"
        if caught == "SIGUSR1" and os.environ.get("SLURM_JOB_ID"):
            self._requeue(os.environ["SLURM_JOB_ID"])
        self._go_on(
            f"{self._now} was stopped by {caught}; what is done is saved, and this goes on from "
            "there:"
        )
        raise Stopped(EXIT_CONTINUE)

    def _requeue(self, job: str) -> None:
        """Let a job that runs into its time limit go on, a bounded number of times."""
        times = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        given = os.environ.get("CANOPY_MAX_REQUEUES", "")
        most = int(given) if given.isdecimal() else MAX_REQUEUES
        if times >= most:
            say(f"not requeued: it was {times} times, CANOPY_MAX_REQUEUES is {most}")
            return
        try:
            subprocess.run(["scontrol", "requeue", job], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"not requeued: {error}")
            return
        say(f"job {job} is requeued, for the {times + 1}. time")
        self._supervisor.wait(_WAIT_FOR_END_S)
