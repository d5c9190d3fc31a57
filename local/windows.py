"""Window geometry and stitching, in whole frames."""

import numpy as np

from local.errors import CanopyError


def window_starts(n_frames: int, window: int, overlap: int, shift: int = 0) -> np.ndarray:
    """First frames of the windows that cover a recording.

    Windows stand `window - overlap` frames apart; the last one is right-aligned, so that it lies
    inside the recording and every frame is covered. A recording no longer than a window gets one
    window at 0 (its end is the caller's to pad). `shift` moves all but the outer windows to the
    right (test-time augmentation); coverage stays whole.

    Returns
    -------
    (n,) increasing ints.

    >>> window_starts(3751, 512, 49).tolist()
    [0, 463, 926, 1389, 1852, 2315, 2778, 3239]
    """
    if window < 1 or not 0 <= overlap < window:
        raise CanopyError(
            f"an overlap of {overlap} frames does not fit a window of {window}; expected 0 <= "
            "overlap < window"
        )
    if n_frames <= window:
        return np.zeros(1, dtype=np.int64)
    step = window - overlap
    last = n_frames - window
    inner = np.arange(shift % step, last, step)
    return np.unique(np.concatenate([[0], inner, [last]])).astype(np.int64)


def n_cells(n_frames: int, step: int) -> int:
    """Cells of `step` frames that stand for `n_frames`: nearest whole number, at least one."""
    return max(1, (2 * n_frames + step) // (2 * step))


class Stitcher:
    """Lays the scores of overlapping windows over each other on the recording's own grid.

    A cell of a window that starts at frame s lies at the grid cell nearest to its true place,
    s / step + j; a start that is no multiple of the step is thus at most half a cell off, and the
    error does not grow along the recording.
    """

    def __init__(self, n_classes: int, n_frames: int, step: int, method: str) -> None:
        self.n = n_cells(n_frames, step)
        self._step = step
        self._method = method
        fill = -np.inf if method == "max" else 0.0
        self._scores = np.full((n_classes, self.n), fill, dtype=np.float64)
        self._count = np.zeros(self.n, dtype=np.int64)

    def add(self, scores: np.ndarray, start: int) -> None:
        """Lay the (C, T') scores of the window whose first frame is `start`."""
        first = (2 * start + self._step) // (2 * self._step)
        end = min(self.n, first + scores.shape[1])
        piece = scores[:, : end - first]
        here = self._scores[:, first:end]
        if self._method == "max":
            np.maximum(here, piece, out=here)
        else:
            here += piece
        self._count[first:end] += 1

    def result(self) -> np.ndarray:
        """(C, n) stitched scores. A last cell that no window reached repeats its neighbour."""
        covered = np.flatnonzero(self._count)
        if len(covered) == 0:
            raise ValueError("no window was added")
        scores = self._scores
        if self._method == "mean":
            scores = scores / np.maximum(self._count, 1)
        bare = np.flatnonzero(self._count == 0)
        if len(bare):
            nearest = covered[np.abs(bare[:, None] - covered[None, :]).argmin(axis=1)]
            scores[:, bare] = scores[:, nearest]
        return scores
