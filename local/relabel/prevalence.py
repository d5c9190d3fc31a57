"""Prevalence: in what share of recordings does a class sound, where nobody labelled them?

`estimate_prevalence` goes by out-of-fold scores: the mean of two estimates that err by different
things, `estimate_tail` and `prevalence_mixture.estimate_mixture`. `read_prevalence` reads what a
person knows.
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

# So many target recordings tell as much by the tail of their scores as by the mixture: on scores
# drawn at random the tail loses to the mixture at any number below, if all of it is believed.
_EVEN_COUNT = 1500.0
# Spans that the mean AUC of classes stands for beside the spans of a class.
_DRAWING_SPANS = 10


def estimate_prevalence(folds: Sequence[FoldScores], n_recordings: int) -> np.ndarray:
    """Prevalence (C,) in (0, 1) by `estimate_combined`.

    What it leaves open takes the median of classes; so many recordings show no less than half a
    recording, and no more than all but half a one.
    """
    found = estimate_combined(list(folds))
    middle = np.nanmedian(found) if np.isfinite(found).any() else 0.5
    return within_counts(np.where(np.isnan(found), middle, found), n_recordings)


def within_counts(prevalence: np.ndarray, n_recordings: int) -> np.ndarray:
    """(C,) prevalence kept from 0 and 1: half a recording of so many, and all but half a one."""
    half = 0.5 / n_recordings
    return np.clip(prevalence, half, 1 - half)


def estimate_combined(folds: list[FoldScores]) -> np.ndarray:
    """Prevalence (C,): the mean, in ln odds, of `estimate_mixture` and `estimate_tail`.

    The two err by different things. That scores are not normal does the mixture the same harm
    however many recordings there are, while what few recordings leave open does the tail harm in
    variance as 1 / N; so by inverse variance the mixture weighs w = c / (N + c) of N recordings,
    with c = 1500. The tail is an upper bound but for known calls that are plainer than most. Where
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


def told_apart(folds: Sequence[FoldScores]) -> float:
    """How well scores tell confirmed from rejected spans, out-of-fold: the mean AUC over classes.

    NaN where no class has spans of both kinds.
    """
    auc, n_spans = _auc_by_class(folds)
    return float(auc[n_spans > 0].mean()) if n_spans.any() else float("nan")


def reliability(folds: Sequence[FoldScores]) -> np.ndarray:
    """(C,) in [0, 1], how far the estimate of a class is to be gone by: 2 AUC - 1, or 0.

    The AUC of few spans says little, so it is drawn to the mean over classes as if by ten more
    spans. Where no class has spans of both kinds, all are 1.
    """
    auc, n_spans = _auc_by_class(folds)
    if not n_spans.any():
        return np.ones(len(auc))
    drawn = (n_spans * auc + _DRAWING_SPANS * told_apart(folds)) / (n_spans + _DRAWING_SPANS)
    return np.clip(2 * drawn - 1, 0.0, 1.0)


def _auc_by_class(folds: Sequence[FoldScores]) -> tuple[np.ndarray, np.ndarray]:
    """(C,) AUC of confirmed against rejected spans, and the spans: 0 and 0 without either kind."""
    # Imported here: this module is in every stage's way, and these numbers seldom asked for.
    from sklearn.metrics import roc_auc_score

    parts = [fold.spans for fold in folds if fold.spans is not None]
    spans = np.concatenate([np.zeros((0, 3)), *parts])
    auc, n_spans = np.zeros((2, folds[0].positive.shape[1]))
    for column in range(len(auc)):
        score, verdict = spans[spans[:, 2] == column][:, :2].T
        if len(np.unique(verdict)) == 2:
            auc[column], n_spans[column] = roc_auc_score(verdict, score), len(verdict)
    return auc, n_spans


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
