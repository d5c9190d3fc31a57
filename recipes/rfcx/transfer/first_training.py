"""The first training of every competition: stages 0 to 3 of cycle 0, once; its scores stay."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recipes.rfcx.ladder.climb import run_command
from recipes.rfcx.transfer.competitions import COMPETITIONS, Competition

TAG = "first"
# The finished competitions have longer recordings and real sounds; as many windows as the others.
_OF_DATA = ("train.windows_per_epoch=320", "train.n_epochs=36", "train.validate_every=36")


@dataclass(frozen=True)
class Place:
    """Where a competition of a seed lies: raw data, and DIR/dump, DIR/exp/TAG."""

    competition: Competition
    seed: int
    folder: Path
    data: Path

    @property
    def exp(self) -> Path:
        """The run of the first training."""
        return self.folder / "exp" / TAG


def place_of(competition: Competition, seed: int, expdir: Path, sounds: Path) -> Place:
    """The folders of a competition below `expdir`; finished data stays where it is."""
    slug = re.sub(r"[^a-z0-9]+", "-", competition.name.replace("%", "percent")).strip("-")
    folder = expdir / f"seed{seed}" / slug
    data = sounds / competition.data if competition.data else folder / "data"
    return Place(competition, seed, folder, data)


def command(place: Place, sounds: Path, *settings: str, tag: str = TAG, stop: int = 3) -> list[str]:
    """The command that trains a competition, with further settings."""
    competition, seed = place.competition, place.seed
    chosen = [f"seed={seed}"]
    if competition.data:
        # These are what they are: another seed is another training.
        words = ["--recipe", "rfcx", "--conf", "conf/rfcx/laptop.yaml"]
        chosen += _OF_DATA
    else:
        words = ["--recipe", "demo", "--conf", "conf/demo/transfer.yaml"]
        number = 100 * seed + COMPETITIONS.index(competition)
        chosen += [f"prepare.seed={number}"]
        chosen += [f"prepare.{key}={value}" for key, value in competition.settings.items()]
        if competition.clips:
            chosen += [f"prepare.clips={sounds / competition.clips}"]
    words += ["--datadir", str(place.data), "--tag", tag]
    words += ["--dumpdir", str(place.folder / "dump"), "--expdir", str(place.folder / "exp")]
    words += ["--stop-stage", str(stop)]
    chosen += settings or ("relabel.n_cycles=0",)
    return ["./run.sh", *words, *(part for one in chosen for part in ("--set", one))]


def train(
    place: Place, sounds: Path, runner: Callable[[list[str], Path], None] = run_command
) -> None:
    """Train a competition unless its scores are there."""
    if (place.exp / "cycle0" / "merge.done.json").is_file():
        return
    print(f"transfer: training {place.competition.name}, seed {place.seed}", file=sys.stderr)
    runner(command(place, sounds), place.folder / "log")
