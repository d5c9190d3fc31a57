"""Statistics at work: values of the data as they are, and of resamples of the recordings."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from local.scoring.metrics.recording_sums import PlainStatistic, Statistic

# Measures that are computed anew for each resample get no more than this many.
MAX_SLOW_RESAMPLES = 100
_BLOCK_RESAMPLES = 256


@dataclass(frozen=True)
class Measured:
    """One measure of one system: value (2 + C,) and resampled values (B, 2 + C)."""

    value: np.ndarray
    samples: np.ndarray


def resample_table(blocks: Iterable[np.ndarray], n_recordings: int) -> np.ndarray:
    """All resamples (B, N) in one small array, as all systems and measures see the same."""
    nothing = np.zeros((0, n_recordings), np.float32)
    return np.concatenate([nothing, *(block.astype(np.float32) for block in blocks)])


def measure(
    statistics: list[Statistic],
    counts: np.ndarray,
    plain: np.ndarray,
    max_slow: int = MAX_SLOW_RESAMPLES,
) -> dict[str, Measured]:
    """Values for the data as they are, `plain` (N,) ones, and for the resamples `counts` (B, N)."""
    results: dict[str, Measured] = {}
    for statistic in statistics:
        n = min(len(counts), max_slow) if isinstance(statistic, PlainStatistic) else len(counts)
        now = statistic.values(plain[None].astype(np.float64))
        blocks = [
            statistic.values(counts[start : min(n, start + _BLOCK_RESAMPLES)].astype(np.float64))
            for start in range(0, n, _BLOCK_RESAMPLES)
        ]
        for name, value in now.items():
            samples = np.concatenate([value[:0], *(block[name] for block in blocks)])
            results[name] = Measured(value[0], samples)
    return results
