"""Correction of class priors: what a shifted prevalence does to the odds of each class.

A model trained where a class has prevalence pi answers with odds that carry pi. Where the
prevalence is pi' instead, and the sounds of a class are the same (label shift), the right odds are

    p' / (1 - p') = p / (1 - p) * f,   f = [pi' / (1 - pi')] / [pi / (1 - pi)],

one additive constant ln f a class on logits (Saerens, Latinne, Decaestecker 2002, each class taken
as a two-class problem). It never changes the order of recordings within a class, only the order of
classes within a recording. p = 0 and p = 1 (logits of -inf and +inf) stay what they are.

`odds_shift` gives ln f, `apply_shift` adds it; the target prevalence comes from `read_prevalence`
or, without any label of the target, from `mixtures.estimate_combined`, or from `estimate_tail`,
`estimate_em` or `estimate_mean`.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.special import logit as logit_of

from local.io.cells import read_cells
from local.io.errors import CanopyError

_log = logging.getLogger(__name__)


def odds_shift(
    source_prior: ArrayLike,
    target_prior: ArrayLike,
    strength: float = 1.0,
    max_ratio: float = 1000.0,
) -> np.ndarray:
    """What to add to the logits (C,): `strength` * ln of the ratio of prior odds, bounded.

    Parameters
    ----------
    source_prior : (C,)
        Prevalence that the scores carry, in (0, 1).
    target_prior : (C,)
        Prevalence where they are used, in [0, 1].
    strength : float
        Exponent of the ratio: 1 is exact under label shift, less is cautious, 0 does nothing.
    max_ratio : float
        Above 1. The factor on the odds, `strength` included, stays in [1/max_ratio, max_ratio].
    """
    source = _checked_prior(source_prior, "source prior")
    target = _checked_prior(target_prior, "target prior", closed=True)
    if source.shape != target.shape:
        raise CanopyError(
            f"source prior has shape {source.shape} and target prior {target.shape}; both need "
            "one value a class"
        )
    if not 0 <= strength < np.inf:
        raise CanopyError(f"prior.strength is {strength}; it must be 0 or more, 1 being exact")
    if not 1 < max_ratio < np.inf:
        raise CanopyError(f"prior.max_odds_ratio is {max_ratio}; it must be above 1 and finite")
    if strength == 0:
        return np.zeros(source.shape)
    bound = np.log(max_ratio)
    return np.clip(strength * (logit_of(target) - logit_of(source)), -bound, bound)


def apply_shift(logit: ArrayLike, shift: ArrayLike) -> np.ndarray:
    """Logits (N, C) with the shift (C,) added, in float64; infinite logits stay as they are."""
    logit, shift = _checked_logit(logit), np.asarray(shift, dtype=np.float64)
    if shift.shape != logit.shape[1:] or not np.isfinite(shift).all():
        raise CanopyError(
            f"shift has shape {shift.shape}; expected {logit.shape[1:]} finite values, one a class"
        )
    return logit + shift


def mean_probability(logit: ArrayLike) -> np.ndarray:
    """Mean over recordings (C,) of the probabilities of logits (N, C), in float64."""
    return expit(_checked_logit(logit)).mean(axis=0)


def estimate_em(
    logit: ArrayLike,
    source_prior: ArrayLike,
    *,
    min_count: float = 1.0,
    max_step: float = 1.0,
    tolerance: float = 1e-7,
    max_iterations: int = 5000,
) -> np.ndarray:
    """Prevalence (C,) of each class in unlabelled recordings, by expectation maximisation.

    From pi' = pi: shift the logits by the ratio of prior odds, take the mean probability as the
    new pi', repeat (Saerens et al. 2002). This climbs to the maximum of the likelihood of pi', a
    concave function for a class by itself, so the start does not matter. It needs scores that are
    calibrated under the source prior; it never sees a label.

    Parameters
    ----------
    logit : (N, C)
        Scores of the target recordings. At least one recording; NaN is refused.
    source_prior : (C,)
        Prevalence that the scores carry, in (0, 1).
    min_count : float
        A class whose estimate stands for fewer recordings than this has almost no mass: nothing
        tells "absent" from "badly calibrated", and the estimate would run on towards 0. It keeps
        its source prior, that is, it is not corrected, and a warning is logged (`is_thin` says
        which). At the other end the estimate is held at 1 - min_count / N: N recordings cannot
        show more.
    max_step : float
        Largest change of ln odds of pi' in one step, so that a poor start cannot overshoot.
    tolerance : float
        A class is done when its ln odds change by less.
    max_iterations : int
        The last value is taken then.
    """
    logit = _checked_logit(logit)
    source = _checked_prior(source_prior, "source prior")
    if source.shape != logit.shape[1:]:
        raise CanopyError(
            f"source prior has shape {source.shape} and logits {logit.shape}; expected one value "
            "a class"
        )
    estimate = _iterate(logit, logit_of(source), max_step, tolerance, max_iterations)
    thin = is_thin(estimate, len(logit), min_count)
    if thin.any():
        _log.warning(
            "prevalence of class(es) number %s not estimated, almost no mass in %d recordings; "
            "they keep their source prior",
            ", ".join(str(index) for index in np.flatnonzero(thin)),
            len(logit),
        )
    ceiling = np.maximum(1 - min_count / len(logit), source)
    return np.where(thin, source, np.minimum(estimate, ceiling))


@dataclass(frozen=True)
class FoldScores:
    """Scores of one model for recordings it never saw, on a scale that is its own.

    known: (M, C) scores of held-out labelled recordings; positive: (M, C) 1 where a person
    confirmed the class; target: (N, C) scores of the recordings whose prevalence is wanted;
    inserted: (K, C) scores of target recordings in which a held-out call of the class was inserted
    (`insertion.insert_calls`), NaN where there was none, or None; spans: (S, 3) scores of held-out
    spans that people looked at, 1 where they confirmed the class, and its number, or None.
    """

    known: np.ndarray
    positive: np.ndarray
    target: np.ndarray
    inserted: np.ndarray | None = None
    spans: np.ndarray | None = None


def estimate_tail(
    folds: list[FoldScores], min_share: float = 0.3, inserted_weight: float = 100.0
) -> np.ndarray:
    """Prevalence (C,) from scores of recordings that have the class; no calibration is needed.

    The share of target recordings above a threshold t is at least the prevalence times the share
    of positives above t, and equals it where no negative passes: prevalence is the least of
    q_target(t) / q_positive(t) (mixture proportion estimation; Garg et al. 2021). High thresholds
    are noisy, so the least is taken over those, each the score of a positive, that keep at least
    `min_share` of the positives, and the positive counts among the targets above it: (k + 1) /
    (N + 1). Then the mean over folds, weighted by their confirmed positives.

    Positives are the held-out recordings where a person confirmed the class, and, weighted as
    `inserted_weight` such recordings in all, target recordings with an inserted call: the former
    are real but few, of other sites, and score higher than most (people confirm what is plain); the
    latter are as many as are wanted, but each has one call.

    A class without a confirmed positive in any fold is NaN.
    """
    n_confirmed = np.sum([fold.positive.sum(axis=0) for fold in folds], axis=0)
    n_classes = len(n_confirmed)
    estimates, weights = np.zeros((len(folds), n_classes)), np.zeros((len(folds), n_classes))
    for row, fold in enumerate(folds):
        for column in range(n_classes):
            confirmed = fold.known[fold.positive[:, column] == 1, column]
            if len(confirmed) == 0:
                continue
            inserted = np.zeros(0) if fold.inserted is None else fold.inserted[:, column]
            inserted = inserted[~np.isnan(inserted)]
            share = inserted_weight / (n_confirmed[column] + inserted_weight)
            scores = np.concatenate([confirmed, inserted])
            mass = np.concatenate(
                [
                    np.full(len(confirmed), (1 - share) / len(confirmed)),
                    np.full(len(inserted), share / max(1, len(inserted))),
                ]
            )
            weights[row, column] = len(confirmed)
            estimates[row, column] = _least_ratio(
                fold.target[:, column], scores, mass / mass.sum(), min_share
            )
    with np.errstate(invalid="ignore"):
        # No positive in any fold: 0 / 0, the NaN that we promise.
        mean = (estimates * weights).sum(axis=0) / weights.sum(axis=0)
    return np.minimum(mean, 1.0)


def _least_ratio(
    target: np.ndarray, positives: np.ndarray, mass: np.ndarray, min_share: float
) -> float:
    """Least share of targets over share of positives, above thresholds that keep `min_share`."""
    order = np.argsort(-positives, kind="stable")
    kept = np.cumsum(mass[order])
    below = np.searchsorted(np.sort(target), positives[order], side="left")
    above = (len(target) - below + 1) / (len(target) + 1)
    usable = kept >= min(min_share, kept[-1])
    return float((above[usable] / kept[usable]).min())


def estimate_mean(folds: list[FoldScores]) -> np.ndarray:
    """Prevalence (C,) as the mean calibrated probability of the target recordings.

    Calibration is Platt's (1999), a logistic regression of confirmed against rejected spans on
    their scores, one for each fold's model and for all classes together. The share of confirmed
    ones among the spans stays in it, so what it says of prevalence is rough. A fold without both
    kinds of spans leaves its scores as they are.
    """
    # Imported here: this module is in every stage's way, and this estimate seldom asked for.
    from sklearn.linear_model import LogisticRegression

    estimates = []
    for fold in folds:
        logit = _checked_logit(fold.target)
        spans = np.zeros((0, 3)) if fold.spans is None else fold.spans
        if len(np.unique(spans[:, 1])) == 2:
            line = LogisticRegression(C=1e6).fit(spans[:, :1], spans[:, 1])
            logit = logit * line.coef_[0, 0] + line.intercept_[0]
        estimates.append(mean_probability(logit))
    return np.mean(estimates, axis=0)


def is_thin(prevalence: ArrayLike, n_recordings: int, min_count: float = 1.0) -> np.ndarray:
    """Classes (C,) bool whose prevalence stands for fewer than `min_count` recordings."""
    return np.asarray(prevalence, dtype=np.float64) * n_recordings < min_count


def _iterate(
    logit: np.ndarray,
    source: np.ndarray,
    max_step: float,
    tolerance: float,
    max_iterations: int,
) -> np.ndarray:
    """Prevalence (C,); works on ln odds, and only on the classes that still move."""
    # Beyond this prevalence is 0 or 1 for any number of recordings; it keeps ln odds finite.
    corner = 50.0
    current, active = source.copy(), np.arange(len(source))
    for _ in range(max_iterations):
        mean = expit(logit[:, active] + (current[active] - source[active])).mean(axis=0)
        wanted = np.clip(logit_of(mean), -corner, corner)
        step = np.clip(wanted - current[active], -max_step, max_step)
        current[active] += step
        active = active[np.abs(step) >= tolerance]
        if not active.size:
            break
    return expit(current)


def read_prevalence(path: Path | str, labels: list[str]) -> np.ndarray:
    """Prevalence (C,) in the order of `labels`, from a csv with columns label and prevalence.

    Raises
    ------
    CanopyError
        A missing or unreadable file or column, a label missing, unknown or listed twice, a
        prevalence that is no number strictly between 0 and 1. Rows count from 1, the header.
    """
    try:
        table, _ = read_cells(Path(path))
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such file; check prior.given") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, OSError) as error:
        raise CanopyError(f"{path}: not readable as csv ({error}); write it anew") from None
    for column in ("label", "prevalence"):
        if column not in table.columns:
            raise CanopyError(f"{path}: no column {column}; needed are label and prevalence")
    known: dict[str, float] = {}
    for row, (label, text) in enumerate(
        zip(table["label"], table["prevalence"], strict=True), start=2
    ):
        if label not in labels:
            raise CanopyError(f"{path}, row {row}: label {label!r} is not a class; take it out")
        if label in known:
            raise CanopyError(f"{path}, row {row}: label {label} stands twice; keep one")
        known[label] = _share(path, row, text)
    missing = [label for label in labels if label not in known]
    if missing:
        raise CanopyError(f"{path}: no prevalence of {', '.join(missing)}; every class needs a row")
    return np.array([known[label] for label in labels])


def _share(path: Path | str, row: int, text: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 < value < 1:
        raise CanopyError(
            f"{path}, row {row}: prevalence {text!r} must be a number between 0 and 1, both "
            "excluded; for a class that is nearly absent give a small one, such as 0.001"
        )
    return value


def _checked_logit(logit: ArrayLike) -> np.ndarray:
    logit = np.asarray(logit, dtype=np.float64)
    if logit.ndim != 2 or len(logit) == 0:
        raise CanopyError(
            f"logits have shape {logit.shape}; expected (recordings, classes) with a recording"
        )
    bad = np.isnan(logit)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise CanopyError(f"logit of row {row}, class {column} is NaN; mend the model's scores")
    return logit


def _checked_prior(prior: ArrayLike, name: str, closed: bool = False) -> np.ndarray:
    prior = np.asarray(prior, dtype=np.float64)
    inside = (prior >= 0) & (prior <= 1) if closed else (prior > 0) & (prior < 1)
    if prior.ndim != 1 or not inside.all():
        found = prior[~inside][0] if prior.ndim == 1 else f"shape {prior.shape}"
        allowed = "from 0 to 1" if closed else "between 0 and 1, both excluded"
        raise CanopyError(
            f"{name} must be one probability a class, {allowed}, found {found}; estimate it from "
            "counts with at least half a recording"
        )
    return prior
