"""Segment-based counts: in which stretches of equal length does a class sound, and is it said to?

The rule of sed_eval (Mesaros, Heittola and Virtanen 2016): segment k is [k, k + 1) * length; a
class is active in every segment that one of its events touches; the last segment may be
a shorter one. An event that reaches into a segment by no more than rounding does not touch it.
"""

from dataclasses import dataclass

import numpy as np

from local.labels.grid import ROUNDING_S
from local.scoring.metrics.matching import EventList

# Cells held at once.
_BLOCK_CELLS = 1 << 24


@dataclass(frozen=True)
class SegmentCounts:
    """Counts a recording and class (N, C), and errors a recording.

    errors: (N,) substitutions + deletions + insertions, all classes together; a segment in which
    one class is missed and another is wrongly found has one substitution.
    """

    hit: np.ndarray
    n_true: np.ndarray
    n_found: np.ndarray
    errors: np.ndarray


def segment_counts(
    true: EventList, found: EventList, durations: np.ndarray, n_classes: int, length_s: float
) -> SegmentCounts:
    """Count segments of `length_s` seconds in recordings of `durations` (N,) seconds.

    Events beyond the end of their recording are cut there.
    """
    n = len(durations)
    n_segments = np.ceil((durations - ROUNDING_S) / length_s).astype(np.int64)
    tables = np.zeros((3, n, n_classes))
    errors = np.zeros(n)
    order = [np.argsort(events.recording, kind="stable") for events in (true, found)]
    true, found = true.take(order[0]), found.take(order[1])
    totals = np.cumsum(n_segments)
    start = 0
    while start < n:
        done = totals[start - 1] if start else 0
        stop = int(np.searchsorted(totals, done + _BLOCK_CELLS // n_classes, "right"))
        stop = min(n, max(start + 1, stop))
        rolls = [
            _roll(part, start, n_segments[start:stop], n_classes, length_s)
            for part in (true, found)
        ]
        begins = totals[start:stop] - n_segments[start:stop] - done
        for table, active in zip(tables, (rolls[0] & rolls[1], *rolls), strict=True):
            table[start:stop] = _sum_rows(active, begins, n_segments[start:stop])
        both = [roll.sum(axis=1) for roll in (rolls[0] & rolls[1], *rolls)]
        worst = np.maximum(both[1], both[2]) - both[0]
        errors[start:stop] = _sum_rows(worst[:, None], begins, n_segments[start:stop])[:, 0]
        start = stop
    return SegmentCounts(tables[0], tables[1], tables[2], errors)


def _roll(
    events: EventList, first: int, n_segments: np.ndarray, n_classes: int, length_s: float
) -> np.ndarray:
    """(sum of segments, C) bool: activity in the recordings from `first` on; `events` sorted."""
    begin, end = np.searchsorted(events.recording, [first, first + len(n_segments)])
    events = events.take(np.arange(begin, end))
    row = events.recording - first
    base = np.cumsum(n_segments) - n_segments
    onset = np.floor((events.onset + ROUNDING_S) / length_s).astype(np.int64)
    offset = np.ceil((events.offset - ROUNDING_S) / length_s).astype(np.int64)
    onset, offset = np.minimum(onset, n_segments[row]), np.minimum(offset, n_segments[row])
    change = np.zeros((int(n_segments.sum()) + 1, n_classes), dtype=np.int32)
    np.add.at(change, (base[row] + onset, events.label), 1)
    np.add.at(change, (base[row] + offset, events.label), -1)
    return np.cumsum(change, axis=0)[:-1] > 0


def _sum_rows(table: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums of consecutive runs of rows; 0 for an empty run."""
    sums = np.concatenate([np.zeros((1, table.shape[1])), np.cumsum(table, axis=0, dtype=float)])
    return sums[begins + lengths] - sums[begins]
