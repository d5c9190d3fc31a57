"""The statistics of each level, and the baselines that stand beside them.

clip: one decision a recording and class. event: spans against spans. span: partial truth, where
only spans that somebody confirmed or rejected may count.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logit

from local.io.errors import CanopyError
from local.scoring.evaluation.score_sources import System, Truth, detections
from local.scoring.evaluation.scoring_set import ScoringSet, true_events
from local.scoring.metrics.collar_curves import CollarRule, best_f1_statistic
from local.scoring.metrics.matching import (
    EventList,
    collar_pairs,
    largest_matching,
    matching_by_score,
    overlapping_pairs,
)
from local.scoring.metrics.named import chance_score
from local.scoring.metrics.psds import (
    ScoreTracks,
    psds_statistic,
    tracks_of_events,
    tracks_of_frames,
    truth_tuples,
)
from local.scoring.metrics.recording_sums import (
    AurocStatistic,
    CountStatistic,
    ErrorRateStatistic,
    LwlrapStatistic,
    RankedStatistic,
    Statistic,
    mean_of_classes,
    weighted_auroc,
)
from local.scoring.metrics.segments import segment_counts


@dataclass(frozen=True)
class EventOptions:
    """What counts as found.

    threshold: least score of a detection (and least probability of a clip) for precision, recall
    and F1. candidate_threshold: least probability of the runs of scores over time that ranked
    measures look at. collar_s, offset_share, use_offset: event-based. segment_s: segment-based.
    ious: least intersection over union, 0 for any overlap. alarms_per_hour: for the recall at.
    psds: names of `psds.SETTINGS`. best_f1: event-based F1 at the best threshold of each class.
    """

    threshold: float = 0.5
    candidate_threshold: float = 0.1
    collar_s: float = 0.2
    offset_share: float = 0.5
    use_offset: bool = True
    segment_s: float = 1.0
    ious: tuple[float, ...] = (0.0, 0.3, 0.5)
    alarms_per_hour: tuple[float, ...] = (1.0, 10.0)
    psds: tuple[str, ...] = ()
    best_f1: bool = False

    @property
    def collar(self) -> CollarRule:
        """What event-based measures take for a match."""
        return CollarRule(self.collar_s, self.offset_share, self.use_offset)


# -------------------------------------------------------------------------------------------- clips


def clip_statistics(truth: np.ndarray, score: np.ndarray, threshold: float) -> list[Statistic]:
    """Statistics of clip truth (N, C) bool and scores (N, C)."""
    cells = np.indices(truth.shape).reshape(2, -1)
    found = score >= threshold
    return [
        LwlrapStatistic("lwlrap", truth, score),
        RankedStatistic(("map",), *cells, score.ravel(), truth.ravel(), truth),
        AurocStatistic("auroc", truth, score),
        CountStatistic("clip", truth & found, truth, found),
    ]


def clip_threshold(system: System, threshold: float) -> float:
    """The threshold in the unit of the system's clip scores."""
    return float(logit(threshold)) if system.logits else threshold


def clip_baselines(
    truth: np.ndarray, score: np.ndarray, threshold: float
) -> dict[str, dict[str, np.ndarray]]:
    """`chance` and `constant_row`: measure -> (2 + C,).

    chance: a random ranking, exactly, and decisions dealt at random to recordings. constant_row:
    every recording the same scores, by prevalence in the truth; for F1, every class everywhere.
    """
    n, n_classes = truth.shape
    nothing = np.full(2 + n_classes, np.nan)
    chance = {"lwlrap": nothing.copy(), "map": nothing.copy(), "auroc": nothing.copy()}
    chance["lwlrap"][0] = chance_score(truth, "lwlrap")
    for index in range(n_classes):
        column = truth[:, [index]]
        for name in ("map", "auroc"):
            chance[name][2 + index] = chance_score(column, name)
    for name in ("map", "auroc"):
        chance[name][1] = chance_score(truth, name)
    found = score >= threshold
    expected = CountStatistic("clip", truth * found.mean(axis=0), truth, found)
    plain = np.ones((1, n))
    chance |= {name: table[0] for name, table in expected.values(plain).items()}
    row = np.empty(n_classes)
    row[np.argsort(-truth.sum(axis=0), kind="stable")] = -np.arange(n_classes)
    constant = clip_statistics(truth, np.broadcast_to(row, truth.shape), -np.inf)
    return {"chance": chance, "constant_row": plain_values(constant, n)}


def plain_values(statistics: list[Statistic], n: int) -> dict[str, np.ndarray]:
    """Measure -> (2 + C,) of the data as they are."""
    counts = np.ones((1, n))
    return {name: table[0] for one in statistics for name, table in one.values(counts).items()}


# ------------------------------------------------------------------------------------------- events


def event_statistics(
    true: EventList,
    cut: EventList,
    ranked: EventList | None,
    scoring_set: ScoringSet,
    options: EventOptions,
) -> list[Statistic]:
    """Statistics of events.

    Parameters
    ----------
    cut : detections at the threshold. ranked : all detections with scores, or None.
    """
    n, n_classes = len(scoring_set.recordings), len(scoring_set.labels)
    durations = scoring_set.needed_durations("scoring events")
    n_true, n_found = true.counts(n, n_classes), cut.counts(n, n_classes)
    pairs = collar_pairs(true, cut, options.collar_s, options.offset_share, options.use_offset)
    rows, _ = largest_matching(pairs, len(true), len(cut))
    statistics: list[Statistic] = [
        CountStatistic("collar", true.take(rows).counts(n, n_classes), n_true, n_found)
    ]
    counts = segment_counts(true, cut, durations, n_classes, options.segment_s)
    class_errors = counts.n_true + counts.n_found - 2 * counts.hit
    statistics += [
        CountStatistic("segment", counts.hit, counts.n_true, counts.n_found),
        ErrorRateStatistic("segment error rate", counts.errors, class_errors, counts.n_true),
    ]
    near_cut = overlapping_pairs(true, cut)
    near_all = overlapping_pairs(true, ranked) if ranked is not None else None
    for iou in options.ious:
        name = "overlap" if iou == 0 else f"iou {iou:g}"
        rows, _ = largest_matching(near_cut.reaching(iou), len(true), len(cut))
        hit = true.take(rows).counts(n, n_classes)
        statistics.append(CountStatistic(name, hit, n_true, n_found))
        if ranked is not None and near_all is not None:
            right = matching_by_score(near_all.reaching(iou), true, ranked)
            names = [f"{name} recall at {rate:g}/h" for rate in options.alarms_per_hour]
            statistics.append(
                RankedStatistic(
                    (f"{name} AP", *names),
                    ranked.recording,
                    ranked.label,
                    ranked.score,
                    right,
                    n_true,
                    durations / 3600,
                    options.alarms_per_hour,
                )
            )
    return statistics


def system_statistics(
    system: System, truth: Truth, scoring_set: ScoringSet, options: EventOptions
) -> list[Statistic]:
    """Event-level statistics of one system, those over all thresholds where asked for."""
    true = scoring_set.event_list(true_events(truth), truth.path)
    cut, ranked = event_lists(system, scoring_set, options)
    statistics = event_statistics(true, cut, ranked, scoring_set, options)
    if (options.psds or options.best_f1) and system.scored:
        tuples = truth_tuples(true, scoring_set.recordings, scoring_set.labels)
        parts = (
            score_tracks(system, scoring_set),
            tuples,
            scoring_set.recordings,
            scoring_set.labels,
        )
        if options.best_f1:
            statistics.append(best_f1_statistic(*parts, options.collar))
        statistics += [psds_statistic(name, *parts) for name in options.psds]
    return statistics


def event_lists(
    system: System, scoring_set: ScoringSet, options: EventOptions
) -> tuple[EventList, EventList | None]:
    """Detections at the threshold, and all that can be ranked (None without scores)."""
    if system.scores is not None:
        check_covered(system, scoring_set)
    cut = scoring_set.event_list(detections(system, options.threshold), system.path)
    if not system.scored:
        return cut, None
    least = options.candidate_threshold if system.scores is not None else -np.inf
    return cut, scoring_set.event_list(detections(system, least), system.path)


def check_covered(system: System, scoring_set: ScoringSet) -> None:
    """Refuse scores over time that lack a recording or a class."""
    for what, known, wanted in (
        ("recording", system.scores.recording_ids, scoring_set.recordings),
        ("class", system.scores.labels, scoring_set.labels),
    ):
        missing = set(wanted) - set(known)
        if missing:
            raise CanopyError(
                f"{system.path}: no scores of {what} {min(missing)} ({len(missing)} missing in "
                "all); score them too, or give --recordings (with --subset) and --classes"
            )


def score_tracks(system: System, scoring_set: ScoringSet) -> ScoreTracks:
    """Scores over time, as they are or from scored detections."""
    scores = system.scores
    if scores is not None:
        check_covered(system, scoring_set)
    else:
        if system.events is None or not system.scored:
            raise CanopyError(f"{system.path}: PSDS needs scores over time or scored detections")
        found = scoring_set.event_list(system.events, system.path)
        durations = scoring_set.needed_durations("PSDS")
        return tracks_of_events(found, scoring_set.recordings, scoring_set.labels, durations)
    place = {name: row for row, name in enumerate(scores.recording_ids)}
    column = [scores.labels.index(label) for label in scoring_set.labels]
    frames = {
        name: (scores.grid(place[name]).edges_s, scores.frames[place[name]][column])
        for name in scoring_set.recordings
    }
    return tracks_of_frames(frames, scoring_set.labels)


def event_baselines(
    system: System,
    truth: Truth,
    scoring_set: ScoringSet,
    options: EventOptions,
    rng: np.random.Generator,
) -> dict[str, dict[str, np.ndarray]]:
    """`chance` and `constant_row`: measure -> (2 + C,).

    chance: the system's own detections, dealt to the recordings in a random order (times in
    proportion to their lengths), the mean of a few deals. constant_row: in every recording one
    detection of every class over the whole length, scored by the class's prevalence in the truth.
    """
    true = scoring_set.event_list(true_events(truth), truth.path)
    n, n_classes = len(scoring_set.recordings), len(scoring_set.labels)
    durations = scoring_set.needed_durations("scoring events")
    cut, ranked = event_lists(system, scoring_set, options)
    # A deal of many detections is an average by itself.
    n_deals = 1 if len(true) + len(cut) > 50_000 else 5
    deals = []
    for _ in range(n_deals):
        place = rng.permutation(n)
        dealt = [None if one is None else _deal(one, place, durations) for one in (cut, ranked)]
        deals.append(plain_values(event_statistics(true, *dealt, scoring_set, options), n))
    chance = {name: np.mean([deal[name] for deal in deals], axis=0) for name in deals[0]}
    prevalence = (true.counts(n, n_classes) > 0).mean(axis=0)
    recording, label = np.indices((n, n_classes)).reshape(2, -1)
    whole = EventList(
        recording, label, np.zeros(len(label)), durations[recording], prevalence[label]
    )
    constant = plain_values(event_statistics(true, whole, whole, scoring_set, options), n)
    return {"chance": chance, "constant_row": constant}


def _deal(events: EventList, place: np.ndarray, durations: np.ndarray) -> EventList:
    scale = durations[place[events.recording]] / durations[events.recording]
    return EventList(
        place[events.recording],
        events.label,
        events.onset * scale,
        events.offset * scale,
        events.score,
    )


# ---------------------------------------------------------------------------- spans, partial truth


def span_statistics(
    system: System, truth: Truth, scoring_set: ScoringSet, threshold: float
) -> list[Statistic]:
    """Confirmed against rejected spans, and nothing else.

    A span's score is the highest of the system in it (of its detections, or of its scores over
    time). AUROC compares confirmed with rejected ones; recall is the share of confirmed spans that
    reach the threshold, precision the share of confirmed ones among those that reach it.
    """
    events = truth.events
    if events is None:
        raise CanopyError(f"{truth.path}: has no spans; partial truth is a table of events")
    events = events[~events["recording_id"].isin(scoring_set.others)].reset_index(drop=True)
    spans = scoring_set.event_list(events.assign(score=0.0), truth.path)
    score = _span_scores(system, spans, scoring_set)
    positive = events["polarity"].to_numpy() > 0
    cells = (len(scoring_set.recordings), len(scoring_set.labels))
    found = score >= threshold
    counts = [spans.take(rows).counts(*cells) for rows in (positive & found, positive, found)]
    return [
        SpanAurocStatistic("span auroc", spans, positive, score, cells[1]),
        CountStatistic("span", *counts),
    ]


class SpanAurocStatistic(Statistic):
    """AUROC of confirmed against rejected spans, a drawn recording bringing all its spans."""

    def __init__(
        self, name: str, spans: EventList, positive: np.ndarray, score: np.ndarray, n_classes: int
    ) -> None:
        self.names = (name,)
        self._parts = []
        for index in range(-1, n_classes):
            rows = np.flatnonzero(spans.label == index) if index >= 0 else np.arange(len(spans))
            self._parts.append((spans.recording[rows], positive[rows], score[rows]))

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        columns = [weighted_auroc(counts, *part) for part in self._parts]
        per_class = np.stack(columns[1:], axis=1)
        table = np.column_stack([columns[0], mean_of_classes(per_class), per_class])
        return {self.names[0]: table}


def _span_scores(system: System, spans: EventList, scoring_set: ScoringSet) -> np.ndarray:
    """(S,) highest score of the span's class inside each span; 0 where there is no detection."""
    result = np.zeros(len(spans))
    if system.scores is None:
        if system.events is None:
            raise CanopyError(
                f"{system.path}: one score a recording says nothing of spans; give detections or "
                "scores over time"
            )
        found = scoring_set.event_list(system.events, system.path)
        value = found.score if system.scored else np.ones(len(found))
        pairs = overlapping_pairs(spans, found)
        np.maximum.at(result, pairs.true, value[pairs.found])
        return result
    from local.scoring.known_labels import span_scores

    rows = pd.DataFrame(
        {
            "recording_id": np.array(scoring_set.recordings, dtype=object)[spans.recording],
            "label": np.array(scoring_set.labels, dtype=object)[spans.label],
            "onset": spans.onset,
            "offset": spans.offset,
            "source": "",
        }
    )
    check_covered(system, scoring_set)
    return 1 / (1 + np.exp(-span_scores(system.scores, rows)["score"].to_numpy(np.float64)))
