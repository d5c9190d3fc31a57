"""A threshold for each class, fitted on out-of-fold scores.

What is known of a class are spans where it was confirmed and spans where it was rejected; where
annotations are complete, all sound without a positive row is known as well, in pieces of a window.
A span is detected when the highest score in it reaches the threshold. Scores and thresholds are
logits throughout; people give and read probabilities.

False alarms an hour are counted over all out-of-fold sound: every run of cells at or above the
threshold that no positive row of its class touches. With partial annotations an unannotated call
counts as an alarm too, so the number is an upper bound there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit

from local.io.errors import CanopyError
from local.labels.grid import cells_at_least, cells_at_most

if TYPE_CHECKING:
    from local.inference.scores import Scores

CHOICES = "a probability between 0 and 1, best-f1, precision=SHARE or false-alarms=NUMBER an hour"
FALLBACK = 0.5
# Points at which the curve of false alarms is kept.
_CURVE_POINTS = 400
# Beyond any probability that prints as other than 0 or 1.
_LOGIT_BOUND = 36.0


@dataclass(frozen=True)
class ThresholdChoice:
    """How thresholds are chosen: kind fixed, best-f1, precision or false-alarms, and its number."""

    kind: str
    value: float = 0.0


def parse_choice(text: str) -> ThresholdChoice:
    """The choice that an option names; see `CHOICES`."""
    kind, equals, number = text.strip().partition("=")
    if kind == "best-f1" and not equals:
        return ThresholdChoice("best-f1")
    if not equals:
        kind, number = "fixed", kind
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    fits = {
        "fixed": 0 < value < 1,
        "precision": 0 < value <= 1,
        "false-alarms": 0 <= value < np.inf,
    }
    if not fits.get(kind, False):
        raise CanopyError(f"threshold {text!r} is none of: {CHOICES}")
    return ThresholdChoice(kind, value)


@dataclass(frozen=True)
class ClassEvidence:
    """What out-of-fold scores say of one class; all scores are logits.

    positive, negative : highest score of each span known to have it, and not to have it.
    alarm_threshold, alarms : rising thresholds, and false alarms an hour at each.
    """

    positive: np.ndarray
    negative: np.ndarray
    alarm_threshold: np.ndarray
    alarms: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """`ClassEvidence` of every class, and the hours of sound behind it."""

    classes: dict[str, ClassEvidence]
    hours: float

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "hours": self.hours,
            "classes": {
                label: {name: value.tolist() for name, value in vars(one).items()}
                for label, one in self.classes.items()
            },
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Evidence":
        """The inverse of `to_dict`."""
        classes = {
            label: ClassEvidence(
                **{name: np.asarray(part, dtype=np.float64) for name, part in one.items()}
            )
            for label, one in value["classes"].items()
        }
        return cls(classes, float(value["hours"]))


# ------------------------------------------------------------------------------------ collecting


def collect_evidence(
    scores: "Scores", spans: pd.DataFrame, events: pd.DataFrame, complete_window_s: float | None
) -> Evidence:
    """Evidence in out-of-fold scores with frames.

    Parameters
    ----------
    spans : `label, polarity, score` of known spans, as `known_labels.span_scores` gives them.
    events : rows of known events, for what no false alarm may touch.
    complete_window_s : length of the pieces that unannotated sound is cut into where annotations
        are complete; None where they are not.
    """
    seconds = sum(frames.shape[1] for frames in scores.frames) * scores.hop_s
    present = events[events["polarity"] > 0]
    by_key = dict(iter(present.groupby(["recording_id", "label"])))
    classes = {}
    for column, label in enumerate(scores.labels):
        known = spans[spans["label"] == label]
        free = [
            _without(
                scores.frames[row][column].astype(np.float64),
                by_key.get((name, label)),
                scores.hop_s,
                scores.start_s,
            )
            for row, name in enumerate(scores.recording_ids)
        ]
        negative = known.loc[known["polarity"] < 0, "score"].to_numpy(dtype=np.float64)
        if complete_window_s is not None:
            n = max(1, round(complete_window_s / scores.hop_s))
            pieces = [part[i : i + n].max() for part in free for i in range(0, len(part), n)]
            negative = np.concatenate([negative, [peak for peak in pieces if np.isfinite(peak)]])
        thresholds, alarms = _alarm_curve(free, seconds / 3600)
        positive = known.loc[known["polarity"] > 0, "score"].to_numpy(dtype=np.float64)
        classes[label] = ClassEvidence(np.sort(positive), np.sort(negative), thresholds, alarms)
    return Evidence(classes, seconds / 3600)


def _without(
    logit: np.ndarray, rows: pd.DataFrame | None, hop_s: float, start_s: float
) -> np.ndarray:
    """Scores with -inf where a positive row lies."""
    if rows is None:
        return logit
    for onset, offset in zip(rows["onset"], rows["offset"], strict=True):
        first = max(0, cells_at_most(onset - start_s, hop_s))
        logit[first : max(first + 1, cells_at_least(offset - start_s, hop_s))] = -np.inf
    return logit


def _alarm_curve(parts: list[np.ndarray], hours: float) -> tuple[np.ndarray, np.ndarray]:
    """Rising thresholds and the runs an hour at or above each.

    A run begins at every cell that reaches the threshold while its left neighbour does not, so the
    number is that of cells that reach it less that of neighbours that both do.
    """
    cells = np.concatenate(parts) if parts else np.zeros(0)
    both = [np.minimum(part[1:], part[:-1]) for part in parts]
    pairs = np.concatenate(both) if both else np.zeros(0)
    cells, pairs = np.sort(cells[np.isfinite(cells)]), np.sort(pairs[np.isfinite(pairs)])
    if len(cells) == 0 or hours <= 0:
        return np.zeros(0), np.zeros(0)
    # Denser towards the top, where few alarms are left.
    ranks = np.unique(np.geomspace(1, len(cells), _CURVE_POINTS).astype(np.int64))
    thresholds = np.unique(cells[len(cells) - ranks])
    runs = (len(cells) - np.searchsorted(cells, thresholds)) - (
        len(pairs) - np.searchsorted(pairs, thresholds)
    )
    return thresholds, runs / hours


# --------------------------------------------------------------------------------------- fitting


def fit_thresholds(
    labels: list[str], rule: ThresholdChoice, evidence: Evidence | None
) -> pd.DataFrame:
    """One row a class: `label, threshold` (probability), `logit`, what it is worth, and `note`.

    `n_positive, n_negative, precision, recall, f1` count known spans, `false_alarms_per_hour` as
    the module says; NaN where nothing is known. A class without what its rule needs gets
    probability 0.5, and `note` says so.
    """
    if evidence is None and rule.kind != "fixed":
        raise CanopyError(
            f"a threshold by {rule.kind} needs out-of-fold scores over time, which are not there; "
            "give a run or its published folder, or a number"
        )
    rows = []
    for label in labels:
        known = evidence.classes.get(label) if evidence is not None else None
        if known is None:
            nothing = np.zeros(0)
            known = ClassEvidence(nothing, nothing, nothing, nothing)
        logit, note = _choose(known, rule)
        rows.append({"label": label, **_worth(known, logit), "note": note})
    return pd.DataFrame(rows)


def _choose(known: ClassEvidence, rule: ThresholdChoice) -> tuple[float, str]:
    fixed = rule.value if rule.kind == "fixed" else FALLBACK
    default = float(np.log(fixed) - np.log1p(-fixed))
    if rule.kind == "fixed":
        return default, ""
    if rule.kind == "false-alarms":
        return _by_alarms(known, rule.value, default)
    if len(known.positive) == 0:
        return default, f"no confirmed span with a score, so {FALLBACK}"
    found, right, wrong = _counts(known)
    if rule.kind == "best-f1":
        if len(known.negative) == 0:
            return default, f"no rejected span with a score, so {FALLBACK}"
        f1 = 2 * right / (right + wrong + len(known.positive))
        # Of equals the middle one, so that a little more or less changes nothing.
        best = np.flatnonzero(f1 == f1.max())
        return _between(found, int(best[len(best) // 2]), known), ""
    precise = np.flatnonzero(right / np.maximum(1, right + wrong) >= rule.value)
    if len(precise) == 0:
        above = float(known.negative.max())
        return above + 1e-3, f"precision {rule.value:g} is not reached; above all rejected spans"
    return _between(found, int(precise[0]), known), ""


def _counts(known: ClassEvidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds at every positive's score, rising; positives and negatives at or above each."""
    found = np.unique(known.positive)
    right = len(known.positive) - np.searchsorted(np.sort(known.positive), found)
    wrong = len(known.negative) - np.searchsorted(np.sort(known.negative), found)
    return found, right, wrong


def _between(found: np.ndarray, index: int, known: ClassEvidence) -> float:
    """Halfway from a positive's score down to the next score of any known span."""
    everything = np.concatenate([known.positive, known.negative])
    lower = everything[everything < found[index]]
    return float((found[index] + lower.max()) / 2) if len(lower) else float(found[index]) - 1e-3


def _by_alarms(known: ClassEvidence, allowed: float, default: float) -> tuple[float, str]:
    if len(known.alarms) == 0:
        return default, f"no sound without the class, so {FALLBACK}"
    # From the top down, and no further than to where runs begin to merge: fewer of them below are
    # no fewer alarms.
    too_many = np.flatnonzero(known.alarms > allowed)
    first = int(too_many[-1]) + 1 if len(too_many) else int(known.alarms.argmax())
    if first == len(known.alarms):
        return float(known.alarm_threshold[-1]) + 1e-3, ""
    return float(known.alarm_threshold[first]), ""


def _worth(known: ClassEvidence, logit: float) -> dict[str, Any]:
    """Precision, recall, F1 and false alarms of a threshold on the evidence."""
    logit = float(np.clip(logit, -_LOGIT_BOUND, _LOGIT_BOUND))
    n_positive, n_negative = len(known.positive), len(known.negative)
    right, wrong = int((known.positive >= logit).sum()), int((known.negative >= logit).sum())
    alarms = float("nan")
    if len(known.alarms):
        place = int(np.searchsorted(known.alarm_threshold, logit))
        alarms = float(known.alarms[place]) if place < len(known.alarms) else 0.0
    nan = float("nan")
    return {
        "threshold": float(expit(logit)),
        "logit": logit,
        "n_positive": n_positive,
        "n_negative": n_negative,
        "precision": right / (right + wrong) if right + wrong else nan,
        "recall": right / n_positive if n_positive else nan,
        "f1": 2 * right / (right + wrong + n_positive) if n_positive else nan,
        "false_alarms_per_hour": alarms,
    }
