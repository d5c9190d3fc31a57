"""The stages in order, and the parts that do them: what each needs, and where it can be cut.

`run.sh` goes through this graph, and the jobs of a cluster are made from it. Nothing here imports
more than the standard library, so that `./run.sh --dry-run` needs no environment.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_PLACES = ("recipe", "tag", "datadir", "dumpdir", "expdir", "device")
# Options that change what is done: of every part.
_CHOICES = ("conf", "nj", "set", "force")
_EVERY = (*_PLACES, *_CHOICES)


@dataclass(frozen=True)
class Part:
    """A piece of work that has a stamp of its own.

    script : what does it, below the project's folder; `{recipe}` is the recipe's name.
    per : what it is done once for: a `dump`, which runs may share, a `run`, a `cycle` of
        relabelling, or a `fold` of a cycle.
    needs, needs_before : parts whose files it reads, of its own cycle and of the cycle before.
    leaves : files that it leaves, in a place of its own: `{tables}`, `{features}`, `{exp}`,
        `{cycle}` or `{fold}`.
    options : options that its script takes.
    shares : where `--shard K/N` deals its recordings to several processes, the name of the job that
        calls it without and takes what they made.
    gathers : the part whose script does this one as well where it is not told to be a worker; both
        compute on as many threads, which decide the last digits.
    """

    name: str
    script: str
    per: str
    needs: tuple[str, ...]
    leaves: tuple[str, ...]
    options: tuple[str, ...] = _EVERY
    needs_before: tuple[str, ...] = ()
    shares: str = ""
    gathers: str = ""


@dataclass(frozen=True)
class Stage:
    """A numbered stage: the parts it does, once or in every cycle that its task asks for."""

    number: int
    name: str
    parts: tuple[str, ...]
    repeated: bool = False


_ALL = (
    Part(
        name="prepare",
        script="recipes/{recipe}/prepare.py",
        per="dump",
        needs=(),
        leaves=("{tables}/prepare.done.json",),
        options=("datadir", "out", *_CHOICES),
    ),
    Part(
        name="preprocess",
        script="bin/preprocess.py",
        per="dump",
        needs=("prepare",),
        leaves=("{features}/manifest.csv",),
        shares="manifest",
    ),
    Part(
        name="split",
        script="bin/split.py",
        per="run",
        needs=("prepare",),
        leaves=("{exp}/folds.csv",),
    ),
    Part(
        name="train",
        script="bin/sed_train.py",
        per="fold",
        # From cycle 1 on also the pseudo events of its own cycle.
        needs=("prepare", "preprocess", "split", "relabel"),
        leaves=("{fold}/train.done.json", "{fold}/best.pt"),
        options=(*_EVERY, "folds", "cache", "n-gpus", "ranks", "n-nodes", "cycle"),
    ),
    Part(
        name="infer",
        script="bin/sed_infer.py",
        per="fold",
        needs=("prepare", "preprocess", "split", "train"),
        leaves=("{fold}/infer.done.json", "{fold}/scores.npz"),
        options=(*_EVERY, "folds", "cache", "cycle"),
        shares="gather",
    ),
    Part(
        name="merge",
        script="bin/sed_infer.py",
        per="cycle",
        needs=("train", "infer"),
        leaves=("{cycle}/oof.npz", "{cycle}/merge.done.json"),
        options=(*_EVERY, "folds", "cycle"),
        gathers="infer",
    ),
    Part(
        name="relabel",
        script="bin/relabel.py",
        per="cycle",
        needs=("prepare", "split"),
        needs_before=("train", "infer", "merge"),
        leaves=("{cycle}/relabel.done.json",),
        options=(*_EVERY, "cycle"),
    ),
    Part(
        name="submit",
        script="bin/submit.py",
        per="run",
        needs=("prepare", "preprocess", "split", "merge"),
        leaves=("{exp}/results.json", "{exp}/submit.done.json"),
    ),
)
PARTS = {part.name: part for part in _ALL}

STAGES = (
    Stage(0, "preprocess", ("prepare", "preprocess")),
    Stage(1, "split", ("split",)),
    Stage(2, "train", ("train",)),
    Stage(3, "infer", ("infer", "merge")),
    Stage(4, "relabel", ("relabel", "train", "infer", "merge"), repeated=True),
    Stage(5, "submit", ("submit",)),
)
# Checks all that the stages asked for will need; before the first of them.
CHECK = Part("check", "bin/check_config.py", "run", (), (), options=(*_EVERY, "stages", "prepared"))


@dataclass(frozen=True)
class Work:
    """A part in a cycle of a stage; cycle 0 for what knows no cycles."""

    stage: Stage
    part: Part
    cycle: int = 0


def order(stages: Iterable[int], cycles: Iterable[int]) -> list[Work]:
    """The parts of some stages, in an order in which each finds what it needs.

    `cycles` of stage 4, see `Task.revised_cycles`: cycle 0 is trained and inferred before.
    """
    return [
        Work(stage, PARTS[name], cycle)
        for stage in STAGES
        if stage.number in stages
        for cycle in (cycles if stage.repeated else (0,))
        for name in (stage.parts if cycle > 0 or not stage.repeated else stage.parts[:1])
    ]


def command(part: Part, values: dict[str, Any]) -> list[str]:
    """What Python is called with for a part: its script, and those of its options that are given.

    `values` are by option, without `--`; None, "" and False are not given, True stands for an
    option without a value, a list for one that is repeated.
    """
    words = [part.script.format(recipe=values["recipe"])]
    for name in part.options:
        value = values.get(name)
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list):
            words += [word for one in value for word in (f"--{name}", str(one))]
        elif value is not None and value is not False and value != "":
            words += [f"--{name}", str(value)]
    return words
