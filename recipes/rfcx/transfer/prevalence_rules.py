"""Rules that shift the classes of test scores by prevalence; each is a row of the table."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.special import logit as logit_of

from local.relabel.prevalence import estimate_prevalence
from local.relabel.prior_correction import odds_shift
from local.scoring.event_rules.thresholds import ThresholdChoice, fit_thresholds
from local.scoring.known_labels import known_evidence
from recipes.rfcx.transfer.stored_scores import Stored

Rule = Callable[[Stored], np.ndarray]
ESTIMATORS = ("combined", "mixture", "tail", "mean", "em")


def bounded(stored: Stored, prevalence: np.ndarray) -> np.ndarray:
    """(C,) no nearer to 0 or 1 than half a recording."""
    half = 0.5 / len(stored.truth)
    return np.clip(prevalence, half, 1 - half)


def by_estimator(name: str, stored: Stored) -> np.ndarray:
    """(C,) prevalence by an estimator of `local.relabel.prevalence`."""
    return bounded(stored, estimate_prevalence(name, stored.test_clip, stored.source, stored.folds))


def by_best_f1(stored: Stored) -> np.ndarray:
    """(C,) share of test recordings above the threshold with the best F1 on known spans."""
    evidence = known_evidence(stored.oof, stored.events, stored.config)
    fitted = fit_thresholds(stored.labels, ThresholdChoice("best-f1"), evidence)
    share = (stored.test_clip >= fitted["logit"].to_numpy()).mean(axis=0)
    return bounded(stored, share)


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
    return np.array(
        [
            brentq(lambda shift, z=z, p=p: expit(z + shift).mean() - p, -60, 60)
            for z, p in zip(stored.test_clip.T, prevalence, strict=True)
        ]
    )


SHIFTS = {"odds": shift_by_odds, "match": shift_to_match}


def prevalence_rules() -> dict[str, Rule]:
    """All rules by name: (C,) logits to add."""
    rules: dict[str, Rule] = {"none": lambda stored: np.zeros(len(stored.labels))}
    for estimate, of in PREVALENCES.items():
        for shift, by in SHIFTS.items():
            for strength in (1.0, 0.5):
                name = f"{estimate}, {shift}" + ("" if strength == 1 else f" x {strength:g}")
                rules[name] = partial(_shifted, of, by, strength)
    rules["agreed"] = agreed
    rules["agreed x 0.5"] = lambda stored: 0.5 * agreed(stored)
    return rules


def _shifted(of: Callable, by: Callable, strength: float, stored: Stored) -> np.ndarray:
    return strength * by(stored, of(stored))


def agreed(stored: Stored) -> np.ndarray:
    """(C,) the least of several shifts, against their middle, where all agree in its sign, or 0."""
    shifts = np.array(
        [
            by(stored, of(stored))
            for of in (partial(by_estimator, "mixture"), by_best_f1)
            for by in SHIFTS.values()
        ]
    )
    # What all classes share changes no order.
    shifts -= np.median(shifts, axis=1, keepdims=True)
    same = np.abs(np.sign(shifts).sum(axis=0)) == len(shifts)
    return np.where(same, np.sign(shifts[0]) * np.abs(shifts).min(axis=0), 0.0)
