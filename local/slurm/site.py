"""What the cluster is, as it says itself, and what is asked of it held against that."""

import math
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from local.io.errors import CanopyError
from local.io.files import DISK_FAULTS, disk_fault
from local.slurm.conf import STAGES, ClusterConf, Resources, count_gres, parse_time

_TIMEOUT_S = 60
_PROGRAMS = ("sbatch", "sinfo", "squeue", "scancel", "scontrol")


@dataclass(frozen=True)
class Partition:
    """The most that one node of a partition gives; minutes None for no limit."""

    name: str
    cpus: int
    memory_mb: float
    gpus: int
    minutes: float | None
    is_default: bool


def ask(program: str, *options: str) -> str:
    """What one of Slurm's programs prints.

    Raises
    ------
    CanopyError
        It is not there, does not answer, or refuses.
    """
    if shutil.which(program) is None:
        raise CanopyError(
            f"no {program} on PATH: give the command on a login node of the cluster, or run "
            "without --launcher slurm"
        )
    try:
        ran = subprocess.run(
            [program, *options], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CanopyError(
            f"{program} did not answer in {_TIMEOUT_S} s; see whether the controller is up"
        ) from None
    if ran.returncode != 0:
        said = " ".join((ran.stderr or ran.stdout).split())
        raise CanopyError(f"{program} ended with code {ran.returncode}: {said}")
    return ran.stdout


def partitions() -> list[Partition]:
    """Partitions of the cluster."""
    found: dict[str, Partition] = {}
    for line in ask("sinfo", "--noheader", "--format=%P|%l|%c|%m|%G").splitlines():
        name, limit, cpus, memory, gres = (part.strip() for part in line.split("|"))
        plain = name.rstrip("*")
        node = Partition(
            plain,
            int(cpus.rstrip("+")),
            float(memory.rstrip("+")),
            count_gres(gres),
            None if limit == "n/a" else parse_time(limit),
            name.endswith("*"),
        )
        other = found.get(plain, node)
        found[plain] = Partition(
            plain,
            max(node.cpus, other.cpus),
            max(node.memory_mb, other.memory_mb),
            max(node.gpus, other.gpus),
            node.minutes,
            node.is_default,
        )
    return list(found.values())


def check_site(conf: ClusterConf, stages: list[str]) -> None:
    """Refuse what this cluster does not have, before anything is handed in."""
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            ask(program)
    there = partitions()
    for stage in STAGES:
        if stage in stages:
            _check_stage(f"[{stage}]", conf.of(stage), there)


def check_arrays(sizes: dict[str, int]) -> None:
    """Refuse jobs of more tasks than this cluster's arrays hold.

    Parameters
    ----------
    sizes : one more than the highest index of a task, by job.
    """
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    for job, size in sizes.items():
        if match is not None and size > int(match[1]):
            raise CanopyError(
                f"{job} has {size} tasks, arrays of this cluster hold {match[1]} (MaxArraySize); "
                "give fewer shards in conf/slurm.conf"
            )


def _check_stage(where: str, asked: Resources, there: list[Partition]) -> None:
    names = asked.options.get("partition")
    if names is None:
        chosen = [partition for partition in there if partition.is_default]
        if not chosen:
            known = ", ".join(partition.name for partition in there)
            raise CanopyError(f"{where} names no partition and the cluster has no default: {known}")
    else:
        by_name = {partition.name: partition for partition in there}
        absent = [name for name in names.split(",") if name not in by_name]
        if absent:
            raise CanopyError(
                f"{where} partition {absent[0]} does not exist; there are {', '.join(by_name)}"
            )
        chosen = [by_name[name] for name in names.split(",")]
    where = f"{where} asks partition {'/'.join(partition.name for partition in chosen)}"
    _at_most(where, "CPUs", asked.cpus, [partition.cpus for partition in chosen])
    _at_most(where, "GPUs", asked.gpus, [partition.gpus for partition in chosen])
    _at_most(where, "MB of memory", asked.memory_mb, [p.memory_mb for p in chosen])
    limits = [p.minutes if p.minutes is not None else math.inf for p in chosen]
    _at_most(where, "minutes", asked.minutes or 0, limits)


def _at_most(where: str, what: str, asked: float, there: list[float]) -> None:
    if asked > max(there):
        raise CanopyError(
            f"{where} for {asked:g} {what}, its largest node or limit has {max(there):g}"
            "; ask for less in conf/slurm.conf, or for another partition"
        )


def check_epoch(asked: Resources, exp: Path) -> None:
    """Refuse a time limit in which, as earlier logs tell, no epoch of training ends."""
    longest, where = 0.0, ""
    for path in sorted(exp.glob("cycle*/fold*/timing.csv")):
        try:
            seconds = pd.read_csv(path)["seconds"]
        except (ValueError, KeyError, OSError):
            continue
        if len(seconds) and float(seconds.max()) > longest:
            longest, where = float(seconds.max()), str(path)
    limit = asked.minutes
    usable = math.inf if limit is None else limit * 60 - asked.own["signal-seconds"]
    if longest > usable:
        raise CanopyError(
            f"[train] time leaves {max(0.0, usable):.0f} s of work, less than an epoch, which took "
            f"{longest:.0f} s ({where}); give more time"
        )


def check_folders(folders: list[Path]) -> None:
    """Refuse a folder whose network disk has lost it (a stale handle) or that fails."""
    for folder in folders:
        try:
            os.stat(folder)
            with os.scandir(folder) as entries:
                next(entries, None)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in DISK_FAULTS:
                raise
            raise disk_fault(folder, error) from None
