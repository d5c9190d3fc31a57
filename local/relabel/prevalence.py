"""Prevalence: in what share of recordings does a class sound, where nobody labelled them?

`estimate_prevalence` asks the estimator that section `prior` names: `combined`, `mixture` (of
`prevalence_mixture`), `tail` and `mean` go by out-of-fold scores, `em` by the scores themselves.
`read_prevalence` reads what a person knows.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.special import logit as logit_of

from local.io.csv_cells import read_cells
from local.io.errors import CanopyError
from local.relabel.fold_scores import FoldScores
from local.relabel.prevalence_mixture import estimate_mixture

log = logging.getLogger("canopy")

# So many target recordings tell as much by the tail of their scores as by the mixture.
_EVEN_COUNT = 100.0


def estimate_prevalence(
    estimator: str, logit: np.ndarray, source_prior: np.ndarray, folds: Sequence[FoldScores]
) -> np.ndarray:
    """Prevalence (C,) in (0, 1) by the estimator of that name.

    Parameters
    ----------
    logit : (N, C) clip scores of the recordings whose prevalence is wanted.
    source_prior : (C,) prevalence that the scores carry, for `em`.
    folds : out-of-fold evidence, for all others. What they leave open takes the median of classes,
        and N recordings show no less than half a recording, and no more than all but half a one.
    """
    if estimator == "em":
        return estimate_em(logit, source_prior)
    by_name = {
        "combined": estimate_combined,
        "mixture": estimate_mixture,
        "tail": estimate_tail,
        "mean": estimate_mean,
    }
    found = by_name[estimator](list(folds))
    half = 0.5 / len(logit)
    middle = np.nanmedian(found) if np.isfinite(found).any() else 0.5
    return np.clip(np.where(np.isnan(found), middle, found), half, 1 - half)


def estimate_combined(folds: list[FoldScores]) -> np.ndarray:
    """Prevalence (C,): the mean, in ln odds, of `estimate_mixture` and `estimate_tail`.

    The two err by different things. That scores are not normal does the mixture the same harm
    however many recordings there are, while what few recordings leave open does the tail harm in
    variance as 1 / N; so by inverse variance the mixture weighs w = c / (N + c) of N recordings,
    with c = 100. The tail is an upper bound but for known calls that are plainer than most. Where
    the mixture says more than it, that has to be so, and the mixture right: it weighs w^2.
    Prevalences below half a recording, or above all but half a one, count as these.

    A class without a confirmed positive in any fold is NaN.
    """
    n = np.mean([len(fold.target) for fold in folds])
    reach = 0.5 / n
    tail, mixture = (
        logit_of(np.clip(estimate(folds), reach, 1 - reach))
        for estimate in (estimate_tail, estimate_mixture)
    )
    share = _EVEN_COUNT / (n + _EVEN_COUNT)
    return expit(tail + np.where(mixture > tail, share**2, share) * (mixture - tail))


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
        its source prior, that is, it is not corrected, and a warning is logged. At the other end
        the estimate is held at 1 - min_count / N: N recordings cannot show more.
    max_step : float
        Largest change of ln odds of pi' in one step, so that a poor start cannot overshoot.
    tolerance : float
        A class is done when its ln odds change by less.
    max_iterations : int
        The last value is taken then.
    """
    logit = _checked_logit(logit)
    source = checked_prior(source_prior, "source prior")
    if source.shape != logit.shape[1:]:
        raise CanopyError(
            f"source prior has shape {source.shape} and logits {logit.shape}; expected one value "
            "a class"
        )
    estimate = _iterate(logit, logit_of(source), max_step, tolerance, max_iterations)
    thin = estimate * len(logit) < min_count
    if thin.any():
        log.warning(
            "prevalence of class(es) number %s not estimated, almost no mass in %d recordings; "
            "they keep their source prior",
            ", ".join(str(index) for index in np.flatnonzero(thin)),
            len(logit),
        )
    ceiling = np.maximum(1 - min_count / len(logit), source)
    return np.where(thin, source, np.minimum(estimate, ceiling))


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
        estimates.append(expit(logit).mean(axis=0))
    return np.mean(estimates, axis=0)


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


def checked_prior(prior: ArrayLike, name: str, closed: bool = False) -> np.ndarray:
    """One probability a class (C,) as float64; `closed` lets 0 and 1 pass."""
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
