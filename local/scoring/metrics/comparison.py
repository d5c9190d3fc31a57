"""Several systems on the same recordings: values, intervals, and intervals of differences.

All systems and measures see the same resamples, so a difference is taken pair by pair. Recordings
are drawn with replacement, or whole groups of them (cluster bootstrap) where recordings of a group,
such as a site or a night, are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from local.scoring.metrics.bootstrap import percentiles, resample_counts
from local.scoring.metrics.recording_sums import PlainStatistic, Statistic

# Measures that are computed anew for each resample get no more than this many.
MAX_SLOW_RESAMPLES = 100
_BLOCK_RESAMPLES = 256


@dataclass(frozen=True)
class Measured:
    """One measure of one system: value (2 + C,) and resampled values (B, 2 + C)."""

    value: np.ndarray
    samples: np.ndarray


def draw_counts(
    n_recordings: int,
    n_resamples: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
    within: np.ndarray | None = None,
) -> np.ndarray:
    """(B, N) how often each recording is in each resample.

    Parameters
    ----------
    groups : (N,) int, drawn as wholes; None draws recordings.
    within : (N,) bool, the recordings to draw from; the others count 0.
    """
    chosen = np.arange(n_recordings) if within is None else np.flatnonzero(within)
    units = chosen if groups is None else np.unique(groups[chosen])
    place = np.arange(len(chosen)) if groups is None else np.searchsorted(units, groups[chosen])
    counts = np.zeros((n_resamples, n_recordings), dtype=np.float32)
    start = 0
    for drawn in resample_counts(len(units), rng, n_resamples):
        counts[start : start + len(drawn), chosen] = drawn[:, place]
        start += len(drawn)
    return counts


def measure(
    statistics: Sequence[Statistic],
    counts: np.ndarray,
    plain: np.ndarray,
    max_slow: int = MAX_SLOW_RESAMPLES,
) -> dict[str, Measured]:
    """Values for the data as they are, `plain` (N,) ones, and for the resamples `counts`."""
    results: dict[str, Measured] = {}
    for statistic in statistics:
        slow = isinstance(statistic, PlainStatistic)
        n = min(len(counts), max_slow) if slow else len(counts)
        now = statistic.values(plain[None].astype(np.float64))
        parts: dict[str, list[np.ndarray]] = {name: [] for name in statistic.names}
        for start in range(0, n, _BLOCK_RESAMPLES):
            block = counts[start : min(n, start + _BLOCK_RESAMPLES)].astype(np.float64)
            for name, table in statistic.values(block).items():
                parts[name].append(table)
        for name in statistic.names:
            empty = np.empty((0, now[name].shape[1]))
            results[name] = Measured(now[name][0], np.concatenate([empty, *parts[name]]))
    return results


def interval(samples: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of resampled values (B,); (NaN, NaN) without any."""
    return percentiles(samples, confidence)


def difference(
    one: Measured, first: Measured, column: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The difference one - first: value, low and high, resample by resample."""
    value = float(one.value[column] - first.value[column])
    samples = one.samples[:, column] - first.samples[:, column]
    return (value, *percentiles(samples, confidence))
