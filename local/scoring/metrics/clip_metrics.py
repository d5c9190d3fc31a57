"""Metrics of recordings by name, with intervals, and the baselines that need no sound.

- Truth is 0 or 1 (bool, integer or float). Soft or coded labels are refused: convert them first.
- NaN scores are refused. Infinite scores are legal: +inf stands above, -inf below every number, and
  equal infinities tie. Only the order of scores matters.
- What cannot be computed (no positive at all; a class without data) is NaN, never 0 or 1.
- All arithmetic is float64. Rank logits or float64 probabilities: float32 sigmoids saturate and
  tie.
"""

import numpy as np
from numpy.typing import ArrayLike

from local.io.errors import CanopyError
from local.scoring.metrics.auroc import AurocStatistic
from local.scoring.metrics.average_precision import RankedStatistic
from local.scoring.metrics.bootstrap import Values, interval, percentiles, resampled
from local.scoring.metrics.input_checks import checked, checked_truth
from local.scoring.metrics.lwlrap import LwlrapStatistic, lwlrap
from local.scoring.metrics.recording_sums import Statistic, divide, mean_of_classes

METRICS = ("auroc", "lwlrap", "map")


def clip_statistic(name: str, truth: ArrayLike, score: ArrayLike) -> Statistic:
    """The metric called `name` (of `METRICS`) of truth (N, C) and scores (N, C)."""
    _check_name(name)
    if name == "lwlrap":
        return LwlrapStatistic(truth, score)
    truth, score = checked(truth, score)
    recording, label = np.indices(truth.shape).reshape(2, -1)
    if name == "auroc":
        cells = recording, label, truth.ravel(), score.ravel()
        return AurocStatistic(name, *cells, n_classes=truth.shape[1])
    return RankedStatistic((name,), recording, label, score.ravel(), truth.ravel(), truth)


def _values(name: str, truth: ArrayLike, score: ArrayLike) -> Values:
    """Counts (B, N) -> (B, 1 + C): the metric, and its value for each class.

    LWLRAP counts every positive the same; average precision and AUROC are means over classes.
    """
    statistic = clip_statistic(name, truth, score)

    def values(counts: np.ndarray) -> np.ndarray:
        return np.delete(statistic.values(counts)[name], 1 if name == "lwlrap" else 0, axis=1)

    return values


def score_metric(name: str, truth: np.ndarray, score: np.ndarray) -> float:
    """The metric called `name` of truth (N, C) and score (N, C)."""
    if name == "lwlrap":
        return lwlrap(truth, score)
    return float(_values(name, truth, score)(np.ones((1, len(truth))))[0, 0])


def score_per_class(name: str, truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The metric called `name` for each class (C,), NaN where a class has no data."""
    return _values(name, truth, score)(np.ones((1, len(truth))))[0, 1:]


def metric_intervals(
    name: str,
    truth: np.ndarray,
    score: np.ndarray,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> tuple[tuple[float, float], np.ndarray]:
    """(low, high) of the metric over recordings, and (C, 2) of each class on the same resamples."""
    samples = resampled(_values(name, truth, score), len(truth), rng, n_resamples)
    overall, *classes = map(percentiles, samples.T)
    return overall, np.array(classes, dtype=np.float64).reshape(-1, 2)


def paired_difference_interval(
    name: str,
    truth: np.ndarray,
    score_a: np.ndarray,
    score_b: np.ndarray,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> tuple[float, float]:
    """Interval (low, high) of metric(a) - metric(b), both scored on the same drawn recordings.

    Two systems differ beyond the choice of recordings when it excludes 0; their two separate
    intervals may overlap widely even then.
    """
    first, second = _values(name, truth, score_a), _values(name, truth, score_b)

    def values(counts: np.ndarray) -> np.ndarray:
        return first(counts)[:, 0] - second(counts)[:, 0]

    return interval(values, len(truth), rng, n_resamples)


def _check_name(name: str) -> None:
    if name not in METRICS:
        raise CanopyError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")


def chance_score(truth: ArrayLike, name: str = "lwlrap") -> float:
    """Expected score of a random ranking without ties, exactly; NaN where the metric has no value.

    Among n items in random order with p relevant ones, a relevant item stands at each rank r with
    probability 1/n and the other p - 1 fill the r - 1 places above it at rate (p - 1)/(n - 1), so
    the expected precision at it is mean over r of (1 + (r - 1)(p - 1)/(n - 1))/r, that is
    H/n + (p - 1)/(n - 1) * (1 - H/n) with the harmonic number H = 1 + 1/2 + ... + 1/n. For LWLRAP
    the items are the classes of a recording, for average precision the recordings of a class.
    """
    _check_name(name)
    truth = checked_truth(truth)
    if name == "auroc":
        return 0.5 if (truth.any(axis=0) & ~truth.all(axis=0)).any() else float("nan")
    count = truth.sum(axis=1 if name == "lwlrap" else 0).astype(np.float64)
    count = count[count > 0]
    expected = _expected_precision(truth.shape[1 if name == "lwlrap" else 0], count)
    if name == "lwlrap":
        return float(divide((count * expected).sum(), count.sum()))
    return float(mean_of_classes(expected[None])[0])


def _expected_precision(n_items: int, n_relevant: np.ndarray) -> np.ndarray:
    if n_items <= 1:
        return np.ones_like(n_relevant)
    first = (1.0 / np.arange(1, n_items + 1)).mean()
    return first + (n_relevant - 1) / (n_items - 1) * (1 - first)


def constant_row_score(truth: ArrayLike, name: str = "lwlrap") -> float:
    """Score of one ranking of classes given to every recording: by prevalence in the truth itself.

    A plain baseline that has not heard a sound but knows the truth's prevalences; a model below it
    has learned less than a table of counts. (Another constant row may be a little better where
    classes occur together.) Equal prevalences are ranked in the order of classes, since a constant
    row is free to break its ties.
    """
    truth = checked_truth(truth)
    prevalence = truth.sum(axis=0)
    row = np.empty(len(prevalence))
    row[np.argsort(-prevalence, kind="stable")] = -np.arange(len(prevalence))
    return score_metric(name, truth, np.broadcast_to(row, truth.shape))
