"""What is annotated in the train recordings, as numbers: lengths, gaps, bands, rates."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from local.data.tables import Tables

# Boxes that touch are drawn with edges that differ by rounding; seconds.
TOUCHING_S = 1e-4
# A quantile of fewer is no quantile: with few calls in all, those of all classes are taken.
_MIN_OF_CLASS = 5


@dataclass(frozen=True)
class Annotated:
    """Confirmed calls of the train recordings. Seconds and hertz.

    durations, gaps : of each class with any, by label. A gap is the silence between two calls of
        one class that follow each other in one recording; calls that touch or overlap have none.
    lows, highs : edges of the boxes of each class that has boxes with frequencies, by label.
    rates : sample rate of each train recording. lengths : its duration.
    shortest : duration of the shortest recording of any subset.
    n_rejected : rows of the train recordings that deny their class.
    labels : all classes, also those without a call.
    """

    durations: dict[str, np.ndarray]
    gaps: dict[str, np.ndarray]
    lows: dict[str, np.ndarray]
    highs: dict[str, np.ndarray]
    rates: np.ndarray
    lengths: np.ndarray
    shortest: float
    n_rejected: int
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, tables: Tables) -> "Annotated":
        """Measure tables."""
        train = tables.subset("train")
        events = tables.events
        rows = events[events["recording_id"].isin(train["recording_id"])]
        calls = rows[rows["polarity"] > 0]
        boxed = calls[calls["high_freq"] > calls["low_freq"].fillna(np.inf)]
        by_label = {str(label): some for label, some in calls.groupby("label", sort=True)}
        boxes = {str(label): some for label, some in boxed.groupby("label", sort=True)}
        return cls(
            durations={
                label: (some["offset"] - some["onset"]).to_numpy(dtype=np.float64)
                for label, some in by_label.items()
            },
            gaps={label: gaps_between(some) for label, some in by_label.items()},
            lows={label: some["low_freq"].to_numpy(dtype=float) for label, some in boxes.items()},
            highs={label: some["high_freq"].to_numpy(dtype=float) for label, some in boxes.items()},
            rates=train["sample_rate"].to_numpy(dtype=np.float64),
            lengths=train["duration"].to_numpy(dtype=np.float64),
            labels=tuple(tables.labels),
            shortest=float(tables.recordings["duration"].min()),
            n_rejected=int((rows["polarity"] < 0).sum()),
        )

    @property
    def n_calls(self) -> int:
        """Confirmed calls of all classes."""
        return sum(map(len, self.durations.values()))

    @property
    def n_gaps(self) -> int:
        """Gaps of all classes."""
        return sum(map(len, self.gaps.values()))

    @property
    def total_s(self) -> float:
        """Seconds of all train recordings."""
        return float(self.lengths.sum())

    def all(self, name: str) -> np.ndarray:
        """`durations`, `gaps`, `lows` or `highs` of all classes together."""
        parts = list(getattr(self, name).values())
        return np.concatenate(parts) if parts else np.zeros(0)

    def least(self, name: str, share: float) -> float | None:
        """That quantile in the class where it is least; None without any."""
        return min(self._quantiles(name, share), default=None)

    def greatest(self, name: str, share: float) -> float | None:
        """That quantile in the class where it is greatest; None without any."""
        return max(self._quantiles(name, share), default=None)

    def _quantiles(self, name: str, share: float) -> list[float]:
        parts = [part for part in getattr(self, name).values() if len(part) >= _MIN_OF_CLASS]
        parts = parts or [part for part in (self.all(name),) if len(part)]
        return [float(np.quantile(part, share)) for part in parts]


def gaps_between(calls: pd.DataFrame) -> np.ndarray:
    """Seconds of silence between calls, rows of one class, that follow each other."""
    found: list[np.ndarray] = []
    for _, rows in calls.groupby("recording_id", sort=True):
        onset = rows["onset"].to_numpy(dtype=np.float64)
        order = np.argsort(onset, kind="stable")
        onset, offset = onset[order], rows["offset"].to_numpy(dtype=np.float64)[order]
        until = np.maximum.accumulate(offset)
        between = onset[1:] - until[:-1]
        found.append(between[between > TOUCHING_S])
    return np.concatenate(found) if found else np.zeros(0)


def tenth(values: np.ndarray) -> float:
    """The greatest limit that no more than a tenth of the values lie below; at least one value."""
    return float(np.sort(values)[len(values) // 10])


def share_below(values: np.ndarray, limit: float) -> float:
    """Share of values that lie below a limit; 0 of none. What is equal but for rounding is not."""
    return float(np.mean(values < limit * (1 - 1e-6))) if len(values) else 0.0
