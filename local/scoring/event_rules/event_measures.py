"""How events stand against complete annotation: the measures of the field, and false alarms.

At validation and at the end of a run, over recordings that are annotated from end to end:

event_f1, iou_0.5_f1 : as many one-to-one pairs that overlap, or beyond that IoU, as there can be.
collar_f1, segment_f1, segment_error_rate : event-based and segment-based as in sed_eval (Mesaros,
    Heittola and Virtanen 2016).
ap, iou_0.5_ap : average precision of candidates, ranked by score.
false_alarms_per_hour : events that overlap no call; beside calls, over the silence of recordings
    that have some, and in recordings where nothing calls.

F1 and error rates pool recordings and classes. What has no value is NaN. `bin/score.py` has more
measures, of any system's files.
"""

import math

import numpy as np
import pandas as pd
from scipy.special import logit

from local.config import Config, EventsConfig
from local.inference.scores import Scores
from local.io.seeds import generator
from local.labels.spans import SpanRule
from local.scoring.event_rules.tuning import event_list, find_events, originals
from local.scoring.metrics.bootstrap import percentiles, ratio_interval, resample_counts
from local.scoring.metrics.matching import (
    EventList,
    Pairs,
    collar_pairs,
    largest_matching,
    matching_by_score,
    overlapping_pairs,
)
from local.scoring.metrics.recording_sums import RankedStatistic
from local.scoring.metrics.segments import segment_counts

_TITLES = {
    "event_f1": "F1, any overlap",
    "collar_f1": "F1, event-based (sed_eval)",
    "segment_f1": "F1, segment-based (sed_eval)",
    "segment_error_rate": "error rate, segment-based (sed_eval)",
    "ap": "average precision, any overlap",
    "false_alarms_per_hour": "false alarms an hour",
    "false_alarms_per_hour_beside_calls": "false alarms an hour of silence beside calls",
    "false_alarms_per_hour_without_calls": "false alarms an hour of recordings without calls",
}
# Numerator and denominator of a measure, of each recording.
Parts = tuple[np.ndarray, np.ndarray]
Measure = dict[str, float]


def measure_events(
    scores: Scores,
    events: pd.DataFrame,
    found: pd.DataFrame,
    settings: EventsConfig,
    n_resamples: int = 0,
    seed: int = 0,
) -> dict[str, Measure]:
    """Measure -> value, and the bounds low and high of its 95 % interval over recordings.

    Parameters
    ----------
    scores : with frames; candidates of average precision are runs at or above the lowest of
        `settings.thresholds`, of any length.
    events : rows of events; those of other recordings and rejected ones are left out.
    found : events with scores that a rule made of `scores`.
    n_resamples : of the intervals; 0: bounds are NaN.
    """
    names, labels = scores.recording_ids, scores.labels
    present = events[events["polarity"] > 0] if "polarity" in events else events
    true, cut = event_list(present, names, labels), event_list(found, names, labels)
    durations = np.array([frames.shape[1] * scores.hop_s for frames in scores.frames])
    measured = {}
    for name, (over, under) in _ratios(true, cut, durations, len(labels), settings).items():
        low, high = ratio_interval(over, under, generator(seed, "event measures"), n_resamples)
        total = float(under.sum())
        value = float(over.sum()) / total if total > 0 else math.nan
        measured[name] = {"value": value, "low": low, "high": high}
    candidate = SpanRule(float(logit(min(settings.thresholds))))
    ranked = event_list(find_events(scores, candidate), names, labels)
    n_true = true.counts(len(names), len(labels))
    near = overlapping_pairs(true, ranked)
    for iou in settings.ious:
        right = matching_by_score(_beyond(near, iou), true, ranked)
        what = ranked.recording, ranked.label, ranked.score, right, n_true
        statistic = RankedStatistic(("ap",), *what)
        measured[_named(iou, "ap")] = _with_interval(statistic, len(names), n_resamples, seed)
    return measured


def validation_measures(
    scores: Scores | None, events: pd.DataFrame, config: Config
) -> dict[str, float]:
    """Value of every measure as `valid_NAME`, of events by the rule that relabelling has.

    Nothing unless `events.tune` says that annotation is complete; NaN without scores over time.
    """
    if not config.events.tune:
        return {}
    if scores is None or not scores.frames:
        return {f"valid_{name}": math.nan for name in _names(config.events)}
    rule = config.relabel
    low = rule.threshold if rule.low_threshold is None else rule.low_threshold
    spans = SpanRule(
        float(logit(rule.threshold)), float(logit(low)), rule.min_duration_s, rule.max_gap_s
    )
    scores = scores.take(originals(scores.recording_ids, config.events.copies))
    found = measure_events(scores, events, find_events(scores, spans), config.events)
    return {f"valid_{name}": one["value"] for name, one in found.items()}


def _names(settings: EventsConfig) -> list[str]:
    """Names of all that `measure_events` gives, in its order."""
    nothing = EventList(*(np.zeros(0, kind) for kind in (int, int, float, float, float)))
    ratios = _ratios(nothing, nothing, np.zeros(0), 1, settings)
    return [*ratios, *(_named(iou, "ap") for iou in settings.ious)]


def _ratios(
    true: EventList, cut: EventList, durations: np.ndarray, n_classes: int, settings: EventsConfig
) -> dict[str, Parts]:
    n = len(durations)

    def counted(list_of: EventList) -> np.ndarray:
        return np.bincount(list_of.recording, minlength=n).astype(np.float64)

    both = counted(true) + counted(cut)
    near = overlapping_pairs(true, cut)
    collar = collar_pairs(true, cut, settings.collar_s)
    pairs = {_named(iou, "f1"): _beyond(near, iou) for iou in settings.ious}
    ratios = {}
    for name, own in {**pairs, "collar_f1": collar}.items():
        matched, _ = largest_matching(own, len(true), len(cut))
        ratios[name] = 2 * counted(true.take(matched)), both
    segments = segment_counts(true, cut, durations, n_classes, settings.segment_s)
    hit, n_true, n_found = (
        part.sum(axis=1) for part in (segments.hit, segments.n_true, segments.n_found)
    )
    ratios["segment_f1"] = 2 * hit, n_true + n_found
    ratios["segment_error_rate"] = segments.errors, n_true
    alone = np.ones(len(cut), dtype=bool)
    alone[near.found] = False
    alarms, calls = counted(cut.take(alone)), counted(true) > 0
    ratios["false_alarms_per_hour"] = alarms, durations / 3600
    silent_s = np.maximum(0.0, durations - _sounding(true, n))
    ratios["false_alarms_per_hour_beside_calls"] = alarms * calls, silent_s * calls / 3600
    ratios["false_alarms_per_hour_without_calls"] = alarms * ~calls, durations * ~calls / 3600
    return ratios


def _sounding(true: EventList, n: int) -> np.ndarray:
    """(N,) seconds of each recording in which something calls."""
    total = np.zeros(n)
    until = np.full(n, -np.inf)
    for row in np.lexsort((true.onset, true.recording)):
        place = true.recording[row]
        total[place] += max(0.0, true.offset[row] - max(true.onset[row], until[place]))
        until[place] = max(until[place], true.offset[row])
    return total


def _with_interval(statistic: RankedStatistic, n: int, n_resamples: int, seed: int) -> Measure:
    """Value and bounds of the one measure of a statistic over all classes together."""

    def values(counts: np.ndarray) -> np.ndarray:
        return np.asarray(statistic.values(counts)["ap"][:, 0])

    rng = generator(seed, "event measures")
    drawn = [values(counts) for counts in resample_counts(n, rng, n_resamples)]
    low, high = percentiles(np.concatenate([*drawn, np.empty(0)]), 0.95)
    return {"value": float(values(np.ones((1, n)))[0]), "low": low, "high": high}


def measure_title(name: str) -> str:
    """A measure in words for people."""
    if name in _TITLES:
        return _TITLES[name]
    iou, _, what = name.removeprefix("iou_").partition("_")
    return f"{'F1' if what == 'f1' else 'average precision'}, IoU > {iou}"


def _beyond(near: Pairs, iou: float) -> Pairs:
    """Pairs of more than that IoU; at 0, all that overlap."""
    return near.reaching(iou + 1e-6 if iou > 0 else 0.0)


def _named(iou: float, what: str) -> str:
    if iou > 0:
        return f"iou_{iou:g}_{what}"
    return "event_f1" if what == "f1" else what
