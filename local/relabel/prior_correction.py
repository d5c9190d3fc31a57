"""Correction of class priors: what a shifted prevalence does to the odds of each class.

A model trained where a class has prevalence pi answers with odds that carry pi. Where the
prevalence is pi' instead, and the sounds of a class are the same (label shift), the right odds are

    p' / (1 - p') = p / (1 - p) * f,   f = [pi' / (1 - pi')] / [pi / (1 - pi)],

one additive constant ln f a class on logits (Saerens, Latinne, Decaestecker 2002, each class taken
as a two-class problem). It never changes the order of recordings within a class, only the order of
classes within a recording.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import logit as logit_of

from local.config import Config
from local.data.tables import Tables
from local.io.errors import CanopyError
from local.labels.targets import PSEUDO
from local.relabel.fold_scores import FoldScores
from local.relabel.prevalence import checked_prior, estimate_prevalence, read_prevalence


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
    folds : out-of-fold evidence, for all estimators but `em`; each with test recordings.

    Raises
    ------
    CanopyError
        Prevalence is to be estimated and there is no test recording to go by.
    """
    labels = tables.labels
    settings = config.prior
    source = training_prior(tables.events, labels, config)
    if settings.method == "none":
        return Correction(source, source, np.zeros(len(labels)))
    if settings.method == "estimated" and not (
        len(test_logit) if settings.estimator == "em" else folds
    ):
        raise CanopyError(
            "prior.method is estimated, but no test recording is readable and has a score of a "
            "model that never saw its group; set it to none or given"
        )
    if settings.method == "given":
        target = read_prevalence(datadir / str(settings.given), labels)
    else:
        target = estimate_prevalence(settings.estimator, test_logit, source, folds)
    shift = odds_shift(source, target, settings.strength, settings.max_odds_ratio)
    return Correction(source, target, shift)


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
    source = checked_prior(source_prior, "source prior")
    target = checked_prior(target_prior, "target prior", closed=True)
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
