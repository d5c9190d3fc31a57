"""What the scores of the recordings at hand say of thresholds, beside known spans.

Known spans are half rejected look-alikes by design, and confirmed calls are plainer than most, so
that what is best among them is no operating point in the field. Of the recordings that are to be
scored nobody knows which hold a class; but an estimate says how many do (`relabel.prevalence`).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Scores that are kept of the recordings, and of inserted calls: as many quantiles of more.
_MOST = 400
# Share of the calls that must reach a logit for anything to be told of it.
_LEAST_REACH = 0.1


def _nothing() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True)
class AtHand:
    """One class among the recordings at hand; scores are logits.

    share : estimated share of the recordings that hold it; NaN where nothing is estimated. peaks :
    (M,) highest score of each recording. calls : (K,) clip scores of calls that were inserted into
    recordings; empty where none were.
    """

    share: float = float("nan")
    peaks: np.ndarray = field(default_factory=_nothing)
    calls: np.ndarray = field(default_factory=_nothing)

    @classmethod
    def of(cls, share: float, peaks: np.ndarray, calls: np.ndarray) -> "AtHand":
        """From any number of scores; those that are NaN are left out."""
        return cls(float(share), _thinned(peaks), _thinned(calls))

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return bool(np.isfinite(self.share)) and len(self.peaks) > 0

    def balance(self) -> float:
        """The logit that as many recordings reach as are estimated to hold the class.

        There, false alarms and misses are as many, which is near the best F1.
        """
        return float(np.quantile(self.peaks, 1 - self.share))

    def expected_precision(self, threshold: np.ndarray, confirmed: np.ndarray) -> np.ndarray:
        """(k,) precision at thresholds (k,): share * r(t) / q(t), at most 1.

        r : share of calls, confirmed (n,) and inserted ones counting alike, that reach t. q : share
        of recordings that do. Where none does, NaN.
        """
        kinds = [scores for scores in (confirmed, self.calls) if len(scores)]
        if not kinds:
            return np.full(len(threshold), np.nan)
        reach = np.mean([_at_least(scores, threshold) for scores in kinds], axis=0)
        passing = _at_least(self.peaks, threshold)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(passing > 0, np.minimum(1.0, self.share * reach / passing), np.nan)

    def reaching(self, precision: float, confirmed: np.ndarray) -> tuple[float, float] | None:
        """The least logit at which a precision is expected, NaN: none; and the highest there is.

        Logits that hardly any call reaches are passed over: shares of few are no shares. None where
        no call has a score.
        """
        kinds = [scores for scores in (confirmed, self.calls) if len(scores)]
        if not kinds:
            return None
        reach = np.mean([_at_least(scores, self.peaks) for scores in kinds], axis=0)
        peaks = self.peaks[reach >= _LEAST_REACH]
        expected = self.expected_precision(peaks, confirmed)
        enough = np.flatnonzero(expected >= precision)
        logit = float(peaks[enough[0]]) if len(enough) else float("nan")
        return logit, float(expected.max(initial=0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        share = self.share if np.isfinite(self.share) else None
        return {"share": share, "peaks": self.peaks.tolist(), "calls": self.calls.tolist()}

    @classmethod
    def from_dict(cls, value: dict[str, Any] | None) -> "AtHand":
        """The inverse of `to_dict`; None gives nothing known."""
        if value is None:
            return cls()
        share = float("nan") if value["share"] is None else float(value["share"])
        scores = (np.asarray(value[name], dtype=np.float64) for name in ("peaks", "calls"))
        return cls(share, *scores)


def _thinned(scores: np.ndarray) -> np.ndarray:
    """Rising scores, quantiles of more than are kept."""
    scores = np.sort(scores[~np.isnan(scores)].astype(np.float64))
    if len(scores) <= _MOST:
        return scores
    return np.quantile(scores, (np.arange(_MOST) + 0.5) / _MOST)


def _at_least(scores: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """(k,) share of scores at or above thresholds."""
    ordered = np.sort(scores)
    return 1 - np.searchsorted(ordered, threshold) / len(ordered)
