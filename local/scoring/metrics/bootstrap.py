"""The bootstrap behind every interval: recordings drawn with replacement, percentiles of scores.

A resample says how often each of the N recordings counts, (k_1, ..., k_N), multinomial; where
recordings of a group (a site, a night) are alike, whole groups are drawn instead. A measure is a
function of such counts. One that is made of sums over recordings, as LWLRAP is, needs no new
ranking: its resampled values are matrix products of the counts with what each recording adds.

Resamples in which a measure has no value (no positive drawn) are left out. Intervals describe the
choice of recordings and nothing else: not the seed of the training, and without groups not the
likeness of recordings of one site.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from local.scoring.metrics.recording_sums import divide

# Counts drawn at once: 16 MB.
_BLOCK_COUNTS = 1 << 21
# What a 95 % interval leaves out at either end.
_TAIL = (1 - 0.95) / 2

# Counts (B, N) -> what each resample gives, (B, ...).
Values = Callable[[np.ndarray], np.ndarray]


def resample_counts(
    n_recordings: int,
    rng: np.random.Generator,
    n_resamples: int,
    groups: np.ndarray | None = None,
    within: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """How often each recording is drawn: blocks (B, N) of `n_resamples` rows in all.

    The size of the blocks does not alter what is drawn.

    Parameters
    ----------
    groups : (N,) drawn as wholes; None draws recordings.
    within : (N,) bool, the recordings to draw from; the others count 0.
    """
    chosen = np.arange(n_recordings) if within is None else np.flatnonzero(within)
    units, place = chosen, np.arange(len(chosen))
    if groups is not None:
        units, place = np.unique(groups[chosen], return_inverse=True)
    if len(units) == 0:
        return
    share = np.full(len(units), 1.0 / len(units))
    block = max(1, _BLOCK_COUNTS // n_recordings)
    for start in range(0, n_resamples, block):
        drawn = rng.multinomial(len(units), share, size=min(block, n_resamples - start))
        counts = np.zeros((len(drawn), n_recordings), dtype=drawn.dtype)
        counts[:, chosen] = drawn[:, place]
        yield counts


def resampled(
    values: Values,
    n_recordings: int,
    rng: np.random.Generator,
    n_resamples: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """`values` of every resample, (n_resamples, ...); none where there is no recording."""
    blocks = resample_counts(n_recordings, rng, n_resamples, groups)
    parts = [values(counts) for counts in blocks]
    return np.concatenate(parts) if parts else values(np.zeros((0, n_recordings)))


def percentiles(samples: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values (B,); NaN values are left out, and NaN without any."""
    samples = samples[~np.isnan(samples)]
    if samples.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def interval(
    values: Values,
    n_recordings: int,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    groups: np.ndarray | None = None,
) -> tuple[float, float]:
    """95 % percentile interval (low, high) of a measure: `values` of counts (B, N) are (B,)."""
    return percentiles(resampled(values, n_recordings, rng, n_resamples, groups))


def ratio_of_sums(over: ArrayLike, under: ArrayLike) -> Values:
    """The measure sum(over) / sum(under) over recordings; both (N,)."""
    parts = np.stack([np.asarray(over, float), np.asarray(under, float)], axis=1)

    def values(counts: np.ndarray) -> np.ndarray:
        return divide(*(counts @ parts).T)

    return values


def of_rows(statistic: Callable[[np.ndarray], float]) -> Values:
    """The measure `statistic(rows)`, called with the indices drawn in each resample."""

    def values(counts: np.ndarray) -> np.ndarray:
        every = np.arange(counts.shape[1])
        return np.array([statistic(np.repeat(every, row)) for row in counts], dtype=np.float64)

    return values
