"""An experiment's files -> the records that the page shows."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit as logit_of

from local.experiment import Experiment
from local.features import FeatureReader, mel_filters
from local.inference import Scores, load_scores
from local.labels import frames_to_events
from local.report.data import (
    Baseline,
    ClassRow,
    Curve,
    Detection,
    EventKind,
    RecordingPanel,
    Report,
    ScoreRow,
)
from local.results import SCORE_TITLES, known_counts, metric_title
from local.scoring import read_truth_events

# A picture of more than this is unreadable; of longer recordings the beginning is shown.
MAX_PANEL_S = 60.0
CURVES = ("loss_total", "loss_clip", "loss_frame", "valid", "valid_span_auc")


def build_report(experiment: Experiment, results: dict[str, Any]) -> Report:
    """What `report.html` shows, from `results` (of `results.collect`) and the run's files."""
    config = experiment.run.config
    cycles = [entry["cycle"] for entry in results["cycles"]]
    tables = experiment.tables
    subsets = tables.recordings["subset"].value_counts()
    facts = [
        ("recordings", ", ".join(f"{count} {name}" for name, count in subsets.items())),
        ("hours of sound", f"{tables.recordings['duration'].sum() / 3600:.2f}"),
        ("classes", str(len(tables.labels))),
        ("known rows", _polarities(tables.events)),
        ("model", f"{config.model.name}, {config.split.n_folds} folds, {len(cycles)} cycles"),
        ("prior correction", config.prior.method),
    ]
    return Report(
        title=f"Canopy: {experiment.run.exp.name}",
        facts=facts,
        scores=_score_rows(results),
        baselines=_baselines(results),
        classes=_class_rows(experiment, results),
        curves=_curves(experiment, cycles),
        panels=_panels(experiment, cycles[-1]),
        provenance=results["run"],
    )


def _polarities(events: pd.DataFrame) -> str:
    return f"{(events['polarity'] > 0).sum()} positive, {(events['polarity'] < 0).sum()} negative"


def _score_rows(results: dict[str, Any]) -> list[ScoreRow]:
    title = metric_title(results)
    rows = [
        ScoreRow(
            title,
            entry["cycle"],
            SCORE_TITLES[name],
            score["value"],
            score["low"],
            score["high"],
            score["n"],
        )
        for entry in results["cycles"]
        for name, score in entry["scores"].items()
    ]
    spans = [
        ScoreRow(
            "span AUC",
            entry["cycle"],
            SCORE_TITLES["oof_known"],
            score["span_auc"],
            score["span_auc_low"],
            score["span_auc_high"],
            score["n"],
        )
        for entry in results["cycles"]
        if (score := entry["scores"]["oof_known"]).get("span_auc") is not None
    ]
    return rows + spans


def _baselines(results: dict[str, Any]) -> list[Baseline]:
    title = metric_title(results)
    first = results["cycles"][0]["scores"]
    baselines = [
        Baseline(title, SCORE_TITLES[name], words, score[key])
        for name, score in first.items()
        for key, words in (("chance", "chance"), ("constant_row", "best constant row"))
    ]
    return [*baselines, Baseline("span AUC", SCORE_TITLES["oof_known"], "chance", 0.5)]


def _class_rows(experiment: Experiment, results: dict[str, Any]) -> list[ClassRow]:
    """One row a class: scores of the last cycle beside those of the first."""
    names = dict(experiment.tables.classes[["label", "name"]].itertuples(index=False))
    counts = known_counts(experiment)
    shown = results["cycles"][:1] + results["cycles"][1:][-1:]
    rows = []
    for column, label in enumerate(experiment.tables.labels):
        scores = {}
        for entry in shown:
            for name in ("oof_known", "test_truth"):
                score = entry["scores"].get(name)
                if score is not None and len(score["per_class"]) > column:
                    title = f"{SCORE_TITLES[name]}, cycle {entry['cycle']}"
                    scores[title] = float(score["per_class"][column])
        prior = results["cycles"][-1]["prior"]
        prevalence = {"in training rows": float(prior["source"][column])}
        if prior["method"] != "none":
            prevalence["used for correction"] = float(prior["target"][column])
        truth = results["cycles"][-1]["scores"].get("test_truth")
        if truth is not None and len(truth["n_positive"]) > column:
            prevalence["in the truth"] = float(truth["n_positive"][column]) / truth["n"]
        rows.append(ClassRow(label, names.get(label, ""), int(counts[column]), scores, prevalence))
    return rows


def _curves(experiment: Experiment, cycles: list[int]) -> list[Curve]:
    curves = []
    for cycle in cycles:
        for fold in experiment.folds:
            path = experiment.run.fold(cycle, fold) / "log.csv"
            if path.exists():
                curves.append(Curve.from_log(pd.read_csv(path), cycle, fold, CURVES))
    return curves


def _panels(experiment: Experiment, cycle: int) -> list[RecordingPanel]:
    """Test recordings evenly through the table."""
    run = experiment.run
    n_panels = run.config.report.n_recordings
    scores, _ = load_scores(run.cycle(cycle) / "test.npz")
    names = scores.recording_ids
    if n_panels == 0 or not scores.frames or run.config.features.kind != "logmel":
        return []
    truth = _true_events(experiment)
    rows = np.unique(np.linspace(0, len(names) - 1, min(n_panels, len(names))).round().astype(int))
    return [_panel(experiment, scores, row, truth) for row in rows]


def _true_events(experiment: Experiment) -> pd.DataFrame | None:
    run = experiment.run
    if run.config.score.test_events is None:
        return None
    path = run.datadir / run.config.score.test_events
    return read_truth_events(path) if path.exists() else None


def _panel(
    experiment: Experiment,
    scores: Scores,
    row: int,
    truth: pd.DataFrame | None,
) -> RecordingPanel:
    run, name = experiment.run, scores.recording_ids[row]
    config = run.config
    n_frames = min(experiment.dump.n_frames(name), int(MAX_PANEL_S / config.hop_s))
    feats = FeatureReader().read_crop(run.features / f"{name}.npz", 0, n_frames)
    end_s = n_frames * config.hop_s
    logit = scores.frames[row].astype(np.float64)
    n_cells = max(1, int(np.ceil(end_s / scores.hop_s)))
    events = _detections(experiment, logit, scores, row, end_s)
    if truth is not None:
        events += _given(truth[truth["recording_id"] == name], end_s)
    return RecordingPanel(
        recording_id=name,
        feats=np.asarray(feats, dtype=np.float32),
        hop_s=config.hop_s,
        mel_centres_hz=_mel_centres_hz(experiment),
        frame_logit=logit[:, :n_cells],
        frame_hop_s=scores.hop_s,
        labels=experiment.tables.labels,
        events=events,
        names=dict(experiment.tables.classes[["label", "name"]].itertuples(index=False)),
        note="mean of all folds of the last cycle, before the prior correction",
    )


def _given(truth: pd.DataFrame, end_s: float) -> list[Detection]:
    """True events within what the picture shows."""
    return [
        Detection(
            event.onset,
            min(event.offset, end_s),
            event.label,
            kind=EventKind.TRUE,
            low_freq=None if np.isnan(event.low_freq) else event.low_freq,
            high_freq=None if np.isnan(event.high_freq) else event.high_freq,
        )
        for event in truth.itertuples()
        if event.onset < end_s
    ]


def _detections(
    experiment: Experiment, logit: np.ndarray, scores: Scores, row: int, end_s: float
) -> list[Detection]:
    """Events by the rules of relabelling, within what the picture shows."""
    rules = experiment.run.config.relabel
    bands = experiment.tables.classes.set_index("label")[["low_freq", "high_freq"]]
    events = []
    for column, label in enumerate(experiment.tables.labels):
        low, high = (None if np.isnan(value) else float(value) for value in bands.loc[label])
        spans = frames_to_events(
            logit[column],
            scores.grid(row),
            float(logit_of(rules.threshold)),
            None if rules.low_threshold is None else float(logit_of(rules.low_threshold)),
            rules.min_duration_s,
            rules.max_gap_s,
        )
        for span in spans:
            if span.onset < end_s:
                score = float(1 / (1 + np.exp(-span.score)))
                offset = min(span.offset, end_s)
                events.append(
                    Detection(span.onset, offset, label, score, EventKind.DETECTED, low, high)
                )
    return events


def _mel_centres_hz(experiment: Experiment) -> np.ndarray:
    """(n_mels,) centre of mass of every mel filter."""
    config = experiment.run.config
    filters = mel_filters(config.features, config.audio.sample_rate)
    grid = np.linspace(0, config.audio.sample_rate / 2, filters.shape[1])
    return filters @ grid / filters.sum(axis=1)
