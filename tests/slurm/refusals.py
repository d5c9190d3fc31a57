"""What is refused before anything is handed in, and what nodes say of disks that are not shared."""

import os
import re
import shutil
from pathlib import Path

from tests.slurm.stale import stale_folder
from tests.slurm.world import Skipped, World, check

_TRAIN = ("--stage", 2, "--stop-stage", 2)


def _refused(world: World, name: str, words: str, *options: object, **more: object) -> None:
    """Hand in what must be refused in one sentence, with nothing handed in."""
    said = world.submit(name, name, *options, code=1, **more)
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    check(len(lines) == 1 and words in lines[0], f"expected {words!r}, it said {said}")
    check("Traceback" not in said, said)
    check(not any(world.exp(name).glob("cluster/0*")), "something was handed in")


def without(world: World, program: str) -> Path:
    """A folder for PATH with all programs there are but one."""
    folder = world.folder / f"without-{program}"
    folder.mkdir(exist_ok=True)
    for place in os.environ["PATH"].split(":"):
        for path in Path(place).glob("*"):
            link = folder / path.name
            if path.name != program and not link.is_symlink():
                link.symlink_to(path)
    return folder


def no_sbatch(world: World) -> str:
    """A machine without Slurm's programs."""
    _refused(world, "refused", "no sbatch on PATH", PATH=str(without(world, "sbatch")))
    return "no sbatch on PATH"


def no_controller(world: World) -> str:
    """A cluster whose controller does not answer."""
    silent = world.folder / "silent.conf"
    text = (world.folder / "slurm/slurm.conf").read_text()
    silent.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", text))
    _refused(world, "refused", "sinfo ended with code 1", SLURM_CONF=str(silent))
    return "sinfo ended with code 1"


def resources(world: World) -> str:
    """What the cluster does not have: a partition, GPUs, time for an epoch."""
    cases = {
        "partition = fast": "partition fast does not exist; there are all, main, frail",
        "gres = gpu:1": "for 1 GPUs, its largest node or limit has 0",
        "time = 2-00:00:00": "for 2880 minutes, its largest node or limit has 480",
    }
    for number, (line, words) in enumerate(cases.items()):
        key = line.split(" = ")[0]
        there = "gres =" if key in ("gres", "partition") else "time = 00:10:00"
        conf = world.write_conf(f"refused{number}.conf", train=f"{there}|{line}")
        _refused(world, "refused", words, conf=conf)
    timing = world.exp("slow") / "cycle0/fold0/timing.csv"
    timing.parent.mkdir(parents=True)
    timing.write_text("epoch,seconds,windows_per_s\n1,2000,1\n")
    _refused(world, "slow", "less than an epoch, which took 2000 s")
    return "; ".join([*cases, "an epoch of 2000 s in 10 minutes"])


def stale_handle(world: World) -> str:
    """A folder that the network disk lost."""
    folder = world.folder / "stale/exp"
    folder.mkdir(parents=True)
    with stale_folder(folder):
        said = world.submit("stale", "stale", code=1)
    (line,) = said.splitlines()
    check(line.startswith("error: ") and "the network disk lost it" in line, said)
    check(not any(folder.iterdir()), "something was written")
    return "the network disk lost it"


def unshared(world: World) -> str:
    """A disk that nodes do not share with the login node: asked of one, else of each task."""
    alone = world.folder / "slurm/unshared"
    if len(world.nodes()) == 1:
        raise Skipped("this machine allows no disk of a node's own")
    shutil.copytree(world.short().parents[1] / "dump", alone / "dump")
    dump, exp = world.options("unshared", "short"), world.options("unshared", "short")
    dump[3], exp[-1] = alone / "dump", alone / "exp"
    launcher = ("--launcher", "slurm", "--slurm-conf", world.site, *_TRAIN)
    for places in (dump, exp):
        said = world.call("./run.sh", *places, *launcher, code=1)
        check("of this machine is not on n" in said and len(said.splitlines()) == 1, said)
    # Without a node to ask, the first job tells, or, without its log, the queue.
    world.at_split("unshared")
    world.call("./run.sh", *dump, *launcher, PATH=str(without(world, "srun")))
    said = world.wait(world.exp("unshared"))
    check("/.shared of the login node is not on n" in said, said)
    check("follows on prepare-all" in said, said)
    world.call("./run.sh", *exp, *launcher, PATH=str(without(world, "srun")))
    said = world.wait(alone / "exp/tiny")
    check("is the folder one that login and compute nodes share" in said, said)
    return "refused by the word of a node; where none is free, told by the first job"


def cancel(world: World) -> str:
    """A run is handed in once only, and cancelled by one command."""
    exp = world.exp("once")
    world.submit("once", "once")
    said = world.submit("once", "once", code=1)
    check("of its jobs are on the cluster still" in said, said)
    world.cluster("cancel", exp)
    said = world.wait(exp)
    # Which job it is, the machine decides; what comes after it follows on it.
    stopped = re.findall(r"^(\S+) \(\S+\) cancelled: by scancel", said, re.MULTILINE)
    check(any(f"cancelled, follows on {task}," in said for task in stopped), said)
    return "a second time it is refused; cancelled, and the state says so"


TESTS = {
    "no-sbatch": no_sbatch,
    "no-controller": no_controller,
    "resources": resources,
    "stale-handle": stale_handle,
    "unshared": unshared,
    "cancel": cancel,
}
