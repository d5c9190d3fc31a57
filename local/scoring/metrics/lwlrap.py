"""LWLRAP, label-weighted label-ranking average precision: the ranking metric of DCASE 2019 task 2.

The precision at a positive class c of recording i is the share of positives among the classes that
score at least as high as c; LWLRAP is its mean over all (recording, positive) pairs.

- Ties are pessimistic and independent of the order of classes: every class of a tie stands at the
  end of it, rank_i(c) = #{c' : s_ic' >= s_ic}, as in scikit-learn's
  `label_ranking_average_precision_score` (equal to this one when that is weighted by the number of
  positives of each row).
- Recordings without positives are skipped. A class without positives has no influence but as a
  competitor in the ranking.
- Averaging over batches is wrong: give the whole set at once.
"""

import numpy as np
from numpy.typing import ArrayLike

from local.scoring.metrics.input_checks import checked
from local.scoring.metrics.recording_sums import Statistic, divide, mean_of_classes

# Cells sorted at once, so that working memory stays near 20 MB whatever the number of recordings.
_BLOCK_CELLS = 1 << 18


def lwlrap(truth: ArrayLike, score: ArrayLike) -> float:
    """LWLRAP of truth and scores (N, C), in [0, 1]; NaN without any positive.

    `input_checks.checked` says what is refused.
    """
    total, n_positive = lwlrap_sums(truth, score)
    return float(divide(total.sum(), n_positive.sum()))


def lwlrap_sums(truth: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Sum of precisions (N,) and number of positives (N,): LWLRAP is the ratio of their sums."""
    truth, score = checked(truth, score)
    return precision_cells(truth, score).sum(axis=1), truth.sum(axis=1).astype(np.float64)


class LwlrapStatistic(Statistic):
    """LWLRAP (micro: every positive counts the same), of each class, and the mean of classes."""

    def __init__(self, truth: ArrayLike, score: ArrayLike) -> None:
        self.names = ("lwlrap",)
        truth, score = checked(truth, score)
        self._precision, self._truth = precision_cells(truth, score), truth.astype(np.float64)

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        total, n_positive = counts @ self._precision, counts @ self._truth
        per_class = divide(total, n_positive)
        overall = divide(total.sum(axis=1), n_positive.sum(axis=1))
        return {"lwlrap": np.column_stack([overall, mean_of_classes(per_class), per_class])}


def precision_cells(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Precision (N, C) at every positive cell, 0 elsewhere; by sorting, some rows at a time."""
    precision = np.zeros(score.shape)
    n_rows, n_classes = score.shape
    step = max(1, _BLOCK_CELLS // max(1, n_classes))
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        precision[rows] = _block_precisions(truth[rows], score[rows])
    return precision


def _block_precisions(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    n_classes = score.shape[1]
    order = np.argsort(-score, axis=1)
    descending = np.take_along_axis(score, order, axis=1)
    hits = np.cumsum(np.take_along_axis(truth, order, axis=1), axis=1)
    # Position of the last member of each tie: the nearest one, from here on, that ends a tie.
    ends = np.ones(score.shape, dtype=bool)
    ends[:, :-1] = descending[:, :-1] != descending[:, 1:]
    last = np.where(ends, np.arange(n_classes), n_classes)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    precision = np.empty(score.shape)
    np.put_along_axis(precision, order, np.take_along_axis(hits, last, axis=1) / (last + 1), axis=1)
    return np.where(truth, precision, 0.0)
