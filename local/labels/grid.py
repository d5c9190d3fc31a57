"""Cells of time, and what spans fill of them."""

import math
import sys
from dataclasses import dataclass

import numpy as np


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
    begin: float,
    first: int = 0,
    step: int = 1,
    stretch: float = 1.0,
) -> FrameGrid:
    """Grid of a window of input frames seen through a model that makes one cell of `step` frames.

    `n_frames` input frames of `hop_s` seconds from frame `first` on; frame 0 begins `begin` hops
    after the recording does (-0.5 where frames are centred on multiples of the hop). A rest that
    fills no whole cell is left out. With `stretch` the window shows, from the beginning of frame
    `first` on, a recording played that many times as long; the grid lies in stretched time, as do
    events that are `stretched` by as much.
    """
    start = (first + begin) * hop_s * stretch
    return FrameGrid(n_frames // step, hop_s * step, start)


def hop_seconds(hop_length: int, sample_rate: int) -> float:
    """Seconds from one frame to the next, of a hop in samples."""
    return hop_length / sample_rate


def to_frames(seconds: float, hop_s: float) -> int:
    """Whole number of frames nearest to a length of time."""
    return int(np.floor(seconds / hop_s + 0.5))


def cells_at_least(seconds: float, hop_s: float) -> int:
    """The fewest cells that last at least so long."""
    return -cells_at_most(-seconds, hop_s)


def cells_at_most(seconds: float, hop_s: float) -> int:
    """The most cells that last no longer than that.

    A length within a millionth of a cell of a whole number is that number: 0.3 s are 3 cells of
    0.1 s, though 0.3 / 0.1 is less than 3.
    """
    if not np.isfinite(seconds):
        return sys.maxsize if seconds > 0 else -sys.maxsize
    return math.floor(seconds / hop_s + 1e-6)


# Two times less than this apart, in seconds, differ by rounding: a rule counts them as equal.
ROUNDING_S = 1e-9


def overlap(
    onset: np.ndarray | float,
    offset: np.ndarray | float,
    start: np.ndarray | float,
    end: np.ndarray | float,
) -> np.ndarray:
    """Seconds that [onset, offset) and [start, end) share; broadcasts."""
    return np.maximum(0.0, np.minimum(offset, end) - np.maximum(onset, start))


def coverage(onset: np.ndarray, offset: np.ndarray, grid: FrameGrid) -> np.ndarray:
    """Share of each cell that each event fills: (E,), (E,) seconds -> (E, n) in [0, 1].

    Less than a billionth is rounding: an event that ends with a cell does not touch the next.
    """
    edges = grid.edges_s
    shared = overlap(np.asarray(onset)[:, None], np.asarray(offset)[:, None], edges[:-1], edges[1:])
    share = np.minimum(1.0, shared / grid.hop_s)
    return np.where(share < 1e-9, 0.0, share)


def inside(spans: np.ndarray, grid: FrameGrid) -> np.ndarray:
    """(n,) bool: the cells that lie wholly in one of the spans (k, 2) of seconds."""
    if len(spans) == 0:
        return np.zeros(grid.n, dtype=bool)
    return np.asarray((coverage(spans[:, 0], spans[:, 1], grid) > 1 - 1e-6).any(axis=0))


def envelope(
    onset: np.ndarray, offset: np.ndarray, weight: np.ndarray, grid: FrameGrid
) -> np.ndarray:
    """Mean over each cell of the greatest weight among the events that sound: (E,) each -> (n,).

    Of one event that is its weight times the share of the cell that it fills; of several of one
    weight, the weight times the share of their union. At least one event.
    """
    mean, below = np.zeros(grid.n), 0.0
    # Layer by layer: the union of all that weigh at least so much, times what the layer adds.
    for level in np.unique(weight):
        heavy = weight >= level
        union = coverage(*_joined(onset[heavy], offset[heavy]), grid).sum(axis=0)
        mean += (level - below) * np.minimum(union, 1.0)
        below = level
    return mean


def _joined(onset: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The union of spans as spans that do not overlap."""
    order = np.argsort(onset, kind="stable")
    onset, reach = onset[order], np.maximum.accumulate(offset[order])
    begins = np.concatenate([[True], onset[1:] > reach[:-1]])
    return onset[begins], reach[np.concatenate([begins[1:], [True]])]
