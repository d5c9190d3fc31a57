"""What each stage asks of the cluster: conf/slurm.conf, in sbatch's own words.

An INI file. `[site]` holds what is true of the cluster and holds for every job; a section a stage
holds what that stage needs. Keys are long options of sbatch, and a few of our own (`OWN`). Later
files change single keys of earlier ones, an empty value takes a key away.
"""

import configparser
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from local.io.errors import CanopyError
from local.io.limits import MAX_JSON_BYTES, read_text
from local.stages.stage_graph import PARTS

STAGES = (*PARTS, "detect")
SBATCH = (
    *("account", "begin", "comment", "constraint", "cpus-per-task", "exclude", "exclusive"),
    *("gpus", "gpus-per-node", "gres", "licenses", "mail-type", "mail-user", "mem"),
    *("mem-per-cpu", "mem-per-gpu", "nice", "nodelist", "nodes", "oversubscribe", "partition"),
    *("prefer", "qos", "reservation", "time", "tmp", "wckey"),
)
# Options that sbatch also takes without a value: `yes` asks for them so.
FLAGS = ("exclusive", "oversubscribe")
# ranks: processes that train a fold together on each of its `nodes`, mostly one a GPU.
# shards: jobs a stage's recordings are dealt to. max-parallel: of an array's tasks. threads: a
# process computes on (0: cpus-per-task). max-requeues: how often a task that ran into its time
# limit goes on. signal-seconds: how long before the limit it is told to save.
OWN = {
    "ranks": 1,
    "shards": 1,
    "max-parallel": 0,
    "threads": 0,
    "max-requeues": 20,
    "signal-seconds": 120,
}

_UNITS = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True)
class Resources:
    """What one stage asks for: sbatch's options, and our own numbers."""

    options: dict[str, str]
    own: dict[str, int]

    @property
    def cpus(self) -> int:
        """Cores of a task."""
        return int(self.options.get("cpus-per-task", "1"))

    @property
    def nodes(self) -> int:
        """Nodes of a task."""
        return int(self.options.get("nodes", "1"))

    @property
    def threads(self) -> int:
        """Threads a process computes on."""
        return self.own["threads"] or self.cpus

    @property
    def gpus(self) -> int:
        """GPUs on each node of a task."""
        of_gres = count_gres(self.options.get("gres", ""))
        of_node, of_job = (
            sum(map(count_gpus, self.options.get(key, "").split(",")))
            for key in ("gpus-per-node", "gpus")
        )
        return of_gres + of_node + -(-of_job // self.nodes)

    @property
    def memory_mb(self) -> float:
        """Memory of a task; 0 where nothing is asked for, or all of a node."""
        if "mem-per-cpu" in self.options:
            return self.cpus * parse_memory(self.options["mem-per-cpu"])
        if "mem-per-gpu" in self.options:
            return self.gpus * parse_memory(self.options["mem-per-gpu"])
        return parse_memory(self.options.get("mem", "0"))

    @property
    def minutes(self) -> float | None:
        """Time limit; None for the partition's."""
        return parse_time(self.options["time"]) if "time" in self.options else None


@dataclass(frozen=True)
class ClusterConf:
    """Resources of all stages."""

    stages: dict[str, Resources]

    def of(self, stage: str) -> Resources:
        """Resources of a stage."""
        return self.stages[stage]


def read_conf(paths: list[Path]) -> ClusterConf:
    """Read files that follow one another; every fault names file, section and key."""
    sections: dict[str, dict[str, str]] = {name: {} for name in ("site", *STAGES)}
    for path in paths:
        for section, values in _read(path).items():
            sections[section] |= values
    stages = {}
    for stage in STAGES:
        values = {key: text for key, text in (sections["site"] | sections[stage]).items() if text}
        stages[stage] = _resources(values, f"{paths[-1]}: [{stage}]")
    return ClusterConf(stages)


def _read(path: Path) -> dict[str, dict[str, str]]:
    # Values are never calculated (`interpolation`) and never go on over a line.
    parser = configparser.ConfigParser(
        interpolation=None, default_section="-", inline_comment_prefixes=("#",)
    )
    try:
        parser.read_string(read_text(path, MAX_JSON_BYTES, "cluster settings"), source=str(path))
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such file; give the cluster's settings") from None
    except configparser.Error as error:
        raise CanopyError(f"{path}: {' '.join(str(error).split())}") from None
    found = {name: dict(parser[name]) for name in parser.sections()}
    for section, values in found.items():
        _known(section, ("site", *STAGES), f"{path}: section")
        for key, text in values.items():
            _known(key, (*SBATCH, *OWN), f"{path}: [{section}]")
            if "\n" in text:
                raise CanopyError(f"{path}: [{section}] {key} goes over several lines; write one")
    return found


def _known(name: str, known: tuple[str, ...], where: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}" if near else f"known: {', '.join(known)}"
    raise CanopyError(f"{where} {name} is unknown; {hint}")


def _resources(values: dict[str, str], where: str) -> Resources:
    own = dict(OWN)
    for key in OWN:
        if key in values:
            text = values.pop(key)
            if not text.isdigit() or (key in ("ranks", "shards") and int(text) < 1):
                raise CanopyError(f"{where} {key} is {text!r}, expected a whole number")
            own[key] = int(text)
    resources = Resources(values, own)
    for key in ("cpus-per-task", "nodes"):
        if not re.fullmatch(r"[1-9]\d*", values.get(key, "1")):
            raise CanopyError(f"{where} {key} is {values[key]!r}, expected 1 or more")
    together = [f"[{name}]" for name, part in PARTS.items() if "ranks" in part.options]
    if not where.endswith(tuple(together)) and (own["ranks"] > 1 or resources.nodes > 1):
        raise CanopyError(
            f"{where} has ranks or nodes, which only {' '.join(together)} takes; move them there"
        )
    if own["ranks"] > resources.gpus > 0:
        raise CanopyError(
            f"{where} ranks is {own['ranks']}, but it asks for {resources.gpus} GPUs on a node; "
            "give as many ranks as GPUs, or no gres for ranks on CPUs"
        )
    try:
        _ = resources.memory_mb, resources.minutes
    except CanopyError as error:
        raise CanopyError(f"{where} {error}") from None
    return resources


def count_gres(text: str) -> int:
    """GPUs among generic resources as in `gpu:a100:2(S:0,1),lscratch:100`."""
    parts = re.sub(r"\([^)]*\)", "", text).split(",")
    names = [part.strip().removeprefix("gres:").removeprefix("gres/") for part in parts]
    return sum(count_gpus(name) for name in names if re.match(r"gpu(:|$)", name))


def count_gpus(text: str) -> int:
    """GPUs that `gpu`, `gpu:2` or `gpu:a100:2` (of gres) or `2`, `a100:2` (of gpus) stand for."""
    text = text.split("(")[0].strip()
    if text.isdigit():
        return int(text)
    parts = text.split(":")
    if parts[0] != "gpu":
        return int(parts[-1]) if len(parts) == 2 and parts[1].isdigit() and parts[0] != "" else 0
    return int(parts[-1]) if len(parts) > 1 and parts[-1].isdigit() else 1


def parse_memory(text: str) -> float:
    """Megabytes of `4000`, `16G` and the like."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip(), re.I)
    if match is None:
        raise CanopyError(f"mem is {text!r}, expected as in 16G")
    return float(match[1]) * _UNITS[match[2].upper()]


def parse_time(text: str) -> float | None:
    """Minutes of Slurm's times: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; None for no limit."""
    text = text.strip()
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise CanopyError(f"time is {text!r}, expected as in 30, 08:00:00 or 1-12:00:00")
    days, _, _, third = match.groups()
    numbers = [int(part or 0) for part in match.groups()]
    if days is None and third is None:  # no hours: M or M:S
        numbers = [0, 0, *numbers[1:3]]
    minutes = numbers[0] * 1440 + numbers[1] * 60 + numbers[2] + numbers[3] / 60
    if minutes <= 0:
        raise CanopyError(f"time is {text!r}: give some")
    return float(minutes)
