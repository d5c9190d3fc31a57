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
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import logit

from local.config import Config, EventsConfig
from local.inference.scores import Scores
from local.io.seeds import generator
from local.labels.spans import SpanRule
from local.scoring.event_rules.span_rules import events_of_run
from local.scoring.event_rules.tuning import find_events, originals
from local.scoring.metrics.bootstrap import Values, percentiles, ratio_of_sums, resampled
from local.scoring.metrics.event_statistics import EventOptions, event_statistics, overlap_name
from local.scoring.metrics.matching import EventList, overlapping_pairs

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
    present = events[events["polarity"] > 0] if "polarity" in events else events
    candidate = SpanRule(float(logit(min(settings.thresholds))))
    true, cut, ranked = (
        EventList.of(table, scores.recording_ids, scores.labels)
        for table in (present, found, find_events(scores, candidate))
    )
    durations = np.array([frames.shape[1] * scores.hop_s for frames in scores.frames])
    measured = {}
    for name, values in _measures(true, cut, ranked, durations, len(scores.labels), settings):
        rng = generator(seed, "event measures")
        low, high = percentiles(resampled(values, len(durations), rng, n_resamples))
        value = float(values(np.ones((1, len(durations))))[0])
        measured[name] = {"value": value, "low": low, "high": high}
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
    limits = float(logit(rule.threshold)), float(logit(low))
    spans = [SpanRule(*limits, *rule.lengths_of(label)) for label in scores.labels]
    scores = scores.take(originals(scores.recording_ids, config.events.copies))
    found = measure_events(scores, events, events_of_run(scores, spans), config.events)
    return {f"valid_{name}": one["value"] for name, one in found.items()}


def _names(settings: EventsConfig) -> list[str]:
    """Names of all that `measure_events` gives, in its order."""
    nothing = EventList(*(np.zeros(0, kind) for kind in (int, int, float, float, float)))
    found = _measures(nothing, nothing, nothing, np.zeros(0), 1, settings)
    return [name for name, _ in found]


def _measures(
    true: EventList,
    cut: EventList,
    ranked: EventList,
    durations: np.ndarray,
    n_classes: int,
    settings: EventsConfig,
) -> Iterator[tuple[str, Values]]:
    """Names and values of all measures, over all classes together."""
    options = EventOptions(
        collar_s=settings.collar_s,
        segment_s=settings.segment_s,
        ious=settings.ious,
        exceed=True,
        alarms_per_hour=(),
    )
    statistics = event_statistics(true, cut, ranked, durations, n_classes, options)
    statistic_of = {name: one for one in statistics for name in one.names}

    def pooled(name: str) -> Values:
        return lambda counts: statistic_of[name].values(counts)[name][:, 0]

    for iou in settings.ious:
        yield _named(iou, "f1"), pooled(f"{overlap_name(iou)} F1")
    yield "collar_f1", pooled("collar F1")
    yield "segment_f1", pooled("segment F1")
    yield "segment_error_rate", pooled("segment error rate")
    yield from _false_alarms(true, cut, durations)
    for iou in settings.ious:
        yield _named(iou, "ap"), pooled(f"{overlap_name(iou)} AP")


def _false_alarms(
    true: EventList, cut: EventList, durations: np.ndarray
) -> Iterator[tuple[str, Values]]:
    """Events that overlap no call, an hour of sound: in all, beside calls, where nothing calls."""
    n = len(durations)
    alone = np.ones(len(cut), dtype=bool)
    alone[overlapping_pairs(true, cut).found] = False
    alarms = np.bincount(cut.recording[alone], minlength=n).astype(np.float64)
    calls = np.bincount(true.recording, minlength=n) > 0
    silent_s = np.maximum(0.0, durations - _sounding(true, n))
    name = "false_alarms_per_hour"
    yield name, ratio_of_sums(alarms, durations / 3600)
    yield f"{name}_beside_calls", ratio_of_sums(alarms * calls, silent_s * calls / 3600)
    yield f"{name}_without_calls", ratio_of_sums(alarms * ~calls, durations * ~calls / 3600)


def _sounding(true: EventList, n: int) -> np.ndarray:
    """(N,) seconds of each recording in which something calls."""
    total = np.zeros(n)
    until = np.full(n, -np.inf)
    for row in np.lexsort((true.onset, true.recording)):
        place = true.recording[row]
        total[place] += max(0.0, true.offset[row] - max(true.onset[row], until[place]))
        until[place] = max(until[place], true.offset[row])
    return total


def measure_title(name: str) -> str:
    """A measure in words for people."""
    if name in _TITLES:
        return _TITLES[name]
    iou, _, what = name.removeprefix("iou_").partition("_")
    return f"{'F1' if what == 'f1' else 'average precision'}, IoU > {iou}"


def _named(iou: float, what: str) -> str:
    if iou > 0:
        return f"iou_{iou:g}_{what}"
    return "event_f1" if what == "f1" else what
