"""How predictions stand against known labels, and against truth where it exists.

Known labels are the rows a recipe came with (never pseudo events). They are partial, so two
readings are given: the ranking metric over recordings with a known positive, in which unlabelled
calls count as absent, and the span AUC, which compares confirmed with rejected spans and assumes
nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from local.config import Config
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.seeds import generator
from local.labels.grid import overlap
from local.labels.targets import PSEUDO
from local.scoring.event_rules.at_hand import AtHand
from local.scoring.event_rules.evidence import Evidence, collect_evidence
from local.scoring.event_rules.extents import fit_drop
from local.scoring.event_rules.thresholds import ThresholdChoice, fit_thresholds
from local.scoring.metrics.auroc import AurocStatistic
from local.scoring.metrics.bootstrap import interval
from local.scoring.metrics.clip_metrics import (
    chance_score,
    constant_row_score,
    metric_intervals,
    score_metric,
    score_per_class,
)
from local.scoring.metrics.clip_tables import read_truth_table


def known_rows(events: pd.DataFrame) -> pd.DataFrame:
    """Rows that people made."""
    return events[~events["source"].astype(str).str.startswith(PSEUDO)]


def known_positives(
    events: pd.DataFrame, recording_ids: list[str], labels: list[str]
) -> np.ndarray:
    """(N, C) 1 where a recording has a known positive of the class."""
    positive = known_rows(events)
    positive = positive[positive["polarity"] > 0]
    rows = {name: row for row, name in enumerate(recording_ids)}
    columns = {label: column for column, label in enumerate(labels)}
    truth = np.zeros((len(recording_ids), len(labels)), dtype=np.int8)
    for name, label in zip(positive["recording_id"], positive["label"], strict=True):
        if name in rows:
            truth[rows[name], columns[label]] = 1
    return truth


def span_scores(scores: Scores, events: pd.DataFrame) -> pd.DataFrame:
    """Known rows in scored recordings with the highest frame logit inside each, as `score`."""
    place = {name: row for row, name in enumerate(scores.recording_ids)}
    column = {label: index for index, label in enumerate(scores.labels)}
    mine = known_rows(events)
    mine = mine[mine["recording_id"].isin(place)].copy()
    values = []
    for event in mine.itertuples():
        row = place[event.recording_id]
        edges = scores.grid(row).edges_s
        inside = overlap(edges[:-1], edges[1:], event.onset, event.offset) > 0
        if not inside.any():
            inside[-1] = True
        values.append(float(scores.frames[row][column[event.label], inside].max()))
    mine["score"] = np.array(values, dtype=np.float64)
    mine["class"] = mine["label"].map(column).astype(int)
    return mine


def known_evidence(
    scores: Scores,
    events: pd.DataFrame,
    config: Config,
    at_hand: Mapping[str, AtHand] | None = None,
) -> Evidence | None:
    """What out-of-fold scores tell of thresholds and extents; None where they have no frames.

    at_hand : of classes, what the recordings that are to be scored say.
    """
    if not scores.frames:
        return None
    complete = config.window.length_s if config.data.annotation == "complete" else None
    spans = span_scores(scores, events)
    found = collect_evidence(scores, spans, known_rows(events), complete, at_hand)
    fitted = fit_thresholds(scores.labels, ThresholdChoice("best-f1"), found)
    drop = fit_drop(
        scores,
        spans[spans["polarity"] > 0],
        fitted["logit"].to_numpy(dtype=np.float64),
        [config.relabel.lengths_of(label) for label in scores.labels],
    )
    return replace(found, drop=drop)


def score_known(
    scores: Scores, clip_logit: np.ndarray, events: pd.DataFrame, config: Config
) -> dict[str, Any]:
    """Metric with interval on known positives, its baselines, and the span AUC.

    Where annotation is complete, recordings without a call count too: nothing sounds there.

    Returns
    -------
    dict with `value`, `low`, `high`, `chance`, `constant_row`, `n` (recordings that
    counted), `per_class` with its intervals, and `span_auc` when frames are kept.
    """
    truth = known_positives(events, scores.recording_ids, scores.labels)
    has = truth.any(axis=1) | (config.data.annotation == "complete")
    result = score_against(truth[has], clip_logit[has], config, "known")
    if scores.frames:
        result |= span_auc(span_scores(scores, events), config)
    return result


def span_auc(spans: pd.DataFrame, config: Config) -> dict[str, float]:
    """`span_auc` of spans as `span_scores` gives them, and its interval over their recordings.

    The AUROC of confirmed against rejected spans of each class, averaged over classes.
    """
    names, recording = np.unique(spans["recording_id"].astype(str), return_inverse=True)
    label = spans["class"].to_numpy()
    confirmed, score = spans["polarity"].to_numpy() > 0, spans["score"].to_numpy()
    n_classes = int(label.max(initial=-1)) + 1
    statistic = AurocStatistic("span_auc", recording, label, confirmed, score, n_classes)

    def macro(counts: np.ndarray) -> np.ndarray:
        return statistic.values(counts)["span_auc"][:, 1]

    rng = generator(config.seed, "bootstrap", "spans")
    low, high = interval(macro, len(names), rng, config.score.n_bootstrap)
    value = float(macro(np.ones((1, len(names))))[0])
    return {"span_auc": value, "span_auc_low": low, "span_auc_high": high}


def score_against(
    truth: np.ndarray, clip_logit: np.ndarray, config: Config, name: str
) -> dict[str, Any]:
    """Metric and its values by class with bootstrap intervals over recordings, two baselines."""
    metric = config.score.metric
    rng = generator(config.seed, "bootstrap", name)
    (low, high), by_class = metric_intervals(
        metric, truth, clip_logit, rng, config.score.n_bootstrap
    )
    return {
        "metric": metric,
        "value": score_metric(metric, truth, clip_logit),
        "low": low,
        "high": high,
        "chance": chance_score(truth, metric),
        "constant_row": constant_row_score(truth, metric),
        "n": len(truth),
        "per_class": score_per_class(metric, truth, clip_logit),
        "per_class_low": by_class[:, 0],
        "per_class_high": by_class[:, 1],
        "n_positive": truth.sum(axis=0),
    }


def read_truth(path: Path, recording_ids: list[str], columns: list[str]) -> np.ndarray:
    """(N, C) truth for these recordings and columns, in this order."""
    table = read_truth_table(path)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise CanopyError(f"{path}: no column {missing[0]}; expected one a class of the submission")
    absent = [name for name in recording_ids if name not in table.index]
    if absent:
        raise CanopyError(
            f"{path}: no row for recording {absent[0]} ({len(absent)} such recordings)"
        )
    return table.loc[recording_ids, columns].to_numpy()
