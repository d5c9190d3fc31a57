"""The comparison table: every measure of every system, with intervals and baselines."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from local.io.errors import CanopyError
from local.scoring.evaluation.clip_level import clip_baselines, clip_statistics, clip_threshold
from local.scoring.evaluation.event_level import event_baselines, system_statistics
from local.scoring.evaluation.score_sources import System, Truth
from local.scoring.evaluation.scoring_set import ScoringSet, clip_scores, clip_truth
from local.scoring.evaluation.span_level import span_statistics
from local.scoring.metrics.bootstrap import percentiles, resample_counts
from local.scoring.metrics.event_statistics import EventOptions
from local.scoring.metrics.measured import Measured, measure, resample_table
from local.scoring.metrics.recording_sums import AVERAGES, Statistic

COLUMNS = (
    "level",
    "system",
    "scope",
    "name",
    "measure",
    "value",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "chance",
    "constant_row",
    "n_recordings",
    "n_events",
)


@dataclass(frozen=True)
class ComparisonOptions:
    """What to score and how to draw resamples.

    level: clip, event, span, or auto for all that the files allow. by_group: rows for each group.
    cluster: draw whole groups. event: see `EventOptions`.
    """

    level: str = "auto"
    n_resamples: int = 1000
    seed: int = 0
    by_group: bool = False
    cluster: bool = False
    event: EventOptions = field(default_factory=EventOptions)


@dataclass(frozen=True)
class ComparisonTable:
    """All numbers: `rows` has the columns `COLUMNS`.

    scope is `average` (name micro or macro), `class` (name is the label) or `group`. Differences
    are to the first system.
    """

    rows: pd.DataFrame
    facts: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The facts, and the rows as a list; empty cells are null."""
        return self.facts | {"rows": self.rows.to_dict(orient="records")}


def make_comparison_table(
    truth: Truth, systems: list[System], scoring_set: ScoringSet, options: ComparisonOptions
) -> ComparisonTable:
    """Score all systems on the same resamples."""
    rng = np.random.default_rng(options.seed)
    groups = None
    if options.cluster or options.by_group:
        if scoring_set.groups is None:
            raise CanopyError(
                "groups need a table with a column group; give --recordings FILE (and --group NAME)"
            )
        groups = np.unique(scoring_set.groups, return_inverse=True)[1]
    n, drawn = len(scoring_set.recordings), groups if options.cluster else None
    counts = resample_table(resample_counts(n, rng, options.n_resamples, drawn), n)
    rows: list[dict[str, Any]] = []
    levels = choose_levels(truth, systems, options.level)
    for level in levels:
        numbers = _n_positive(level, truth, scoring_set)
        statistics = [_statistics(level, one, truth, scoring_set, options) for one in systems]
        baselines = [_baselines(level, one, truth, scoring_set, options) for one in systems]
        rows += _level_rows(level, systems, scoring_set, statistics, baselines, counts, numbers)
        if options.by_group:
            rows += _group_rows(level, systems, scoring_set, statistics, options, numbers)
    facts = {
        "truth": str(truth.path),
        "annotation": "partial" if truth.partial else "complete",
        "systems": {one.name: str(one.path) for one in systems},
        "levels": levels,
        "n_recordings": len(scoring_set.recordings),
        "n_classes": len(scoring_set.labels),
        "n_resamples": options.n_resamples,
        "resampled": "groups" if options.cluster else "recordings",
        "seed": options.seed,
        "settings": vars(options.event),
    }
    if "event" in levels:
        cut = options.event.threshold
        facts["n_below_threshold"] = {
            one.name: _n_below(one.events, scoring_set, cut)
            for one in systems
            if one.events is not None
        }
    if "clip" in levels:
        facts["n_without_positive"] = int((~clip_truth(truth, scoring_set).any(axis=1)).sum())
    return ComparisonTable(pd.DataFrame(rows, columns=list(COLUMNS)), facts)


def _n_below(events: pd.DataFrame, scoring_set: ScoringSet, cut: float) -> int:
    """Detections in the recordings scored that lie below the threshold."""
    scored = events["recording_id"].isin(scoring_set.recordings)
    return int((events.loc[scored, "score"] < cut).sum())


def choose_levels(truth: Truth, systems: list[System], level: str) -> list[str]:
    """The levels to score: all that files and truth allow, or the one asked for."""
    if truth.partial:
        if level not in ("auto", "span"):
            raise CanopyError(
                f"{truth.path}: is partial (it rejects spans), so level {level} would count "
                "unknown calls as absent; leave --level out, or say --annotation complete"
            )
        return ["span"]
    if level == "span":
        raise CanopyError(f"{truth.path}: is complete; level span is for partial truth")
    if level != "auto":
        return [level]
    timed = all(one.events is not None or one.scores is not None for one in systems)
    return ["clip", "event"] if truth.events is not None and timed else ["clip"]


def _statistics(
    level: str, system: System, truth: Truth, scoring_set: ScoringSet, options: ComparisonOptions
) -> list[Statistic]:
    if level == "span":
        return span_statistics(system, truth, scoring_set, options.event.threshold)
    if level == "event":
        return system_statistics(system, truth, scoring_set, options.event)
    cut = clip_threshold(system, options.event.threshold)
    return clip_statistics(clip_truth(truth, scoring_set), clip_scores(system, scoring_set), cut)


def _baselines(
    level: str, system: System, truth: Truth, scoring_set: ScoringSet, options: ComparisonOptions
) -> dict[str, dict[str, np.ndarray]]:
    if level == "event":
        rng = np.random.default_rng(options.seed)
        return event_baselines(system, truth, scoring_set, options.event, rng)
    if level == "clip":
        cut = clip_threshold(system, options.event.threshold)
        return clip_baselines(clip_truth(truth, scoring_set), clip_scores(system, scoring_set), cut)
    half = np.full(2 + len(scoring_set.labels), 0.5)
    return {"chance": {"span auroc": half}, "constant_row": {"span auroc": half}}


def _n_positive(level: str, truth: Truth, scoring_set: ScoringSet) -> np.ndarray:
    """(N, C) positives: recordings at level clip, events (confirmed spans) at the others."""
    if level == "clip":
        return clip_truth(truth, scoring_set).astype(np.float64)
    events = truth.events
    if events is None:
        raise CanopyError(f"{truth.path}: has no events, only recordings; leave --level event out")
    positive = scoring_set.event_list(events[events["polarity"] > 0], truth.path)
    return positive.counts(len(scoring_set.recordings), len(scoring_set.labels))


def _level_rows(
    level: str,
    systems: list[System],
    scoring_set: ScoringSet,
    statistics: list[list[Statistic]],
    baselines: list[dict[str, dict[str, np.ndarray]]],
    counts: np.ndarray,
    positives: np.ndarray,
) -> list[dict[str, Any]]:
    plain = np.ones(len(scoring_set.recordings))
    measured = [measure(one, counts, plain) for one in statistics]
    scopes = [("average", name) for name in AVERAGES] + [
        ("class", one) for one in scoring_set.labels
    ]
    numbers = [positives.sum()] * 2 + positives.sum(axis=0).tolist()
    rows = []
    for name in dict.fromkeys(name for one in measured for name in one):
        for column, (scope, of) in enumerate(scopes):
            for system, results, base in zip(systems, measured, baselines, strict=True):
                if name not in results:
                    continue
                row = _row(level, system.name, scope, of, name, results[name], column)
                first = measured[0].get(name)
                if results is not measured[0] and first is not None:
                    row |= _difference(results[name], first, column)
                for kind in ("chance", "constant_row"):
                    if name in base[kind]:
                        row[kind] = float(base[kind][name][column])
                row |= {"n_recordings": len(plain), "n_events": int(numbers[column])}
                rows.append(row)
    return rows


def _row(
    level: str, system: str, scope: str, of: str, name: str, result: Measured, column: int
) -> dict[str, Any]:
    low, high = percentiles(result.samples[:, column])
    return {
        "level": level,
        "system": system,
        "scope": scope,
        "name": of,
        "measure": name,
        "value": float(result.value[column]),
        "low": low,
        "high": high,
    }


def _difference(result: Measured, first: Measured, column: int) -> dict[str, float]:
    """To the first system, resample by resample."""
    low, high = percentiles(result.samples[:, column] - first.samples[:, column])
    value = float(result.value[column] - first.value[column])
    return {"difference": value, "difference_low": low, "difference_high": high}


def _group_rows(
    level: str,
    systems: list[System],
    scoring_set: ScoringSet,
    statistics: list[list[Statistic]],
    options: ComparisonOptions,
    positives: np.ndarray,
) -> list[dict[str, Any]]:
    """Micro and macro of the recordings of each group alone, drawn among themselves."""
    rows = []
    groups = np.asarray(scoring_set.groups)
    for group in sorted(set(groups.tolist())):
        mine = groups == group
        rng = np.random.default_rng(options.seed)
        blocks = resample_counts(len(mine), rng, options.n_resamples, within=mine)
        counts = resample_table(blocks, len(mine))
        measured = [measure(one, counts, mine.astype(np.float64), max_slow=0) for one in statistics]
        for system, results in zip(systems, measured, strict=True):
            for name, result in results.items():
                for column, average in enumerate(AVERAGES):
                    row = _row(level, system.name, "group", group, name, result, column)
                    row["measure"] = f"{name} ({average})"
                    if results is not measured[0] and name in measured[0]:
                        row |= _difference(result, measured[0][name], column)
                    row |= {"n_recordings": int(mine.sum()), "n_events": int(positives[mine].sum())}
                    rows.append(row)
    return rows
