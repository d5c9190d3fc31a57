"""Windows of recordings with soft labels, drawn by how much those say.

What an unlabelled recording teaches lies where something is believed to call. Each recording is
looked at through windows that overlap by half; a window's confidence is the sum over classes of its
highest label, and windows are drawn in proportion to it. So classes come as often as they are
believed to call, and silence hardly at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from local.labels.grid import cells_at_least, coverage
from local.labels.soft_labels import SoftLabels
from local.labels.targets import EventArrays


@dataclass(frozen=True)
class PseudoWindows:
    """K windows: the recording's position, the second of their middle, confidence.

    jitter_s: half the distance of two neighbours.
    """

    recording: np.ndarray
    middle: np.ndarray
    confidence: np.ndarray
    jitter_s: float

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Recording positions (n,) and seconds (n,) of the middles of windows.

        By confidence, then moved evenly by up to half the distance of two windows.
        """
        chance = self.confidence / self.confidence.sum()
        chosen = rng.choice(len(chance), size=n, p=chance)
        moved = rng.uniform(-self.jitter_s, self.jitter_s, size=n)
        return self.recording[chosen], self.middle[chosen] + moved


def find_pseudo_windows(
    soft: SoftLabels,
    recordings: Iterable[tuple[int, str]],
    window_s: float,
    events: Mapping[str, EventArrays],
) -> PseudoWindows | None:
    """All windows of the recordings (position, id) that have soft labels; None: nothing calls.

    A recording that is shorter than a window is one window. What a row of `events`, by recording,
    says to be absent is believed by nobody.
    """
    length = cells_at_least(window_s, soft.hop_s)
    step = max(1, length // 2)
    rows: list[np.ndarray] = []
    middles: list[np.ndarray] = []
    confidences: list[np.ndarray] = []
    for position, name in recordings:
        if name not in soft:
            continue
        label = _believed(soft, name, events.get(name))
        shown = min(length, label.shape[1])
        begins = np.arange(0, label.shape[1] - shown + step, step)
        highest = [label[:, begin : begin + shown].max(axis=1, initial=0.0) for begin in begins]
        rows.append(np.full(len(begins), position))
        middles.append(soft.start_s + (begins + shown / 2) * soft.hop_s)
        confidences.append(np.stack(highest).sum(axis=1, dtype=np.float64))
    if not confidences or not sum(part.sum() for part in confidences) > 0:
        return None
    return PseudoWindows(
        np.concatenate(rows),
        np.concatenate(middles),
        np.concatenate(confidences),
        step * soft.hop_s / 2,
    )


def _believed(soft: SoftLabels, name: str, events: EventArrays | None) -> np.ndarray:
    """(C, n) labels of a recording, 0 where people rejected the class."""
    label = soft.of(name)
    if events is None or not (events.polarity < 0).any():
        return label
    label = label.copy()
    rejected = np.flatnonzero(events.polarity < 0)
    filled = coverage(events.onset[rejected], events.offset[rejected], soft.grid(name)) > 0
    for row, cells in zip(events.label[rejected], filled, strict=True):
        label[row, cells] = 0.0
    return label


def capped(kinds: np.ndarray, kind: int, most: int, batch_size: int) -> np.ndarray:
    """Places (k,) of those of a kind that are too many in their batch, the last ones."""
    over = [
        begin + np.flatnonzero(kinds[begin : begin + batch_size] == kind)[most:]
        for begin in range(0, len(kinds), batch_size)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *over])
