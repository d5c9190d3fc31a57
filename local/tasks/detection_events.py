"""Events of a detection against true ones: which are made, where truth is known, what is told."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from local.inference.score_files import load_scores
from local.inference.scores import Scores
from local.io.files import write_csv
from local.scoring.evaluation.score_sources import read_events
from local.scoring.event_rules.event_figures import TITLES, event_figures
from local.scoring.event_rules.evidence import Evidence
from local.scoring.event_rules.rule_file import EventRule, read_rule
from local.scoring.event_rules.span_rules import COLUMNS, default_rules, events_of_run
from local.scoring.event_rules.tuning import TEST_EVENTS
from local.tasks.detection_thresholds import run_evidence
from local.tasks.submission_csv import read_columns

if TYPE_CHECKING:
    from local.models.task_contract import Experiment

log = logging.getLogger("canopy")

EVENT_TITLES = {
    "test_events": "test, true events",
    "oof_events": "out-of-fold, rules of the other folds",
}
# Measures of the terminal's table, and how wide their columns are.
_SHOWN = ("event_precision", "event_recall", "iou_0.5_f1", "median_iou")
_SHOWN_LAST = ("false_alarms_per_hour", "psds1")


def true_events(experiment: "Experiment") -> pd.DataFrame | None:
    """Rows of `score.test_events`; None without such a file."""
    run = experiment.run
    if run.config.score.test_events is None:
        return None
    path = run.datadir / run.config.score.test_events
    return read_events(path) if path.exists() else None


@dataclass(frozen=True)
class MadeEvents:
    """Scores over time and the events of one rule a class that were made of them.

    Song types that share a column of the submission are one class here, as they are in the truth.
    """

    scores: Scores
    events: pd.DataFrame


def test_events(
    experiment: "Experiment", test: Scores, evidence: Evidence | None, fitted: EventRule | None
) -> pd.DataFrame:
    """Events of the test recordings as `bin/detect.py` gives them with no option.

    Parameters
    ----------
    evidence : what thresholds are fitted on. fitted : the run's rule of events, which goes before
        it, where it has one for these scores.
    """
    rules = default_rules(test.labels, experiment.run.config, evidence, fitted)
    durations = experiment.tables.recordings.set_index("recording_id")["duration"].to_dict()
    return events_of_run(test, rules, durations)


def score_events(experiment: "Experiment", submitted: int, results: dict[str, Any]) -> list[Path]:
    """Add `events` to every cycle of the results: the figures of its test events by `test_events`.

    Writes test_events.csv, those of the cycle that is submitted; returns the files written. Nothing
    is scored where no truth is, or where it is partial.
    """
    run, truth = experiment.run, true_events(experiment)
    if truth is None:
        return []
    if (truth["polarity"] < 0).any():
        log.info(
            "events are not scored: %s has rejected spans, so it is partial",
            run.config.score.test_events,
        )
        return []
    written = []
    for entry in results["cycles"]:
        cycle = entry["cycle"]
        test, _ = load_scores(run.cycle(cycle) / "test.npz")
        if not test.frames:
            log.info("events are not scored: inference.keep_frames is off, so there are none")
            return []
        # A run has a rule of events for the cycle that is submitted alone.
        fitted = None
        if cycle == submitted:
            fitted = read_rule(run.exp, run.cycle(cycle) / "oof.npz")
        evidence = None if fitted else run_evidence(experiment, cycle)
        figures, found = score_test_events(experiment, truth, test, evidence, fitted)
        entry.setdefault("events", {})["test_events"] = figures
        if cycle == submitted:
            write_csv(run.exp / TEST_EVENTS, found)
            written.append(run.exp / TEST_EVENTS)
    return written


def score_test_events(
    experiment: "Experiment",
    truth: pd.DataFrame,
    test: Scores,
    evidence: Evidence | None,
    fitted: EventRule | None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Figures of a cycle's test events, and these events."""
    found = test_events(experiment, test, evidence, fitted)
    merged = _by_column(experiment, MadeEvents(test, found))
    truth = _fitting(experiment, truth, merged.scores)
    return figures_of(experiment, truth, merged), found


def figures_of(experiment: "Experiment", truth: pd.DataFrame, made: MadeEvents) -> dict[str, Any]:
    """`event_figures` of events in recordings of the experiment."""
    recordings = experiment.tables.recordings.set_index("recording_id")
    durations = recordings.loc[made.scores.recording_ids, "duration"].to_numpy(np.float64)
    config = experiment.run.config
    return event_figures(truth, made.events, made.scores, durations, config.score, config.seed) | {
        "labels": made.scores.labels
    }


def _by_column(experiment: "Experiment", made: MadeEvents) -> MadeEvents:
    """Classes that share a column of the submission as one: the highest score, joined events."""
    scores = made.scores
    columns = read_columns(experiment.run.tables, scores.labels)
    column_of = dict(zip(columns["label"], columns["column"], strict=True))
    own = [column_of[label] for label in scores.labels]
    if own == scores.labels:
        return made
    names = list(dict.fromkeys(own))
    rows = [[row for row, column in enumerate(own) if column == name] for name in names]
    frames = [np.stack([one[mine].max(axis=0) for mine in rows]) for one in scores.frames]
    window = np.stack([scores.window[:, mine].max(axis=1) for mine in rows], axis=1)
    merged = Scores(scores.recording_ids, names, frames, window, scores.hop_s, scores.start_s)
    renamed = made.events.assign(label=made.events["label"].map(column_of))
    return MadeEvents(merged, _joined(renamed))


def _joined(events: pd.DataFrame) -> pd.DataFrame:
    """Events of one recording and class that overlap or touch as one, with the highest score."""
    if events.empty:
        # Columns without a row have no type, and what has none has no running maximum.
        return events
    ordered = events.sort_values(["recording_id", "label", "onset"], kind="stable")
    keys = ["recording_id", "label"]
    until = ordered.groupby(keys)["offset"].cummax().groupby([ordered[key] for key in keys]).shift()
    number = (~(ordered["onset"] <= until)).cumsum().rename("number")
    joined = ordered.groupby([*keys, number], sort=False).agg(
        onset=("onset", "min"), offset=("offset", "max"), score=("score", "max")
    )
    return joined.reset_index()[list(COLUMNS)]


def _fitting(experiment: "Experiment", truth: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """True rows of the recordings and classes that are scored; what is passed over is said."""
    kept = pd.Series(True, index=truth.index)
    for column, known, what in (
        ("recording_id", scores.recording_ids, "recordings that have no test score"),
        ("label", scores.labels, "classes that the run does not know"),
    ):
        other = kept & ~truth[column].isin(known)
        kept &= ~other
        if other.any():
            log.warning(
                "%s: %d rows of %s are passed over, the first of %s",
                *(experiment.run.config.score.test_events, int(other.sum()), what),
                truth.loc[other, column].iloc[0],
            )
    return truth[kept]


# ------------------------------------------------------------------------------------ in words


def table_of_figures(results: dict[str, Any]) -> str:
    """Figures of events for the terminal: a line an average, and the worst class of each cycle."""
    entries = [
        (entry["cycle"], name, figures)
        for entry in results["cycles"]
        for name, figures in entry.get("events", {}).items()
    ]
    if not entries:
        return ""
    shown = [*_SHOWN, *_SHOWN_LAST]
    shown = [name for name in shown if any(name in one["measures"] for *_, one in entries)]
    heads = "  ".join(f"{TITLES[name]:>{len(TITLES[name])}}" for name in shown)
    width = max(len(title) for title in EVENT_TITLES.values()) + len(", micro")
    lines = [f"{'cycle':>5}  {'events':<{width}} {'F1':>5}  {'95 % interval':<13}  {heads}"]
    for cycle, name, figures in entries:
        for average in ("micro", "macro"):
            f1 = figures["measures"]["event_f1"][average]
            cells = [
                _cell(figures["measures"].get(one, {}).get(average), one, len(TITLES[one]))
                for one in shown
            ]
            interval = "" if np.isnan(f1["low"]) else f"{f1['low']:.3f}-{f1['high']:.3f}"
            lines.append(
                f"{cycle:>5}  {f'{EVENT_TITLES[name]}, {average}':<{width}} "
                f"{_number(f1['value']):>5}  {interval:<13}  {'  '.join(cells)}"
            )
        if figures["worst"] is not None:
            lines.append(f"{'':>5}  {worst_words(figures['worst'])}")
    return "\n".join(lines)


def worst_words(worst: dict[str, Any]) -> str:
    """The worst class in words."""
    return (
        f"worst class by F1: {worst['label']}, {worst['event_f1']:.3f} ({worst['n_hit']} of "
        f"{worst['n_true']} true events found, {worst['n_found']} detections)"
    )


def _cell(measured: dict[str, float] | None, name: str, width: int) -> str:
    value = float("nan") if measured is None else measured["value"]
    text = f"{value:.1f}" if name == "false_alarms_per_hour" else _number(value)
    return f"{'-' if np.isnan(value) else text:>{width}}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
