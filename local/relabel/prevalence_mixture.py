"""Prevalence from a mixture of two normal distributions: scores with the class, and without it.

The test scores of a class come from recordings that have it and from recordings that do not. Where
each kind lies is known roughly: the former score like recordings known to have the class, the
latter like what people rejected, only higher, since a recording has the score of its highest
moment. So each kind may lie a little off where it is expected, as far as the test scores ask for
it, and what remains to be told is how many there are of each.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import expit, logsumexp

from local.relabel.fold_scores import FoldScores

# How far, in logits, a kind may lie from where it is expected (standard deviation): a factor of two
# in odds.
_TOLERANCE = np.log(2.0)
# What is known beforehand of the variance of scores counts as much as so many recordings.
_VARIANCE_COUNT = 20.0
# ln odds of the prevalences that are tried, and of those between that the posterior is read at: of
# many recordings it is narrower than the steps of the former.
_LOG_ODDS = np.linspace(-6.0, 4.0, 21)
_FINE_LOG_ODDS = np.linspace(-6.0, 4.0, 501)
# Of more scores than this, as many quantiles.
_MAX_SCORES = 1000
# Steps towards the mode, at first and whenever the offset common to all classes was changed.
_FIRST_STEPS, _STEPS, _ROUNDS = 25, 6, 3
# Present recordings score higher than absent ones by this at least, in logits, and scores of a kind
# vary by this at least.
_LEAST_GAP, _LEAST_VARIANCE = 0.1, 1e-3


@dataclass(frozen=True)
class _Expected:
    """What is known of C classes before the test scores are looked at.

    present, absent: (C,) mean scores of recordings known to have it and of rejected spans, NaN
    where there are none; variance: (C,) of either around its mean.
    """

    present: np.ndarray
    absent: np.ndarray
    variance: np.ndarray


def estimate_mixture(folds: list[FoldScores]) -> np.ndarray:
    """Prevalence (C,): for each class the posterior mean of the share of a normal mixture.

    A score z of a target recording is N(m1, v) where the class is present, which it is with
    probability p, and N(m0, v) where it is not, with

        m1 ~ N(mean of known positives, t^2),  m0 ~ N(mean of rejected spans + b, t^2),  t = ln 2,
        v ~ scaled inverse chi-squared,  p ~ Beta(1/2, 1/2) (Jeffreys),

    and b, by which a recording's highest score exceeds a span's, the median over classes. For each
    p of a grid, expectation maximisation finds the mode of m1, m0 and v, and the means around it
    count by Laplace's approximation. The posterior mean of p is the probability that a recording
    has the class. Where scores do not tell, it tends to the middle, and not, as an upper bound
    does, to 1.

    Known positives are recordings where a person confirmed the class and, counting as much in all,
    target recordings with an inserted call: these are of the right sites, but made from the calls
    of those, so they know no more. Folds score the same recordings, so their log-likelihoods are
    averaged and not summed.

    A class without a confirmed positive in any fold is NaN; one without a rejected span has m0
    free.
    """
    n_classes = folds[0].positive.shape[1]
    present, absent, variance = np.array([_expect(folds, column) for column in range(n_classes)]).T
    result = np.full(len(present), np.nan)
    known = np.isfinite(present)
    if known.any():
        # Halfway to the other classes: few scores tell little of their variance.
        variance = (variance + variance[known].mean()) / 2
        scores = _quantiles(np.concatenate([fold.target[:, known] for fold in folds]))
        count = np.mean([len(fold.target) for fold in folds])
        chosen = _Expected(present[known], absent[known], variance[known])
        result[known] = expit(_FINE_LOG_ODDS) @ _Mixture(scores, float(count), chosen).posterior()
    return result


def _expect(folds: list[FoldScores], column: int) -> tuple[float, float, float]:
    """Mean score of known positives and of rejected spans of a class, and their variance."""
    confirmed = _joined([f.known[f.positive[:, column] == 1, column] for f in folds])
    if len(confirmed) == 0:
        return np.nan, np.nan, np.nan
    mean, variance = confirmed.mean(), confirmed.var()
    inserted = _joined([f.inserted[:, column] for f in folds if f.inserted is not None])
    inserted = inserted[~np.isnan(inserted)]
    if len(inserted):
        mean = (mean + inserted.mean()) / 2
        variance = (variance + inserted.var()) / 2
    spans = [f.spans for f in folds if f.spans is not None]
    rejected = _joined([s[(s[:, 1] == 0) & (s[:, 2] == column), 0] for s in spans])
    if len(rejected) == 0:
        return mean, np.nan, max(variance, _LEAST_VARIANCE)
    return mean, rejected.mean(), max((variance + rejected.var()) / 2, _LEAST_VARIANCE)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts])


def _quantiles(scores: np.ndarray) -> np.ndarray:
    """At most `_MAX_SCORES` scores a class, (n, C), which stand for all."""
    scores = np.asarray(scores, dtype=np.float64)
    if len(scores) <= _MAX_SCORES:
        return scores
    return np.quantile(scores, (np.arange(_MAX_SCORES) + 0.5) / _MAX_SCORES, axis=0)


class _Mixture:
    """Two kinds of scores (n, C) that count as `count` recordings, for every share of the grid."""

    def __init__(self, scores: np.ndarray, count: float, expected: _Expected) -> None:
        shape = (len(_LOG_ODDS), scores.shape[1])
        self._scores, self._count, self._expected = scores, count, expected
        # Precision of where absent ones are expected: none where nothing was rejected.
        rejected = np.isfinite(expected.absent)
        self._precision = np.where(rejected, _TOLERANCE**-2.0, 0.0)
        self._expected_absent = np.where(rejected, expected.absent, np.median(scores, axis=0))
        self._offset = 0.0
        self._present = np.tile(expected.present, (shape[0], 1))
        self._absent = np.tile(self._expected_absent, (shape[0], 1))
        self._variance = np.tile(expected.variance, (shape[0], 1))

    def posterior(self) -> np.ndarray:
        """(501, C) probability of each share of the fine grid; every column sums to 1."""
        for n_steps in (_FIRST_STEPS, *[_STEPS] * (_ROUNDS - 1)):
            for _ in range(n_steps):
                self._step()
            logits = self._log_posterior()
            moved = (_normalised(logits) * self._absent).sum(axis=0) - self._expected_absent
            if self._precision.any():
                self._offset = float(np.median(moved[self._precision > 0]))
        return _normalised(CubicSpline(_LOG_ODDS, logits)(_FINE_LOG_ODDS))

    def _step(self) -> None:
        """Expectation and maximisation: means and variance, for each share by itself."""
        z, count, prior = self._scores, self._count, _TOLERANCE**-2.0
        belongs = expit(np.subtract(*self._log_densities()))
        scale = count / len(z)
        n_present, sum_present, square_present = (
            scale * (belongs * power).sum(axis=1) for power in (1.0, z, z**2)
        )
        n_absent = count - n_present
        sum_absent = scale * z.sum(axis=0) - sum_present
        square_absent = scale * (z**2).sum(axis=0) - square_present
        v = self._variance
        self._n_present = n_present
        self._present = (sum_present / v + self._expected.present * prior) / (n_present / v + prior)
        wanted = (self._expected_absent + self._offset) * self._precision
        self._absent = (sum_absent / v + wanted) / (n_absent / v + self._precision + 1e-9)
        self._present = np.maximum(self._present, self._absent + _LEAST_GAP)
        spread = square_present - 2 * self._present * sum_present + n_present * self._present**2
        spread += square_absent - 2 * self._absent * sum_absent + n_absent * self._absent**2
        known = _VARIANCE_COUNT * self._expected.variance
        self._variance = (spread + known) / (count + _VARIANCE_COUNT)

    def _log_densities(self) -> tuple[np.ndarray, np.ndarray]:
        """(G, n, C) ln share and density of each score, as present and as absent."""
        v = self._variance[:, None]
        return tuple(
            (_log_share(sign * _LOG_ODDS)[:, None, None] - np.log(v) / 2)
            - (self._scores - mean[:, None]) ** 2 / (2 * v)
            for sign, mean in ((1, self._present), (-1, self._absent))
        )

    def _log_posterior(self) -> np.ndarray:
        """(G, C), but for a constant."""
        v, precision = self._variance, _TOLERANCE**-2.0
        scale = self._count / len(self._scores)
        result = scale * np.logaddexp(*self._log_densities()).sum(axis=1)
        result -= precision / 2 * (self._present - self._expected.present) ** 2
        away = self._absent - self._expected_absent - self._offset
        result -= self._precision / 2 * away**2
        result -= _VARIANCE_COUNT / 2 * (np.log(v) + self._expected.variance / v)
        # Laplace: the width of the mode in either mean.
        result -= np.log(self._n_present / v + precision) / 2
        result -= np.log((self._count - self._n_present) / v + self._precision + 1e-9) / 2
        # On ln odds, Beta(1/2, 1/2) has the density sqrt(p (1 - p)).
        return result + ((_log_share(_LOG_ODDS) + _log_share(-_LOG_ODDS)) / 2)[:, None]


def _normalised(logits: np.ndarray) -> np.ndarray:
    """Probabilities, of which every column sums to 1."""
    return np.exp(logits - logsumexp(logits, axis=0))


def _log_share(log_odds: np.ndarray) -> np.ndarray:
    """Probability, as a logarithm, of these ln odds."""
    return -np.logaddexp(0, -log_odds)
