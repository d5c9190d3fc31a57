"""Estimators of prevalence that were tried, and did not earn a place."""

import numpy as np
from scipy.special import expit
from scipy.special import logit as logit_of
from sklearn.linear_model import LogisticRegression

from local.relabel.fold_scores import FoldScores


def estimate_em(logit: np.ndarray, source: np.ndarray, n_steps: int = 500) -> np.ndarray:
    """Prevalence (C,) by expectation maximisation (Saerens et al. 2002) of scores (N, C).

    They are taken for calibrated under the prevalence `source` (C,). What stands for less than a
    recording keeps that.
    """
    current = logit_of(source)
    for _ in range(n_steps):
        mean = expit(logit + current - logit_of(source)).mean(axis=0)
        current = logit_of(np.clip(mean, 1e-12, 1 - 1e-12))
    found = expit(current)
    return np.where(found * len(logit) < 1, source, found)


def estimate_mean(folds: list[FoldScores]) -> np.ndarray:
    """Prevalence (C,): the mean probability of target recordings, by Platt's calibration (1999).

    A logistic regression of confirmed against rejected spans, one for each fold's model and for all
    classes together.
    """
    estimates = []
    for fold in folds:
        logit = fold.target
        if fold.spans is not None and len(np.unique(fold.spans[:, 1])) == 2:
            line = LogisticRegression(C=1e6).fit(fold.spans[:, :1], fold.spans[:, 1])
            logit = logit * line.coef_[0, 0] + line.intercept_[0]
        estimates.append(expit(logit).mean(axis=0))
    return np.mean(estimates, axis=0)


def odds_shift(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(C,) to add to logits: exact, were they calibrated under `source` (Saerens et al. 2002)."""
    return logit_of(target) - logit_of(source)
