"""The metric for partial labels: only spans that somebody has confirmed or rejected."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from local.errors import CanopyError
from local.metrics.ranking import auroc, mean_of_known


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
