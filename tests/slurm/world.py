"""A cluster of this one machine, a folder, and the local runs that its runs are compared with."""

import filecmp
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from local.io.files import read_json
from local.slurm.sent_jobs import Home, Submission
from local.slurm.status import live_ids

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "tests/slurm/cluster.sh"
NEEDS = "mem = 500M\ncpus-per-task = 1\ntime = 00:10:00\ngres =\nthreads = {threads}\n"
MORE = {"preprocess": "shards = 3\n", "infer": "shards = 2\n", "detect": "shards = 2\n"}
STAGES = ("prepare", "preprocess", "split", "train", "infer", "merge", "relabel", "submit")
# Seconds that a training must last: Slurm looks for ended time limits every 30.
LONG_S = 32
MODELS = ("cycle0/fold0/best.pt", "cycle0/fold1/best.pt")


class OutOfTime(Exception):  # noqa: N818 (nothing failed)
    """What all tests may take is over."""


class Skipped(Exception):  # noqa: N818 (nothing failed)
    """This machine cannot show it."""


class World:
    """deadline : on the monotonic clock; what goes on then is left."""

    def __init__(self, folder: Path, deadline: float) -> None:
        self.folder, self.deadline = folder, deadline
        # What is asked of Slurm from this process reads it as well.
        os.environ["SLURM_CONF"] = str(folder / "slurm/slurm.conf")
        self.environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.environment.pop("OMP_NUM_THREADS", None)
        self.lock = threading.Lock()
        # As many as a local run of two processes gives to each: threads decide the last digits.
        self.threads = max(1, (os.cpu_count() or 1) // 2)
        self.needs = NEEDS.format(threads=self.threads)
        self.site = self.write_conf("site.conf")

    def nodes(self) -> list[str]:
        """Names of the nodes."""
        return self.call("sinfo", "--noheader", "--Node", "--partition=all", "--format=%N").split()

    def write_conf(self, name: str, **more: str) -> Path:
        """Settings that fit this machine; `more` for a stage replaces text, as `old|new`."""
        lines = {stage: self.needs + MORE.get(stage, "") for stage in (*STAGES, "detect")}
        lines |= {stage: lines[stage].replace(*text.split("|")) for stage, text in more.items()}
        path = self.folder / name
        path.write_text("".join(f"[{stage}]\n{text}" for stage, text in lines.items()))
        return path

    def options(self, name: str, data: str) -> list[str]:
        """Options of a run `name` on the data and dump of `data`."""
        folder = self.folder
        places = ["--datadir", f"{folder}/{data}/data", "--dumpdir", f"{folder}/{data}/dump"]
        places += ["--conf", str(ROOT / "conf/demo/tiny.yaml"), "--device", "cpu"]
        return [*places, "--expdir", f"{folder}/{name}/exp"]

    def exp(self, name: str) -> Path:
        """Folder of a run."""
        return self.folder / name / "exp/tiny"

    def call(self, *command: object, code: int | None = 0, **environment: str) -> str:
        """What a command says; another exit code than `code` fails the test."""
        try:
            ran = subprocess.run(
                list(map(str, command)),
                cwd=ROOT,
                env=self.environment | environment,
                capture_output=True,
                text=True,
                timeout=max(1.0, self.deadline - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OutOfTime from None
        said = ran.stdout + ran.stderr
        if code is not None and ran.returncode != code:
            raise AssertionError(f"{command[0]}: code {ran.returncode}: {said[-2000:]}")
        return said

    def short(self) -> Path:
        """A local run of all stages with one cycle of relabelling, made once."""
        with self.lock:
            exp = self.exp("short")
            if not (exp / "submission.csv").is_file():
                self.call("./run.sh", *self.options("short", "short"), "--nj", 2, "--n-cycles", 1)
        return exp

    def long(self) -> tuple[Path, list[str]]:
        """A local training of half a minute on the short run's folds, and its options."""
        epoch_s = pd.read_csv(self.short() / "cycle0/fold0/timing.csv")["seconds"].min()
        n_epochs = min(400, max(20, round(LONG_S / epoch_s)))
        options = [f"train.n_epochs={n_epochs}", f"train.validate_every={n_epochs}"]
        options = [word for option in options for word in ("--set", option)]
        options += ["--n-cycles", "0", "--stage", "2", "--stop-stage", "2"]
        with self.lock:
            exp = self.exp("long")
            if not (exp / MODELS[1]).is_file():
                self.at_split("long")
                self.call("./run.sh", *self.options("long", "short"), "--nj", 2, *options)
        return exp, options

    def at_split(self, name: str) -> None:
        """Begin a run after stage 1 of the short one, so that it need not be made again."""
        self.exp(name).mkdir(parents=True, exist_ok=True)
        for file in ("folds.csv", "split.done.json"):
            shutil.copy(self.exp("short") / file, self.exp(name) / file)

    def submit(
        self, name: str, data: str, *options: object, conf: Path | None = None, **more: object
    ) -> str:
        """Hand a run in; what it says."""
        launcher = ("--launcher", "slurm", "--slurm-conf", conf or self.site)
        return self.call("./run.sh", *self.options(name, data), *launcher, *options, **more)

    def cluster(self, *options: object, code: int | None = 0) -> str:
        """Call bin/cluster.py."""
        return self.call(sys.executable, "bin/cluster.py", *options, code=code)

    def over(self, exp: Path) -> bool:
        """Whether nothing of a run, or of detections, waits or runs."""
        return not live_ids(Submission.load(Home.find(exp).submissions()[-1]))

    def wait(self, exp: Path) -> str:
        """Until nothing of a run waits or runs; what the state command says then."""
        self.until(lambda: self.over(exp), f"{exp} to end")
        return self.cluster("status", exp, code=None)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something, not for ever."""
        while not condition():
            if time.monotonic() > self.deadline:
                raise OutOfTime(f"waited for {what}")
            time.sleep(0.5)

    def training(self, exp: Path, fold: int) -> None:
        """Until a fold is in its training."""
        self.until(lambda: self.epochs(exp, fold) > 4, f"fold {fold} to be in its training")

    def epochs(self, exp: Path, fold: int) -> int:
        """Epochs of a fold that ended, as the log of its task tells."""
        logs = exp.glob(f"cluster/0*/logs/train-cycle0-fold{fold}.log")
        return sum(path.read_text().count(" windows/s") for path in logs)

    def arrays(self, exp: Path) -> dict[str, str]:
        """Array indices of the jobs of the newest submission."""
        newest = sorted(exp.glob("cluster/0*"))[-1]
        scripts = {path.stem: path.read_text() for path in newest.glob("scripts/*.sh")}
        return {name: text.split("--array=")[1].split("\n")[0] for name, text in scripts.items()}

    def task(self, exp: Path, name: str) -> dict:
        """What a task wrote of itself; nothing before it began."""
        path = exp / f"cluster/tasks/{name}.json"
        return read_json(path) if path.is_file() else {}


def check(condition: object, words: object) -> None:
    """Fail a test."""
    if not condition:
        raise AssertionError(str(words))


def same(a: Path, b: Path, *names: str) -> None:
    """Files that must be the same to the byte."""
    for name in names:
        check((b / name).is_file(), f"{b / name} is not there")
        check(filecmp.cmp(a / name, b / name, shallow=False), f"{b / name} differs from {a / name}")
