"""Faults of whole runs: all that run.sh started dies, or its shell alone, or it is asked to stop.

What a user gives is one command, and what dies is mostly all of it: a terminal that closes, a
machine that stops, memory that ends. So the command is `./run.sh`, its process group is killed at a
moment of the whole run, and the same command is given again.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.demo import Demo, Lost, contents
from tests.faults.dying import ROOT

STAGE = "run.sh"
# As many processes at once, so that workers and folds die beside each other.
_PROCESSES = 2
# What a killed shell's children may take to end their step, and a run to end at all.
_PATIENCE_S, _TIME_LIMIT_S = 120, 900
_TITLES = re.compile(r"run\.sh: stage \d \((\w+)\)")


@dataclass(frozen=True)
class Blow:
    """`number` is sent after a share of the unbroken run, to all or to the shell alone."""

    number: int
    share: float
    to_all: bool = True


@dataclass(frozen=True)
class Unbroken:
    """A whole run that was left alone: what it began from, what it wrote, how long it took."""

    before: Demo
    after: dict[str, str]
    seconds: float
    stages: tuple[str, str]


def unbroken(before: Demo, home: Path, stages: tuple[str, str]) -> Unbroken:
    """Run the stages from the first to the last once, from this state."""
    demo = before.copy_to(home, before.log)
    begun = time.monotonic()
    code, told = finish(demo, stages)
    if code:
        raise RuntimeError(f"run.sh ended with code {code}: {told[-600:]}")
    return Unbroken(before, contents(demo.home), time.monotonic() - begun, stages)


def blows(n: int, seed: int) -> dict[str, list[tuple[Blow, ...]]]:
    """By kind, `n` kills of all evenly over the run, and a few of the others."""
    rng = random.Random(seed)
    kill = signal.SIGKILL
    found = {
        "kill of all": [(Blow(kill, (i + rng.random()) / n),) for i in range(n)],
        "kill of all, thrice": [tuple(Blow(kill, 0.1 + 0.6 * rng.random()) for _ in "123")],
        "kill of the shell": [
            (Blow(kill, (i + rng.random()) / max(1, n // 4), to_all=False),)
            for i in range(max(1, n // 4))
        ],
    }
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        found[number.name] = [(Blow(number, 0.1 + 0.8 * rng.random(), to_all=False),)]
    return found


def suffer(demo: Demo, run: Unbroken, fates: tuple[Blow, ...]) -> str:
    """Let a run meet its blows, then give the same command until it is done; where they met it."""
    met = []
    for blow in fates:
        start = _size(demo.log)
        process = begin(demo, run.stages)
        try:
            process.wait(blow.share * run.seconds)
        except subprocess.TimeoutExpired:
            (os.killpg if blow.to_all else os.kill)(process.pid, blow.number)
        code = process.wait(_TIME_LIMIT_S)
        told = _told(demo, start)
        if code not in (0, -signal.SIGKILL if blow.number == signal.SIGKILL else 75):
            raise Lost(f"run.sh ended with code {code}: {told.strip()[-300:]}")
        stage = ([*_TITLES.findall(told)] or ["check"])[-1]
        met.append(f"{stage} at {blow.share * run.seconds:.1f} s: {code}")
    begun = time.monotonic()
    code, told = finish(demo, run.stages)
    while code == 1 and "what is left of process" in told and not fates[-1].to_all:
        if time.monotonic() - begun > _PATIENCE_S:
            raise Lost("what the killed shell had started did not end")
        time.sleep(1)
        code, told = finish(demo, run.stages)
    if code or "Traceback" in told:
        raise Lost(f"run.sh, given again, ended with code {code}: {told.strip()[-300:]}")
    return ", ".join(met)


def begin(demo: Demo, stages: tuple[str, str]) -> subprocess.Popen:
    """Start run.sh in a process group of its own; what it says is added to the log."""
    environment = os.environ | {"VENV": os.environ.get("VENV", sys.prefix)}
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_SUBMIT_DIR", "SLURM_TMPDIR"):
        environment.pop(name, None)
    command = [str(ROOT / "run.sh"), "--stage", stages[0], "--stop-stage", stages[1]]
    with open(demo.log, "ab") as log:
        return subprocess.Popen(
            [*command, *demo.options(_PROCESSES)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(demo: Demo, stages: tuple[str, str]) -> tuple[int, str]:
    """Exit code of run.sh left alone, and what it said."""
    start = _size(demo.log)
    code = begin(demo, stages).wait(_TIME_LIMIT_S)
    return code, _told(demo, start)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _told(demo: Demo, start: int) -> str:
    return demo.log.read_bytes()[start:].decode(errors="replace")
