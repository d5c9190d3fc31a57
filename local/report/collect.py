"""An experiment's files -> the records that the page shows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit as logit_of

from local.config import RelabelConfig
from local.inference.scores import Scores
from local.report.clips import build_viewer
from local.report.confusion_and_calibration import calibration_of, confusion_of
from local.report.page_records import (
    Baseline,
    ClassRow,
    Curve,
    EventClassRow,
    EventScores,
    Report,
    ScoreRow,
)
from local.report.pseudo_label_changes import changes_of, examples_of
from local.scoring.event_rules.event_figures import TITLES
from local.scoring.event_rules.event_measures import measure_title
from local.scoring.event_rules.rule_file import read_rule
from local.scoring.event_rules.span_rules import default_choice
from local.scoring.event_rules.thresholds import fit_thresholds
from local.scoring.event_rules.tuning import iou_title
from local.stages.experiment import Experiment, submitted_cycle
from local.tasks.detection_events import EVENT_TITLES, worst_words
from local.tasks.detection_results import SCORE_TITLES, known_counts, metric_title, train_part
from local.tasks.detection_thresholds import run_evidence

# Sections that are filled for any task; the others are those of a detection.
OF_ANY_TASK = ("scores", "training", "provenance")
CURVES = ("loss_total", "loss_clip", "loss_frame", "valid", "valid_span_auc")


def build_report(experiment: Experiment, results: dict[str, Any]) -> Report:
    """What `report.html` shows, from `results` (what stage 5 writes) and the run's files."""
    config = experiment.run.config
    cycles = [entry["cycle"] for entry in results["cycles"]]
    tables = experiment.tables
    subsets = tables.recordings["subset"].value_counts()
    facts = [
        ("recordings", ", ".join(f"{count} {name}" for name, count in subsets.items())),
        ("hours of sound", f"{tables.recordings['duration'].sum() / 3600:.2f}"),
        ("classes", str(len(tables.labels))),
        ("known rows", _polarities(tables.events)),
        *(
            [("reviewed rows", _polarities(experiment.reviewed))]
            if experiment.reviewed_paths
            else []
        ),
        (
            "model",
            f"{config.model.name}, {config.split.n_folds} folds, {len(cycles)} cycles, of which "
            f"cycle {submitted_cycle(results)} is handed in",
        ),
    ]
    sections = experiment.task.report(experiment, results)
    report = Report(
        title=f"Canopy: {experiment.run.exp.name}",
        facts=facts,
        scores=_score_rows(results),
        curves=_curves(experiment, cycles),
        provenance=results["run"],
        sections=sections,
    )
    if all(section in OF_ANY_TASK for section in sections if isinstance(section, str)):
        return report
    return _with_detection(report, experiment, results)


def _with_detection(report: Report, experiment: Experiment, results: dict[str, Any]) -> Report:
    """The page of a detection: classes, events, priors, and recordings to look at."""
    chosen = submitted_cycle(results)
    cycles = [entry["cycle"] for entry in results["cycles"] if entry["cycle"] <= chosen]
    events = experiment.tables.events
    oof, _ = train_part(experiment, cycles[-1])
    threshold, rules = event_rules(experiment, oof, cycles[-1])
    return replace(
        report,
        facts=[*report.facts, ("prior correction", experiment.run.config.prior.method)],
        scores=[*report.scores, *_span_rows(results), *_event_rows(results)],
        event_scores=_event_scores(experiment, results),
        events=_event_measures(results),
        baselines=_baselines(results),
        classes=_class_rows(experiment, results),
        confusion=confusion_of(oof, events, threshold),
        calibration=calibration_of(oof, events),
        changes=changes_of(experiment, results),
        change_examples=examples_of(experiment, cycles),
        viewer=build_viewer(experiment, cycles, threshold, rules),
    )


def event_rules(
    experiment: Experiment, oof: Scores, cycle: int
) -> tuple[np.ndarray, RelabelConfig]:
    """How the page makes detections of scores: (C,) logits to reach, and the rest of the rule.

    By the fitted rule of a run that has one; else by the thresholds of `bin/detect.py` (or 0.5),
    as relabelling would go on from there.
    """
    run = experiment.run
    fitted = read_rule(run.exp, run.cycle(cycle) / "oof.npz")
    if fitted is not None:
        rules = RelabelConfig(
            threshold=fitted.threshold,
            low_threshold=fitted.low_threshold,
            min_duration_s=fitted.min_duration,
            max_gap_s=fitted.max_gap,
        )
        return np.full(len(oof.labels), logit_of(fitted.threshold)), rules
    evidence = run_evidence(experiment, cycle)
    fitted_logits = fit_thresholds(oof.labels, default_choice(evidence), evidence)["logit"]
    return fitted_logits.to_numpy(), run.config.relabel


def _polarities(events: pd.DataFrame) -> str:
    return f"{(events['polarity'] > 0).sum()} positive, {(events['polarity'] < 0).sum()} negative"


def _score_rows(results: dict[str, Any]) -> list[ScoreRow]:
    title = metric_title(results)
    return [
        ScoreRow(
            title,
            entry["cycle"],
            SCORE_TITLES.get(name, name),
            score["value"],
            score["low"],
            score["high"],
            score["n"],
        )
        for entry in results["cycles"]
        for name, score in entry["scores"].items()
    ]


def _span_rows(results: dict[str, Any]) -> list[ScoreRow]:
    return [
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


def _event_rows(results: dict[str, Any]) -> list[ScoreRow]:
    told = results.get("events")
    if told is None:
        return []
    return [
        ScoreRow(
            f"event F1, {iou_title(one['iou'])}",
            told["cycle"],
            "out-of-fold, rules of the other folds",
            one["value"],
            one["low"],
            one["high"],
            told["n"],
        )
        for one in told["f1"]
    ]


def _event_measures(results: dict[str, Any]) -> list[ScoreRow]:
    told = results.get("events", {})
    return [
        ScoreRow(
            measure_title(name),
            told["cycle"],
            "out-of-fold",
            one["value"],
            one["low"],
            one["high"],
            told["n"],
        )
        for name, one in told.get("measures", {}).items()
    ]


def _event_scores(experiment: Experiment, results: dict[str, Any]) -> list[EventScores]:
    """Figures of events of every cycle; those by class of the cycle that is submitted."""
    found = [
        (entry["cycle"], name, figures)
        for entry in results["cycles"]
        for name, figures in entry.get("events", {}).items()
    ]
    chosen = submitted_cycle(results)
    names = dict(experiment.tables.classes[["label", "name"]].itertuples(index=False))
    return [
        EventScores(
            cycle=cycle,
            subset=EVENT_TITLES[name],
            n=figures["n"],
            averages={
                TITLES[measure]: {
                    average: (told[average]["value"], told[average]["low"], told[average]["high"])
                    for average in ("micro", "macro")
                }
                for measure, told in figures["measures"].items()
            },
            classes=_event_classes(figures, names) if cycle == chosen else [],
            worst=worst_words(figures["worst"]) if figures["worst"] else "",
            rates=[TITLES["false_alarms_per_hour"]],
        )
        for cycle, name, figures in found
    ]


def _event_classes(figures: dict[str, Any], names: dict[str, str]) -> list[EventClassRow]:
    rows = []
    for place, label in enumerate(figures["labels"]):
        scores = {
            TITLES[measure]: (
                float(told["per_class"][place]),
                float(told["per_class_low"][place]),
                float(told["per_class_high"][place]),
            )
            for measure, told in figures["measures"].items()
        }
        n_true, n_found = (int(figures[f"n_{what}_per_class"][place]) for what in ("true", "found"))
        rows.append(EventClassRow(label, names.get(label, ""), n_true, n_found, scores))
    return rows


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
    """One row a class: scores of the submitted cycle beside those of the first."""
    chosen = submitted_cycle(results)
    cycles = [entry for entry in results["cycles"] if entry["cycle"] <= chosen]
    names = dict(experiment.tables.classes[["label", "name"]].itertuples(index=False))
    counts = known_counts(experiment)
    shown = cycles[:1] + cycles[1:][-1:]
    rows = []
    for column, label in enumerate(experiment.tables.labels):
        scores, intervals = {}, {}
        for entry in shown:
            for name in ("oof_known", "test_truth"):
                score = entry["scores"].get(name)
                if score is not None and len(score["per_class"]) > column:
                    title = f"{SCORE_TITLES[name]}, cycle {entry['cycle']}"
                    scores[title] = float(score["per_class"][column])
                    ends = (score["per_class_low"][column], score["per_class_high"][column])
                    intervals[title] = (float(ends[0]), float(ends[1]))
        prior = cycles[-1]["prior"]
        prevalence = {"by plain scores": float(prior["source"][column])}
        if prior["method"] != "none":
            prevalence["used for correction"] = float(prior["target"][column])
        truth = cycles[-1]["scores"].get("test_truth")
        if truth is not None and len(truth["n_positive"]) > column:
            prevalence["in the truth"] = float(truth["n_positive"][column]) / truth["n"]
        name, count = names.get(label, ""), int(counts[column])
        rows.append(ClassRow(label, name, count, scores, prevalence, intervals))
    return rows


def _curves(experiment: Experiment, cycles: list[int]) -> list[Curve]:
    curves = []
    for cycle in cycles:
        for fold in experiment.folds:
            path = experiment.run.fold(cycle, fold) / "log.csv"
            if path.exists():
                curves.append(Curve.from_log(pd.read_csv(path), cycle, fold, CURVES))
    return curves
