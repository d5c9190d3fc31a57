"""Metrics by name, and the baselines that need no sound."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from local.io.errors import CanopyError
from local.scoring.metrics.ranking import (
    auroc,
    average_precision,
    checked_truth,
    lwlrap,
    macro_auroc,
    mean_average_precision,
    mean_of_known,
    per_class_lwlrap,
    ratio,
)

METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "lwlrap": lwlrap,
    "map": mean_average_precision,
    "auroc": macro_auroc,
}

_PER_CLASS: dict[str, Callable[[ArrayLike, ArrayLike], np.ndarray]] = {
    "lwlrap": lambda truth, score: per_class_lwlrap(truth, score)[0],
    "map": average_precision,
    "auroc": auroc,
}


def score_metric(name: str, truth: ArrayLike, score: ArrayLike) -> float:
    """The metric called `name` of truth (N, C) and score (N, C)."""
    _check_name(name)
    return METRICS[name](truth, score)


def score_per_class(name: str, truth: ArrayLike, score: ArrayLike) -> np.ndarray:
    """The metric called `name` for each class (C,), NaN where a class has no data."""
    _check_name(name)
    return _PER_CLASS[name](truth, score)


def _check_name(name: str) -> None:
    if name not in METRICS:
        raise CanopyError(f"unknown metric {name!r}; known: {', '.join(sorted(METRICS))}")


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
        return ratio((count * expected).sum(), count.sum())
    return mean_of_known(expected)


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
