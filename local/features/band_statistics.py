"""Mean and standard deviation of a corpus, gathered block by block and process by process."""

from typing import Any

import numpy as np


class RunningStats:
    """Count, mean and sum of squared deviations per row, in float64.

    Blocks are merged by the formula of Chan, Golub and LeVeque (1979), the parallel form of
    Welford's: no second pass, no cancellation, and the order of merging does not matter beyond
    rounding.

    Parameters
    ----------
    n_rows
        Rows of the blocks to come: mel bands, or 1 for a waveform.
    """

    def __init__(self, n_rows: int) -> None:
        self.count = 0
        self.mean: np.ndarray = np.zeros(n_rows)
        self.m2: np.ndarray = np.zeros(n_rows)

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation per row (n_rows,); NaN before the first value."""
        if self.count == 0:
            return np.full_like(self.mean, np.nan)
        return np.sqrt(self.m2 / self.count)

    def update(self, block: np.ndarray) -> None:
        """Take in the columns of a block (n_rows, k)."""
        if block.shape[:-1] != self.mean.shape:
            raise ValueError(f"expected ({len(self.mean)}, k), found shape {block.shape}")
        if block.shape[1] == 0:
            return
        mean = block.mean(axis=1, dtype=np.float64)
        # One temporary, in the block's own memory order.
        deviation = np.subtract(block, mean[:, None], dtype=np.float64)
        m2 = np.einsum("rk,rk->r", deviation, deviation)
        self._merge(block.shape[1], mean, m2)

    def merge(self, other: "RunningStats") -> None:
        """Take in what another one has gathered."""
        if other.mean.shape != self.mean.shape:
            raise ValueError(f"{len(other.mean)} rows cannot be merged into {len(self.mean)}")
        if other.count:
            self._merge(other.count, other.mean, other.m2)

    def _merge(self, count: int, mean: np.ndarray, m2: np.ndarray) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + delta**2 * (self.count * count / total)
        self.count = total

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; `from_dict` reads them back."""
        return {"count": self.count, "mean": self.mean.tolist(), "m2": self.m2.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunningStats":
        """The inverse of `to_dict`."""
        stats = cls(len(values["mean"]))
        stats.count = int(values["count"])
        stats.mean = np.asarray(values["mean"], dtype=np.float64)
        stats.m2 = np.asarray(values["m2"], dtype=np.float64)
        return stats
