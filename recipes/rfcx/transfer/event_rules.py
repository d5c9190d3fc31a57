"""Rules that make events of test scores: a threshold a class, and how far below it events go on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from local.config import PriorConfig
from local.io.errors import CanopyError
from local.labels.spans import frames_to_events
from local.relabel.prevalence import told_apart
from local.scoring.event_rules.evidence import Evidence
from local.scoring.event_rules.thresholds import fit_thresholds, parse_choice
from local.scoring.known_labels import known_evidence
from local.scoring.metrics.matching import (
    EventList,
    count_matched,
    largest_matching,
    overlapping_pairs,
)
from local.tasks.detection_thresholds import at_hand_of
from recipes.rfcx.transfer.prevalence_rules import by_estimator
from recipes.rfcx.transfer.stored_scores import Stored

Threshold = Callable[[Stored], np.ndarray]
DROPS = (0.0, 1.0, 2.0, 3.0)
# Known spans of a class that weigh as much as those of all classes together.
_EVEN_COUNTS = (10, 30)


@dataclass(frozen=True)
class Figures:
    """Events against truth, micro over all: f1 and macro at any overlap; iou: median of pairs."""

    precision: float
    recall: float
    f1: float
    macro: float
    f1_half: float
    iou: float
    precisions: np.ndarray  # (C,) NaN where nothing was found


def find(stored: Stored, threshold: np.ndarray, drop: float, shortest_s: float = 0.2,
         gap_s: float = 0.2) -> EventList:  # fmt: skip
    """Events of the test recordings by a threshold (C,) a class."""
    rows = []
    for row, frames in enumerate(stored.test.frames):
        grid = stored.test.grid(row)
        for column in np.flatnonzero(frames.max(axis=1) >= threshold):
            limits = threshold[column], threshold[column] - drop
            spans = frames_to_events(frames[column], grid, *limits, shortest_s, gap_s)
            rows += [(row, column, span.onset, span.offset, span.score) for span in spans]
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    recording, label = table[:, :2].astype(np.int64).T
    return EventList(recording, label, *table[:, 2:].T)


def judge(stored: Stored, found: EventList) -> Figures:
    """The figures of some events."""
    true, shape = stored.truth_events, (len(stored.truth), len(stored.labels))
    pairs = overlapping_pairs(true, found)
    hit, n_true, n_found = (one.sum(axis=0) for one in count_matched(true, found, pairs, *shape))
    half = count_matched(true, found, pairs.exceeding(0.5), *shape)[0].sum()
    with np.errstate(invalid="ignore"):
        precisions = hit / np.where(n_found > 0, n_found, np.nan)
    of_class = 2 * hit / np.maximum(1, n_true + n_found)
    n_all = max(1.0, float(n_true.sum() + n_found.sum()))
    return Figures(
        precision=float(hit.sum() / max(1, n_found.sum())),
        recall=float(hit.sum() / max(1, n_true.sum())),
        f1=float(2 * hit.sum() / n_all),
        macro=float(of_class[n_true > 0].mean()),
        f1_half=float(2 * half / n_all),
        iou=_median_iou(true, found),
        precisions=precisions,
    )


def _median_iou(true: EventList, found: EventList) -> float:
    pairs = overlapping_pairs(true, found)
    matched = largest_matching(pairs, len(true), len(found))
    known = {(a, b): iou for a, b, iou in zip(pairs.true, pairs.found, pairs.iou, strict=True)}
    values = [known[pair] for pair in zip(*matched, strict=True)]
    return float(np.median(values)) if values else float("nan")


# -------------------------------------------------------------------------------------- thresholds


def of_class(stored: Stored) -> np.ndarray:
    """(C,) the best F1 on each class's known spans."""
    common = of_all(stored)
    result = common.copy()
    for column in range(len(stored.labels)):
        mine = stored.spans[stored.spans["class"] == column]
        if (mine["polarity"] > 0).any():
            result[column] = _best_on(mine)
    return result


def of_all(stored: Stored) -> np.ndarray:
    """(C,) the best F1 on the known spans of all classes together: one threshold."""
    return np.full(len(stored.labels), _best_on(stored.spans))


def _best_on(spans: pd.DataFrame) -> float:
    right, score = spans["polarity"].to_numpy() > 0, spans["score"].to_numpy()
    found = np.unique(score[right])
    n_right = np.array([(score[right] >= one).sum() for one in found])
    n_wrong = np.array([(score[~right] >= one).sum() for one in found])
    f1 = 2 * n_right / (n_right + n_wrong + right.sum())
    best = np.flatnonzero(f1 == f1.max())
    return float(found[best[len(best) // 2]])


def towards_all(count: float, stored: Stored) -> np.ndarray:
    """(C,) each class's, drawn to that of all the more the fewer confirmed spans it has."""
    n = _confirmed(stored)
    return of_all(stored) + n / (n + count) * (of_class(stored) - of_all(stored))


def fixed(logit: float, stored: Stored) -> np.ndarray:
    """(C,) one number."""
    return np.full(len(stored.labels), logit)


def by_share(estimator: str, stored: Stored) -> np.ndarray:
    """(C,) which as many test recordings reach as have the class by an estimate."""
    prevalence = stored.prevalence if estimator == "true" else by_estimator(estimator, stored)
    peaks = np.stack([frames.max(axis=1) for frames in stored.test.frames])
    return np.array([np.quantile(z, 1 - p) for z, p in zip(peaks.T, prevalence, strict=True)])


def field_f1(estimator: str, count: float, stored: Stored) -> np.ndarray:
    """(C,) the best F1 that is to be expected among the test recordings.

    Of a share p of recordings that have the class, r(t) reach a threshold t as confirmed and
    inserted calls do, among q(t) of all recordings: F1(t) = 2 p r(t) / (p + q(t)). Drawn to the
    threshold of all classes as in `towards_all`.
    """
    prevalence = stored.prevalence if estimator == "true" else by_estimator(estimator, stored)
    peaks = np.stack([frames.max(axis=1) for frames in stored.test.frames])
    start = towards_all(count, stored)
    n = _confirmed(stored)
    result = start.copy()
    for column, p in enumerate(prevalence):
        spans = stored.spans[(stored.spans["class"] == column) & (stored.spans["polarity"] > 0)]
        calls = [spans["score"].to_numpy()]
        calls += [fold.inserted[:, column] for fold in stored.folds if fold.inserted is not None]
        calls = [one[np.isfinite(one)] for one in calls]
        calls = [one for one in calls if len(one)]
        if not calls:
            continue
        grid = np.unique(np.concatenate(calls))
        reach = np.mean([(one[None] >= grid[:, None]).mean(axis=1) for one in calls], axis=0)
        passing = (peaks[None, :, column] >= grid[:, None]).mean(axis=1)
        f1 = 2 * p * np.minimum(reach, passing / p) / (p + passing)
        # A flat top has its middle as the best.
        good = np.flatnonzero(f1 >= f1.max() - 0.01)
        best = np.median(grid[good])
        weight = n[column] / (n[column] + count)
        result[column] = of_all(stored)[0] * (1 - weight) + weight * best
    return result


def _confirmed(stored: Stored) -> np.ndarray:
    confirmed = stored.spans[stored.spans["polarity"] > 0]
    return confirmed["class"].value_counts().reindex(range(len(stored.labels))).fillna(0).to_numpy()


def mean_of(parts: tuple[Threshold, ...], stored: Stored) -> np.ndarray:
    """(C,) the mean of several rules' thresholds."""
    return np.mean([part(stored) for part in parts], axis=0)


def highest_of(parts: tuple[Threshold, ...], stored: Stored) -> np.ndarray:
    """(C,) the highest of several rules' thresholds."""
    return np.max([part(stored) for part in parts], axis=0)


def threshold_rules() -> dict[str, Threshold]:
    """All rules by name: (C,) logits."""
    rules: dict[str, Threshold] = {"best F1 of the class": of_class, "best F1 of all": of_all}
    for count in _EVEN_COUNTS:
        rules[f"towards all, {count}"] = partial(towards_all, count)
    rules |= {f"logit {logit:g}": partial(fixed, logit) for logit in (-1.0, -0.5, 0.0, 0.5, 1.0)}
    for estimator in ("mixture", "combined", "true"):
        for count in (0, 10):
            rules[f"field F1 by {estimator}, {count}"] = partial(field_f1, estimator, count)
        share = partial(by_share, estimator)
        rules[f"share of {estimator}"] = share
        for name in ("best F1 of all", "towards all, 10", "logit 0"):
            rules[f"mean of {name} and share of {estimator}"] = partial(
                mean_of, (rules[name], share)
            )
        rules[f"highest of towards all, 10 and share of {estimator}"] = partial(
            highest_of, (rules["towards all, 10"], share)
        )
    return rules


def evidence_of(stored: Stored, prevalence: np.ndarray | None = None) -> Evidence:
    """What a run decides by: known spans, and the test recordings where prevalence (C,) is told."""
    at_hand = {}
    if prevalence is not None:
        inserted = [fold.inserted for fold in stored.folds if fold.inserted is not None]
        calls = np.concatenate([np.zeros((0, len(stored.labels))), *inserted])
        at_hand = at_hand_of(stored.test, prevalence, calls)
    found = known_evidence(stored.oof, stored.events, stored.config, at_hand)
    if found is None:
        raise CanopyError(f"{stored.name}: no scores over time; set inference.keep_frames")
    return found


def by_run(choice: str, told: bool, stored: Stored) -> tuple[np.ndarray, float]:
    """(C,) thresholds by an option of `bin/detect.py`, and the fitted drop.

    told : whether prevalence is estimated, where scores tell spans apart by the default; if not,
        known spans are all there is. A promise that no class keeps finds nothing.
    """
    told = told and told_apart(stored.folds) >= PriorConfig().least_auc
    prevalence = by_estimator("combined", stored) if told else None
    evidence = evidence_of(stored, prevalence)
    try:
        fitted = fit_thresholds(stored.labels, parse_choice(choice), evidence)
    except CanopyError:
        return np.full(len(stored.labels), np.inf), evidence.drop
    return fitted["logit"].to_numpy(dtype=np.float64), evidence.drop


OPTIONS = ("best-f1", "precision=0.9", "precision=0.75")


def events_table(stored: Stored) -> pd.DataFrame:
    """One row a rule and drop, with its figures."""
    rows = []
    for choice in OPTIONS:
        for told in (True, False):
            threshold, drop = by_run(choice, told, stored)
            name = f"--threshold {choice}" + ("" if told else ", known spans alone")
            figures = judge(stored, find(stored, threshold, drop))
            rows.append({"rule": name, "drop": "fitted", **vars(figures)})
    for name, rule in threshold_rules().items():
        threshold = rule(stored)
        for drop in DROPS:
            figures = judge(stored, find(stored, threshold, drop))
            rows.append({"rule": name, "drop": drop, **vars(figures)})
    return pd.DataFrame(rows)
