"""Faults in every stage of the tiny demo; each must end, by the same command, in the same bytes.

    python -m tests.faults.harness [--quick | --short] [--only WORD] [--seed 0] [--jobs 2]

Prints a table: stage, faults tried, survived, lost; the exit code says whether any was lost. A
stage is left alone once and its points (see `dying`) are counted; then it is begun from the same
state again, meets a fault at a point or a time drawn from the seed, and is given the same commands
until they are done.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from tests.faults import dying, whole_run
from tests.faults.demo import STAGES, Demo, Lost, contents, differences
from tests.faults.dying import End, Fate
from tests.faults.outcome import Outcome, table, tell


@dataclass(frozen=True)
class Form:
    """How much is tried.

    `kills` are kills at points for each stage, a share `timed` of them at times; `others` are the
    stages that meet another kind of fault; `whole` are kills of run.sh with all it started, over
    the whole run or, where `training_only`, over its training.
    """

    kills: dict[str, int]
    others: dict[str, tuple[str, ...]]
    whole: int
    timed: float = 0.0
    training_only: bool = False


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
FORMS = {
    "full": Form(
        dict(zip(STAGES, (14, 6, 14, 14, 20, 8, 6, 10), strict=True)),
        {
            "kill, sounds": ("preprocess", "preprocess"),
            **dict.fromkeys(("three kills", *(number.name for number in _SIGNALS)), STAGES),
            **dict.fromkeys(("two runs", "full disk", "read-only folder"), STAGES),
            "clock set back": STAGES,
        },
        whole=12,
        timed=0.25,
    ),
    # For daily work: 24 kills, and each other kind somewhere.
    "quick": Form(
        dict(zip(STAGES, (3, 2, 4, 3, 4, 2, 2, 2), strict=True)),
        {
            **{"SIGINT": ("preprocess",), "SIGTERM": ("train",), "SIGUSR1": ("infer",)},
            **{"two runs": ("relabel",), "full disk": ("split", "detect")},
            **{"read-only folder": ("submit",), "clock set back": ("train",)},
        },
        whole=2,
    ),
    # For `make test`.
    "short": Form(
        dict(zip(STAGES, (2, 1, 2, 2, 2, 1, 1, 1), strict=True)),
        {"two runs": ("split",), "full disk": ("split",), "clock set back": ("train",)},
        whole=1,
        training_only=True,
    ),
}
# Room on the small disk: less than what a stage writes.
FREE_BYTES = {"split": 4 * 1024, "export": 16 * 1024, "detect": 8 * 1024}
FREE_BYTES_ELSE = 64 * 1024


@dataclass(frozen=True)
class Trial:
    """One stage and what happens in it: the first command that is not whole gets the next fate.

    A whole run has `blows` in place of fates.
    """

    stage: str
    kind: str
    fates: tuple[tuple[int, Fate], ...] = ()
    blows: tuple[whole_run.Blow, ...] = ()


@dataclass(frozen=True)
class Reference:
    """The unbroken run: state before each stage, what stands after it, points and seconds.

    `n_simulation` points pass until there are sounds and tables; `data` are the sounds. `by_shell`
    is the run of run.sh.
    """

    before: dict[str, Demo]
    after: dict[str, dict[str, str]]
    ends: dict[str, list[End]]
    n_simulation: int
    data: dict[str, str]
    by_shell: whole_run.Unbroken | None = None


def unbroken(home: Path) -> Reference:
    """Run all stages once, nothing amiss."""
    log = home / "log"
    demo = Demo(home / "data", home / "unbroken", log)
    demo.home.mkdir(parents=True)
    # The sounds are made once, for all.
    simulation = Demo(demo.data, home / "simulation", log).commands("preprocess")[0]
    points = dying.run(simulation, None, demo.log).n_points
    before, after, ends = {}, {}, {}
    for stage in STAGES:
        before[stage] = demo.copy_to(home / f"before-{stage}", log)
        ends[stage] = [dying.run(command, None, demo.log) for command in demo.commands(stage)]
        for end in ends[stage]:
            if end.code:
                raise RuntimeError(f"stage {stage} ended with code {end.code}: {end.told}")
        after[stage] = contents(demo.home)
    return Reference(before, after, ends, points, contents(demo.data))


# ----------------------------------------------------------------------------------- what is tried


def trials(reference: Reference, form: Form, seed: int) -> list[Trial]:
    """All trials: kills in the order of stages, the other kinds, run.sh."""
    rng, made = random.Random(seed), []
    for stage in STAGES:
        ends = reference.ends[stage]
        n_timed = round(form.timed * form.kills[stage])
        n = form.kills[stage] - n_timed
        for i in range(n):
            fate = _point(ends, (i + rng.random()) / n, signal.SIGKILL)
            made.append(Trial(stage, "kill", (fate,)))
        for _ in range(n_timed):
            command = rng.choices(range(len(ends)), [end.seconds for end in ends])[0]
            after = rng.random() * ends[command].seconds
            made.append(Trial(stage, "kill by time", ((command, Fate(after_s=after)),)))
    made += [
        Trial(stage, kind, _other_fates(kind, stage, reference, rng))
        for kind, stages in form.others.items()
        for stage in stages
    ]
    found = whole_run.blows(form.whole, seed)
    if form is not FORMS["full"]:
        found = {"kill of all": found["kill of all"]}
    made += [
        Trial(whole_run.STAGE, kind, blows=blows) for kind, some in found.items() for blows in some
    ]
    return made


def _other_fates(
    kind: str, stage: str, reference: Reference, rng: random.Random
) -> tuple[tuple[int, Fate], ...]:
    """What processes meet besides single kills; nothing where disks or locks are the fault."""
    ends = reference.ends[stage]
    if kind == "kill, sounds":
        return ((0, Fate(at=rng.randrange(reference.n_simulation))),)
    if kind == "three kills":
        return tuple(_point(ends, at, signal.SIGKILL) for at in sorted(rng.random() for _ in "123"))
    if kind == "clock set back":
        return (_point(ends, rng.random(), signal.SIGKILL),)
    return tuple(_point(ends, rng.random(), each) for each in _SIGNALS if each.name == kind)


def _point(ends: list[End], share: float, number: int) -> tuple[int, Fate]:
    """The command and the point at a share of all points of a stage."""
    at = int(share * sum(end.n_points for end in ends))
    for command, end in enumerate(ends):
        if at < end.n_points:
            return command, Fate(number, at + 1)
        at -= end.n_points
    raise ValueError("a share is below 1")


# --------------------------------------------------------------------------------------- one trial


def try_it(trial: Trial, reference: Reference, home: Path) -> Outcome:
    """Let a trial happen in a folder of its own and judge it."""
    where, fault = "", ""
    try:
        if trial.kind == "kill, sounds":
            return Outcome(trial.stage, trial.kind, 1, _simulate(trial, reference, home), "")
        meet = {"two runs": _two_runs, "full disk": _full_disk, "read-only folder": _read_only}
        run = reference.by_shell if trial.blows else None
        before = run.before if run else reference.before[trial.stage]
        with _copied(before, home, trial) as demo:
            if run:
                where = whole_run.suffer(demo, run, trial.blows)
            else:
                where = meet.get(trial.kind, _fates)(trial, demo)
                _finish(demo, trial.stage)
            found = contents(demo.home)
        words = differences(found, run.after if run else reference.after[trial.stage])
        if words:
            raise Lost(f"{len(words)} files: " + "; ".join(words[:4]))
    except Lost as lost:
        fault = str(lost)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        fault = f"the harness itself: {error!r}"
    n = len(trial.fates) or len(trial.blows) or int(where != "skipped")
    if "kill" in trial.kind:
        # One that came after the end was none.
        n -= sum(place.endswith(": 0") for place in where.split(", "))
    return Outcome(trial.stage, trial.kind, n, where, fault)


class _copied:  # noqa: N801 (a context manager, used as one)
    """The state before a stage in a folder of its own, on a small disk where one is needed."""

    def __init__(self, demo: Demo, home: Path, trial: Trial) -> None:
        self._before, self._home = demo, home
        self._mounted = trial.kind == "full disk" and _mount(home, "-t", "tmpfs", "none")

    def __enter__(self) -> Demo:
        self._home.mkdir(exist_ok=True)
        # Not on the small disk.
        return self._before.copy_to(self._home / "demo", self._home.with_suffix(".log"))

    def __exit__(self, *_: object) -> None:
        if self._mounted:
            subprocess.run(["umount", "-l", str(self._home)], check=True)
        shutil.rmtree(self._home, ignore_errors=True)


def _mount(folder: Path, *options: str) -> bool:
    folder.mkdir(exist_ok=True)
    try:
        ran = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return ran.returncode == 0


def _run(demo: Demo, command: list[str], fate: Fate | None = None) -> End:
    end = dying.run(command, fate, demo.log)
    if "Traceback" in end.told or end.code == dying.CRASHED:
        raise Lost(f"{command[0]} ended with a traceback: {end.told.strip()[-200:]}")
    return end


def _finish(demo: Demo, stage: str, clock_back: bool = False) -> None:
    """The same commands again, to their end."""
    for command in demo.commands(stage):
        end = _run(demo, command, Fate(clock_back=True) if clock_back else None)
        if end.code:
            words = end.told.strip().splitlines()[-1:] or [""]
            raise Lost(f"{command[0]}, given again, ended with code {end.code}: {words[0]}")


def _fates(trial: Trial, demo: Demo) -> str:
    """Signals that end a process, or ask it to end, at points or at times."""
    met = []
    for number, fate in trial.fates:
        for command in demo.commands(trial.stage)[:number]:
            _run(demo, command)
        command = demo.commands(trial.stage)[number]
        end = _run(demo, command, fate)
        expected = {0, -fate.number, dying_asked(fate.number)}
        if end.code not in expected:
            raise Lost(f"{command[0]} ended with code {end.code}: {end.told.strip()[-200:]}")
        place = f"point {fate.at}" if fate.after_s is None else f"{fate.after_s:.2f} s"
        met.append(f"{Path(command[0]).stem} at {place}: {end.code}")
    if trial.kind == "clock set back":
        for path in demo.home.rglob("*"):
            later = time.time() + dying.YEARS_S
            os.utime(path, (later, later))
        _finish(demo, trial.stage, clock_back=True)
    return ", ".join(met)


def _simulate(trial: Trial, reference: Reference, home: Path) -> str:
    """A kill while the sounds of the demo are made."""
    demo = Demo(home / "data", home / "demo", home.with_suffix(".log"))
    demo.home.mkdir(parents=True)
    where = _fates(trial, demo)
    _run(demo, demo.commands("preprocess")[0])
    words = differences(contents(demo.data), reference.data)
    shutil.rmtree(home)
    if words:
        raise Lost("; ".join(words[:4]))
    return where


def dying_asked(number: int) -> int:
    """Exit code of a process that was asked to stop by this signal and did."""
    return 0 if number == signal.SIGKILL else 75


def _two_runs(trial: Trial, demo: Demo) -> str:
    """Each command twice at once: one does it; the other is refused in a sentence, or finds it."""
    refused = 0
    for command in demo.commands(trial.stage):
        logs = [demo.log.with_suffix(f".{i}") for i in (0, 1)]
        begun = [dying.begin(command, None, log) for log in logs]
        codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in begun]
        for code, log in zip(codes, logs, strict=True):
            told = log.read_text()
            if code and "is being worked on by process" not in told.splitlines()[-1]:
                raise Lost(f"{command[0]} beside another ended with code {code}: {told[-200:]}")
            refused += code != 0
            log.unlink()
            log.with_suffix(".points").unlink(missing_ok=True)
        if 0 not in codes:
            raise Lost(f"{command[0]}: of two at once none was done")
    return f"{refused} refused"


def _full_disk(trial: Trial, demo: Demo) -> str:
    """A disk with little room, until it says so; then there is room."""
    disk = demo.home.parent
    if not os.path.ismount(disk):
        return "skipped"
    usage = shutil.disk_usage(disk)
    _resize(disk, usage.used + FREE_BYTES.get(trial.stage, FREE_BYTES_ELSE))
    told = ""
    for command in demo.commands(trial.stage):
        end = _run(demo, command)
        if end.code:
            told = _one_sentence(command, end, ("disk is full", "are free"))
            break
    _resize(disk, 2**30)
    if not told:
        raise Lost("it found room where there is none")
    return told


def _resize(disk: Path, n_bytes: int) -> None:
    options = f"remount,size={n_bytes // 4096 * 4}k"
    subprocess.run(["mount", "-o", options, str(disk)], check=True)


def _read_only(trial: Trial, demo: Demo) -> str:
    """Folders that cannot be written to, until they can."""
    home = str(demo.home)
    if not _mount(demo.home, "--bind", home):
        return "skipped"
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", home], check=True)
        command = demo.commands(trial.stage)[0]
        end = _run(demo, command)
        return _one_sentence(command, end, ("read-only",))
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def _one_sentence(command: list[str], end: End, words: tuple[str, ...]) -> str:
    errors = [line for line in end.told.splitlines() if line.startswith("error: ")]
    if end.code != 1 or len(errors) != 1 or not any(word in errors[0] for word in words):
        raise Lost(f"{command[0]} ended with code {end.code}: {end.told.strip()[-300:]}")
    return errors[0].removeprefix("error: ")[-120:]


# -------------------------------------------------------------------------------------------- all


def try_all(chosen: list[Trial], reference: Reference, home: Path, jobs: int) -> Iterator[Outcome]:
    """Outcomes, as they come."""
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        futures = [
            pool.submit(try_it, trial, reference, home / f"trial{number}")
            for number, trial in enumerate(chosen)
        ]
        for future in as_completed(futures):
            yield future.result()


def bad_files() -> Iterator[Outcome]:
    """The corpus of bad files, as one row of the table."""
    command = [sys.executable, "-m", "tests.badfiles.corpus", "--json"]
    ran = subprocess.run(command, cwd=dying.ROOT, stdout=subprocess.PIPE, text=True, check=False)
    for row in map(json.loads, ran.stdout.splitlines()):
        yield Outcome("readers", "bad file", 1, row["kind"], row["fault"])


def main(argv: list[str] | None = None) -> int:
    """Try all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    forms = parser.add_mutually_exclusive_group()
    for name, words in (("quick", "24 kills and each other kind once"), ("short", "fewer still")):
        forms.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=words)
    parser.add_argument("--only", default="", help="trials whose stage or kind holds this word")
    parser.add_argument("--seed", type=int, default=0, help="decides where the faults come")
    parser.add_argument("--jobs", type=int, default=2, help="trials at once")
    parser.add_argument("--json", action="store_true", help="a line for each trial, no table")
    args = parser.parse_args(argv)
    form = FORMS[args.form or "full"]
    home = Path(tempfile.mkdtemp(prefix="faults"))
    outcomes: list[Outcome] = []
    try:
        dying.preload()
        reference = unbroken(home)
        chosen = trials(reference, form, args.seed)
        chosen = [trial for trial in chosen if args.only in f"{trial.stage} {trial.kind}"]
        if any(trial.blows for trial in chosen):
            stages = ("train", "train") if form.training_only else ("preprocess", "submit")
            run = whole_run.unbroken(reference.before[stages[0]], home / "whole", stages)
            reference = replace(reference, by_shell=run)
        for one in try_all(chosen, reference, home, args.jobs):
            outcomes.append(one)
            tell(one, args.json)
        if args.form is None and not args.only:
            outcomes += bad_files()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if not args.json:
        print(table(outcomes))
    return int(any(one.fault for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
