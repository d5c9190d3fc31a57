"""One invocation of a stage: its configuration, and where its files lie."""

from dataclasses import dataclass
from pathlib import Path

from local.config import Config, Suggestion
from local.features.front_ends.front_end_registry import front_end_of


@dataclass(frozen=True)
class Run:
    """One invocation: its configuration and where things lie."""

    config: Config
    datadir: Path
    dumpdir: Path
    exp: Path
    device: str
    nj: int
    force: bool
    cache: Path | None = None
    recipe: str = "demo"
    # Settings that the tables suggested; None where they are to suggest none.
    suggestions: list[Suggestion] | None = None

    @property
    def tables(self) -> Path:
        """Folder of the three tables."""
        return self.dumpdir / "tables"

    @property
    def features(self) -> Path:
        """Folder of the npz files that this configuration's front end makes of recordings."""
        return self.dumpdir / front_end_of(self.config).id

    def cycle(self, cycle: int) -> Path:
        """Folder of a relabelling cycle; cycle 0 knows true labels only."""
        return self.exp / f"cycle{cycle}"

    def fold(self, cycle: int, fold: int) -> Path:
        """Folder of one fold's model."""
        return self.cycle(cycle) / f"fold{fold}"
