"""Average precision and recall at false alarms an hour: measures over all thresholds of decisions.

A decision is a detection that is right or wrong, or a recording that has the class or has not.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from local.scoring.metrics.recording_sums import Statistic, divide, mean_of_classes

# Resamples and thresholds taken together: 1 MB an array.
_BLOCK_COLUMNS = 128
_BLOCK_STEPS = 1024


class RankedStatistic(Statistic):
    """Average precision, and recall at false alarms an hour, of scored decisions.

    Thresholds lie at the distinct scores; decisions of equal score pass together. Average precision
    is the sum of precision times the gain in recall over thresholds, not interpolated, as in
    scikit-learn's `average_precision_score`; events that no detection takes count in the recall.
    Recall at r false alarms an hour is that of the lowest threshold whose wrong decisions stay
    within r times the recorded hours; for micro (one threshold for all classes), r times the number
    of classes.

    Parameters
    ----------
    recording, label, score, right : (E,) decisions.
    n_true : (N, C) events that could be found.
    hours : (N,) recorded hours; None leaves false alarms out.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        recording: np.ndarray,
        label: np.ndarray,
        score: np.ndarray,
        right: np.ndarray,
        n_true: np.ndarray,
        hours: np.ndarray | None = None,
        alarms_per_hour: tuple[float, ...] = (),
    ) -> None:
        self.names = names
        self._n_true = np.asarray(n_true, np.float64)
        self._hours, self._alarms = hours, alarms_per_hour
        n, n_classes = self._n_true.shape
        order = np.argsort(-score, kind="stable")
        recording, label = recording[order], label[order]
        score, right = score[order], right[order]
        self._steps = [_steps(recording, score, right, n)]
        for index in range(n_classes):
            mine = label == index
            self._steps.append(_steps(recording[mine], score[mine], right[mine], n))

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        weight = np.ascontiguousarray(counts.T, dtype=np.float64)
        n_true = self._n_true.T @ weight
        n_true = np.concatenate([n_true.sum(axis=0, keepdims=True), n_true])
        hours = None if self._hours is None else self._hours @ weight
        table = np.full((len(self.names), len(counts), len(n_true) + 1), np.nan)
        for row, steps in enumerate(self._steps):
            column = row + 1 if row else 0
            scale = len(n_true) - 1 if row == 0 else 1
            for start in range(0, len(counts), _BLOCK_COLUMNS):
                part = slice(start, start + _BLOCK_COLUMNS)
                limits = [] if hours is None else [r * scale * hours[part] for r in self._alarms]
                table[:, part, column] = _ranked(
                    steps, np.ascontiguousarray(weight[:, part]), n_true[row, part], limits
                )
        table[:, :, 1] = [mean_of_classes(one[:, 2:]) for one in table]
        return dict(zip(self.names, table, strict=True))


def _steps(
    recording: np.ndarray, score: np.ndarray, right: np.ndarray, n: int
) -> tuple[csr_array, csr_array]:
    """Right and wrong decisions (steps, N) by the highest threshold that lets them pass.

    Only scores of right decisions are steps: in between, precision falls and recall stands still.
    """
    levels = np.unique(-score[right])
    step = np.searchsorted(levels, -score, "left")
    counted = step < len(levels)
    return tuple(
        csr_array((np.ones(int(mine.sum())), (step[mine], recording[mine])), shape=(len(levels), n))
        for mine in (counted & right, counted & ~right)
    )


def _ranked(
    steps: tuple[csr_array, csr_array],
    weight: np.ndarray,
    n_true: np.ndarray,
    limits: list[np.ndarray],
) -> np.ndarray:
    """(1 + limits, B): average precision, then recall at each limit of wrong decisions.

    Goes through the thresholds in pieces that fit the processor's cache.
    """
    n_steps, n_resamples = steps[0].shape[0], weight.shape[1]
    right, wrong, area = np.zeros((3, n_resamples))
    within = np.zeros((len(limits), n_resamples))
    open_limits = list(range(len(limits)))
    for start in range(0, n_steps, _BLOCK_STEPS):
        piece = slice(start, start + _BLOCK_STEPS)
        gain = steps[0][piece] @ weight
        passed_right, passed_wrong = gain.copy(), steps[1][piece] @ weight
        passed_right[0] += right
        passed_wrong[0] += wrong
        np.cumsum(passed_right, axis=0, out=passed_right)
        np.cumsum(passed_wrong, axis=0, out=passed_wrong)
        for row in list(open_limits):
            allowed = passed_wrong <= limits[row] + 1e-9
            np.maximum(within[row], np.where(allowed, passed_right, 0).max(axis=0), out=within[row])
            if not allowed[-1].any():
                open_limits.remove(row)
        right, wrong = passed_right[-1].copy(), passed_wrong[-1].copy()
        gain *= passed_right
        passed_right += passed_wrong
        np.divide(gain, passed_right, out=gain, where=passed_right > 0)
        area += gain.sum(axis=0)
    return np.stack([divide(area, n_true), *(divide(one, n_true) for one in within)])


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
    ends = np.append(score[1:] != score[:-1], True)[: len(score)]
    last = np.flatnonzero(ends)
    n_right, n_all = np.cumsum(right)[last], np.arange(1, len(score) + 1)[last]
    recall = n_right / n_true if n_true else np.full(len(n_right), np.nan)
    return Curve(score[last], recall, n_right / n_all, n_all - n_right)
