"""Rules that shift the classes of test scores by prevalence; each is a row of the table."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import expit
from scipy.special import logit as logit_of

from local.relabel.prevalence import (
    estimate_combined,
    estimate_tail,
    reliability,
    told_apart,
    within_counts,
)
from local.relabel.prevalence_mixture import estimate_mixture
from local.relabel.prior_correction import drawn_together, matching_shift
from local.scoring.event_rules.thresholds import ThresholdChoice, fit_thresholds
from local.scoring.known_labels import known_evidence
from recipes.rfcx.transfer.stored_scores import Stored
from recipes.rfcx.transfer.tried_estimators import estimate_em, estimate_mean, odds_shift

Rule = Callable[[Stored], np.ndarray]
ESTIMATORS = ("combined", "mixture", "tail", "mean", "em")


def by_estimator(name: str, stored: Stored) -> np.ndarray:
    """(C,) prevalence by an estimator; the median of classes where it leaves one open."""
    if name == "em":
        found = estimate_em(stored.test_clip, stored.source)
    else:
        found = _OUT_OF_FOLD[name](stored.folds)
    found = np.where(np.isnan(found), np.nanmedian(found), found)
    return within_counts(found, len(stored.truth))


_OUT_OF_FOLD = {
    "combined": estimate_combined,
    "mixture": estimate_mixture,
    "tail": estimate_tail,
    "mean": estimate_mean,
}


def by_best_f1(stored: Stored) -> np.ndarray:
    """(C,) share of test recordings above the threshold with the best F1 on known spans."""
    evidence = known_evidence(stored.oof, stored.events, stored.config)
    fitted = fit_thresholds(stored.labels, ThresholdChoice("best-f1"), evidence)
    share = (stored.test_clip >= fitted["logit"].to_numpy()).mean(axis=0)
    return within_counts(share, len(stored.truth))


def by_average(stored: Stored) -> np.ndarray:
    """(C,) mean, in ln odds, of the mixture and of the share above the best F1."""
    parts = [by_estimator("mixture", stored), by_best_f1(stored)]
    return expit(np.mean([logit_of(part) for part in parts], axis=0))


def true_one(stored: Stored) -> np.ndarray:
    """(C,) what nobody knows: for comparison alone."""
    return stored.prevalence


PREVALENCES: dict[str, Callable[[Stored], np.ndarray]] = {
    **{name: partial(by_estimator, name) for name in ESTIMATORS},
    "best F1": by_best_f1,
    "average": by_average,
    "true": true_one,
}


def shift_by_odds(stored: Stored, prevalence: np.ndarray) -> np.ndarray:
    """(C,) the exact shift, were scores calibrated under the prevalence of training rows."""
    return odds_shift(stored.source, prevalence)


def shift_to_match(stored: Stored, prevalence: np.ndarray) -> np.ndarray:
    """(C,) until the mean probability of a class is its prevalence."""
    return matching_shift(stored.test_clip, prevalence, max_ratio=1e12)


SHIFTS = {"odds": shift_by_odds, "match": shift_to_match}


def prevalence_rules() -> dict[str, Rule]:
    """All rules by name: (C,) logits to add."""
    rules: dict[str, Rule] = {"none": lambda stored: np.zeros(len(stored.labels))}
    for estimate, of in PREVALENCES.items():
        for shift, by in SHIFTS.items():
            for strength in (1.0, 0.75, 0.5):
                name = f"{estimate}, {shift}" + ("" if strength == 1 else f" x {strength:g}")
                rules[name] = partial(_shifted, of, by, strength)
    for strength in (1.0, 0.75, 0.5):
        rules[f"combined and best F1 agreed, match x {strength:g}"] = partial(agreed, strength)
    for least in (0.0, 0.75, 0.8, 0.85, 0.9):
        for name, part in (("x 0.75", _three_quarters), ("by class", _by_class)):
            where = f", where the span AUC is {least:g}" if least else ""
            rules[f"combined, match {name}{where}"] = partial(where_told_apart, part, least)
    return rules


def _shifted(of: Callable, by: Callable, strength: float, stored: Stored) -> np.ndarray:
    return strength * by(stored, of(stored))


def agreed(strength: float, stored: Stored) -> np.ndarray:
    """(C,) of the shifts by two estimates the smaller, where both move a class alike, or 0."""
    shifts = [shift_to_match(stored, of(stored)) for of in (PREVALENCES["combined"], by_best_f1)]
    one, other = (shift - np.median(shift) for shift in shifts)
    least = np.minimum(np.abs(one), np.abs(other))
    return strength * np.where(np.sign(one) == np.sign(other), np.sign(one) * least, 0.0)


def _three_quarters(stored: Stored, shift: np.ndarray) -> np.ndarray:
    return 0.75 * shift


def _by_class(stored: Stored, shift: np.ndarray) -> np.ndarray:
    """What runs do."""
    return drawn_together(shift, reliability(stored.folds))


def where_told_apart(part: Callable, least_auc: float, stored: Stored) -> np.ndarray:
    """(C,) part of the shift, where scores tell spans apart."""
    if told_apart(stored.folds) < least_auc:
        return np.zeros(len(stored.labels))
    return part(stored, shift_to_match(stored, PREVALENCES["combined"](stored)))
