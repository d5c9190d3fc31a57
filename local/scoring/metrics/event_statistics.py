"""All measures of found events against true ones: matched one to one, by segments, and ranked."""

from dataclasses import dataclass

import numpy as np

from local.scoring.metrics.average_precision import RankedStatistic
from local.scoring.metrics.matching import (
    EventList,
    Pairs,
    collar_pairs,
    count_matched,
    matching_by_score,
    overlapping_pairs,
)
from local.scoring.metrics.recording_sums import CountStatistic, ErrorRateStatistic, Statistic
from local.scoring.metrics.segments import segment_counts


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
    not only reached. alarms_per_hour: for the recall at. psds: names of `psds.SETTINGS`. best_f1:
    event-based F1 at the best threshold of each class.
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
    psds: tuple[str, ...] = ()
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
    n_true, hours = true.counts(*shape), durations / 3600
    near_cut = overlapping_pairs(true, cut)
    near_all = overlapping_pairs(true, ranked) if ranked is not None else None
    for iou in options.ious:
        name = overlap_name(iou)
        hits = count_matched(true, cut, options.beyond(near_cut, iou), *shape)
        statistics.append(CountStatistic(name, *hits))
        if ranked is not None and near_all is not None:
            right = matching_by_score(options.beyond(near_all, iou), true, ranked)
            names = [f"{name} recall at {rate:g}/h" for rate in options.alarms_per_hour]
            decisions = (ranked.recording, ranked.label, ranked.score, right, n_true)
            alarms = (hours, options.alarms_per_hour)
            statistics.append(RankedStatistic((f"{name} AP", *names), *decisions, *alarms))
    return statistics


def overlap_name(iou: float) -> str:
    """How measures at a limit of overlap are named."""
    return "overlap" if iou == 0 else f"iou {iou:g}"
