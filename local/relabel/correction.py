"""Correction of test scores for the prevalence that they are used at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from local.config import Config
from local.data.tables import Tables
from local.labels.targets import PSEUDO
from local.relabel.mixtures import estimate_combined, estimate_mixture
from local.relabel.priors import (
    FoldScores,
    estimate_em,
    estimate_mean,
    estimate_tail,
    odds_shift,
    read_prevalence,
)

_FROM_FOLDS = {
    "combined": estimate_combined,
    "mixture": estimate_mixture,
    "tail": estimate_tail,
    "mean": estimate_mean,
}


@dataclass(frozen=True)
class Correction:
    """Prior correction of C classes: added to the logits before classes are ranked."""

    source: np.ndarray  # (C,) prevalence the scores carry
    target: np.ndarray  # (C,) prevalence where they are used
    shift: np.ndarray  # (C,) logits


def training_prior(events: pd.DataFrame, labels: list[str], config: Config) -> np.ndarray:
    """(C,) prevalence that training shows each class with, smoothed by one row of each kind.

    Partial annotations: the share of confirmed rows among the looked-at ones (their weights; pseudo
    rows are left out). Complete annotations say nothing by rows, so a class counts with its share
    of recordings among those with any event.
    """
    rows = events[~events["source"].astype(str).str.startswith(PSEUDO)]
    positive = rows[rows["polarity"] > 0]
    if config.data.annotation == "complete":
        n_positive = positive.groupby("label")["recording_id"].nunique()
        n_all = pd.Series(rows["recording_id"].nunique(), index=labels)
    else:
        n_positive = positive.groupby("label")["weight"].sum()
        n_all = rows.groupby("label")["weight"].sum()
    n_positive = n_positive.reindex(labels).fillna(0.0).to_numpy(dtype=np.float64)
    n_all = n_all.reindex(labels).fillna(0.0).to_numpy(dtype=np.float64)
    return (n_positive + 1) / (n_all + 2)


def prior_correction(
    tables: Tables,
    test_logit: np.ndarray,
    config: Config,
    datadir: Path,
    folds: Sequence[FoldScores] = (),
) -> Correction:
    """The correction that section `prior` asks for.

    Parameters
    ----------
    test_logit : (N, C) clip scores of the recordings whose prevalence counts.
    folds : out-of-fold evidence, for all estimators but `em`.
    """
    labels = tables.labels
    settings = config.prior
    source = training_prior(tables.events, labels, config)
    if settings.method == "none":
        return Correction(source, source, np.zeros(len(labels)))
    if settings.method == "given":
        target = read_prevalence(datadir / str(settings.given), labels)
    elif settings.estimator == "em":
        target = estimate_em(test_logit, source)
    else:
        estimate = _FROM_FOLDS[settings.estimator](list(folds))
        target = _within_reach(estimate, len(test_logit))
    shift = odds_shift(source, target, settings.strength, settings.max_odds_ratio)
    return Correction(source, target, shift)


def _within_reach(target: np.ndarray, n_recordings: int) -> np.ndarray:
    """N recordings cannot show less than half a recording; what is unknown takes the median."""
    half = 0.5 / n_recordings
    middle = np.nanmedian(target) if np.isfinite(target).any() else 0.5
    return np.clip(np.where(np.isnan(target), middle, target), half, 1 - half)
