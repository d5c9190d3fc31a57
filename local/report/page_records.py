"""What a report is made of: plain records, without any drawing.

A value that is not known is NaN (numbers) or None (optional parts) and is shown as "no data". Ids,
labels and names come from files that others wrote; nothing here trusts them, and the page
escapes them all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from local.models.task_contract import ReportSection

NAN = float("nan")


class EventKind(Enum):
    """Where the event of a box comes from."""

    TRUE = "true"
    KNOWN_POSITIVE = "known positive"
    KNOWN_NEGATIVE = "known negative"
    PSEUDO = "pseudo"


@dataclass(frozen=True)
class ScoreRow:
    """One score of one cycle with its bootstrap interval.

    Attributes
    ----------
    name
        The score, e.g. ``"LWLRAP"``.
    cycle
        0 for the first training, n for the n-th after relabelling.
    subset
        What was scored against what, e.g. ``"out-of-fold, known labels"``.
    value, low, high
        The score and its interval; NaN where there is none.
    n
        Number of recordings behind it.
    """

    name: str
    cycle: int
    subset: str
    value: float
    low: float = NAN
    high: float = NAN
    n: int | None = None


@dataclass(frozen=True)
class Baseline:
    """A baseline that needs no sound: the random ranking, the best constant row.

    `score` and `subset` equal `ScoreRow.name` and `ScoreRow.subset` of the rows it belongs beside;
    `name` is the baseline's own, e.g. ``"chance"``.
    """

    score: str
    subset: str
    name: str
    value: float


@dataclass(frozen=True)
class ClassRow:
    """One class: how much is known of it and how well it is found.

    `scores` maps a column title (e.g. ``"known, cycle 1"``, ``"truth, cycle 1"``) to a score in
    [0, 1], `intervals` the same titles to (low, high) where there are any; `prevalence` maps a
    title (``"estimated"``, ``"in the truth"``) to a share of recordings in [0, 1]. Classes may lack
    titles that others have.
    """

    label: str
    name: str = ""
    n_known: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    prevalence: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class EventClassRow:
    """One class of an `EventScores`: `scores` maps a title to (value, low, high)."""

    label: str
    name: str
    n_true: int
    n_found: int
    scores: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class EventScores:
    """Events of one cycle against true ones.

    Attributes
    ----------
    subset
        Which events, against what.
    n
        Number of recordings behind it.
    averages
        Title -> ``"micro"`` and ``"macro"`` -> (value, low, high).
    classes
        A row a class; empty: not shown.
    worst
        The worst class in words.
    rates
        Titles whose values are no shares in [0, 1].
    """

    cycle: int
    subset: str
    n: int
    averages: Mapping[str, Mapping[str, tuple[float, float, float]]]
    classes: Sequence[EventClassRow] = ()
    worst: str = ""
    rates: Sequence[str] = ()


@dataclass(frozen=True)
class Curve:
    """Training of one fold in one cycle: `series` maps a name to one value per entry of `epoch`."""

    cycle: int
    fold: int
    epoch: Sequence[float]
    series: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        for name, values in self.series.items():
            if len(values) != len(self.epoch):
                raise ValueError(
                    f"curve {name!r} has {len(values)} values for {len(self.epoch)} epochs"
                )

    @classmethod
    def from_log(cls, frame: pd.DataFrame, cycle: int, fold: int, series: Sequence[str]) -> "Curve":
        """The curve of those columns `series` that a fold's log.csv has as numbers."""
        numbers = frame.select_dtypes("number")
        return cls(
            cycle=cycle,
            fold=fold,
            epoch=frame["epoch"].tolist(),
            series={name: frame[name].tolist() for name in series if name in numbers.columns},
        )


@dataclass(frozen=True)
class Box:
    """An event drawn on a clip's spectrogram: seconds from the start of the recording, hertz.

    `low_freq` and `high_freq` are None where the band is unknown.
    """

    onset: float
    offset: float
    label: str
    kind: EventKind
    low_freq: float | None = None
    high_freq: float | None = None


@dataclass(frozen=True)
class Confusion:
    """How classes score where a class is confirmed; rows are the confirmed classes.

    Attributes
    ----------
    n
        Confirmed spans of each class.
    highest
        (C, C) share of the spans of a row in which the column's class scores highest of all.
    above
        (C, C) share in which it reaches its threshold.
    mean_rank
        (C,) place of the confirmed class among all, 1 the best; NaN without spans.
    """

    labels: Sequence[str]
    n: Sequence[int]
    highest: np.ndarray
    above: np.ndarray
    mean_rank: np.ndarray


@dataclass(frozen=True)
class CalibrationBin:
    """Known cells whose score lies in [low, high): how many there are, and how many sound."""

    low: float
    high: float
    mean_score: float
    share_present: float
    n: int


@dataclass(frozen=True)
class ChangeRow:
    """Pseudo rows of one class in one cycle, against those of the cycle before.

    `score_change` is that of the class's out-of-fold score from the cycle before. Of `soft` labels
    the numbers are expected ones, of cells and recordings; nothing is added or removed.
    """

    cycle: int
    label: str
    n_events: float
    n_recordings: float
    seconds: float
    n_added: float = NAN
    n_removed: float = NAN
    score_change: float = NAN
    soft: bool = False


@dataclass(frozen=True)
class ChangeExample:
    """A pseudo row that the last cycle added or removed."""

    what: str
    recording_id: str
    label: str
    onset: float
    offset: float


@dataclass(frozen=True)
class Item:
    """A detection, or a label without a detection (`missed`), to listen to and judge.

    `by_label`, `by_cycle`, `by_fold` in [0, 1] say how far the score disagrees with the labels,
    with that of the first cycle, and how far folds are apart; NaN where there is nothing to compare
    with. `pseudo`: it became a pseudo label of the last cycle.
    """

    label: str
    onset: float
    offset: float
    score: float
    low_freq: float | None = None
    high_freq: float | None = None
    missed: bool = False
    pseudo: bool = False
    by_label: float = NAN
    by_cycle: float = NAN
    by_fold: float = NAN

    @property
    def disagreement(self) -> float:
        """The greatest of the three; 0 where there is nothing to compare with."""
        return float(np.nanmax([0.0, self.by_label, self.by_cycle, self.by_fold]))


@dataclass(frozen=True)
class Media:
    """What a clip looks and sounds like: a PNG of the spectrogram and an MP3; None without."""

    picture: bytes | None = None
    sound: bytes | None = None


@dataclass(frozen=True)
class Clip:
    """A recording, or a part of a long one, to look at and listen to.

    Attributes
    ----------
    start_s, end_s
        The part of the recording, in seconds from its beginning.
    items
        What can be gone through and judged, in order of time.
    events
        Boxes beside the items: true, known and pseudo events.
    traces
        Label -> (n,) probabilities in [0, 1] of steps of `trace_hop_s` from `trace_start_s` on.
    media
        Makes picture and sound when called; both may be large.
    """

    recording_id: str
    subset: str
    start_s: float
    end_s: float
    items: Sequence[Item] = ()
    events: Sequence[Box] = ()
    traces: Mapping[str, np.ndarray] = field(default_factory=dict)
    trace_start_s: float = 0.0
    trace_hop_s: float = 0.1
    media: Callable[[], Media] = Media


@dataclass(frozen=True)
class Viewer:
    """The part of the page in which recordings are looked at, listened to and judged.

    Attributes
    ----------
    thresholds
        Label -> probability from which on a detection is shown.
    mel_centres_hz
        Centre frequency of each row of the pictures, increasing.
    expansion
        How many times slower than life the sound files play; 1 for audible sound.
    key
        Under what name the browser keeps verdicts.
    n_jobs
        Threads that make pictures and sounds.
    """

    clips: Sequence[Clip]
    labels: Sequence[str]
    names: Mapping[str, str] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    mel_centres_hz: Sequence[float] = ()
    expansion: float = 1.0
    key: str = "canopy"
    note: str = ""
    n_jobs: int = 1


@dataclass(frozen=True)
class Report:
    """All that one page shows; every part may be empty.

    `facts` are pairs of name and value under the title. `provenance` (commit, versions, device,
    seed, command) may be nested. `sections` are those that the page shows, in their order: names of
    its own (`page_sections.SECTIONS`) and sections of the task; empty: all of its own.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    scores: Sequence[ScoreRow] = ()
    # Events against true ones, and measures of a fitted rule's: tables without tiles and plots.
    event_scores: Sequence[EventScores] = ()
    events: Sequence[ScoreRow] = ()
    baselines: Sequence[Baseline] = ()
    classes: Sequence[ClassRow] = ()
    curves: Sequence[Curve] = ()
    confusion: Confusion | None = None
    calibration: Sequence[CalibrationBin] = ()
    changes: Sequence[ChangeRow] = ()
    change_examples: Sequence[ChangeExample] = ()
    viewer: Viewer | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sections: "Sequence[str | ReportSection]" = ()
