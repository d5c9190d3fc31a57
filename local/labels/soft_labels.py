"""Soft labels: for each cell of time and class what earlier models believe, in place of a verdict.

They lie on the grid of the scores that they were made from; a window's cells lie anywhere. So a
window's cell takes the mean over the time that it shows, as if labels were constant in their cells.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from local.io.archives import UNREADABLE, read_npz
from local.io.errors import CanopyError
from local.io.files import write_npz
from local.labels.grid import FrameGrid

# Beside the scores of a cycle, in its folder.
SOFT_LABELS = "soft_labels.npz"


@dataclass(frozen=True)
class SoftCells:
    """Soft labels on the cells of a window.

    target: (C, n) in [0, 1]. weight: (n,) mask weight where nobody spoke, 0 beyond the recording.
    """

    target: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class SoftLabels:
    """Soft labels of N recordings and C classes.

    target: (C, sum n_i) float16 in [0, 1], the recordings one after the other, as large as a
    competition of thousands of recordings may be. offset: (N + 1,) where each begins. hop_s,
    start_s: their grid. weight: mask weight of a cell, in (0, 1].
    """

    recording_ids: list[str]
    labels: list[str]
    target: np.ndarray
    offset: np.ndarray
    hop_s: float
    start_s: float
    weight: float

    @cached_property
    def _row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.recording_ids)}

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def of(self, name: str) -> np.ndarray:
        """(C, n) float16 of one recording, on its own grid; a view."""
        row = self._row[name]
        return self.target[:, self.offset[row] : self.offset[row + 1]]

    def grid(self, name: str) -> FrameGrid:
        """Grid of one recording's cells."""
        row = self._row[name]
        return FrameGrid(int(self.offset[row + 1] - self.offset[row]), self.hop_s, self.start_s)

    def on(self, name: str, grid: FrameGrid, stretch: float = 1.0) -> SoftCells:
        """Labels of a recording that lasts `stretch` times as long, on the cells of a window.

        A cell that lies partly beyond the recording weighs as much less.
        """
        cells, own = self.of(name), self.grid(name)
        hop_s, start_s = own.hop_s * stretch, own.start_s * stretch
        # Edges of the window's cells in cells of the recording, as far as there are any.
        edges = np.clip((grid.edges_s - start_s) / hop_s, 0.0, own.n)
        shown = np.diff(edges)
        first, last = int(edges[0]), int(np.ceil(edges[-1]))
        if last <= first:
            return SoftCells(np.zeros((len(cells), grid.n), np.float32), np.zeros(grid.n))
        part = cells[:, first:last].astype(np.float64)
        sums = np.concatenate([np.zeros((len(part), 1)), np.cumsum(part, axis=1)], axis=1)
        left = np.minimum((edges - first).astype(np.int64), part.shape[1] - 1)
        integral = sums[:, left] + part[:, left] * (edges - first - left)
        target = np.diff(integral, axis=1) / np.maximum(shown, 1e-12)
        share = shown * hop_s / grid.hop_s
        there = share > 1e-6
        return SoftCells(
            np.clip(np.where(there, target, 0.0), 0.0, 1.0).astype(np.float32),
            np.where(there, self.weight * np.minimum(share, 1.0), 0.0),
        )


def save_soft_labels(path: Path, soft: SoftLabels, power: float) -> None:
    """Write soft_labels.npz.

    Members: recording_id (N,), label (C,), soft_target (C, sum n_i) float16, offset (N + 1,),
    hop_s, start_s, weight, and power, to which probabilities were raised.
    """
    write_npz(
        path,
        recording_id=np.array(soft.recording_ids, dtype=np.str_),
        label=np.array(soft.labels, dtype=np.str_),
        soft_target=soft.target,
        offset=soft.offset,
        hop_s=np.float64(soft.hop_s),
        start_s=np.float64(soft.start_s),
        weight=np.float64(soft.weight),
        power=np.float64(power),
    )


def load_soft_labels(path: Path) -> SoftLabels:
    """Read what `save_soft_labels` wrote; what contradicts itself is refused."""
    try:
        members = read_npz(path)
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such soft labels; run stage 4 first") from None
    except (OSError, *UNREADABLE) as error:
        raise CanopyError(f"{path}: not readable as npz ({error}); run stage 4 again") from None
    missing = {"recording_id", "label", "soft_target", "offset", "hop_s", "start_s", "weight"}
    missing -= set(members)
    fault = f"has no member {min(missing)}" if missing else _fault(members)
    if fault:
        raise CanopyError(f"{path}: {fault}; run stage 4 again")
    return SoftLabels(
        members["recording_id"].tolist(),
        members["label"].tolist(),
        members["soft_target"],
        members["offset"],
        *(float(members[name]) for name in ("hop_s", "start_s", "weight")),
    )


def _fault(members: dict[str, np.ndarray]) -> str:
    """What contradicts itself in the members of the file; "" when nothing does."""
    names, target, offset = (members[name] for name in ("recording_id", "soft_target", "offset"))
    numbers = [members[name] for name in ("hop_s", "start_s", "weight")]
    if any(value.shape != () or not np.isfinite(value) for value in numbers):
        return "its grid or its weight is no number"
    if offset.shape != (len(names) + 1,) or offset.dtype.kind not in "iu":
        return f"member offset has shape {offset.shape}, expected {(len(names) + 1,)}"
    if offset[0] != 0 or (offset[1:] < offset[:-1]).any():
        return "member offset does not increase from 0"
    if target.dtype != np.float16 or target.shape != (len(members["label"]), int(offset[-1])):
        return f"member soft_target has shape {target.shape} of {target.dtype}, not that of offset"
    # Of few cells at a time: comparing all at once would take as much memory again.
    if any(not ((row >= 0) & (row <= 1)).all() for row in target):
        return "member soft_target holds what is no probability"
    return ""
