"""Scores over time -> spans, also piece by piece; arithmetic of spans."""

from dataclasses import dataclass

import numpy as np

from local.labels.grid import FrameGrid, cells_at_least, cells_at_most


@dataclass(frozen=True)
class Span:
    """A stretch of time with the highest score inside it."""

    onset: float
    offset: float
    score: float


def frames_to_events(
    prob: np.ndarray,
    grid: FrameGrid,
    threshold: float,
    low_threshold: float | None = None,
    min_duration_s: float = 0.0,
    max_gap_s: float = 0.0,
    max_duration_s: float = np.inf,
) -> list[Span]:
    """Scores over time of one class -> spans, by hysteresis; `SpanFinder` says how.

    Parameters
    ----------
    prob : (n,) scores in any unit the thresholds share.
    """
    rule = SpanRule(threshold, low_threshold, min_duration_s, max_gap_s, max_duration_s)
    finder = SpanFinder(rule, grid.hop_s, grid.start_s)
    return finder.add(prob) + finder.finish()


@dataclass(frozen=True)
class SpanRule:
    """What a span of scores must be like; thresholds are in the unit of the scores.

    A span is a run of cells at or above `low_threshold` (default: `threshold`) with at least one at
    or above `threshold`. Spans nearer than `max_gap_s` are one; what is then shorter than
    `min_duration_s` or longer than `max_duration_s` is dropped. Gaps and durations are counted in
    whole cells, so that where in a recording a span lies decides nothing.
    """

    threshold: float
    low_threshold: float | None = None
    min_duration_s: float = 0.0
    max_gap_s: float = 0.0
    max_duration_s: float = np.inf


class SpanFinder:
    """Spans of one class in scores that come piece by piece; the pieces do not matter.

    Onsets are clipped at 0.
    """

    def __init__(self, rule: SpanRule, hop_s: float, start_s: float = 0.0) -> None:
        self._threshold = rule.threshold
        self._low = rule.threshold if rule.low_threshold is None else rule.low_threshold
        # Cells that a span has at least and at most, and that part it from the next.
        self._shortest = cells_at_least(rule.min_duration_s, hop_s)
        self._longest = cells_at_most(rule.max_duration_s, hop_s)
        self._parting = cells_at_least(rule.max_gap_s, hop_s)
        self._hop_s, self._start_s = hop_s, start_s
        self._n = 0
        self._first: int | None = None  # cell where the run that is still open begins
        self._peak = -np.inf
        # (first cell, cell after the last, highest score) of what may be joined with the next.
        self._waiting: tuple[int, int, float] | None = None

    def add(self, prob: np.ndarray) -> list[Span]:
        """Further (k,) scores -> the spans that are complete with them."""
        above = np.concatenate([[self._first is not None], prob >= self._low])
        changes = np.flatnonzero(above[1:] != above[:-1])
        if len(changes) == 0 and self._first is None and self._waiting is None:
            self._n += len(prob)
            return []
        found: list[Span] = []
        begin = 0
        for change in [*changes.tolist(), len(prob)]:
            if self._first is not None:
                self._peak = max(self._peak, float(prob[begin:change].max(initial=-np.inf)))
                if change < len(prob):
                    found += self._close(self._n + change)
            elif change < len(prob):
                self._first, self._peak = self._n + change, -np.inf
            begin = change
        self._n += len(prob)
        if self._first is None and self._apart(self._n):
            found += self._give()
        return found

    def finish(self) -> list[Span]:
        """The spans that end with the scores."""
        found = self._close(self._n) if self._first is not None else []
        return found + self._give()

    def _apart(self, cell: int) -> bool:
        """Whether what begins at `cell` is another span than the one that waits."""
        return self._waiting is None or cell - self._waiting[1] >= self._parting

    def _close(self, end: int) -> list[Span]:
        first, peak, self._first = self._first, self._peak, None
        if first is None or peak < self._threshold:
            return []
        given = self._give() if self._apart(first) else []
        if self._waiting is not None:
            first, peak = self._waiting[0], max(self._waiting[2], peak)
        self._waiting = (first, end, peak)
        return given

    def _give(self) -> list[Span]:
        waiting, self._waiting = self._waiting, None
        if waiting is None or not self._shortest <= waiting[1] - waiting[0] <= self._longest:
            return []
        onset, offset = (self._start_s + self._hop_s * cell for cell in waiting[:2])
        return [Span(max(0.0, onset), offset, waiting[2])]


def subtract_spans(
    onset: float, offset: float, taken: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    """What is left of [onset, offset) when the `taken` spans are cut out of it."""
    left, position = [], onset
    for start, end in sorted(taken):
        if end <= position:
            continue
        if start >= offset:
            break
        if start > position:
            left.append((position, start))
        position = max(position, end)
    if position < offset:
        left.append((position, offset))
    return left
