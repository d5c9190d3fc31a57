"""Running the ladder: one command after the other, seeds side by side, finished ones passed over.

Whether a stage is done is decided by its own stamp; what is kept here is only how long it took.
"""

import filecmp
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local.config import Config
from local.io.errors import CanopyError
from local.io.files import atomic_path, fingerprint, is_temporary, read_json, write_json
from local.jobs.locks import LOCK_NAME
from recipes.rfcx.ladder.rungs import BLENDED, COMMON, RUNS, LadderRun

ROOT = Path(__file__).resolve().parents[3]
# What training leaves that inference and scoring do not look at, and what they write themselves.
_NOT_COPIED = ("last.pt", "previous.pt", "scores.npz", "infer.done.json")
_NOT_COPIED += ("oof.npz", "test.npz", "merge.done.json", "infer.journal", LOCK_NAME)

Runner = Callable[[list[str], Path], None]


@dataclass(frozen=True)
class Plan:
    """What was asked for, and where it lies.

    config: the default configuration, resolved. cycles: relabelling cycles of the climb.
    """

    conf: Path
    config: Config
    expdir: Path
    seeds: list[int]
    runs: list[str]
    epochs: int | None
    cycles: int
    device: str
    jobs: int
    nj: int

    @property
    def chosen(self) -> list[LadderRun]:
        """The runs asked for, in order."""
        return [run for run in RUNS if run.name in self.runs]

    @property
    def default_cycles(self) -> int:
        """The cycle that the default configuration ends with."""
        return self.config.relabel.n_cycles

    def folder(self, run: str, seed: int) -> Path:
        """EXPDIR/TAG of a run."""
        return self.expdir / f"seed{seed}" / run

    def data(self, seed: int, full_truth: bool = False) -> Path:
        """Data folder of a seed's competition, or of the one whose train set is fully labelled."""
        return self.expdir / "data" / f"{'truth' if full_truth else 'seed'}{seed}"

    def dump(self, seed: int, full_truth: bool = False) -> Path:
        """Tables and features of the same."""
        return self.expdir / "dump" / f"{'truth' if full_truth else 'seed'}{seed}"

    def truth(self, seed: int) -> Path:
        """Clip-level truth of a seed's test recordings; the climb opens it last, to score."""
        name = self.config.score.test_truth
        if name is None:
            raise CanopyError(f"{self.conf} has no score.test_truth; the ladder needs one")
        return self.data(seed) / name


# -------------------------------------------------------------------------------------- commands


def options(plan: Plan, run: LadderRun, seed: int) -> list[str]:
    """Options that say which run, of all stages."""
    full = run.full_truth
    settings = [*COMMON, f"seed={seed}", f"prepare.seed={seed}", *run.settings]
    if plan.epochs is not None:
        settings.append(f"train.n_epochs={plan.epochs}")
    cycles = plan.cycles if run.relabels else plan.default_cycles if run.kind == "infer" else 0
    # Every cycle is a rung, also one that falls.
    settings += [f"relabel.n_cycles={cycles}", "relabel.max_fall=null"]
    command = ["--recipe", "demo", "--conf", str(plan.conf), "--tag", run.name]
    command += ["--datadir", str(plan.data(seed, full)), "--dumpdir", str(plan.dump(seed, full))]
    command += ["--expdir", str(plan.expdir / f"seed{seed}")]
    command += ["--device", plan.device, "--nj", str(plan.nj)]
    return [*command, *(part for setting in settings for part in ("--set", setting))]


def data_command(plan: Plan, seed: int) -> list[str]:
    """Makes the seed's competition and its features."""
    run = LadderRun("data")
    return ["./run.sh", *options(plan, run, seed), "--stop-stage", "0"]


def commands(plan: Plan, run: LadderRun, seed: int) -> list[list[str]]:
    """Everything that makes one run of one seed, in order."""
    if run.kind == "blend":
        members = [str(plan.folder(name, seed)) for name in blended(plan)]
        out = str(plan.folder(run.name, seed))
        return [[sys.executable, "bin/blend.py", *members, "--out", out, *run.options]]
    base = options(plan, run, seed)
    if run.kind == "train":
        return [["./run.sh", *base]]
    cycle = str(plan.default_cycles)
    return [
        ["./run.sh", *base, "--stop-stage", "0"],
        [sys.executable, "bin/sed_infer.py", *base, "--cycle", cycle],
        ["./run.sh", *base, "--stage", "5"],
    ]


def blended(plan: Plan) -> list[str]:
    """Runs that the blends take."""
    return [name for name in BLENDED if name in plan.runs]


def shown(command: list[str]) -> str:
    """A command as a person would type it in the project's folder."""
    words = [".venv/bin/python" if word == sys.executable else word for word in command]
    return shlex.join(words)


def run_command(command: list[str], log: Path) -> None:
    """Run a command in the project's folder; all it says is added to `log`.

    Raises
    ------
    CanopyError
        It failed; the last line of what it said is quoted.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(f"$ {shown(command)}\n")
        stream.flush()
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=stream, check=False
        )
    if ran.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("error: ", "run.sh: "))]
        reason = (told or lines)[-1].removeprefix("error: ")
        raise CanopyError(
            f"{log.stem} ended with code {ran.returncode} ({reason}); {log} has all it said, and "
            "the same command goes on from what is done"
        )


# ----------------------------------------------------------------------------------------- folders


def full_truth_folder(data: Path, target: Path) -> None:
    """A competition like `data` whose confirmed rows are all calls of the train recordings.

    Everything is linked, nothing copied.
    """
    names = ("train", "test", "truth", "simulation.json", "sites.csv", "sample_submission.csv")
    links = {name: name for name in (*names, "train_fp.csv")}
    links["train_tp.csv"] = "truth/train_events.csv"
    for name, source in links.items():
        _link(target / name, data / source)


def inference_folder(source: Path, target: Path, cycle: int) -> None:
    """A run beside `source` with its models of `cycle`, for inference of its own.

    Cycles before are linked. Files that are alike are left as they are, so that the stamps of what
    was done there before hold as long as the models are the same.
    """
    _copy(source / "folds.csv", target / "folds.csv")
    for before in range(cycle):
        _link(target / f"cycle{before}", source / f"cycle{before}")
    trained = source / f"cycle{cycle}"
    files = [*sorted(trained.glob("*")), *sorted(trained.glob("fold*/*"))]
    for path in files:
        # Folds that were trained anew have left what they were before.
        aside = ".old-" in path.parent.name
        if path.is_file() and not aside and path.name not in _NOT_COPIED and not is_temporary(path):
            _copy(path, target / path.relative_to(source))


def _link(link: Path, source: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(source.resolve(), link.parent.resolve()))


def _copy(source: Path, target: Path) -> None:
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


# ------------------------------------------------------------------------------------------ running


@dataclass
class Clock:
    """How long each run took: kept in a file, so that a ladder that goes on still knows.

    Times of one and the same command add up until it has ended well; after that they stay.
    """

    path: Path
    records: dict[str, dict] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def open(path: Path) -> "Clock":
        """The clock of an earlier ladder in this folder, or a new one."""
        return Clock(path, read_json(path) if path.is_file() else {})

    def is_done(self, key: str, mark: str) -> bool:
        """Whether the very same has ended well before."""
        record = self.records.get(key, {})
        return bool(record.get("done")) and record["mark"] == mark

    def add(self, key: str, mark: str, seconds: float, done: bool) -> None:
        """Note some seconds."""
        with self.lock:
            record = self.records.get(key)
            if record is None or record["mark"] != mark:
                record = {"mark": mark, "seconds": 0.0, "done": False}
            if not record["done"]:
                record = {**record, "seconds": record["seconds"] + seconds, "done": done}
            self.records[key] = record
            write_json(self.path, self.records)

    def seconds(self, run: str, seed: int) -> float:
        """What a run of a seed took; NaN when it never ran."""
        return self.records.get(f"{run}/{seed}", {}).get("seconds", float("nan"))


def climb(plan: Plan, runner: Runner = run_command) -> Clock:
    """Run everything that is not done; say what is going on, and how long it will take."""
    clock = Clock.open(plan.expdir / "seconds.json")
    progress = _Progress(plan, clock)
    stop = threading.Event()

    def one_seed(seed: int) -> None:
        try:
            _climb_seed(plan, seed, runner, progress, stop)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(plan.jobs) as pool:
        futures = [pool.submit(one_seed, seed) for seed in plan.seeds]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return clock


def _climb_seed(
    plan: Plan, seed: int, runner: Runner, progress: "_Progress", stop: threading.Event
) -> None:
    log = plan.expdir / "logs"
    if any(run.kind == "train" for run in plan.chosen):
        runner(data_command(plan, seed), log / f"seed{seed}-data.log")
    for run in plan.chosen:
        if stop.is_set():
            return
        with progress.step(run, seed):
            if run.full_truth:
                full_truth_folder(plan.data(seed), plan.data(seed, full_truth=True))
            if run.base is not None:
                base = plan.folder(run.base, seed)
                inference_folder(base, plan.folder(run.name, seed), plan.default_cycles)
            for command in commands(plan, run, seed):
                runner(command, log / f"seed{seed}-{run.name}.log")


class _Progress:
    """A line at the beginning and at the end of every run, with the time that is left."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self.plan, self.clock = plan, clock
        self.steps = [(run, seed) for seed in plan.seeds for run in plan.chosen]
        self.passed: set[tuple[str, int]] = set()

    @contextmanager
    def step(self, run: LadderRun, seed: int) -> Iterator[None]:
        """Around one run of one seed; it is timed also when it fails."""
        self.say(f"seed {seed}, {run.name} begins")
        begun, done = time.monotonic(), False
        try:
            yield
            done = True
        finally:
            seconds = time.monotonic() - begun
            self.clock.add(f"{run.name}/{seed}", self.mark(run, seed), seconds, done)
        self.passed.add((run.name, seed))
        self.say(f"seed {seed}, {run.name}: {minutes(seconds)}")

    def mark(self, run: LadderRun, seed: int) -> str:
        """What the time of a run belongs to: its commands and the whole configuration."""
        config = self.plan.config.model_dump(mode="json")
        words = [shown(command) for command in commands(self.plan, run, seed)]
        return fingerprint({"commands": words, "config": config})[:12]

    def cost(self, run: LadderRun) -> float:
        """Trainings of one cycle that a run takes, roughly."""
        return run.cost * (1 + self.plan.cycles) if run.relabels else run.cost

    def left(self) -> float | None:
        """Seconds that are left, by the speed so far; None before anything has been measured."""
        spent, measured, waiting = 0.0, 0.0, 0.0
        for run, seed in self.steps:
            key = f"{run.name}/{seed}"
            if self.clock.is_done(key, self.mark(run, seed)):
                spent += self.clock.records[key]["seconds"]
                measured += self.cost(run)
            elif (run.name, seed) not in self.passed:
                waiting += self.cost(run)
        at_once = min(self.plan.jobs, len(self.plan.seeds))
        return spent / measured * waiting / at_once if measured else None

    def say(self, what: str) -> None:
        """One line, with the position and the time that is left."""
        left = self.left()
        time_left = "" if left is None else f"; about {minutes(left)} left"
        where = f"{len(self.passed)} of {len(self.steps)} done"
        print(f"ladder: {what} ({where}{time_left})", file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
