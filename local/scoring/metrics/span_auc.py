"""The metric for partial labels: only spans that somebody has confirmed or rejected."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from local.io.errors import CanopyError
from local.scoring.metrics.bootstrap import percentiles, resample_counts
from local.scoring.metrics.ranking import auroc, mean_of_known


@dataclass(frozen=True)
class SpanAuc:
    """AUROC of known positive against known negative spans.

    `per_class` (C,) is NaN where a class lacks positives or negatives; `macro` is the mean of the
    others; `n_positive` and `n_negative` (C,) count the spans.
    """

    per_class: np.ndarray
    macro: float
    n_positive: np.ndarray
    n_negative: np.ndarray


def span_auc(
    label_index: ArrayLike, polarity: ArrayLike, score: ArrayLike, n_classes: int | None = None
) -> SpanAuc:
    """AUROC on what is known and nothing else: spans where a class was confirmed or rejected.

    The plain metrics need complete truth; where most cells are unknown only this one is honest.

    Parameters
    ----------
    label_index : (E,) int
        Class of each event row, from 0.
    polarity : (E,)
        1 where the class sounds in the span, -1 where it was looked for and is not there.
    score : (E,)
        Score of that class in that span; NaN is refused.
    n_classes : int, optional
        Length of the per-class results; None takes the highest index + 1.
    """
    label_index, polarity = np.asarray(label_index), np.asarray(polarity)
    score = np.asarray(score, dtype=np.float64)
    if not (label_index.shape == polarity.shape == score.shape) or score.ndim != 1:
        raise CanopyError(
            f"label_index {label_index.shape}, polarity {polarity.shape} and score {score.shape} "
            "must be lists of one length, one entry an event row"
        )
    _check_spans(label_index, polarity, score, n_classes)
    if n_classes is None:
        n_classes = int(label_index.max()) + 1 if label_index.size else 0
    per_class = np.full(n_classes, np.nan)
    counts = np.zeros((2, n_classes), dtype=np.int64)
    for index in range(n_classes):
        mine = label_index == index
        positive = polarity[mine] == 1
        counts[:, index] = positive.sum(), (~positive).sum()
        per_class[index] = auroc(positive[:, None], score[mine, None])[0]
    return SpanAuc(per_class, mean_of_known(per_class), counts[0], counts[1])


def span_auc_interval(
    label_index: ArrayLike,
    polarity: ArrayLike,
    score: ArrayLike,
    recording: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Bootstrap interval of the macro `span_auc` over recordings; (NaN, NaN) without data.

    A drawn recording brings all its rows, so a row counts as often as its recording was drawn. The
    AUROC of a class is then the share of (positive, negative) pairs in the right order, each pair
    counted by the product of its rows' counts.

    Parameters
    ----------
    recording : (E,) what each row belongs to, any hashable ids.
    """
    label_index, polarity = np.asarray(label_index), np.asarray(polarity)
    score = np.asarray(score, dtype=np.float64)
    _check_spans(label_index, polarity, score, None)
    names, row_of = np.unique(np.asarray(recording), return_inverse=True)
    values = []
    for counts in resample_counts(len(names), rng, n_resamples):
        weight = counts[:, row_of].astype(np.float64)
        per_class = [
            _weighted_auc(polarity[mine], score[mine], weight[:, mine])
            for index in np.unique(label_index)
            for mine in [np.flatnonzero(label_index == index)]
        ]
        known = np.ma.masked_invalid(np.stack(per_class))
        values.append(known.mean(axis=0).filled(np.nan))
    return percentiles(np.concatenate([*values, np.empty(0)]), confidence)


def _weighted_auc(polarity: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """AUROC (B,) of one class under B sets of row weights (B, E); NaN where a side is empty."""
    positive = polarity == 1
    difference = score[positive][:, None] - score[~positive][None, :]
    ordered = (difference > 0) + 0.5 * (difference == 0)
    up, down = weight[:, positive], weight[:, ~positive]
    pairs = up.sum(axis=1) * down.sum(axis=1)
    right = ((up @ ordered) * down).sum(axis=1)
    return np.divide(right, pairs, out=np.full(len(weight), np.nan), where=pairs > 0)


def _check_spans(
    label_index: np.ndarray, polarity: np.ndarray, score: np.ndarray, n_classes: int | None
) -> None:
    faults = {
        "has a NaN score": np.isnan(score),
        "has a polarity other than 1 and -1": ~np.isin(polarity, (-1, 1)),
        "has a class index out of range": (label_index < 0)
        | (label_index >= (np.inf if n_classes is None else n_classes)),
    }
    for what, bad in faults.items():
        if bad.any():
            raise CanopyError(f"event row {int(np.argmax(bad))} {what}; mend it or leave it out")
