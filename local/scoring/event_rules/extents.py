"""How far below its threshold an event goes on: fitted on confirmed spans, of known edges."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from local.labels.spans import frames_to_events

if TYPE_CHECKING:
    from local.inference.scores import Scores

# Logits below the threshold that are tried, and what is taken of fewer spans than that.
DROPS = np.arange(0.0, 3.01, 0.25)
DEFAULT_DROP, LEAST_SPANS = 1.0, 5


def fit_drop(
    scores: "Scores",
    confirmed: pd.DataFrame,
    threshold: np.ndarray,
    lengths: Sequence[tuple[float, float]],
) -> float:
    """The drop, in logits, by which events lie over confirmed spans best, by mean IoU.

    Parameters
    ----------
    scores : out-of-fold, over time.
    confirmed : `recording_id, class, onset, offset, score` of spans; those that do not reach their
        threshold have no event to be compared with.
    threshold : (C,) logits. lengths : of each class, seconds that an event lasts at least and of
    gaps to close.
    """
    found = confirmed[confirmed["score"] >= threshold[confirmed["class"].to_numpy(dtype=int)]]
    if len(found) < LEAST_SPANS:
        return DEFAULT_DROP
    row_of = {name: row for row, name in enumerate(scores.recording_ids)}
    ious = np.zeros((len(found), len(DROPS)))
    of_track: dict[tuple[int, int], list[int]] = defaultdict(list)
    names, classes = found["recording_id"], found["class"]
    for place, (name, column) in enumerate(zip(names, classes, strict=True)):
        of_track[row_of[name], int(column)].append(place)
    confirmed_edges = found[["onset", "offset"]].to_numpy(dtype=np.float64)
    for (row, column), places in of_track.items():
        track = scores.frames[row][column].astype(np.float64)
        top = float(threshold[column])
        # A track may hold thousands of confirmed spans: events are found once for all of them.
        for number, drop in enumerate(DROPS.tolist()):
            spans = frames_to_events(track, scores.grid(row), top, top - drop, *lengths[column])
            edges = np.array([(one.onset, one.offset) for one in spans]).reshape(-1, 2)
            for place in places:
                ious[place, number] = _best_iou(edges, *confirmed_edges[place].tolist())
    return float(DROPS[ious.mean(axis=0).argmax()])


def _best_iou(edges: np.ndarray, onset: float, offset: float) -> float:
    """The highest intersection over union of spans (k, 2) with one."""
    shared = np.minimum(edges[:, 1], offset) - np.maximum(edges[:, 0], onset)
    union = np.maximum(edges[:, 1], offset) - np.minimum(edges[:, 0], onset)
    return float(np.max(np.where(shared > 0, shared / union, 0.0), initial=0.0))
