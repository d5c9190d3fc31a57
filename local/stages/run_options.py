"""Options of `./run.sh`: what there is, what is right, and what it means where nothing is said.

Of the standard library alone: they are read before there is an environment.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.stages.stage_graph import STAGES

_COUNT = r"[1-9][0-9]*"
_NUMBERS = r"[0-9]+([ ,]+[0-9]+)*"
_LISTED = ", ".join(f"{stage.number} {stage.name}" for stage in STAGES)


class UsageError(Exception):
    """A command line that cannot be meant; the message is one sentence."""


@dataclass(frozen=True)
class Option:
    """An option: what its value is called, what it is for, and which values are right.

    value : "" for an option without one. pattern, expected : what a value must match, and that in
    words. jobs : whether it goes with --launcher slurm; None: with both.
    """

    name: str
    value: str
    words: str
    pattern: str = ""
    expected: str = ""
    jobs: bool | None = None


def _count(name: str, words: str, of_what: str) -> Option:
    """A number from 1 on, which a job of Slurm is told by its resources."""
    return Option(name, "N", words, _COUNT, f"a number of {of_what}, 1 or more", jobs=False)


_TAG = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_CACHE = "copy what is read of the dump to this machine's own disk [SLURM_TMPDIR, if set]"
OPTIONS = (
    Option(
        *("recipe", "NAME", "the folder of recipes/ that prepares the data [demo]"),
        *(_TAG, "the name of a folder of recipes/"),
    ),
    Option("conf", "FILE", "configuration [conf/RECIPE/default.yaml]"),
    Option(
        *("tag", "NAME", "folder of this run under EXPDIR [the configuration's name]"),
        *(_TAG, 'a folder name of letters, digits and "._-"'),
    ),
    Option("datadir", "DIR", "raw data [data/RECIPE]"),
    Option("dumpdir", "DIR", "tables and features [dump/RECIPE]"),
    Option("expdir", "DIR", "results [exp/RECIPE]"),
    Option("stage", "N|NAME", "first stage [0]"),
    Option("stop-stage", "N|NAME", "last stage [5]"),
    Option(
        *("folds", '"0 1"', "folds to train and to infer [all]"),
        *(_NUMBERS, 'numbers of folds, as in --folds "0 1"'),
    ),
    Option(
        *("n-cycles", "N", "cycles of relabelling [the configuration's]"),
        *("0|[1-9][0-9]*", "a number of cycles, 0 or more"),
    ),
    _count("nj", "processes at once [the cores at hand]", "processes"),
    Option("cache", "DIR", _CACHE),
    _count(
        *("n-gpus", "GPUs to train on, each fold on --ranks of them [all]"),
        "GPUs (none: --device cpu)",
    ),
    _count("ranks", "processes (GPUs) that train a fold together, on each node [1]", "processes"),
    _count("n-nodes", "nodes that train a fold together, in a job of Slurm [1]", "nodes"),
    Option("device", "NAME", "auto, cpu or cuda [auto]", "auto|cpu|cuda", "auto, cpu or cuda"),
    Option(
        *("launcher", "NAME", "local, or slurm: each stage a job, see docs/cluster.md [local]"),
        *("local|slurm", "local or slurm"),
    ),
    Option(
        *("seeds", '"0 1"', "with slurm: runs TAG-seed<n> of one dump [the configuration's]"),
        *(_NUMBERS, 'seeds, as in --seeds "0 1"', True),
    ),
    Option(
        *("slurm-conf", "FILE", "with slurm: what is asked of the cluster [conf/slurm.conf]"),
        jobs=True,
    ),
    Option("set", "SECTION.KEY=VALUE", "change the configuration; as often as needed"),
    Option("dry-run", "", "print the commands; run and install nothing"),
    Option("force", "", "run stages again even where results are up to date"),
    Option("help", "", "print this"),
)
_BY_NAME = {f"--{option.name}": option for option in OPTIONS}
_KNOWN = " ".join(_BY_NAME)
# What the caller names is seen from the caller's folder.
_PATHS = ("conf", "datadir", "dumpdir", "expdir", "slurm-conf")


def help_text() -> str:
    """All options in a table."""
    rows = [
        (" ".join(filter(None, (name, option.value))), option.words)
        for name, option in _BY_NAME.items()
    ]
    return "\n".join(
        [
            "Usage: ./run.sh [--option VALUE | --option=VALUE]... (given twice, the last holds)",
            f"Stages: {_LISTED}. Options [defaults]:",
            *(f"  {name:<23} {words}" for name, words in rows),
            "VENV=DIR names the Python environment [.venv], PYTHON=EXE the Python to make it with.",
            "As a job (sbatch run.sh) it is requeued before its time limit, up to "
            "CANOPY_MAX_REQUEUES times [20].",
        ]
    )


def parse(words: list[str]) -> dict[str, Any]:
    """Values by option, those that were given; `set` is a list, options without a value are True.

    Raises
    ------
    UsageError
        An unknown option, one without its value, or a value that is not right.
    """
    given: dict[str, Any] = {"set": []}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-h":
            word = "--help"
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            raise UsageError(f"'{word}' is no option, and nothing else is taken; known: {_KNOWN}.")
        option = _BY_NAME.get(name)
        if option is None or (equals and not option.value):
            raise UsageError(f"unknown option '{word if option else name}'; known: {_KNOWN}.")
        if not option.value:
            given[option.name] = True
            continue
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        if not value:
            raise UsageError(f"{name} needs a value: {name} VALUE or {name}=VALUE.")
        if option.name == "set":
            given["set"].append(value)
        else:
            given[option.name] = value
    return given


def complete(given: dict[str, Any], root: Path, caller: Path) -> dict[str, Any]:
    """All values, those that were not given by their defaults; `stage` and `stop-stage` as numbers.

    Paths are relative to `root`, the project's folder, or absolute where the caller is elsewhere.

    Raises
    ------
    UsageError
        Values that are not right, alone or together.
    """
    values = {
        option.name: given.get(option.name, "" if option.value else False) for option in OPTIONS
    }
    values["set"] = list(given["set"])
    for end, default in (("stage", 0), ("stop-stage", STAGES[-1].number)):
        values[end] = _stage_number(f"--{end}", given[end]) if end in given else default
    if values["stage"] > values["stop-stage"]:
        raise UsageError(
            f"--stage {values['stage']} comes after --stop-stage {values['stop-stage']}: there is "
            "nothing to do."
        )
    for option in OPTIONS:
        value = given.get(option.name)
        if value is not None and option.pattern and not re.fullmatch(option.pattern, value):
            raise UsageError(f"--{option.name} is '{value}': give {option.expected}.")
    values["launcher"] = values["launcher"] or "local"
    _check_launcher(given, values["launcher"])
    values["device"] = values["device"] or "auto"
    values["nj"] = values["nj"] or str(n_cores())
    recipe = values["recipe"] = values["recipe"] or "demo"
    if not (root / "recipes" / recipe / "prepare.py").is_file():
        there = sorted(path.parent.name for path in root.glob("recipes/*/prepare.py"))
        raise UsageError(
            f"--recipe is '{recipe}', but there is no recipes/{recipe}/prepare.py: give one of "
            f"{' '.join(there)}."
        )
    for name in _PATHS:
        if values[name] and caller != root:
            values[name] = str(caller / values[name])
    values["conf"] = values["conf"] or f"conf/{recipe}/default.yaml"
    if not (root / values["conf"]).is_file():
        raise UsageError(f"--conf is '{values['conf']}', but there is no such file.")
    for name in ("data", "dump", "exp"):
        values[f"{name}dir"] = values[f"{name}dir"] or f"{name}/{recipe}"
    values["tag"] = values["tag"] or Path(values["conf"]).stem
    tag = _BY_NAME["--tag"]
    if not re.fullmatch(tag.pattern, values["tag"]):
        raise UsageError(f"--tag is '{values['tag']}': give {tag.expected}.")
    if values["n-cycles"]:
        values["set"].append(f"relabel.n_cycles={values['n-cycles']}")
    return values


def _stage_number(option: str, text: str) -> int:
    for stage in STAGES:
        if text in (str(stage.number), stage.name):
            return stage.number
    names = " ".join(stage.name for stage in STAGES)
    raise UsageError(
        f"{option} is '{text}', which is no stage: give 0 to {STAGES[-1].number} or one of {names}."
    )


def _check_launcher(given: dict[str, Any], launcher: str) -> None:
    if launcher == "slurm" and any(
        option.jobs is False for option in OPTIONS if option.name in given
    ):
        raise UsageError(
            "--nj, --n-gpus, --ranks and --n-nodes go without --launcher slurm: --slurm-conf says "
            "cpus-per-task, gres, ranks and nodes."
        )
    if launcher == "local" and any(option.jobs for option in OPTIONS if option.name in given):
        raise UsageError("--seeds and --slurm-conf go with --launcher slurm.")


def n_cores() -> int:
    """Cores of this job or machine that may be used; fewer where OMP_NUM_THREADS says so."""
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        first = os.environ.get(name, "").split(",")[0]
        if re.fullmatch(_COUNT, first):
            return int(first)
    # macOS tells no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
