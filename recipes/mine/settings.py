"""The `prepare:` section of this recipe."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from local.config import Section, Share
from local.data.annotations.format_names import Format
from local.data.annotations.shared import ReadOptions

Subset = Literal["train", "test", "unlabelled"]


class GroupConfig(Section):
    """What must not straddle folds: the recordings of one site, session or animal."""

    by: Literal["recording", "folder", "pattern", "csv", "column"] = "recording"
    # pattern: a regular expression searched in a recording's path below the data folder; its first
    # bracket, or else all that it matches, is the group.
    pattern: str | None = None
    # csv: a table of recording (id, file name or path) and group (or site), below the data folder.
    csv: str | None = None
    # column: a column of the annotation tables.
    column: str | None = None

    @model_validator(mode="after")
    def _has_what_it_goes_by(self) -> "GroupConfig":
        for name in ("pattern", "csv", "column"):
            if (self.by == name) != (getattr(self, name) is not None):
                raise ValueError(f"by: {name} goes with a value of key {name}, and only so")
        return self


class MatchConfig(Section):
    """How the name of a table becomes that of its recording: a substitution."""

    pattern: str
    to: str


class PrepareConfig(Section):
    """Where recordings and annotations lie, and what they mean."""

    # Patterns of sound files below the data folder; other files are passed over.
    recordings: tuple[str, ...] = ("**/*",)
    # Folder of the annotations, below the data folder or absolute; null: the data folder itself.
    annotation_dir: str | None = None
    # Patterns of annotation files below it.
    annotations: tuple[str, ...] = ("**/*.txt", "**/*.csv", "**/*.tsv")
    # Patterns of those files whose rows deny their class: rejected candidates. Where any are named,
    # all other files confirm.
    rejected: tuple[str, ...] = ()
    format: Format = "auto"
    # Column of the labels, or one label for all rows.
    column: str | None = None
    label: str | None = None
    # plain: our name -> the file's name, as {onset: start}.
    columns: dict[str, str] = Field(default_factory=dict)
    encoding: str | None = None
    # Raven tables of several files without File Offset: times count from the start of each file.
    times_in_file: bool = False
    match: MatchConfig | None = None
    # Annotations of no recording: refuse them, or leave them out.
    unmatched: Literal["refuse", "ignore"] = "refuse"
    # Patterns of the recordings of a subset; @FILE names a list, one pattern a line. What no
    # pattern names is train where there is an annotation of it, an empty table included.
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    without_annotations: Subset = "test"
    group: GroupConfig = GroupConfig()
    # Labels that become classes, in output order; none given: all, by name.
    classes: tuple[str, ...] = ()
    # Classes with fewer calls, or calls in fewer groups, of train are left out.
    min_count: int = Field(1, ge=1)
    min_groups: int = Field(1, ge=1)
    rename: dict[str, str] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    # Labels that say what does not sound: label -> the class that is absent in that span.
    negatives: dict[str, str] = Field(default_factory=dict)
    empty_label: Literal["drop", "refuse"] = "drop"
    # Labels at a point in time become spans of this length around it; null refuses them.
    point_s: float | None = Field(None, gt=0)
    max_invalid_share: Share = 0.0

    def read_options(self, file: str) -> ReadOptions:
        """What the reader of an annotation file, given by its path in their folder, must know."""
        denies = any(fnmatchcase(file, pattern) for pattern in self.rejected)
        return ReadOptions(
            column=self.column,
            label=self.label,
            columns=self.columns,
            polarity=-1 if denies else 1 if self.rejected else None,
            encoding=self.encoding,
            times_in_file=self.times_in_file,
        )

    def annotation_folder(self, datadir: Path) -> Path:
        """Folder of the annotations."""
        return datadir / self.annotation_dir if self.annotation_dir else datadir

    def own_files(self, datadir: Path) -> list[Path]:
        """Lists and tables that the settings name, which are no annotations."""
        names = [name[1:] for name in (*self.train, *self.test, *self.unlabelled) if name[0] == "@"]
        return [datadir / name for name in [*names, self.group.csv or ""] if name]
