"""Items to judge in one recording: detections, and labels without a detection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.special import logit as logit_of

from local.config import RelabelConfig
from local.inference.scores import Scores
from local.labels.grid import FrameGrid
from local.labels.spans import frames_to_events
from local.report.page_records import NAN, Item

# A rejection speaks of a detection when they share at least this much of the shorter of the two.
MIN_SHARED = 0.5


class Row(NamedTuple):
    """An event of one recording and class; NaN in hertz where unknown."""

    onset: float
    offset: float
    low_freq: float
    high_freq: float
    polarity: float


Rows = Mapping[tuple[str, str], Sequence[Row]]


class Track(NamedTuple):
    """Scores over time of one recording: (C, n) logits and where their cells lie."""

    logit: np.ndarray
    grid: FrameGrid


def rows_of(events: pd.DataFrame) -> dict[tuple[str, str], list[Row]]:
    """Events by (recording id, label)."""
    found: dict[tuple[str, str], list[Row]] = {}
    columns = ["recording_id", "label", *Row._fields]
    for name, label, *values in events[columns].itertuples(index=False):
        found.setdefault((name, label), []).append(Row(*map(float, values)))
    return found


def tracks_of(scores: Scores, names: Sequence[str] | None = None) -> dict[str, Track]:
    """Tracks by recording id, of all recordings or of those `names` that are there."""
    wanted = None if names is None else set(names)
    return {
        name: Track(scores.frames[row], scores.grid(row))
        for row, name in enumerate(scores.recording_ids)
        if scores.frames and (wanted is None or name in wanted)
    }


@dataclass(frozen=True)
class Sources:
    """What all recordings' items are made from.

    Attributes
    ----------
    labels
        C labels in the order of the tracks.
    last, first
        Tracks of the last and of the first cycle; `first` is None where there is only one.
    folds
        Tracks of single folds of the last cycle, of what they scored; may be empty.
    threshold
        (C,) logits from which on a detection is shown.
    known, pseudo, truth
        Events; where truth is known it is complete, for the recordings `judged`.
    bands
        (low, high) hertz by label; NaN where unknown.
    """

    labels: Sequence[str]
    last: Mapping[str, Track]
    threshold: np.ndarray
    rules: RelabelConfig
    first: Mapping[str, Track] | None = None
    folds: Sequence[Mapping[str, Track]] = ()
    known: Rows = field(default_factory=dict)
    pseudo: Rows = field(default_factory=dict)
    truth: Rows = field(default_factory=dict)
    judged: frozenset[str] = frozenset()
    bands: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def items_of(sources: Sources, name: str, duration_s: float) -> list[Item]:
    """The items of one recording, in order of time."""
    items: list[Item] = []
    for column, label in enumerate(sources.labels):
        track = sources.last[name]
        spans = _spans(track, column, float(sources.threshold[column]), sources.rules, label)
        spans = [(on, min(off, duration_s), peak) for on, off, peak in spans if on < duration_s]
        items += [_detected(sources, name, column, *span) for span in spans]
        known = sources.known.get((name, label), ())
        labels = [row for row in known if row.polarity > 0]
        if name in sources.judged:
            labels = list(sources.truth.get((name, label), ()))
        for row in labels:
            if not any(on < row.offset and row.onset < off for on, off, _ in spans):
                items.append(_missed(sources, track, column, row))
    return sorted(items, key=lambda item: (item.onset, item.offset, item.label))


def _detected(
    sources: Sources, name: str, column: int, onset: float, offset: float, peak: float
) -> Item:
    label = sources.labels[column]
    before = NAN
    if sources.first is not None and name in sources.first:
        before = _peak(sources.first[name], column, onset, offset)
    folds = [part[name] for part in sources.folds if name in part]
    by_fold = [_peak(track, column, onset, offset) for track in folds]
    low, high = sources.bands.get(label, (NAN, NAN))
    return Item(
        label=label,
        onset=onset,
        offset=offset,
        score=peak,
        low_freq=_known(low),
        high_freq=_known(high),
        pseudo=_meets(sources.pseudo.get((name, label), ()), onset, offset),
        by_label=_against_labels(sources, name, label, (onset, offset, peak)),
        by_cycle=abs(peak - before),
        by_fold=max(by_fold) - min(by_fold) if len(by_fold) > 1 else NAN,
    )


def _missed(sources: Sources, track: Track, column: int, row: Row) -> Item:
    peak = _peak(track, column, row.onset, row.offset)
    low, high = sources.bands.get(sources.labels[column], (NAN, NAN))
    return Item(
        label=sources.labels[column],
        onset=row.onset,
        offset=row.offset,
        score=peak,
        low_freq=_known(low if np.isnan(row.low_freq) else row.low_freq),
        high_freq=_known(high if np.isnan(row.high_freq) else row.high_freq),
        missed=True,
        by_label=1.0 - peak,
    )


def _against_labels(
    sources: Sources, name: str, label: str, span: tuple[float, float, float]
) -> float:
    """How far a detection contradicts what is said of its span; NaN where nothing is said."""
    onset, offset, peak = span
    if name in sources.judged:
        return 0.0 if _meets(sources.truth.get((name, label), ()), onset, offset) else peak
    known = sources.known.get((name, label), ())
    if _meets([row for row in known if row.polarity > 0], onset, offset):
        return 0.0
    rejected = [row for row in known if row.polarity < 0]
    return peak if _meets(rejected, onset, offset, MIN_SHARED) else NAN


def _spans(
    track: Track, column: int, threshold: float, rules: RelabelConfig, label: str
) -> list[tuple[float, float, float]]:
    """(onset, offset, probability) by the rules of relabelling at another threshold."""
    low = threshold
    if rules.low_threshold is not None:
        low += float(logit_of(rules.low_threshold) - logit_of(rules.threshold))
    logit = track.logit[column].astype(np.float64)
    if not (logit >= threshold).any():
        return []
    found = frames_to_events(logit, track.grid, threshold, low, *rules.lengths_of(label))
    return [(span.onset, span.offset, float(expit(span.score))) for span in found]


def _peak(track: Track, column: int, onset: float, offset: float) -> float:
    """Highest probability of a class in the cells that a span touches; 0 without any cell."""
    if track.grid.n == 0:
        return 0.0
    edges = track.grid.edges_s
    first = int(np.clip(np.searchsorted(edges, onset + 1e-9) - 1, 0, track.grid.n - 1))
    last = int(np.searchsorted(edges, offset - 1e-9))
    return float(expit(np.float64(track.logit[column, first : max(first + 1, last)].max())))


def _meets(rows: Sequence[Row], onset: float, offset: float, share: float = 0.0) -> bool:
    """Whether any row shares time, and at least `share` of the shorter span, with a span."""
    for row in rows:
        shared = min(row.offset, offset) - max(row.onset, onset)
        if shared > 0 and shared >= share * min(row.offset - row.onset, offset - onset):
            return True
    return False


def _known(hertz: float) -> float | None:
    return None if np.isnan(hertz) else float(hertz)
