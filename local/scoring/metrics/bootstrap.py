"""Bootstrap intervals: recordings drawn with replacement, percentiles of the resampled scores.

A resample counts each of the N recordings k_i times, (k_1, ..., k_N) multinomial. A metric that is
a ratio of sums over recordings (LWLRAP is one) then needs no new ranking: its resampled values are
matrix products of the counts with the parts. Resamples in which the metric has no value (no
positive drawn) are left out. Intervals are (nan, nan) when no resample has a value or none is asked
for.

The intervals describe the choice of recordings and nothing else: not the seed of the training, and
not the dependence of recordings of one site.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from local.io.errors import CanopyError
from local.scoring.metrics.named import score_metric, score_per_class
from local.scoring.metrics.ranking import checked, lwlrap_parts, mean_of_known, precision_cells

# Counts drawn at once: 16 MB.
_BLOCK_COUNTS = 1 << 21


def bootstrap_interval(
    truth: ArrayLike,
    score: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    name: str = "lwlrap",
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval (low, high) of the metric called `name` over recordings.

    LWLRAP takes a fraction of a second for 1000 resamples of thousands of recordings; the other
    metrics are computed anew for each resample.
    """
    return bootstrap_intervals(truth, score, rng, n_resamples, name, confidence)[0]


def bootstrap_intervals(
    truth: ArrayLike,
    score: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    name: str = "lwlrap",
    confidence: float = 0.95,
) -> tuple[tuple[float, float], np.ndarray]:
    """Percentile intervals of the metric called `name`, and of its value for each class.

    Returns
    -------
    (low, high) as `bootstrap_interval` has it, and (C, 2) low and high of each class on the same
    resamples; NaN where a class has no data.
    """
    truth, score = checked(truth, score)
    drawn = resample_counts(len(truth), rng, n_resamples)
    if name == "lwlrap":
        overall, classes = _lwlrap_resamples(truth, score, drawn)
    else:
        every = np.arange(len(truth))
        resampled = (np.repeat(every, row) for counts in drawn for row in counts)
        rows = [score_per_class(name, truth[each], score[each]) for each in resampled]
        classes = np.array(rows, dtype=np.float64).reshape(-1, truth.shape[1])
        overall = np.array([mean_of_known(row) for row in classes], dtype=np.float64)
    each = [percentiles(column, confidence) for column in classes.T]
    return percentiles(overall, confidence), np.array(each, dtype=np.float64).reshape(-1, 2)


def _lwlrap_resamples(
    truth: np.ndarray, score: np.ndarray, drawn: Iterator[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """LWLRAP (R,) and its values by class (R, C) of resamples: ratios of sums over recordings."""
    cells, known = precision_cells(truth, score), truth.astype(np.float64)
    overall, classes = [np.empty(0)], [np.empty((0, truth.shape[1]))]
    with np.errstate(invalid="ignore"):
        for counts in drawn:
            total, n = counts @ cells, counts @ known
            overall.append(total.sum(axis=1) / n.sum(axis=1))
            classes.append(total / n)
    return np.concatenate(overall), np.concatenate(classes)


def paired_difference_interval(
    truth: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    name: str = "lwlrap",
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval (low, high) of metric(a) - metric(b), both scored on the same drawn recordings.

    Two systems differ beyond the choice of recordings when it excludes 0; their two separate
    intervals may overlap widely even then.
    """
    if name == "lwlrap":
        total_a, count = lwlrap_parts(truth, score_a)
        total_b, _ = lwlrap_parts(truth, score_b)
        return ratio_interval(total_a - total_b, count, rng, n_resamples, confidence)
    truth_a, score_a = checked(truth, score_a)
    _, score_b = checked(truth, score_b)

    def statistic(rows: np.ndarray) -> float:
        first = score_metric(name, truth_a[rows], score_a[rows])
        return first - score_metric(name, truth_a[rows], score_b[rows])

    return generic_interval(statistic, len(truth_a), rng, n_resamples, confidence)


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of sum(numerator) / sum(denominator) over recordings; both (N,)."""
    parts = np.stack([np.asarray(numerator, float), np.asarray(denominator, float)], axis=1)
    values = [
        np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)
        for sums in (counts @ parts for counts in resample_counts(len(parts), rng, n_resamples))
    ]
    return percentiles(np.concatenate([*values, np.empty(0)]), confidence)


def generic_interval(
    statistic: Callable[[np.ndarray], float],
    n_rows: int,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of any `statistic(rows)`, called with the drawn indices (n_rows,) of each resample.

    With the same generator state it draws the same resamples as `ratio_interval`.
    """
    every = np.arange(n_rows)
    values = [
        statistic(np.repeat(every, row))
        for counts in resample_counts(n_rows, rng, n_resamples)
        for row in counts
    ]
    return percentiles(np.asarray(values, dtype=np.float64), confidence)


def resample_counts(
    n_rows: int, rng: np.random.Generator, n_resamples: int
) -> Iterator[np.ndarray]:
    """Multinomial counts (block, n_rows), `n_resamples` in all; blocks do not alter the draws."""
    if n_rows == 0:
        return
    share = np.full(n_rows, 1.0 / n_rows)
    block = max(1, _BLOCK_COUNTS // n_rows)
    for start in range(0, n_resamples, block):
        yield rng.multinomial(n_rows, share, size=min(block, n_resamples - start))


def percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The middle `confidence` of resampled values; NaN values are left out."""
    if not 0 < confidence < 1:
        raise CanopyError(f"confidence is {confidence}; it must lie between 0 and 1, as 0.95 does")
    values = values[~np.isnan(values)]
    if values.size == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
