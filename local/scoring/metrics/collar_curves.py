"""Event-based measures with collars over all thresholds, by sed_scores_eval (an optional package).

At each threshold the detections of scores over time are matched with true events as event-based F1
does it: both begin within a collar, and end within a collar or a share of the event's length
(Mesaros et al. 2016). All thresholds at once: Ebbers, Haeb-Umbach and Serizel 2022.
"""

from collections.abc import Mapping

import numpy as np

from local.scoring.metrics.average_precision import Curve
from local.scoring.metrics.event_statistics import CollarRule
from local.scoring.metrics.psds import ScoreTracks, draw, known_classes, load_library
from local.scoring.metrics.recording_sums import PlainStatistic

BEST_F1 = "collar best F1"


def _library_options(rule: CollarRule) -> dict[str, float]:
    """Keyword arguments of sed_scores_eval's collar-based functions."""
    return {
        "onset_collar": rule.collar_s,
        "offset_collar": rule.collar_s if rule.use_offset else np.inf,
        "offset_collar_rate": rule.offset_share if rule.use_offset else 0.0,
    }


def collar_curve(
    tracks: ScoreTracks,
    truth: Mapping[str, list[tuple[float, float, str]]],
    labels: list[str],
    rule: CollarRule,
) -> Curve:
    """Precision and recall of all classes of the truth together, from the highest threshold on.

    Unlike a ranking of fixed detections, neither needs to rise or fall: detections join and part as
    the threshold moves.
    """
    tables, truth, known = known_classes(tracks, truth, labels)
    if not known:
        return Curve(*(np.zeros(0) for _ in range(4)))
    statistics, _ = load_library().collar_based.accumulated_intermediate_statistics(
        tables, truth, **_library_options(rule)
    )
    every = np.unique(np.concatenate([score for score, _ in statistics.values()]))
    every = every[np.isfinite(every)][::-1]
    # Counts of an entry hold for thresholds just below its score, down to the entry before it.
    place = {label: np.searchsorted(score, every) for label, (score, _) in statistics.items()}
    hit, wrong = (
        sum(counts[name][place[label]] for label, (_, counts) in statistics.items())
        for name in ("tps", "fps")
    )
    n_true = sum(int(counts["n_ref"]) for _, counts in statistics.values())
    precision = np.divide(hit, hit + wrong, out=np.ones(len(every)), where=hit + wrong > 0)
    return Curve(every, hit / n_true, precision, wrong)


def best_f1_statistic(
    tracks: ScoreTracks,
    truth: Mapping[str, list[tuple[float, float, str]]],
    recordings: list[str],
    labels: list[str],
    rule: CollarRule,
) -> PlainStatistic:
    """F1 at the best threshold of each class: what the scores allow, and no rule of thresholds.

    The threshold is chosen on the recordings that are scored, anew in each resample, so this is an
    upper bound of the F1 that a threshold chosen elsewhere reaches.
    """
    module = load_library().collar_based
    tables, truth, known = known_classes(tracks, truth, labels)
    if not known:
        return PlainStatistic(BEST_F1, lambda row: np.full(2 + len(labels), np.nan))
    deltas = module.intermediate_statistics_deltas(tables, truth, **_library_options(rule))

    def value(row: np.ndarray) -> np.ndarray:
        drawn, events, _ = draw(row, recordings, deltas, truth, tracks.durations)
        present = {event[2] for several in events.values() for event in several}
        if not present:
            return np.full(2 + len(labels), np.nan)
        statistics, _ = module.accumulated_intermediate_statistics(
            None, events, deltas=drawn, **_library_options(rule)
        )
        kept = [label for label in known if label in present]
        counts = np.array([_at_best_f1(statistics[label][1]) for label in kept])
        best = dict(zip(kept, _f1(counts), strict=True))
        each = [best.get(label, np.nan) for label in labels]
        micro, macro = _f1(counts.sum(axis=0)), np.mean(list(best.values()))
        return np.array([micro, macro, *each])

    return PlainStatistic(BEST_F1, value)


def _at_best_f1(counts: Mapping[str, np.ndarray]) -> tuple[float, float, float]:
    """Hits, wrong detections and true events at the highest threshold whose F1 is the best."""
    n_true = np.full(len(counts["tps"]), counts["n_ref"])
    rows = np.stack([counts["tps"], counts["fps"], n_true], axis=1)
    value = _f1(rows)
    return tuple(rows[np.flatnonzero(value == value.max())[-1]])


def _f1(counts: np.ndarray) -> np.ndarray:
    """F1 of (..., 3) hits, wrong detections and true events."""
    return 2 * counts[..., 0] / (counts[..., 0] + counts[..., 1] + counts[..., 2])
