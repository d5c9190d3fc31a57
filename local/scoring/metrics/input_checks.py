"""What metrics of recordings accept: truth of 0 and 1, scores that are numbers."""

import numpy as np
from numpy.typing import ArrayLike

from local.io.errors import CanopyError


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
