"""Measures as sums over recordings, so that a bootstrap resample is a matrix product.

A `Statistic` is computed once from the data; `values(counts)` then gives its measures for any
number of resamples, `counts` (B, N) telling how often each recording is in each. The columns
of a result are `AVERAGES` and then the C classes. NaN where nothing can be computed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

AVERAGES = ("micro", "macro")
# Values taken together: 32 MB.
_BLOCK_VALUES = 1 << 22


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


def plain_values(statistics: list[Statistic], n: int) -> dict[str, np.ndarray]:
    """Measure -> (2 + C,) of the data as they are."""
    counts = np.ones((1, n))
    return {name: table[0] for one in statistics for name, table in one.values(counts).items()}


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


class RateStatistic(Statistic):
    """How many an hour: `number` (N, C) of things over `hours` (N,); micro counts all classes."""

    def __init__(self, name: str, number: np.ndarray, hours: np.ndarray) -> None:
        self.names = (name,)
        self._number = np.column_stack([number.sum(axis=1), number])
        self._hours = np.asarray(hours, np.float64)[:, None]

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        table = divide(counts @ self._number, counts @ self._hours)
        return {self.names[0]: np.insert(table, 1, mean_of_classes(table[:, 1:]), axis=1)}


class MedianStatistic(Statistic):
    """The median of values (E,) that lie in recordings and classes; NaN where there is none.

    Micro is that of all values together, macro the mean of the medians of classes.
    """

    def __init__(
        self, name: str, recording: np.ndarray, label: np.ndarray, value: np.ndarray, n_classes: int
    ) -> None:
        self.names = (name,)
        order = np.argsort(value, kind="stable")
        recording, label, value = recording[order], label[order], value[order]
        kept = [np.ones(len(value), dtype=bool), *(label == index for index in range(n_classes))]
        self._parts = [(recording[mine], value[mine]) for mine in kept]

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        columns = [_medians(counts, *part) for part in self._parts]
        table = np.stack(columns, axis=1)
        return {self.names[0]: np.insert(table, 1, mean_of_classes(table[:, 1:]), axis=1)}


def _medians(counts: np.ndarray, recording: np.ndarray, value: np.ndarray) -> np.ndarray:
    """(B,) medians of rising values (E,), each as often as its recording counts."""
    medians = np.full(len(counts), np.nan)
    if len(value) == 0:
        return medians
    block = max(1, _BLOCK_VALUES // len(value))
    for start in range(0, len(counts), block):
        part = slice(start, start + block)
        passed = np.cumsum(counts[part][:, recording], axis=1)
        n = passed[:, -1]
        # Of an even number, the mean of the two in the middle.
        two = [(passed <= middle[:, None]).sum(axis=1) for middle in ((n - 1) // 2, n // 2)]
        some = n > 0
        medians[part][some] = (value[two[0][some]] + value[two[1][some]]) / 2
    return medians


class PlainStatistic(Statistic):
    """Any function of recording counts (N,) -> (2 + C,), one resample after another: slow."""

    def __init__(self, name: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self.names, self._function = (name,), function

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        return {self.names[0]: np.stack([self._function(row) for row in counts])}
