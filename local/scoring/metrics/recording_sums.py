"""Measures as sums over recordings, so that a bootstrap resample is a matrix product.

A `Statistic` is computed once from the data; `values(counts)` then gives its measures for any
number of resamples, `counts` (B, N) telling how often each recording is in each. The columns
of a result are `AVERAGES` and then the C classes. NaN where nothing can be computed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from local.scoring.metrics.ranking import precision_cells

AVERAGES = ("micro", "macro")
# Numbers held at once while resamples are computed: 32 MB each of a few arrays.
_BLOCK_NUMBERS = 1 << 22
# Resamples and thresholds taken together: 1 MB an array.
_BLOCK_COLUMNS = 128
_BLOCK_STEPS = 1024


class Statistic(ABC):
    """One or more measures of one system."""

    names: tuple[str, ...]

    @abstractmethod
    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Measure -> (B, 2 + C): micro, macro, classes."""


def mean_of_classes(per_class: np.ndarray) -> np.ndarray:
    """(B, C) -> (B,): mean of the classes that have a value."""
    known = ~np.isnan(per_class)
    total = np.where(known, per_class, 0).sum(axis=1)
    return divide(total, known.sum(axis=1))


def divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients, NaN over 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), below)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


class CountStatistic(Statistic):
    """Precision, recall and F1 from counts a recording and class (N, C).

    F1 = 2 tp / (n_true + n_found): 0 where one side is empty, NaN where both are. Precision is NaN
    without detections, recall without events. Micro sums the counts of all classes first.
    """

    def __init__(
        self, prefix: str, hit: np.ndarray, n_true: np.ndarray, n_found: np.ndarray
    ) -> None:
        self.names = (f"{prefix} F1", f"{prefix} precision", f"{prefix} recall")
        self._parts = [np.asarray(part, np.float64) for part in (hit, n_true, n_found)]

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        sums = [counts @ part for part in self._parts]
        hit, n_true, n_found = (
            np.concatenate([part.sum(axis=1, keepdims=True), part], axis=1) for part in sums
        )
        tables = (divide(2 * hit, n_true + n_found), divide(hit, n_found), divide(hit, n_true))
        return {
            name: np.insert(table, 1, mean_of_classes(table[:, 1:]), axis=1)
            for name, table in zip(self.names, tables, strict=True)
        }


class ErrorRateStatistic(Statistic):
    """Segment-based error rate (S + D + I) / n_true, summed over segments (Mesaros et al. 2016).

    parts: (N,) substitutions + deletions + insertions of all classes together; per class, deletions
    and insertions alone, as there is nothing to be taken for another.
    """

    def __init__(
        self, name: str, errors: np.ndarray, class_errors: np.ndarray, n_true: np.ndarray
    ) -> None:
        self.names = (name,)
        self._errors = np.column_stack([errors, class_errors])
        self._n_true = np.column_stack([n_true.sum(axis=1), n_true])

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        table = divide(counts @ self._errors, counts @ self._n_true)
        return {self.names[0]: np.insert(table, 1, mean_of_classes(table[:, 1:]), axis=1)}


class RankedStatistic(Statistic):
    """Average precision, and recall at false alarms an hour, of scored decisions.

    A decision is a detection that is right or wrong, or a recording that has the class or has not.
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


class AurocStatistic(Statistic):
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order.

    Ties count half. Micro pools all cells of the table.
    """

    def __init__(self, name: str, truth: np.ndarray, score: np.ndarray) -> None:
        self.names = (name,)
        self._truth, self._score = truth, score

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        n, n_classes = self._truth.shape
        rows = np.arange(n)
        columns = [
            weighted_auroc(counts, rows, self._truth[:, index], self._score[:, index])
            for index in range(n_classes)
        ]
        pooled = weighted_auroc(
            counts, np.repeat(rows, n_classes), self._truth.ravel(), self._score.ravel()
        )
        per_class = np.stack(columns, axis=1)
        table = np.column_stack([pooled, mean_of_classes(per_class), per_class])
        return {self.names[0]: table}


def weighted_auroc(
    counts: np.ndarray, rows: np.ndarray, truth: np.ndarray, score: np.ndarray
) -> np.ndarray:
    """AUROC (B,) of cells (E,) of recordings `rows`, weighted by counts (B, N)."""
    if len(rows) == 0:
        return np.full(len(counts), np.nan)
    order = np.argsort(score, kind="stable")
    rows, truth, score = rows[order], truth[order], score[order]
    starts = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))
    result = np.empty(len(counts))
    block = max(1, _BLOCK_NUMBERS // len(rows))
    for start in range(0, len(counts), block):
        weight = counts[start : start + block, rows].astype(np.float64)
        positive = np.add.reduceat(weight * truth, starts, axis=1)
        negative = np.add.reduceat(weight * ~truth, starts, axis=1)
        below = np.cumsum(negative, axis=1) - 0.5 * negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        result[start : start + block] = divide((positive * below).sum(axis=1), pairs)
    return result


class LwlrapStatistic(Statistic):
    """LWLRAP (micro: every positive counts the same) and its mean over classes (macro)."""

    def __init__(self, name: str, truth: np.ndarray, score: np.ndarray) -> None:
        self.names = (name,)
        self._precision = precision_cells(truth, score)
        self._truth = truth.astype(np.float64)

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        total, number = counts @ self._precision, counts @ self._truth
        per_class = divide(total, number)
        overall = divide(total.sum(axis=1), number.sum(axis=1))
        table = np.column_stack([overall, mean_of_classes(per_class), per_class])
        return {self.names[0]: table}


class PlainStatistic(Statistic):
    """Any function of (recording counts) -> {measure: (2 + C,)}, one resample after another."""

    def __init__(
        self, names: tuple[str, ...], function: Callable[[np.ndarray], dict[str, np.ndarray]]
    ) -> None:
        self.names, self._function = names, function

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        rows = [self._function(row) for row in counts]
        return {name: np.stack([row[name] for row in rows]) for name in self.names}
