"""Events -> targets of frames and windows."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from local.config import DataConfig, WindowConfig
from local.labels.grid import ROUNDING_S, FrameGrid, coverage, envelope, overlap
from local.labels.soft_labels import SoftCells

PSEUDO = "pseudo"


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
    return (visible_s > 0) & (visible_s >= needed_s(duration_s, rule) - ROUNDING_S)


def window_targets(
    events: EventArrays | None,
    n_classes: int,
    grid: FrameGrid,
    rule: WindowConfig,
    data: DataConfig,
    soft: SoftCells | None = None,
) -> Targets:
    """Exact targets of a window from the events that reach into it.

    - Positive and visible enough: clip target 1; its frames have target 1 with the share of the
      frame that it fills as mask (times the event's weight). Several events of a class fill the
      share of their union; where weights differ, the greatest counts.
    - Positive but a sliver: its frames and its clip cell are unknown.
    - Negative: its frames have target 0, masked likewise. The clip cell is a known 0 when negatives
      cover `negative_cover` of the window and no positive reaches into it.
    - Nothing said: unknown; known 0 when annotations are complete (then a frame's target is the
      share that is filled, and its mask 1).
    - Where rows disagree: true positive before true negative before pseudo event.
    - With `soft` labels, see `put_soft`: they fill the cells that nobody spoke of.
    """
    targets = _hard_targets(events, n_classes, grid, rule, data)
    if soft is not None:
        put_soft(targets, events, grid, soft)
    return targets


def put_soft(
    targets: Targets, events: EventArrays | None, grid: FrameGrid, soft: SoftCells
) -> None:
    """Fill in place what nobody spoke of: neither a row of the class, nor complete annotation.

    A frame takes the soft label, masked by its weight. The clip cell, where nothing is known of it,
    takes the highest label of the frames that nobody spoke of: what rows say of the others is known
    absence. Where a positive row reaches into the window with too little to count, it stays
    unknown, as its frames do.
    """
    n_classes = len(targets.clip_target)
    spoken, called = np.zeros((n_classes, grid.n), dtype=bool), np.zeros(n_classes, dtype=bool)
    if events is not None and len(events):
        filled = coverage(events.onset, events.offset, grid) > 0
        for row in np.flatnonzero(filled.any(axis=1)):
            spoken[events.label[row]] |= filled[row]
            called[events.label[row]] |= events.polarity[row] > 0
    free = ~spoken & (targets.frame_mask == 0) & (soft.weight > 0)
    targets.frame_target[free] = soft.target[free]
    targets.frame_mask[free] = np.broadcast_to(soft.weight, free.shape)[free]
    highest = np.where(free, soft.target, 0.0).max(axis=1, initial=0.0)
    weight = np.where(free, soft.weight, 0.0).max(axis=1, initial=0.0)
    silent = (targets.clip_mask == 0) & ~called & free.any(axis=1)
    targets.clip_target[silent] = highest[silent]
    targets.clip_mask[silent] = weight[silent]


def _hard_targets(
    events: EventArrays | None,
    n_classes: int,
    grid: FrameGrid,
    rule: WindowConfig,
    data: DataConfig,
) -> Targets:
    """Targets of what rows say."""
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
    counts = visible_enough(visible, events.offset - events.onset, rule)
    kinds = _by_kind(events, visible)
    # Later kinds overwrite earlier ones: pseudo, then true negatives, then true positives.
    for (_, positive, label), rows in sorted(kinds.items(), key=lambda kind: kind[0]):
        if positive:
            _mask_partial_positives(targets, label, filled[rows[~counts[rows]]])
            _put_positives(targets, events, rows[counts[rows]], filled, grid, complete)
        else:
            _put_negatives(targets, label, _said(events, rows, filled, grid))
    _put_clip_negatives(targets, events, kinds, filled, grid, rule)
    return targets


def _cut_pseudo(events: EventArrays, filled: np.ndarray, visible: np.ndarray, hop_s: float) -> None:
    """Take from pseudo events, in place, the cells where a true row of their class speaks."""
    for event in np.flatnonzero(events.pseudo & (visible > 0)):
        true_rows = ~events.pseudo & (events.label == events.label[event])
        spoken = (filled[true_rows] > 0).any(axis=0)
        if spoken.any():
            filled[event, spoken] = 0.0
            visible[event] = filled[event].sum() * hop_s


# Whether people said so, whether it is positive, and the class.
_Kind = tuple[bool, bool, int]


def _by_kind(events: EventArrays, visible: np.ndarray) -> dict[_Kind, np.ndarray]:
    """Rows in sight by kind."""
    rows: dict[_Kind, list[int]] = {}
    for row in np.flatnonzero(visible > 0).tolist():
        kind = (not events.pseudo[row], bool(events.polarity[row] > 0), int(events.label[row]))
        rows.setdefault(kind, []).append(row)
    return {kind: np.array(members) for kind, members in rows.items()}


def _rows_of(kinds: dict[_Kind, np.ndarray], label: int, *, positive: bool) -> list[np.ndarray]:
    """Rows of a class and polarity: what a machine said, and what people did."""
    return [rows for kind, rows in kinds.items() if kind[1:] == (positive, label)]


def _said(
    events: EventArrays,
    rows: np.ndarray,
    filled: np.ndarray,
    grid: FrameGrid,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """(n,) the `envelope` of some rows of one class and kind, 0 in cells that they had to leave."""
    weight = events.weight[rows] if weight is None else weight
    if len(rows) == 1:
        return weight[0] * filled[rows[0]]
    share = envelope(events.onset[rows], events.offset[rows], weight, grid)
    return np.where((filled[rows] > 0).any(axis=0), share, 0.0)


def _mask_partial_positives(targets: Targets, label: int, filled: np.ndarray) -> None:
    """(k, n) positives that are hardly in sight: they say nothing, and nothing is said of them."""
    if len(filled) == 0:
        return
    targets.frame_mask[label, (filled > 0).any(axis=0) & (targets.frame_target[label] == 0)] = 0.0
    if targets.clip_target[label] == 0:
        targets.clip_mask[label] = 0.0


def _put_positives(
    targets: Targets,
    events: EventArrays,
    rows: np.ndarray,
    filled: np.ndarray,
    grid: FrameGrid,
    complete: bool,
) -> None:
    """Positives of one class and kind that are visible enough."""
    if len(rows) == 0:
        return
    label, weight = events.label[rows[0]], events.weight[rows]
    touched = (filled[rows] > 0).any(axis=0)
    before = targets.clip_mask[label] if targets.clip_target[label] > 0 else 0.0
    targets.clip_target[label] = 1.0
    targets.clip_mask[label] = max(weight.max(), before)
    if complete:
        share = _said(events, rows, filled, grid, np.ones(len(rows)))
        targets.frame_target[label] = np.maximum(targets.frame_target[label], share)
        heaviest = np.where(filled[rows] > 0, weight[:, None], 0.0).max(axis=0)
        targets.frame_mask[label, touched] = heaviest[touched]
    else:
        targets.frame_target[label, touched] = 1.0
        targets.frame_mask[label, touched] = _said(events, rows, filled, grid)[touched]


def _put_negatives(targets: Targets, label: int, said: np.ndarray) -> None:
    """Known absences of one class and kind, (n,) by weight."""
    touched = said > 0
    was_negative = targets.frame_target[label] == 0
    before = np.where(was_negative, targets.frame_mask[label], 0.0)
    targets.frame_target[label, touched] = 0.0
    targets.frame_mask[label, touched] = np.maximum(before, said)[touched]


def _put_clip_negatives(
    targets: Targets,
    events: EventArrays,
    kinds: dict[_Kind, np.ndarray],
    filled: np.ndarray,
    grid: FrameGrid,
    rule: WindowConfig,
) -> None:
    """Known absences of a whole window: the union of negative spans against `negative_cover`."""
    for label in {label for _, positive, label in kinds if not positive}:
        if any(filled[rows].any() for rows in _rows_of(kinds, label, positive=True)):
            continue
        negative = _rows_of(kinds, label, positive=False)
        # Pseudo rows have left the cells of true ones, so the two kinds share no cell.
        said = [_said(events, rows, filled, grid, np.ones(len(rows))) for rows in negative]
        if sum(share.mean() for share in said) >= rule.negative_cover - 1e-9:
            targets.clip_target[label] = 0.0
            targets.clip_mask[label] = max(events.weight[rows].max() for rows in negative)
