"""Small networks by the length of their cells, and what two cores of a laptop train of them."""

import math
from dataclasses import dataclass
from typing import Any

# Multiplications and additions a second of two cores, forward and backward, of small convolutions.
_MACS_PER_S = 2e10
# Forward, and twice that backward.
_PASSES = 3
# Minutes of training: few calls, and how they grow with the root of the calls, at most.
_MINUTES, _FEW_CALLS, _MOST_MINUTES = 6.0, 300, 30.0
# Windows that a fold sees at least, whatever the time; how often recordings are heard at most:
# that teaches a small set no more.
_LEAST_WINDOWS, _MOST_PASSES, _EPOCHS = 2400, 100, 30


@dataclass(frozen=True)
class Network:
    """A `crnn` whose cells are `step` frames; for cells from so many seconds on.

    pool : (bands, frames) of each block.
    """

    from_cell_s: float
    channels: tuple[int, ...]
    depth: tuple[int, ...]
    pool: tuple[tuple[int, int], ...]
    gru: int
    stem: str

    @property
    def step(self) -> int:
        """Frames a cell."""
        return math.prod(frames for _, frames in self.pool)

    def params(self, n_mels: int) -> dict[str, Any]:
        """`model.params`; pooling over bands stops where none would be left."""
        pool, left = [], n_mels
        for bands, frames in self.pool:
            bands = bands if left // bands >= 1 else 1
            left //= bands
            pool.append([bands, frames])
        return {
            "channels": list(self.channels),
            "depth": list(self.depth),
            "pool": pool,
            "stem": self.stem,
            "gru": self.gru,
            "level_norm": True,
        }


FINE = Network(0.0, (16, 32, 64, 64), (1, 1, 1, 1), ((4, 2), (2, 1), (2, 1), (2, 1)), 48, "stride")
MIDDLE = Network(
    0.04, (16, 32, 64, 96), (1, 1, 1, 2), ((2, 2), (2, 2), (2, 1), (2, 1)), 48, "stride"
)
WIDE = Network(0.08, (16, 32, 64, 128), (1, 1, 2, 2), ((2, 2), (2, 2), (2, 2), (2, 1)), 0, "pool")
NETWORKS = (WIDE, MIDDLE, FINE)


def macs_of(params: dict[str, Any], n_mels: int) -> float:
    """Multiplications a frame of a `crnn`, forward."""
    bands, share, n_in, total = float(n_mels), 1.0, 2, 0.0
    for place, (n_out, depth, (by_bands, by_frames)) in enumerate(
        zip(params["channels"], params["depth"], params["pool"], strict=True)
    ):
        strides = params["stem"] == "stride" and place == 0
        pooled = (bands // by_bands, share / by_frames)
        kernel = (by_bands + 2) * (by_frames + 2) if strides else 9
        at = pooled if strides else (bands, share)
        total += kernel * n_in * n_out * at[0] * at[1]
        total += (depth - 1) * 9 * n_out * n_out * (math.prod(pooled) if strides else bands * share)
        bands, share, n_in = pooled[0], pooled[1], n_out
    gru = params["gru"]
    return total + 6 * gru * (n_in + gru) * share


@dataclass(frozen=True)
class Work:
    """What training has to go through.

    macs : multiplications of a window, forward. batch : windows of one. n_places : windows side by
    side that the train recordings hold.
    """

    macs: float
    batch: int
    n_folds: int
    n_calls: int
    n_places: float

    def minutes(self, n_epochs: int, n_windows: float) -> float:
        """Minutes that epochs of so many windows take, all folds together, on two cores."""
        a_window_s = _PASSES * self.macs / _MACS_PER_S
        return n_epochs * n_windows * self.n_folds * a_window_s / 60

    @property
    def windows(self) -> float:
        """Windows that each fold is to see in all its epochs."""
        minutes = min(_MOST_MINUTES, _MINUTES * math.sqrt(max(1.0, self.n_calls / _FEW_CALLS)))
        n = min(minutes / self.minutes(1, 1), _MOST_PASSES * self.n_places)
        return max(n, _LEAST_WINDOWS)


def epochs_for(work: Work, n_windows: float | None) -> int:
    """Epochs of so many windows each; None: of as many as `windows_for` suggests for them."""
    return _EPOCHS if n_windows is None else max(1, round(work.windows / n_windows))


def windows_for(work: Work, n_epochs: int) -> int:
    """Windows in each of so many epochs: whole batches, at least one."""
    return max(1, round(work.windows / n_epochs / work.batch)) * work.batch
