"""The tiny demo on a real Slurm of this one machine: what comes out must be what a local run gives.

    python -m tests.slurm.run [--only NAME ...] [--jobs N] [--seconds N] [--keep FOLDER]

Prints a table. Where Slurm cannot be started it says why and ends well, for nothing was tested
(--required makes that a failure). What has not ended within N seconds is left, which is a failure.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.slurm import refusals
from tests.slurm.world import CLUSTER, MODELS, ROOT, OutOfTime, Skipped, World, check, same


def launcher(world: World) -> str:
    """Every stage a job, recordings in shares, one cycle of relabelling: as the local run.

    Training and inference read copies on the nodes' own disks.
    """
    cache = world.folder / "slurm/unshared/cache"
    options = ("launcher", "launcher", "--n-cycles", 1, "--cache", cache)
    exp = world.exp("launcher")
    world.submit(*options)
    n_jobs = len(world.arrays(exp))
    said = world.wait(exp)
    check("submit" in said and "failed" not in said, said)
    names = ("submission.csv", "cycle1/oof.npz", "cycle1/test.npz")
    same(world.short(), exp, *names)
    logs = [path.read_text() for path in exp.glob("cluster/001/logs/train-cycle0-*.log")]
    check(any(f"are copied to {cache}" in log for log in logs), logs)
    check("nothing to hand in" in world.submit(*options), "handed in what was done")
    return f"{n_jobs} jobs, dump copied to the nodes; submission.csv and scores the same"


def sbatch(world: World) -> str:
    """All stages as one job by `sbatch run.sh`, which meets its time limit on the way."""
    header = ["--parsable", "--cpus-per-task=2", "--mem=1G", "--time=1", "--signal=B:USR1@30"]
    options = [*world.options("sbatch", "sbatch"), "--nj", 2, "--n-cycles", 1]
    number = world.call("sbatch", *header, "run.sh", *options).strip().splitlines()[-1]

    def over() -> bool:
        state = world.call("squeue", "-h", "--states=all", "-j", number, "-o", "%T").strip()
        return state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")

    log = ROOT / f"exp/slurm-{number}.log"
    world.until(lambda: over() or (log.is_file() and "is requeued" in log.read_text()), "a requeue")
    # Once is enough: with more time it ends.
    world.call("scontrol", "update", f"JobId={number}", "TimeLimit=10")
    world.until(over, f"job {number} to end")
    said = log.read_text()
    log.unlink()
    check("run.sh: done in" in said, said[-2000:])
    times = said.count("is requeued, for the")
    check(times >= 1, "it did not run into its time limit")
    same(world.short(), world.exp("sbatch"), "submission.csv", "cycle1/oof.npz", *MODELS)
    return f"requeued {times} times at its time limit; submission.csv and models the same"


def failing_fold(world: World) -> str:
    """What follows a failed fold is cancelled, the state says why; that fold alone goes again."""
    local = world.short()
    world.at_split("failing")
    exp = world.exp("failing")
    (exp / "cycle0").mkdir()
    (exp / "cycle0/fold1").write_text("a file where a folder belongs")
    whole = world.write_conf("whole.conf", infer="shards = 2|shards = 1")
    options = ("failing", "short", "--stage", 2, "--stop-stage", 3, "--n-cycles", 1)
    world.submit(*options, conf=whole)
    said = world.wait(exp)
    check("train-cycle0-fold1" in said and "fold1: File exists" in said, said)
    check("follows on train-cycle0-fold1" in said and "merge-cycle0" in said, said)
    (exp / "cycle0/fold1").unlink()
    world.submit(*options, conf=whole)
    arrays = world.arrays(exp)
    check(arrays["train-cycle0"] == "1", f"arrays {arrays}")
    world.wait(exp)
    same(local, exp, *MODELS, "cycle0/oof.npz")
    return "what followed was cancelled; then task 1 of 2 alone; models and scores the same"


def scancel(world: World) -> str:
    """A fold killed by scancel within its training goes on with the same command."""
    local, long = world.long()
    world.at_split("cancelled")
    exp = world.exp("cancelled")
    world.submit("cancelled", "short", *long)
    world.training(exp, 0)
    world.call("scancel", world.task(exp, "train-cycle0-fold0")["slurm_job"])
    said = world.wait(exp)
    check("train-cycle0-fold0" in said and "1 done" in said, said)
    n_epochs = world.epochs(exp, 0)
    world.submit("cancelled", "short", *long)
    check(world.arrays(exp) == {"train-cycle0": "0"}, f"arrays {world.arrays(exp)}")
    world.wait(exp)
    same(local, exp, *MODELS)
    return f"killed after epoch {n_epochs}; task 0 alone went again; models the same"


def time_limit(world: World) -> str:
    """Tasks that run into their time limit save, are requeued and go on."""
    local, long = world.long()
    world.at_split("limit")
    exp = world.exp("limit")
    limit = world.write_conf(
        "limit.conf", train="time = 00:10:00|signal-seconds = 30\ntime = 00:01:00"
    )
    world.submit("limit", "short", *long, conf=limit)

    def requeued(name: str) -> bool:
        state = world.task(exp, name)
        return state.get("restarts", 0) > 0 or state.get("status") == "requeued"

    names = [f"train-cycle0-fold{fold}" for fold in (0, 1)]
    world.until(lambda: all(map(requeued, names)) or world.over(exp), "folds to be requeued")
    # Once is enough: with more time they end.
    number = world.task(exp, names[0])["slurm_job"].split("_")[0]
    world.call("scontrol", "update", f"JobId={number}", "TimeLimit=10")
    said = world.wait(exp)
    check("2 done" in said, said)
    restarts = [world.task(exp, name)["restarts"] for name in names]
    check(min(restarts) >= 1, f"restarts {restarts}")
    same(local, exp, *MODELS)
    return f"requeued {restarts[0]} and {restarts[1]} times; models the same"


def bound(world: World) -> str:
    """A fold on two nodes that meets its time limit saves; beyond its requeues it is given up."""
    world.short()
    world.at_split("bound")
    exp, nodes = world.exp("bound"), min(2, len(world.nodes()))
    own = f"nodes = {nodes}\nsignal-seconds = 60\nmax-requeues = 0\ntime = 00:10:00"
    conf = world.write_conf("bound.conf", train=f"time = 00:10:00|{own}")
    endless = ("--set", "train.n_epochs=100000", "--set", "train.validate_every=100000")
    options = (*endless, "--folds", 0, "--n-cycles", 0, "--stage", 2, "--stop-stage", 3)
    world.submit("bound", "short", *options, conf=conf)
    world.training(exp, 0)
    number = world.task(exp, "train-cycle0-fold0")["slurm_job"].split("_")[0]
    # Two minutes and a part of one from now.
    spent = world.call("squeue", "-h", "-j", number, "-o", "%M").strip().split(":")[-2]
    world.call("scontrol", "update", f"JobId={number}", f"TimeLimit={int(spent) + 2}")
    said = world.wait(exp)
    check("ran into its time limit 1 times, max-requeues is 0" in said, said)
    check("follows on train-cycle0-fold0" in said, said)
    check((exp / "cycle0/fold0/step.pt").is_file(), "it was ended before it had saved")
    return f"{nodes} nodes saved at epoch {world.epochs(exp, 0)}; the state says why it ended"


def node_failure(world: World) -> str:
    """The node dies with all that it runs; Slurm requeues, training goes on."""
    local, long = world.long()
    world.at_split("node")
    exp, name = world.exp("node"), world.nodes()[-1]
    frail = world.write_conf("frail.conf", train="gres|partition = frail\ngres")
    world.submit("node", "short", *long, conf=frail)
    world.training(exp, 0)
    world.training(exp, 1)
    world.call(CLUSTER, "node", world.folder / "slurm", name, "kill")
    said = ("sinfo", "--noheader", f"--nodes={name}", "--format=%T")
    world.until(lambda: "down" in world.call(*said), f"node {name} to be missed")
    world.call(CLUSTER, "node", world.folder / "slurm", name, "start")
    said = world.wait(exp)
    check("2 done" in said, said)
    restarts = [world.task(exp, f"train-cycle0-fold{fold}")["restarts"] for fold in (0, 1)]
    check(min(restarts) >= 1, f"restarts {restarts}")
    same(local, exp, *MODELS)
    return f"requeued by Slurm ({restarts[0]} and {restarts[1]} times); models the same"


def detection(world: World) -> str:
    """Detection in shares gives the tables of one process, also by site and date."""
    sounds, found = world.folder / "short/data/test", world.folder / "found"
    options = [world.short(), sounds, "--format", "csv"]
    alone, threads = ("--out", world.folder / "found0"), str(world.threads)
    world.call(sys.executable, "bin/detect.py", *options, *alone, OMP_NUM_THREADS=threads)
    options = ["--slurm-conf", world.site, "--", *options, "--out", found]
    world.cluster("detect", *options)
    said = world.wait(found)
    check("gather" in said and "failed" not in said, said)
    names = [path.name for path in (world.folder / "found0").glob("*.csv")]
    same(world.folder / "found0", found, *names)
    trees = []
    for name in ("days0", "days"):
        parted = [world.short(), sounds, "--partition", "--out", world.folder / name]
        if name == "days0":
            world.call(sys.executable, "bin/detect.py", *parted, OMP_NUM_THREADS=threads)
        else:
            world.cluster("detect", "--slurm-conf", world.site, "--", *parted)
            said = world.wait(world.folder / name)
            check("gather" in said and "failed" not in said, said)
        tree = (world.folder / name).rglob("*.parquet")
        trees.append(sorted(str(path.relative_to(world.folder / name)) for path in tree))
    check(trees[0] and trees[0] == trees[1], f"{trees}")
    same(world.folder / "days0", world.folder / "days", *trees[0])
    return f"2 shares; {', '.join(sorted(names))} and {len(trees[0])} Parquet files the same"


def two_nodes(world: World) -> str:
    """A fold trained together on two nodes, each with a network of its own, as by two processes."""
    if len(world.nodes()) == 1:
        raise Skipped("this machine allows no network of a node's own")
    world.short()
    trained = []
    for name, how in (("ranks", ["--ranks", 2]), ("two", ["--n-nodes", 2])):
        world.at_split(name)
        options = [*world.options(name, "short"), "--recipe", "demo", "--tag", "tiny", "--nj", 2]
        fold = ["--cycle", 0, "--worker", "--folds", 0]
        command = [sys.executable, "bin/sed_train.py", *options, *fold, *how]
        trained.append(world.exp(name) / "cycle0/fold0")
        if name == "ranks":
            world.call(*command, OMP_NUM_THREADS=str(2 * world.threads))
    log = world.folder / "two.log"
    header = ["--wait", "--nodes=2", "--cpus-per-task=1", "--mem=500M", f"--output={log}"]
    header += [f"--export=ALL,OMP_NUM_THREADS={world.threads}"]
    world.call("sbatch", *header, f"--wrap={shlex.join(map(str, command))}", code=None)
    check((trained[1] / "train.done.json").is_file(), log.read_text()[-2000:])
    same(*trained, "best.pt", "log.csv")
    return "torchrun, ranks on n1 and n2; model the same as of two processes on one node"


TESTS = {
    "two-nodes": two_nodes,
    "launcher": launcher,
    "sbatch": sbatch,
    "failing-fold": failing_fold,
    "node-failure": node_failure,
    "time-limit": time_limit,
    "requeue-bound": bound,
    "scancel": scancel,
    "detection": detection,
} | refusals.TESTS


_WIDTH = max(map(len, TESTS))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for all (%(default)s)")
    parser.add_argument("--jobs", type=int, default=3, help="tests at once (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--keep", type=Path, help="work here, and leave it")
    parser.add_argument("--required", action="store_true", help="fail where there is no Slurm")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tests and print their table."""
    args = parse_args(argv)
    began = time.monotonic()
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="canopy-slurm-"))).resolve()
    try:
        started = subprocess.run(
            [CLUSTER, "start", folder / "slurm"], stderr=subprocess.PIPE, text=True, check=False
        )
        print(started.stderr, end="")
        if started.returncode != 0:
            print("Slurm tests skipped: there is none to be had here, see above")
            return int(args.required)
        rows = _all(World(folder, began + args.seconds), args.only, args.jobs)
    finally:
        subprocess.run([CLUSTER, "stop", folder / "slurm"], check=False)
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    for name, result, seconds, words in rows:
        print(f"{name:<{_WIDTH}} {result:<9} {seconds:>4} s  {words.splitlines()[0]}")
    print(f"{len(rows)} tests in {time.monotonic() - began:.0f} s on {os.cpu_count()} cores")
    return int(any(row[1] not in ("passed", "skipped") for row in rows))


def _all(world: World, names: list[str], n_jobs: int) -> list[tuple[str, str, int, str]]:
    rows = {}
    # With one node alone its failure would be everybody's.
    with ThreadPoolExecutor(n_jobs if len(world.nodes()) > 1 else 1) as pool:
        futures = [pool.submit(_one, name, world) for name in names]
        for future in as_completed(futures):
            row = future.result()
            rows[row[0]] = row
            print(*row[:2], f"{row[2]} s ", row[3], flush=True)
    return [rows[name] for name in names]


def _one(name: str, world: World) -> tuple[str, str, int, str]:
    begin = time.monotonic()
    try:
        result, words = "passed", TESTS[name](world)
    except OutOfTime as error:
        result, words = "NOT ENDED", f"the time for all tests was over {error}".strip()
    except Skipped as error:
        result, words = "skipped", str(error)
    except (AssertionError, OSError) as error:
        result, words = "FAILED", str(error)
    return name, result, round(time.monotonic() - begin), words


if __name__ == "__main__":
    sys.exit(main())
