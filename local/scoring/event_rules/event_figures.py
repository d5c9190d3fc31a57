"""What events are worth against true ones: the figures of stage 5, with intervals and by class.

event_precision, event_recall, event_f1 : by a largest one-to-one matching of events that overlap at
    all; iou_0.5_...: by more than that intersection over union.
median_iou : of the matched events (of a matching whose IoUs sum to the most).
false_alarms_per_hour : events that overlap no true one of their class, an hour of sound.
psds1 : of scores over time, whatever the rule; by sed_scores_eval, where it is installed.

Micro pools classes (false alarms: all classes together), macro is the mean of the classes that have
a value; PSDS is defined by class and has no micro. What has no value is NaN.
"""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from local.config import ScoreConfig
from local.io.seeds import generator
from local.scoring.metrics.bootstrap import percentiles, resample_counts
from local.scoring.metrics.event_statistics import (
    FALSE_ALARMS,
    MEDIAN_IOU,
    EventOptions,
    overlap_name,
    overlap_statistics,
)
from local.scoring.metrics.matching import EventList, overlapping_pairs
from local.scoring.metrics.measured import Measured, measure, resample_table
from local.scoring.metrics.psds import (
    MAX_UNASKED_CELLS,
    is_installed,
    psds_statistic,
    tracks_of_frames,
    truth_tuples,
)
from local.scoring.metrics.recording_sums import AVERAGES, Statistic

if TYPE_CHECKING:
    from local.inference.scores import Scores

log = logging.getLogger("canopy")

IOUS = (0.0, 0.5)
PSDS = "psds1"
# Measure -> its title for people, in the order of all tables.
TITLES = {
    "event_f1": "F1",
    "event_precision": "precision",
    "event_recall": "recall",
    "iou_0.5_f1": "F1, IoU > 0.5",
    "iou_0.5_precision": "precision, IoU > 0.5",
    "iou_0.5_recall": "recall, IoU > 0.5",
    "median_iou": "median IoU",
    "false_alarms_per_hour": "false alarms an hour",
    PSDS: "PSDS 1",
}


def event_figures(
    true: pd.DataFrame,
    found: pd.DataFrame,
    scores: "Scores",
    durations: np.ndarray,
    config: ScoreConfig,
    seed: int,
) -> dict[str, Any]:
    """Figures of found events in recordings whose true events are all known.

    Parameters
    ----------
    true, found : recording_id, label, onset, offset (`true` also polarity, where rejected rows are
        among them); rows of other recordings are left out.
    scores : that the events were made of: recordings (also those without an event) and classes.
    durations : (N,) seconds of the recordings.

    Returns
    -------
    dict with `n` recordings, `hours`, `n_true`, `n_found`, both `per_class`, `measures`: name ->
    {micro, macro: {value, low, high}, per_class, per_class_low, per_class_high}, and `worst`: the
    class of the lowest `event_f1`, None without any event.
    """
    names, labels = scores.recording_ids, scores.labels
    present = true[true["polarity"] > 0] if "polarity" in true else true
    truth, made = (EventList.of(table, names, labels) for table in (present, found))
    n_true, n_found = (one.counts(len(names), len(labels)).sum(axis=0) for one in (truth, made))
    options = EventOptions(ious=IOUS, exceed=True)
    near = overlapping_pairs(truth, made)
    statistics = overlap_statistics(truth, made, near, durations, len(labels), options)
    statistics += _psds(scores, truth)
    rng = generator(seed, "event figures")
    blocks = resample_counts(len(names), rng, config.n_bootstrap)
    measured = measure(statistics, resample_table(blocks, len(names)), np.ones(len(names)))
    keys = _keys()
    measures = {name: _told(measured[keys[name]]) for name in TITLES if keys[name] in measured}
    return {
        "n": len(names),
        "hours": float(durations.sum() / 3600),
        "n_true": int(n_true.sum()),
        "n_found": int(n_found.sum()),
        "n_true_per_class": n_true.astype(int),
        "n_found_per_class": n_found.astype(int),
        "measures": measures,
        "worst": _worst(labels, measures["event_f1"]["per_class"], n_true, n_found),
    }


def _keys() -> dict[str, str]:
    """Name in results -> measure of the statistics."""
    keys = {}
    for iou, prefix in zip(IOUS, ("event", "iou_0.5"), strict=True):
        for what in ("precision", "recall", "F1"):
            keys[f"{prefix}_{what.lower()}"] = f"{overlap_name(iou)} {what}"
    return keys | {"median_iou": MEDIAN_IOU, "false_alarms_per_hour": FALSE_ALARMS, PSDS: PSDS}


def _psds(scores: "Scores", true: EventList) -> list[Statistic]:
    """PSDS, where its library is there and there is not too much to go through."""
    n_cells = len(scores.labels) * sum(frames.shape[1] for frames in scores.frames)
    if n_cells > MAX_UNASKED_CELLS:
        log.info("PSDS is left out: it would take minutes; bin/score.py --psds psds1 measures it")
        return []
    if not is_installed():
        log.info("PSDS is left out: `make setup-eval` installs sed_scores_eval, which measures it")
        return []
    frames = {
        name: (scores.grid(row).edges_s, scores.frames[row])
        for row, name in enumerate(scores.recording_ids)
    }
    tracks = tracks_of_frames(frames, scores.labels)
    tuples = truth_tuples(true, scores.recording_ids, scores.labels)
    return [psds_statistic(PSDS, tracks, tuples, scores.recording_ids, scores.labels)]


def _told(measured: Measured) -> dict[str, Any]:
    """A measure's averages and classes with their intervals."""
    bounds = np.array([percentiles(column) for column in measured.samples.T])
    averages = {
        name: {"value": float(measured.value[place]), "low": bounds[place, 0].item()}
        | {"high": bounds[place, 1].item()}
        for place, name in enumerate(AVERAGES)
    }
    classes = slice(len(AVERAGES), None)
    return averages | {
        "per_class": measured.value[classes],
        "per_class_low": bounds[classes, 0],
        "per_class_high": bounds[classes, 1],
    }


def _worst(
    labels: list[str], f1: np.ndarray, n_true: np.ndarray, n_found: np.ndarray
) -> dict[str, Any] | None:
    """The class of the lowest F1; of equals the one with most events."""
    known = np.flatnonzero(~np.isnan(f1))
    if len(known) == 0:
        return None
    place = known[np.lexsort((-(n_true + n_found)[known], f1[known]))[0]]
    return {
        "label": labels[place],
        "event_f1": float(f1[place]),
        "n_true": int(n_true[place]),
        "n_found": int(n_found[place]),
        "n_hit": round(f1[place] * (n_true[place] + n_found[place]) / 2),
    }
