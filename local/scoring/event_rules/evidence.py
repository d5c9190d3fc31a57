"""What out-of-fold scores tell of each class, for a threshold to be fitted on.

What is known of a class are spans where it was confirmed and spans where it was rejected; where
annotations are complete, all sound without a positive row is known as well, in pieces of a window.

False alarms an hour are counted over all out-of-fold sound: every run of cells at or above the
threshold that holds no cell of a positive row of its class. With partial annotations an unannotated
call counts as an alarm too, so the number is an upper bound there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from local.labels.grid import cells_at_least, cells_at_most
from local.scoring.event_rules.at_hand import AtHand
from local.scoring.event_rules.extents import DEFAULT_DROP
from local.scoring.event_rules.false_alarms import alarm_curve

if TYPE_CHECKING:
    from local.inference.scores import Scores


@dataclass(frozen=True)
class ClassEvidence:
    """What out-of-fold scores say of one class; all scores are logits.

    positive, negative : highest score of each span known to have it, and not to have it.
    alarm_threshold, alarms : rising thresholds, and false alarms an hour at each. at_hand : what
    the recordings at hand say.
    """

    positive: np.ndarray
    negative: np.ndarray
    alarm_threshold: np.ndarray
    alarms: np.ndarray
    at_hand: AtHand = field(default_factory=AtHand)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        names = ("positive", "negative", "alarm_threshold", "alarms")
        plain = {name: getattr(self, name).tolist() for name in names}
        return {**plain, "at_hand": self.at_hand.to_dict() if self.at_hand else None}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "ClassEvidence":
        """The inverse of `to_dict`."""
        names = ("positive", "negative", "alarm_threshold", "alarms")
        scores = {name: np.asarray(value[name], dtype=np.float64) for name in names}
        return cls(**scores, at_hand=AtHand.from_dict(value.get("at_hand")))


@dataclass(frozen=True)
class Evidence:
    """`ClassEvidence` of every class, and the hours of sound behind it.

    drop : how far below its threshold, in logits, an event goes on.
    """

    classes: dict[str, ClassEvidence]
    hours: float
    drop: float = DEFAULT_DROP

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        classes = {label: one.to_dict() for label, one in self.classes.items()}
        return {"hours": self.hours, "drop": self.drop, "classes": classes}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Evidence":
        """The inverse of `to_dict`; models published before had no drop."""
        classes = {label: ClassEvidence.from_dict(one) for label, one in value["classes"].items()}
        return cls(classes, float(value["hours"]), float(value.get("drop", 0.0)))


# ------------------------------------------------------------------------------------ collecting


def collect_evidence(
    scores: "Scores",
    spans: pd.DataFrame,
    events: pd.DataFrame,
    complete_window_s: float | None,
    at_hand: Mapping[str, AtHand] | None = None,
) -> Evidence:
    """Evidence in out-of-fold scores with frames.

    Parameters
    ----------
    spans : `label, polarity, score` of known spans, as `known_labels.span_scores` gives them.
    events : rows of known events, for what no false alarm may touch.
    complete_window_s : length of the pieces that unannotated sound is cut into where annotations
        are complete; None where they are not.
    at_hand : of classes, what the recordings at hand say.
    """
    seconds = sum(frames.shape[1] for frames in scores.frames) * scores.hop_s
    present = events[events["polarity"] > 0]
    by_key = dict(iter(present.groupby(["recording_id", "label"])))
    classes = {}
    for column, label in enumerate(scores.labels):
        known = spans[spans["label"] == label]
        tracks = [frames[column].astype(np.float64) for frames in scores.frames]
        inside = [
            _cells_of(by_key.get((name, label)), len(track), scores.hop_s, scores.start_s)
            for name, track in zip(scores.recording_ids, tracks, strict=True)
        ]
        negative = known.loc[known["polarity"] < 0, "score"].to_numpy(dtype=np.float64)
        if complete_window_s is not None:
            n = max(1, round(complete_window_s / scores.hop_s))
            negative = np.concatenate([negative, _peaks_of_pieces(tracks, inside, n)])
        thresholds, alarms = alarm_curve(tracks, inside, seconds / 3600)
        positive = known.loc[known["polarity"] > 0, "score"].to_numpy(dtype=np.float64)
        classes[label] = ClassEvidence(
            *(np.sort(positive), np.sort(negative), thresholds, alarms),
            at_hand=(at_hand or {}).get(label, AtHand()),
        )
    return Evidence(classes, seconds / 3600)


def _cells_of(rows: pd.DataFrame | None, n: int, hop_s: float, start_s: float) -> np.ndarray:
    """(n,) bool: the cells of a track that rows lie in."""
    inside = np.zeros(n, dtype=bool)
    if rows is not None:
        for onset, offset in zip(rows["onset"], rows["offset"], strict=True):
            first = max(0, cells_at_most(onset - start_s, hop_s))
            inside[first : max(first + 1, cells_at_least(offset - start_s, hop_s))] = True
    return inside


def _peaks_of_pieces(tracks: list[np.ndarray], inside: list[np.ndarray], n: int) -> np.ndarray:
    """(k,) highest scores of pieces of n cells, less the cells of positive rows."""
    free = [np.where(mine, -np.inf, track) for track, mine in zip(tracks, inside, strict=True)]
    peaks = [part[i : i + n].max() for part in free for i in range(0, len(part), n)]
    return np.array([peak for peak in peaks if np.isfinite(peak)], dtype=np.float64)
