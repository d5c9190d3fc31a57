"""LWLRAP, average precision and AUROC of clip-level scores.

Scikit-learn is imported where it is used: every stage comes by here, and few need it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from local.io.errors import CanopyError

# Cells sorted at once, so that working memory stays near 20 MB whatever the number of recordings.
_BLOCK_CELLS = 1 << 18


def checked(truth: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Truth as bool (N, C) and score as float64 (N, C).

    Raises
    ------
    CanopyError
        Shapes that differ or are not two-dimensional, truth other than 0/1, NaN scores. Rows and
        columns are named by their index, from 0. Infinite scores are in legal order.
    """
    truth, score = np.asarray(truth), np.asarray(score)
    if truth.shape != score.shape or truth.ndim != 2:
        raise CanopyError(
            f"truth has shape {truth.shape} and score {score.shape}; both must be the same "
            "(recordings, classes)"
        )
    truth = checked_truth(truth)
    try:
        score = score.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise CanopyError(f"scores must be numbers, found type {score.dtype}") from None
    bad = np.isnan(score)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise CanopyError(
            f"score of row {row}, class {column} is NaN; mend the model or the file that gave it"
        )
    return truth, score


def checked_truth(truth: ArrayLike) -> np.ndarray:
    """Truth (N, C) as bool; a `CanopyError` names the first cell that is neither 0 nor 1."""
    truth = np.asarray(truth)
    if truth.ndim != 2:
        raise CanopyError(f"truth has shape {truth.shape}; it must be (recordings, classes)")
    if truth.dtype == bool:
        return truth
    positive = truth == 1
    bad = ~(positive | (truth == 0))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise CanopyError(
            f"truth of row {row}, class {column} is {truth[row, column]}; only 0 and 1 are "
            "allowed, so convert soft or coded labels first"
        )
    return positive


def lwlrap(truth: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Label-weighted label-ranking average precision, in [0, 1]; NaN without any positive.

    The precision at a positive class c of recording i is the share of positives among the classes
    that score at least as high as c; LWLRAP is its mean over all (recording, positive) pairs.

    Parameters
    ----------
    truth, score : (N, C)
        See `checked` for what is accepted.
    weight : (N,), optional
        How often each recording counts (whole numbers for a bootstrap resample; any finite number
        from 0 up). None: once each.

    Notes
    -----
    - Ties are pessimistic and independent of the order of classes: every class of a tie stands at
      the end of it, rank_i(c) = #{c' : s_ic' >= s_ic}, as in scikit-learn's
      `label_ranking_average_precision_score` (equal to this one when that is weighted by the number
      of positives of each row).
    - Recordings without positives are skipped; `n_skipped` counts them.
    - A class without positives has no influence but as a competitor in the ranking.
    - Averaging over batches is wrong: give the whole set at once.
    """
    total, count = lwlrap_parts(truth, score)
    if weight is not None:
        weight = _checked_weight(weight, len(total))
        total, count = total * weight, count * weight
    return ratio(total.sum(), count.sum())


def per_class_lwlrap(
    truth: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Value (C,) and weight (C,) of each class; LWLRAP is the weighted sum over classes with data.

    The value is the mean precision over the recordings where the class is positive, NaN where there
    is none; the weight is the class's share of all positives (0 there; all NaN without positives).
    """
    truth, score = checked(truth, score)
    rows = np.ones(len(truth)) if weight is None else _checked_weight(weight, len(truth))
    count = rows @ truth
    with np.errstate(invalid="ignore"):
        return (rows @ precision_cells(truth, score)) / count, count / count.sum()


def lwlrap_parts(truth: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Sum of precisions (N,) and number of positives (N,): LWLRAP is the ratio of their sums."""
    truth, score = checked(truth, score)
    return precision_cells(truth, score).sum(axis=1), truth.sum(axis=1).astype(np.float64)


def n_skipped(truth: ArrayLike) -> int:
    """Number of recordings without a positive, which LWLRAP leaves out."""
    return int((~checked_truth(truth).any(axis=1)).sum())


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


def _checked_weight(weight: ArrayLike, n_rows: int) -> np.ndarray:
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape != (n_rows,):
        raise CanopyError(f"weight has shape {weight.shape}; expected ({n_rows},), one a recording")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise CanopyError("weights of recordings must be finite and not negative")
    return weight


def ratio(numerator: float, denominator: float) -> float:
    """The quotient, NaN over nothing."""
    return float(numerator / denominator) if denominator > 0 else float("nan")


def average_precision(truth: ArrayLike, score: ArrayLike) -> np.ndarray:
    """Average precision (C,) of each class over recordings; NaN for a class without positives."""
    from sklearn.metrics import average_precision_score

    truth, score = checked(truth, score)
    return _by_class(truth, score, average_precision_score, lambda column: column.any())


def auroc(truth: ArrayLike, score: ArrayLike) -> np.ndarray:
    """Area under the ROC curve (C,); NaN for a class without positives or without negatives."""
    from sklearn.metrics import roc_auc_score

    truth, score = checked(truth, score)
    return _by_class(truth, score, roc_auc_score, lambda column: column.any() and not column.all())


def mean_average_precision(truth: ArrayLike, score: ArrayLike) -> float:
    """Mean of `average_precision` over the classes that have a value; NaN when none has."""
    return mean_of_known(average_precision(truth, score))


def macro_auroc(truth: ArrayLike, score: ArrayLike) -> float:
    """Mean of `auroc` over the classes that have a value; NaN when none has."""
    return mean_of_known(auroc(truth, score))


def _by_class(
    truth: np.ndarray,
    score: np.ndarray,
    function: Callable[[np.ndarray, np.ndarray], float],
    has_data: Callable[[np.ndarray], bool],
) -> np.ndarray:
    """`function` a column. Dense ranks stand for the scores: same order, and finite for inf."""
    values = np.full(truth.shape[1], np.nan)
    for index, column in enumerate(truth.T):
        if has_data(column):
            values[index] = function(column, rankdata(score[:, index], method="dense"))
    return values


def mean_of_known(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN when all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
