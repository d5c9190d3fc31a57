"""Curves over all thresholds of scored decisions, for pictures."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """One entry a distinct score, from the highest on.

    threshold, recall, precision; wrong: number of wrong decisions that pass.
    """

    threshold: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    wrong: np.ndarray


def ranked_curve(score: np.ndarray, right: np.ndarray, n_true: float) -> Curve:
    """Precision, recall and wrong decisions at every threshold.

    Parameters
    ----------
    score, right : (E,) decisions; those of equal score pass together.
    n_true : what could be found; without any, recall is NaN.
    """
    order = np.argsort(-score, kind="stable")
    score, right = score[order], right[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(score) else []
    n_right, n_all = np.cumsum(right)[last], np.arange(1, len(score) + 1)[last]
    recall = n_right / n_true if n_true else np.full(len(n_right), np.nan)
    return Curve(score[last], recall, n_right / n_all, n_all - n_right)
