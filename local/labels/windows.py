"""Window lengths, places and stitching, in whole frames; also of recordings still arriving."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Protocol

import numpy as np

from local.config import Config
from local.io.errors import CanopyError
from local.labels.grid import to_frames


class Recordings(Protocol):
    """What is known of the recordings whose windows are asked for; `FeatureStore` is one."""

    config: Config

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""

    @property
    def longest(self) -> int:
        """Frames of the longest."""

    def at(self, factor: float) -> "Recordings":
        """The same recordings lasting `factor` times as long."""


def window_frames(length_s: float, hop_s: float, step: int) -> int:
    """Frames of `hop_s` in a training window: whole cells of `step`, nearest to `length_s`."""
    return max(1, to_frames(length_s, hop_s * step)) * step


def training_window(dump: Recordings, step: int, factor: float = 1.0) -> int:
    """Length of a window in frames: `window_frames`, or what holds the longest recording.

    With `window.whole` the longest recording of the dump stretched by `factor` fits, in whole cells
    of `step`; otherwise the factor does not matter.
    """
    if not dump.config.window.whole:
        return window_frames(dump.config.window.length_s, dump.hop_s, step)
    return max(1, -(-dump.at(factor).longest // step)) * step


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
    starts = stream_starts(lambda end: n_frames > end, lambda: n_frames, window, overlap, shift)
    return np.array([start for start, _ in starts], dtype=np.int64)


def stream_starts(
    goes_on_after: Callable[[int], bool],
    n_frames: Callable[[], int],
    window: int,
    overlap: int,
    shift: int = 0,
) -> Iterator[tuple[int, bool]]:
    """`window_starts` of a recording that still arrives: each start, and whether it is the last.

    Parameters
    ----------
    goes_on_after : whether the recording has more frames than so many; may wait for them to come.
    n_frames : frames of the whole recording, asked only after `goes_on_after` has denied.
    """
    if window < 1 or not 0 <= overlap < window:
        raise CanopyError(
            f"an overlap of {overlap} frames does not fit a window of {window}; expected 0 <= "
            "overlap < window"
        )
    if not goes_on_after(window):
        yield 0, True
        return
    yield 0, False
    step = window - overlap
    for start in count(shift % step or step, step):
        if not goes_on_after(start + window):
            break
        yield start, False
    yield n_frames() - window, True


def n_cells(n_frames: int, step: int) -> int:
    """Cells of `step` frames that stand for `n_frames`: nearest whole number, at least one."""
    return max(1, (2 * n_frames + step) // (2 * step))


def pad_short(crop: np.ndarray, length: int, rule: str, fill: float) -> np.ndarray:
    """(..., n) -> (..., length): a recording shorter than a window, made as long as one.

    With `rule` "repeat" by its own repeats, else by `fill` (what silence is).
    """
    missing = length - crop.shape[-1]
    if missing <= 0:
        return crop
    if rule == "repeat":
        return np.take(crop, np.arange(length), axis=-1, mode="wrap")
    widths = [(0, 0)] * (crop.ndim - 1) + [(0, missing)]
    return np.pad(crop, widths, constant_values=crop.dtype.type(fill))


class Stitcher:
    """Lays the scores of overlapping windows over each other on the recording's own grid.

    A cell of a window that starts at frame s lies at the grid cell nearest to its true place,
    s / step + j; a start that is no multiple of the step is thus at most half a cell off, and the
    error does not grow along the recording. Windows come in the order of their starts; cells before
    a window are final and are given back, so that only as much as a window is held.
    """

    def __init__(self, n_classes: int, step: int, method: str) -> None:
        self._step = step
        self._method = method
        self._fill = -np.inf if method == "max" else 0.0
        self._begin = 0
        self._scores: np.ndarray = np.zeros((n_classes, 0))
        self._count: np.ndarray = np.zeros(0, dtype=np.int64)
        self._left: np.ndarray | None = None

    def add(self, scores: np.ndarray, start: int) -> np.ndarray:
        """Lay the (C, T') scores of the window whose first frame is `start`.

        Returns
        -------
        (C, k) the cells that no further window can change, following those given back before.
        """
        first = (2 * start + self._step) // (2 * self._step)
        final = self._take(first)
        self._hold(scores.shape[1])
        here = self._scores[:, : scores.shape[1]]
        if self._method == "max":
            np.maximum(here, scores, out=here)
        else:
            here += scores
        self._count[: scores.shape[1]] += 1
        return final

    def finish(self, n_frames: int) -> np.ndarray:
        """The (C, k) cells that are left of a recording of `n_frames`."""
        return self._take(n_cells(n_frames, self._step))

    def _hold(self, n: int) -> None:
        missing = n - self._scores.shape[1]
        if missing > 0:
            more = np.full((len(self._scores), missing), self._fill)
            self._scores = np.concatenate([self._scores, more], axis=1)
            self._count = np.concatenate([self._count, np.zeros(missing, dtype=np.int64)])

    def _take(self, end: int) -> np.ndarray:
        """Cells up to `end`. One that no window reached repeats its neighbour on the left."""
        n = end - self._begin
        self._hold(n)
        cells, counts = self._scores[:, :n].copy(), self._count[:n]
        if self._method == "mean":
            cells /= np.maximum(counts, 1)
        for bare in np.flatnonzero(counts == 0):
            if bare == 0 and self._left is None:
                raise ValueError("no window was added")
            cells[:, bare] = cells[:, bare - 1] if bare else self._left
        if n:
            self._left = cells[:, -1].copy()
        self._scores, self._count = self._scores[:, n:], self._count[n:]
        self._begin = end
        return cells
