"""The tiny demo on a real Slurm of this one machine: what comes out must be what a local run gives.

    python -m tests.slurm.run [--seconds N] [--only NAME ...] [--keep FOLDER]

Prints a table. Where Slurm cannot be started it says why and ends well, for nothing was tested
(--required makes that a failure). What does not begin within N seconds is reported as not run.
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from local.files import read_json

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "tests/slurm/cluster.sh"
LONG = ("--set", "train.n_epochs=120", "--set", "train.validate_every=120", "--n-cycles", "0")
PATIENCE_S = 600
NEEDS = "mem = 2G\ncpus-per-task = 1\ntime = 00:10:00\ngres =\nthreads = {threads}\n"
MORE = {"preprocess": "shards = 3\n", "infer": "shards = 2\n"}
STAGES = ("prepare", "preprocess", "split", "train", "infer", "merge", "relabel", "submit")


class OutOfTime(Exception):  # noqa: N818 (nothing failed)
    """What a test may take in all is over."""


class World:
    """One cluster, one folder, and the local runs to compare with.

    deadline : on the monotonic clock; what goes on then is left.
    """

    def __init__(self, folder: Path, deadline: float) -> None:
        self.folder, self.deadline = folder, deadline
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm/slurm.conf")}
        self.environment |= {"PYTHONPATH": str(ROOT)}
        self.environment.pop("OMP_NUM_THREADS", None)
        # As many as a local run of two processes gives to each: threads decide the last digits.
        self.needs = NEEDS.format(threads=max(1, (os.cpu_count() or 1) // 2))
        self.write_conf("site.conf")

    def write_conf(self, name: str, **more: str) -> Path:
        """Settings that fit this machine, with further lines for some stages."""
        lines = {stage: self.needs + MORE.get(stage, "") for stage in STAGES}
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

    def call(self, *command: object, code: int | None = 0) -> str:
        """Output of a command; another exit code than `code` fails the test."""
        try:
            ran = subprocess.run(
                list(map(str, command)),
                cwd=ROOT,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=max(1.0, self.deadline - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OutOfTime from None
        if code is not None and ran.returncode != code:
            raise AssertionError(f"{command[0]}: code {ran.returncode}: {ran.stderr[-2000:]}")
        return ran.stdout + ran.stderr

    def local(self, name: str, *options: str) -> Path:
        """A local run, made once."""
        exp = self.folder / name / "exp/tiny"
        if not (exp / "submission.csv").is_file():
            self.call("./run.sh", *self.options(name, name), "--nj", "2", *options)
        return exp

    def submit(self, name: str, data: str, *options: str) -> Path:
        """Hand a run in; its folder."""
        launcher = ("--launcher", "slurm", "--slurm-conf", str(self.folder / "site.conf"))
        self.call("./run.sh", *self.options(name, data), *launcher, *options)
        return self.folder / name / "exp/tiny"

    def at_split(self, name: str, local: Path) -> None:
        """Begin a run after stage 1 of a local one, so that it need not be made again."""
        exp = self.folder / name / "exp/tiny"
        exp.mkdir(parents=True)
        for file in ("folds.csv", "split.done.json"):
            shutil.copy(local / file, exp / file)

    def status(self, exp: Path) -> str:
        """What the state command says."""
        return self.call(sys.executable, "bin/cluster.py", "status", exp, code=None)

    def wait(self, exp: Path) -> str:
        """Until nothing of a run waits or runs; what the state command says then."""

        def over() -> bool:
            said = self.status(exp).split("\n")[:-1]
            return not any(w in line for line in said for w in ("waiting", "running", "requeued"))

        until(over, f"{exp} to end")
        return self.status(exp)

    def training(self, exp: Path, fold: int) -> None:
        """Until a fold is in its training."""
        until(lambda: self.epochs(exp, fold) > 4, f"fold {fold} to be in its training")

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
        """What a task wrote of itself."""
        return read_json(exp / f"cluster/tasks/{name}.json")


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something, not for ever."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE_S} s in vain for {what}")
        time.sleep(0.5)


def check(condition: object, words: str) -> None:
    """Fail a test."""
    if not condition:
        raise AssertionError(words)


def same(a: Path, b: Path, *names: str) -> None:
    """Files that must be the same to the byte."""
    for name in names:
        check(filecmp.cmp(a / name, b / name, shallow=False), f"{name} differs from the local run")


MODELS = ("cycle0/fold0/best.pt", "cycle0/fold1/best.pt")


def launcher(world: World) -> str:
    """Every stage a job, recordings in shares, one cycle of relabelling: as the local run."""
    local = world.local("short", "--n-cycles", "1")
    exp = world.submit("launcher", "launcher", "--n-cycles", "1")
    said = world.wait(exp)
    check("submit" in said and "failed" not in said, said)
    same(local, exp, "submission.csv", "cycle1/oof.npz", "cycle1/test.npz")
    again = world.call(
        *("./run.sh", *world.options("launcher", "launcher"), "--launcher", "slurm"),
        *("--slurm-conf", world.folder / "site.conf", "--n-cycles", "1"),
    )
    check("nothing to hand in" in again, again)
    return f"{len(world.arrays(exp))} jobs; submission.csv and scores the same"


def failing_fold(world: World) -> str:
    """What follows a failed fold is cancelled, the state says why; that fold alone goes again."""
    local = world.local("short", "--n-cycles", "1")
    world.at_split("failing", local)
    options = ("--stage", "2", "--stop-stage", "3", "--n-cycles", "1")
    (world.folder / "failing/exp/tiny/cycle0").mkdir()
    blocked = world.folder / "failing/exp/tiny/cycle0/fold1"
    blocked.write_text("a file where a folder belongs")
    exp = world.submit("failing", "short", *options)
    said = world.wait(exp)
    check("train-cycle0-fold1" in said and "fold1: File exists" in said, said)
    check("follows on train-cycle0-fold1" in said and "merge-cycle0" in said, said)
    blocked.unlink()
    world.submit("failing", "short", *options)
    arrays = world.arrays(exp)
    check(arrays["train-cycle0"] == "1", f"arrays {arrays}")
    said = world.wait(exp)
    same(local, exp, *MODELS, "cycle0/oof.npz")
    return "cancelled what followed; then task 1 of 2 alone; models and scores the same"


def cancelled(world: World) -> str:
    """A fold killed by scancel within its training goes on with the same command."""
    local = world.local("long", *LONG)
    world.at_split("cancelled", local)
    options = ("--stage", "2", "--stop-stage", "2", *LONG)
    exp = world.submit("cancelled", "long", *options)
    world.training(exp, 0)
    world.call("scancel", world.task(exp, "train-cycle0-fold0")["slurm_job"])
    said = world.wait(exp)
    check("train-cycle0-fold0" in said, said)
    n_epochs = world.epochs(exp, 0)
    world.submit("cancelled", "long", *options)
    check(world.arrays(exp) == {"train-cycle0": "0"}, f"arrays {world.arrays(exp)}")
    world.wait(exp)
    same(local, exp, *MODELS)
    return f"killed in epoch {n_epochs} of 120; task 0 alone went again; models the same"


def node_failure(world: World) -> str:
    """The node dies with all that it runs; Slurm requeues, training goes on."""
    local = world.local("long", *LONG)
    world.at_split("node", local)
    exp = world.submit("node", "long", "--stage", "2", "--stop-stage", "2", *LONG)
    world.training(exp, 0)
    world.training(exp, 1)
    world.call(CLUSTER, "node", world.folder / "slurm", "kill")
    until(lambda: "down" in world.call("sinfo", "-h", "-o", "%T"), "the node to be missed")
    world.call(CLUSTER, "node", world.folder / "slurm", "start")
    said = world.wait(exp)
    check("2 done" in said, said)
    restarts = [world.task(exp, f"train-cycle0-fold{fold}")["restarts"] for fold in (0, 1)]
    check(min(restarts) >= 1, f"restarts {restarts}")
    same(local, exp, *MODELS)
    return f"requeued by Slurm ({restarts[0]} and {restarts[1]} times); models the same"


def time_limit(world: World) -> str:
    """Tasks that run into their time limit save, are requeued and go on."""
    local = world.local("long", *LONG)
    world.at_split("limit", local)
    limit = "time = 00:10:00|signal-seconds = 45\ntime = 00:01:15"
    short = world.write_conf("short.conf", train=limit)
    command = ["./run.sh", *world.options("limit", "long"), "--launcher", "slurm"]
    world.call(*command, "--slurm-conf", short, "--stage", "2", "--stop-stage", "2", *LONG)
    exp = world.folder / "limit/exp/tiny"
    said = world.wait(exp)
    check("2 done" in said, said)
    restarts = [world.task(exp, f"train-cycle0-fold{fold}")["restarts"] for fold in (0, 1)]
    check(max(restarts) >= 1, f"restarts {restarts}")
    same(local, exp, *MODELS)
    return f"requeued {restarts[0]} and {restarts[1]} times; models the same"


def sbatch_run(world: World) -> str:
    """All stages as one job by `sbatch run.sh`, which meets its time limit on the way."""
    local = world.local("long", *LONG)
    log = world.folder / "sbatch.log"
    header = ["--parsable", "--cpus-per-task=2", "--mem=4G", "--time=00:03:00"]
    header += ["--signal=B:USR1@60", f"--output={log}"]
    options = [*world.options("sbatch", "long"), "--nj", "2", *LONG]
    number = world.call("sbatch", *header, "run.sh", *options).strip().splitlines()[-1]

    def over() -> bool:
        state = world.call("squeue", "-h", "--states=all", "-j", number, "-o", "%T").strip()
        return state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")

    until(over, f"job {number}")
    said = log.read_text()
    check("submission" in said, said[-2000:])
    same(local, world.folder / "sbatch/exp/tiny", "submission.csv", *MODELS)
    return f"requeued {said.count('is requeued')} times; submission.csv and models the same"


TESTS = {
    "launcher": launcher,
    "failing-fold": failing_fold,
    "scancel": cancelled,
    "node-failure": node_failure,
    "time-limit": time_limit,
    "sbatch-run": sbatch_run,
}


def main(argv: list[str] | None = None) -> int:
    """Run the tests and print their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin nothing after these")
    parser.add_argument("--limit", type=float, default=7200.0, help="leave what goes on after")
    parser.add_argument("--only", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--keep", type=Path, help="work here, and leave it")
    parser.add_argument("--required", action="store_true", help="fail where there is no Slurm")
    args = parser.parse_args(argv)
    able = subprocess.run([CLUSTER, "check"], capture_output=True, text=True, check=False)
    if able.returncode != 0:
        print(f"Slurm tests skipped: {able.stderr.strip()}")
        return int(args.required)
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="canopy-slurm-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows, began = [], time.monotonic()
    try:
        started = subprocess.run(
            [CLUSTER, "start", folder / "slurm"], capture_output=True, text=True, check=False
        )
        if started.returncode != 0:
            print(f"Slurm tests skipped: {started.stderr.strip()}")
            return int(args.required)
        world = World(folder, began + args.limit)
        for name in args.only:
            rows.append(_one(name, world, began, args.seconds))
            print(*(f"{cell}" for cell in rows[-1]), sep="  ", flush=True)
    finally:
        subprocess.run([CLUSTER, "stop", folder / "slurm"], check=False)
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(pd.DataFrame(rows, columns=["test", "result", "seconds", "words"]).to_string(index=False))
    return int(any(row[1] == "FAILED" for row in rows))


def _one(name: str, world: World, began: float, seconds: float) -> tuple[str, str, int, str]:
    begin = time.monotonic()
    if begin - began > seconds or begin > world.deadline:
        return name, "not run", 0, f"the {seconds:.0f} s were over"
    try:
        result, words = "passed", TESTS[name](world)
    except OutOfTime:
        result, words = "not ended", "the time for all tests was over"
    except AssertionError as error:
        result, words = "FAILED", str(error)
    return name, result, round(time.monotonic() - begin), words


if __name__ == "__main__":
    sys.exit(main())
