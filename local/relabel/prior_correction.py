"""Correction of class priors: scores of a class are shifted until they say how common it is.

A network that learns from few, balanced labels answers with odds that carry no prevalence of the
field. One constant a class is added to its logits, so that their mean probability over the
recordings is (or comes nearer to) the prevalence there. Where prevalence is estimated, this is done
only where scores tell confirmed from rejected spans, and of a class the more of it the better they
do. It never changes the order of recordings within a class, only the order of classes within a
recording.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit

from local.config import Config
from local.io.errors import CanopyError
from local.relabel.fold_scores import FoldScores
from local.relabel.prevalence import (
    checked_prior,
    estimate_prevalence,
    read_prevalence,
    reliability,
    told_apart,
    within_counts,
)

log = logging.getLogger("canopy")


@dataclass(frozen=True)
class Correction:
    """Prior correction of C classes: added to the logits before classes are ranked."""

    source: np.ndarray  # (C,) mean probability that the scores say
    target: np.ndarray  # (C,) prevalence where they are used
    shift: np.ndarray  # (C,) logits
    # Why the estimate of `target` is not to be gone by; "": it is.
    distrust: str = ""


def prior_correction(
    labels: list[str],
    test_logit: np.ndarray,
    config: Config,
    datadir: Path,
    folds: Sequence[FoldScores] = (),
) -> Correction:
    """The correction that section `prior` asks for.

    Parameters
    ----------
    test_logit : (N, C) clip scores of the recordings whose prevalence counts.
    folds : out-of-fold evidence, each with test recordings, for `estimated`.

    Raises
    ------
    CanopyError
        Prevalence is to be estimated, and there is no test recording to go by.
    """
    settings, n = config.prior, len(test_logit)
    source = expit(test_logit).mean(axis=0) if n else np.full(len(labels), 0.5)
    if settings.method == "none":
        return Correction(source, source, np.zeros(len(labels)))
    if settings.method == "given":
        target = read_prevalence(datadir / str(settings.given), labels)
    elif n and folds:
        target = estimate_prevalence(folds, n)
    else:
        raise CanopyError(
            "prior.method is estimated, but no test recording is readable and has a score of a "
            "model that never saw its group; set it to none or given"
        )
    if n == 0:
        log.warning("prior.method is given, but there are no test recordings to correct")
        return Correction(source, target, np.zeros(len(labels)))
    if settings.method == "estimated" and (why := _distrust(folds, settings.least_auc)):
        log.info("priors are not corrected: %s, so prevalence cannot be estimated well", why)
        return Correction(source, target, np.zeros(len(labels)), why)
    strength = 1.0 if settings.strength is None else settings.strength
    shift = matching_shift(test_logit, target, strength, settings.max_odds_ratio)
    if settings.method == "estimated" and settings.strength is None:
        shift = drawn_together(shift, reliability(folds))
    return Correction(source, target, shift)


def _distrust(folds: Sequence[FoldScores], least_auc: float) -> str:
    """Why scores that do not tell spans apart do not tell prevalence; "" where they do."""
    auc = told_apart(folds)
    if least_auc == 0 or auc >= least_auc:
        return ""
    if np.isnan(auc):
        return "no class has both confirmed and rejected spans with scores"
    return f"the span AUC is {auc:.3f} out-of-fold, less than prior.least_auc {least_auc:g}"


def matching_shift(
    logit: ArrayLike, prevalence: ArrayLike, strength: float = 1.0, max_ratio: float = 1000.0
) -> np.ndarray:
    """What to add to logits (N, C): `strength` times what makes mean probabilities the prevalence.

    At strength 1 a constant added to all logits of a class changes nothing of what comes out.

    Parameters
    ----------
    prevalence : (C,)
        In [0, 1]; N recordings show no less than half a recording, nor more than all but half a
        one.
    strength : float
        From 0, which does nothing, to 1. Less than 1 is cautious.
    max_ratio : float
        Above 1. The factor on the odds, `strength` included, stays in [1/max_ratio, max_ratio].
    """
    logit = np.asarray(logit, dtype=np.float64)
    if logit.ndim != 2 or len(logit) == 0:
        raise CanopyError(
            f"logits have shape {logit.shape}; expected (recordings, classes) with a recording"
        )
    if not np.isfinite(logit).all():
        row, column = np.argwhere(~np.isfinite(logit))[0]
        raise CanopyError(
            f"logit of row {row}, class {column} is {logit[row, column]}; mend the model's scores"
        )
    target = checked_prior(prevalence, "prevalence", closed=True)
    if target.shape != logit.shape[1:]:
        raise CanopyError(
            f"prevalence has shape {target.shape} and logits {logit.shape}; expected one value a "
            "class"
        )
    if not 0 <= strength < np.inf:
        raise CanopyError(f"prior.strength is {strength}; it must be 0 or more, 1 being whole")
    if not 1 < max_ratio < np.inf:
        raise CanopyError(f"prior.max_odds_ratio is {max_ratio}; it must be above 1 and finite")
    wanted = within_counts(target, len(logit))
    shift = [_root(scores, share) for scores, share in zip(logit.T, wanted, strict=True)]
    return np.clip(strength * np.array(shift), -np.log(max_ratio), np.log(max_ratio))


def drawn_together(shift: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(C,) shifts drawn to their weighted mean, wholly where the weight in [0, 1] is 0.

    A class of which an estimate says nothing moves as classes do on the mean, which changes no
    order.
    """
    if not weight.any():
        return np.full(len(shift), shift.mean())
    middle = np.average(shift, weights=weight)
    return middle + weight * (shift - middle)


def _root(scores: np.ndarray, share: float) -> float:
    """The shift by which the mean probability of scores (N,) is a share in (0, 1)."""
    # If all were alike, the shift would be where they are; each is no further than the furthest.
    middle = np.log(share) - np.log1p(-share)
    low, high = middle - scores.max() - 1.0, middle - scores.min() + 1.0
    return float(brentq(lambda shift: expit(scores + shift).mean() - share, low, high, xtol=1e-10))
