"""All measures of found events against true ones: matched one to one, by segments, and ranked."""

from dataclasses import dataclass

import numpy as np

from local.scoring.metrics.average_precision import RankedStatistic
from local.scoring.metrics.matching import (
    EventList,
    Pairs,
    closest_matching,
    collar_pairs,
    count_matched,
    matching_by_score,
    overlapping_pairs,
)
from local.scoring.metrics.recording_sums import (
    CountStatistic,
    ErrorRateStatistic,
    MedianStatistic,
    RateStatistic,
    Statistic,
)
from local.scoring.metrics.segments import segment_counts

MEDIAN_IOU = "median IoU"
FALSE_ALARMS = "false alarms per hour"


@dataclass(frozen=True)
class CollarRule:
    """When bounds match: within seconds, within a share of the event's length; with ends or not."""

    collar_s: float = 0.2
    offset_share: float = 0.5
    use_offset: bool = True


@dataclass(frozen=True)
class EventOptions:
    """How found events are scored: thresholds, collars, segments, overlaps.

    threshold: least score of a detection (and least probability of a clip) for precision, recall
    and F1. candidate_threshold: least probability of the runs of scores over time that ranked
    measures look at. collar_s, offset_share, use_offset: event-based. segment_s: segment-based.
    ious: limits of intersection over union, 0 for any overlap; exceed: a limit must be exceeded,
    not only reached. alarms_per_hour: for the recall at. psds: names of `psds.SETTINGS`; None:
    psds1 where its library is installed and it takes seconds. best_f1: event-based F1 at the best
    threshold of each class.
    """

    threshold: float = 0.5
    candidate_threshold: float = 0.1
    collar_s: float = 0.2
    offset_share: float = 0.5
    use_offset: bool = True
    segment_s: float = 1.0
    ious: tuple[float, ...] = (0.0, 0.3, 0.5)
    exceed: bool = False
    alarms_per_hour: tuple[float, ...] = (1.0, 10.0)
    psds: tuple[str, ...] | None = None
    best_f1: bool = False

    @property
    def collar(self) -> CollarRule:
        """The rule of event-based measures."""
        return CollarRule(self.collar_s, self.offset_share, self.use_offset)

    def beyond(self, pairs: Pairs, iou: float) -> Pairs:
        """The pairs whose overlap is enough at a limit."""
        return pairs.exceeding(iou) if self.exceed else pairs.reaching(iou)


def event_statistics(
    true: EventList,
    cut: EventList,
    ranked: EventList | None,
    durations: np.ndarray,
    n_classes: int,
    options: EventOptions,
) -> list[Statistic]:
    """Statistics of events.

    Parameters
    ----------
    cut : detections at the threshold. ranked : all detections with scores, or None.
    durations : (N,) seconds of the recordings.
    """
    shape = (len(durations), n_classes)
    collar = options.collar
    pairs = collar_pairs(true, cut, collar.collar_s, collar.offset_share, collar.use_offset)
    counts = segment_counts(true, cut, durations, n_classes, options.segment_s)
    class_errors = counts.n_true + counts.n_found - 2 * counts.hit
    statistics: list[Statistic] = [
        CountStatistic("collar", *count_matched(true, cut, pairs, *shape)),
        CountStatistic("segment", counts.hit, counts.n_true, counts.n_found),
        ErrorRateStatistic("segment error rate", counts.errors, class_errors, counts.n_true),
    ]
    near = overlapping_pairs(true, cut)
    statistics += overlap_statistics(true, cut, near, durations, n_classes, options)
    if ranked is not None:
        statistics += _ranked_statistics(true, ranked, durations, n_classes, options)
    return statistics


def overlap_statistics(
    true: EventList,
    cut: EventList,
    near: Pairs,
    durations: np.ndarray,
    n_classes: int,
    options: EventOptions,
) -> list[Statistic]:
    """F1 at each limit of overlap, the median IoU of matched events, false alarms an hour.

    Parameters
    ----------
    near : all pairs that overlap. Median IoU is of a largest matching of them whose IoUs sum to the
        most; a false alarm is a detection in none of them.
    """
    shape = (len(durations), n_classes)
    statistics: list[Statistic] = [
        CountStatistic(
            overlap_name(iou), *count_matched(true, cut, options.beyond(near, iou), *shape)
        )
        for iou in options.ious
    ]
    matched = closest_matching(near, len(true), len(cut))
    pair = near.true[matched]
    places = (true.recording[pair], true.label[pair])
    statistics.append(MedianStatistic(MEDIAN_IOU, *places, near.iou[matched], n_classes))
    alone = np.ones(len(cut), dtype=bool)
    alone[near.found] = False
    alarms = cut.take(alone).counts(*shape)
    statistics.append(RateStatistic(FALSE_ALARMS, alarms, durations / 3600))
    return statistics


def _ranked_statistics(
    true: EventList,
    ranked: EventList,
    durations: np.ndarray,
    n_classes: int,
    options: EventOptions,
) -> list[Statistic]:
    """Average precision and recall at false alarms an hour, at each limit of overlap."""
    near, n_true = overlapping_pairs(true, ranked), true.counts(len(durations), n_classes)
    statistics: list[Statistic] = []
    for iou in options.ious:
        name = overlap_name(iou)
        right = matching_by_score(options.beyond(near, iou), true, ranked)
        names = [f"{name} recall at {rate:g}/h" for rate in options.alarms_per_hour]
        decisions = (ranked.recording, ranked.label, ranked.score, right, n_true)
        alarms = (durations / 3600, options.alarms_per_hour)
        statistics.append(RankedStatistic((f"{name} AP", *names), *decisions, *alarms))
    return statistics


def overlap_name(iou: float) -> str:
    """How measures at a limit of overlap are named."""
    return "overlap" if iou == 0 else f"iou {iou:g}"
