"""The only place where time meets index: events -> targets of frames and windows -> events.

A frame is a cell of time. Feature frames come from a centred short-time transform: frame i is
centred on sample i*hop and stands for [(i - 1/2) hop, (i + 1/2) hop). Samples stand for
[i, i + 1) / rate. A `FrameGrid` holds that convention once; nothing else converts seconds.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from local.config import DataConfig, WindowConfig

PSEUDO = "pseudo"


@dataclass(frozen=True)
class FrameGrid:
    """`n` neighbouring cells of `hop_s` seconds; the first begins at `start_s`."""

    n: int
    hop_s: float
    start_s: float = 0.0

    @property
    def end_s(self) -> float:
        """End of the last cell in seconds."""
        return self.start_s + self.n * self.hop_s

    @property
    def edges_s(self) -> np.ndarray:
        """(n + 1,) borders of the cells in seconds."""
        return self.start_s + self.hop_s * np.arange(self.n + 1)

    @property
    def centres_s(self) -> np.ndarray:
        """(n,) centres of the cells in seconds."""
        return self.start_s + self.hop_s * (np.arange(self.n) + 0.5)


def grid_of(
    n_frames: int,
    hop_s: float,
    centred: bool,
    first: int = 0,
    step: int = 1,
    stretch: float = 1.0,
) -> FrameGrid:
    """Grid of a window of input frames seen through a model that makes one cell of `step` frames.

    `n_frames` input frames of `hop_s` seconds from frame `first` on; `centred` as for features, not
    for samples. A rest that fills no whole cell is left out. With `stretch` the window shows, from
    the beginning of frame `first` on, a recording played that many times as long; the grid lies in
    stretched time, as do events that are `stretched` by as much.
    """
    start = (first - (0.5 if centred else 0.0)) * hop_s * stretch
    return FrameGrid(n_frames // step, hop_s * step, start)


def to_frames(seconds: float, hop_s: float) -> int:
    """Whole number of frames nearest to a length of time."""
    return int(np.floor(seconds / hop_s + 0.5))


def overlap(
    onset: np.ndarray, offset: np.ndarray, start: np.ndarray | float, end: np.ndarray | float
) -> np.ndarray:
    """Seconds that [onset, offset) and [start, end) share; broadcasts."""
    return np.maximum(0.0, np.minimum(offset, end) - np.maximum(onset, start))


def coverage(onset: np.ndarray, offset: np.ndarray, grid: FrameGrid) -> np.ndarray:
    """Share of each cell that each event fills: (E,), (E,) seconds -> (E, n) in [0, 1]."""
    edges = grid.edges_s
    shared = overlap(np.asarray(onset)[:, None], np.asarray(offset)[:, None], edges[:-1], edges[1:])
    return np.minimum(1.0, shared / grid.hop_s)


@dataclass(frozen=True)
class EventArrays:
    """The events of one recording as arrays of length E."""

    label: np.ndarray  # int, index of the class
    onset: np.ndarray  # seconds
    offset: np.ndarray  # seconds
    polarity: np.ndarray  # 1 or -1
    weight: np.ndarray  # (0, 1]
    pseudo: np.ndarray  # bool, a machine said so

    def __len__(self) -> int:
        return len(self.label)

    def stretched(self, factor: float) -> "EventArrays":
        """The same events of a recording that lasts `factor` times as long."""
        return replace(self, onset=self.onset * factor, offset=self.offset * factor)


def events_by_recording(events: pd.DataFrame, labels: list[str]) -> dict[str, EventArrays]:
    """Events table -> arrays for each recording that has any."""
    index = {label: position for position, label in enumerate(labels)}
    return {
        str(recording_id): EventArrays(
            label=rows["label"].map(index).to_numpy(dtype=np.int64),
            onset=rows["onset"].to_numpy(dtype=np.float64),
            offset=rows["offset"].to_numpy(dtype=np.float64),
            polarity=rows["polarity"].to_numpy(dtype=np.float64),
            weight=rows["weight"].to_numpy(dtype=np.float64),
            pseudo=rows["source"].astype(str).str.startswith(PSEUDO).to_numpy(dtype=bool),
        )
        for recording_id, rows in events.groupby("recording_id", sort=True)
    }


@dataclass(frozen=True)
class Targets:
    """Targets of one window. A mask is the weight of a cell; 0 means unknown."""

    clip_target: np.ndarray  # (C,)
    clip_mask: np.ndarray  # (C,)
    frame_target: np.ndarray  # (C, n)
    frame_mask: np.ndarray  # (C, n)


def needed_s(duration_s: np.ndarray, rule: WindowConfig) -> np.ndarray:
    """Seconds of an event that a window must show for the event to count.

    The lesser of `min_visible_s` and `min_visible_share` of the event, or of the window when that
    is shorter: a window shorter than `min_visible_s` could show no long event otherwise.
    """
    longest = np.minimum(duration_s, rule.length_s)
    return np.minimum(rule.min_visible_share * longest, rule.min_visible_s)


def visible_enough(visible_s: np.ndarray, duration_s: np.ndarray, rule: WindowConfig) -> np.ndarray:
    """Whether an event of `duration_s` counts in a window that shows `visible_s` of it.

    The small slack keeps an event that is wholly inside from failing by rounding.
    """
    return (visible_s > 0) & (visible_s >= needed_s(duration_s, rule) - 1e-9)


def window_targets(
    events: EventArrays | None,
    n_classes: int,
    grid: FrameGrid,
    rule: WindowConfig,
    data: DataConfig,
) -> Targets:
    """Exact targets of a window from the events that reach into it.

    - Positive and visible enough: clip target 1; its frames have target 1 with the share of the
      frame that it fills as mask (times the event's weight).
    - Positive but a sliver: its frames and its clip cell are unknown.
    - Negative: its frames have target 0, masked likewise. The clip cell is a known 0 when negatives
      cover `negative_cover` of the window and no positive reaches into it.
    - Nothing said: unknown; known 0 when annotations are complete (then a frame's target is the
      share that is filled, and its mask 1).
    - Where rows disagree: true positive before true negative before pseudo event.
    """
    complete = data.annotation == "complete"
    known = 1.0 if complete else 0.0
    clip_target = np.zeros(n_classes, dtype=np.float32)
    clip_mask = np.full(n_classes, known, dtype=np.float32)
    frame_target = np.zeros((n_classes, grid.n), dtype=np.float32)
    frame_mask = np.full((n_classes, grid.n), known, dtype=np.float32)
    targets = Targets(clip_target, clip_mask, frame_target, frame_mask)
    if events is None or len(events) == 0:
        return targets
    visible = overlap(events.onset, events.offset, grid.start_s, grid.end_s)
    if not (visible > 0).any():
        return targets
    filled = np.zeros((len(events), grid.n))
    filled[visible > 0] = coverage(events.onset[visible > 0], events.offset[visible > 0], grid)
    _cut_pseudo(events, filled, visible, grid.hop_s)
    present = np.flatnonzero(visible > 0)
    counts = visible_enough(visible, events.offset - events.onset, rule)
    # Later ones overwrite earlier ones: pseudo, then true negatives, then true positives.
    order = sorted(present, key=lambda e: (not events.pseudo[e], events.polarity[e]))
    for event in order:
        if events.polarity[event] > 0:
            _put_positive(targets, events, event, filled[event], bool(counts[event]), complete)
        else:
            _put_negative(targets, events, event, filled[event])
    _put_clip_negatives(targets, events, filled, rule)
    return targets


def _cut_pseudo(events: EventArrays, filled: np.ndarray, visible: np.ndarray, hop_s: float) -> None:
    """Take from pseudo events, in place, the cells where a true row of their class speaks."""
    for event in np.flatnonzero(events.pseudo & (visible > 0)):
        true_rows = ~events.pseudo & (events.label == events.label[event])
        spoken = (filled[true_rows] > 0).any(axis=0)
        if spoken.any():
            filled[event, spoken] = 0.0
            visible[event] = filled[event].sum() * hop_s


def _put_positive(
    targets: Targets,
    events: EventArrays,
    event: int,
    filled: np.ndarray,
    counts: bool,
    complete: bool,
) -> None:
    label, weight = events.label[event], events.weight[event]
    touched = filled > 0
    if not counts:
        # A sliver says nothing, unless a better visible event has already spoken for the cell.
        undecided = touched & (targets.frame_target[label] == 0)
        targets.frame_mask[label, undecided] = 0.0
        if targets.clip_target[label] == 0:
            targets.clip_mask[label] = 0.0
        return
    was_positive = targets.frame_target[label] > 0
    before = np.where(was_positive, targets.frame_mask[label], 0.0)
    before_clip = targets.clip_mask[label] if targets.clip_target[label] > 0 else 0.0
    targets.clip_target[label] = 1.0
    targets.clip_mask[label] = max(weight, before_clip)
    if complete:
        targets.frame_target[label] = np.maximum(targets.frame_target[label], filled)
        targets.frame_mask[label, touched] = np.maximum(before, weight)[touched]
    else:
        targets.frame_target[label, touched] = 1.0
        targets.frame_mask[label, touched] = np.maximum(before, filled * weight)[touched]


def _put_negative(targets: Targets, events: EventArrays, event: int, filled: np.ndarray) -> None:
    label, weight = events.label[event], events.weight[event]
    touched = filled > 0
    was_negative = targets.frame_target[label] == 0
    before = np.where(was_negative, targets.frame_mask[label], 0.0)
    targets.frame_target[label, touched] = 0.0
    targets.frame_mask[label, touched] = np.maximum(before, filled * weight)[touched]


def _put_clip_negatives(
    targets: Targets, events: EventArrays, filled: np.ndarray, rule: WindowConfig
) -> None:
    """Known absences of a whole window: the union of negative spans against `negative_cover`."""
    for label in np.unique(events.label[events.polarity < 0]):
        of_label = events.label == label
        if filled[of_label & (events.polarity > 0)].any():
            continue
        negative = of_label & (events.polarity < 0) & filled.any(axis=1)
        covered = filled[negative].max(axis=0).mean() if negative.any() else 0.0
        if covered >= rule.negative_cover - 1e-9:
            targets.clip_target[label] = 0.0
            targets.clip_mask[label] = events.weight[negative].max()


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
    `min_duration_s` or longer than `max_duration_s` is dropped.
    """

    threshold: float
    low_threshold: float | None = None
    min_duration_s: float = 0.0
    max_gap_s: float = 0.0
    max_duration_s: float = np.inf

    def keeps(self, span: Span) -> bool:
        """Whether a span is neither too short nor too long."""
        duration = span.offset - span.onset
        return self.min_duration_s - 1e-9 <= duration <= self.max_duration_s + 1e-9


class SpanFinder:
    """Spans of one class in scores that come piece by piece; the pieces do not matter.

    Bounds are clipped at 0.
    """

    def __init__(self, rule: SpanRule, hop_s: float, start_s: float = 0.0) -> None:
        self._rule = rule
        self._low = rule.threshold if rule.low_threshold is None else rule.low_threshold
        self._hop_s, self._start_s = hop_s, start_s
        self._n = 0
        self._first: int | None = None  # cell where the run that is still open begins
        self._peak = -np.inf
        self._waiting: Span | None = None  # may be joined with the next

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
        if self._first is None and self._waiting is not None and self._apart(self._n):
            found += self._give()
        return found

    def finish(self) -> list[Span]:
        """The spans that end with the scores."""
        found = self._close(self._n) if self._first is not None else []
        return found + self._give()

    def _edge(self, cell: int) -> float:
        return self._start_s + self._hop_s * cell

    def _apart(self, cell: int) -> bool:
        """Whether what begins at `cell` is another span than the one that waits."""
        onset = max(0.0, self._edge(cell))
        return self._waiting is None or onset - self._waiting.offset >= self._rule.max_gap_s

    def _close(self, end: int) -> list[Span]:
        first, peak, self._first = self._first, self._peak, None
        if first is None or peak < self._rule.threshold:
            return []
        span = Span(max(0.0, self._edge(first)), self._edge(end), peak)
        if self._waiting is None or self._apart(first):
            given = self._give()
        else:
            given = []
            span = Span(self._waiting.onset, span.offset, max(self._waiting.score, peak))
        self._waiting = span
        return given

    def _give(self) -> list[Span]:
        span, self._waiting = self._waiting, None
        return [span] if span is not None and self._rule.keeps(span) else []


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
