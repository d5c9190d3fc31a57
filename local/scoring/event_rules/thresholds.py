"""A threshold for each class, fitted on out-of-fold scores.

`evidence` tells what is known of a class: spans where it was confirmed and spans where it was
rejected. A span is detected when the highest score in it reaches the threshold. Scores and
thresholds are logits throughout; people give and read probabilities.

Where it is estimated how many of the recordings at hand hold a class (`at_hand`), their scores
count as well: by default as many of them are to reach the threshold. Where it is not, a class of
few known spans is drawn to what is best over the spans of all classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binomtest

from local.io.errors import CanopyError
from local.scoring.event_rules.evidence import ClassEvidence, Evidence

CHOICES = "a probability between 0 and 1, best-f1, precision=SHARE or false-alarms=NUMBER an hour"
FALLBACK = 0.5
# Confirmed spans of a class that weigh as much as the threshold of all classes, and known spans of
# all that count beside those of a class where precision is promised.
_EVEN_COUNT, _ALL_COUNT = 10, 5
# Known spans, or recordings at hand, of which fewer say too little for a figure to be believed; and
# those of either kind, confirmed or rejected.
_FEW, _FEW_OF_A_KIND = 10, 3
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


def fit_thresholds(
    labels: list[str], rule: ThresholdChoice, evidence: Evidence | None
) -> pd.DataFrame:
    """One row a class: `label, threshold` (probability), `logit`, `low_logit`, down to which events
    go on, what it is worth, and `note`.

    `n_positive, n_negative, precision, recall, f1` count known spans, `precision_low` and
    `precision_high` bound it (95 %, Wilson); `expected_precision` is that among the recordings at
    hand, `false_alarms_per_hour` as in `evidence`; NaN where nothing is known. A class without
    what its rule needs gets probability 0.5, and `note` says so.

    Raises
    ------
    CanopyError
        A rule needs evidence and there is none; a precision that is reached for no class.
    """
    if evidence is None and rule.kind != "fixed":
        raise CanopyError(
            f"a threshold by {rule.kind} needs out-of-fold scores over time, which are not there; "
            "give a run or its published folder, or a number"
        )
    known = evidence.classes if evidence is not None else {}
    # What follows a given number goes by nothing.
    drop, hours = (0.0, 0.0) if evidence is None else (evidence.drop, evidence.hours)
    of_all = _together(known)
    classes = [known.get(label, _UNKNOWN) for label in labels]
    chosen = [_choose(one, of_all, rule, hours) for one in classes]
    _check_promise(chosen, rule)
    rows = []
    for label, one, choice in zip(labels, classes, chosen, strict=True):
        worth = _worth(one, choice.logit)
        low_logit = worth["logit"] - drop
        rows.append({"label": label, **worth, "low_logit": low_logit, "note": choice.note})
    return pd.DataFrame(rows)


_NONE = np.zeros(0)
_UNKNOWN = ClassEvidence(_NONE, _NONE, _NONE, _NONE)


def _together(known: Mapping[str, ClassEvidence]) -> ClassEvidence:
    """The known spans of all classes as if they were of one."""
    parts = list(known.values()) or [_UNKNOWN]
    positive, negative = (
        np.sort(np.concatenate([getattr(one, name) for one in parts]))
        for name in ("positive", "negative")
    )
    return ClassEvidence(positive, negative, _NONE, _NONE)


@dataclass(frozen=True)
class _Chosen:
    """A threshold in logits; what is to be said of it; the highest precision, NaN: it is kept."""

    logit: float
    note: str = ""
    highest: float = float("nan")


def _choose(
    known: ClassEvidence, of_all: ClassEvidence, rule: ThresholdChoice, hours: float
) -> _Chosen:
    fixed = rule.value if rule.kind == "fixed" else FALLBACK
    default = float(np.log(fixed) - np.log1p(-fixed))
    if rule.kind == "fixed":
        return _Chosen(default)
    if rule.kind == "false-alarms":
        return _by_alarms(known, rule.value, default, hours)
    told_by_spans = len(of_all.positive) > 0 and len(of_all.negative) > 0
    if not told_by_spans and not known.at_hand:
        kind = "rejected" if len(of_all.positive) else "confirmed"
        return _Chosen(default, f"no {kind} span with a score, so {FALLBACK}")
    if rule.kind == "best-f1":
        logit = known.at_hand.balance() if known.at_hand else _best_f1(known, of_all)
        return _Chosen(logit, _too_little(known))
    return _by_precision(known, of_all if told_by_spans else None, rule.value)


def _too_little(known: ClassEvidence) -> str:
    """What is too little for a threshold of the class to be believed; "" where it is enough."""
    if known.at_hand and len(known.at_hand.peaks) < _FEW:
        return f"only {len(known.at_hand.peaks)} recordings at hand: too few to tell"
    n_confirmed, n_rejected = len(known.positive), len(known.negative)
    if n_confirmed + n_rejected < _FEW:
        return f"only {n_confirmed + n_rejected} known spans: too few to tell"
    if min(n_confirmed, n_rejected) < _FEW_OF_A_KIND:
        return f"{n_confirmed} confirmed and {n_rejected} rejected spans: too few to tell"
    return ""


def _best_f1(known: ClassEvidence, of_all: ClassEvidence) -> float:
    """The best F1 on the spans of the class, drawn to that of all the more the fewer there are."""
    common = _best_of(of_all)
    if not len(known.positive) or not len(known.negative):
        return common
    weight = len(known.positive) / (len(known.positive) + _EVEN_COUNT)
    return common + weight * (_best_of(known) - common)


def _best_of(known: ClassEvidence) -> float:
    found, right, wrong = _counts(known)
    f1 = 2 * right / (right + wrong + len(known.positive))
    # Of equals the middle one, so that a little more or less changes nothing.
    best = np.flatnonzero(f1 == f1.max())
    return _between(found, int(best[len(best) // 2]), known)


def _by_precision(known: ClassEvidence, of_all: ClassEvidence | None, promised: float) -> _Chosen:
    """The least threshold at which a precision is kept by all that is known.

    By known spans it is that of the class, beside which a few spans of all classes count (None:
    those say nothing). By the recordings at hand it is what is expected there. Where one of them
    never reaches it, the threshold lies above everything.
    """
    parts = [] if of_all is None else [_precise_on_spans(known, of_all, promised)]
    if known.at_hand and (found := known.at_hand.reaching(promised, known.positive)):
        parts.append(found)
    highest = min((highest for _, highest in parts), default=float("nan"))
    logits = [logit for logit, _ in parts]
    if not logits or np.isnan(logits).any():
        scores = [known.positive, known.negative, known.at_hand.peaks]
        top = max((float(one[-1]) for one in scores if len(one)), default=0.0)
        # Rounded down: what is said to be the highest is reached.
        said = np.floor(highest * 100) / 100 if logits else 0.0
        note = f"precision {promised:g} is not reached, {said:.2f} at most"
        return _Chosen(top + 1e-3, note, float(said))
    return _Chosen(max(logits), _too_little(known))


def _precise_on_spans(
    known: ClassEvidence, of_all: ClassEvidence, promised: float
) -> tuple[float, float]:
    """The least threshold from which on a precision is kept, NaN: none; the highest that is kept.

    "From which on" leaves out the highest twentieth of rejected spans of the class: a single one
    that scores above all is no reason to find nothing. Those of all classes count in full: what
    scores as high somewhere, and is something else, may do so here.
    """
    found = np.unique(np.concatenate([of_all.positive, of_all.negative]))
    if len(known.positive):
        # Above all that was confirmed of a class nothing is known of it.
        found = found[found <= known.positive[-1]]
    above = _precision(_trimmed(known), of_all, found)
    kept = np.minimum.accumulate(above[::-1])[::-1]
    kept = np.minimum(kept, _precision(known, of_all, found))
    enough = np.flatnonzero(kept >= promised)
    return float(found[enough[0]]) if len(enough) else float("nan"), float(kept.max())


def _trimmed(known: ClassEvidence) -> ClassEvidence:
    n = len(known.negative)
    return replace(known, negative=known.negative[: n - n // 20])


def _precision(known: ClassEvidence, of_all: ClassEvidence, thresholds: np.ndarray) -> np.ndarray:
    """(k,) of known spans at thresholds (k,), beside which a few spans of all classes count."""
    right, wrong = _reaching(known, thresholds)
    all_right, all_wrong = _reaching(of_all, thresholds)
    share = all_right / np.maximum(1, all_right + all_wrong)
    return (right + _ALL_COUNT * share) / (right + wrong + _ALL_COUNT)


def _reaching(known: ClassEvidence, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k,) positives and negatives at or above thresholds."""
    right = len(known.positive) - np.searchsorted(known.positive, thresholds)
    return right, len(known.negative) - np.searchsorted(known.negative, thresholds)


def _check_promise(chosen: list[_Chosen], rule: ThresholdChoice) -> None:
    """Refuse a precision that is reached for no class."""
    if rule.kind != "precision" or any(np.isnan(one.highest) for one in chosen):
        return
    highest = max(one.highest for one in chosen)
    raise CanopyError(
        f"--threshold precision={rule.value:g} is reached for no class, the highest is "
        f"{highest:g}; promise less"
    )


def _counts(known: ClassEvidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds at every positive's score, rising; positives and negatives at or above each."""
    found = np.unique(known.positive)
    return found, *_reaching(known, found)


def _between(found: np.ndarray, index: int, known: ClassEvidence) -> float:
    """Halfway from a positive's score down to the next score of any known span."""
    everything = np.concatenate([known.positive, known.negative])
    lower = everything[everything < found[index]]
    return float((found[index] + lower.max()) / 2) if len(lower) else float(found[index]) - 1e-3


def _by_alarms(known: ClassEvidence, allowed: float, default: float, hours: float) -> _Chosen:
    if len(known.alarms) == 0:
        return _Chosen(default, f"no sound without the class, so {FALLBACK}")
    note = ""
    if allowed * hours < 1:
        note = f"{allowed:g} an hour is less than one in the {hours:.2g} hours of sound known"
    # From the top down, and no further than to where runs begin to merge: fewer of them below are
    # no fewer alarms.
    too_many = np.flatnonzero(known.alarms > allowed)
    first = int(too_many[-1]) + 1 if len(too_many) else int(known.alarms.argmax())
    if first == len(known.alarms):
        return _Chosen(float(known.alarm_threshold[-1]) + 1e-3, note)
    return _Chosen(float(known.alarm_threshold[first]), note)


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
    low, high = nan, nan
    if right + wrong:
        interval = binomtest(right, right + wrong).proportion_ci(method="wilson")
        low, high = float(interval.low), float(interval.high)
    return {
        "threshold": float(expit(logit)),
        "logit": logit,
        "n_positive": n_positive,
        "n_negative": n_negative,
        "precision": right / (right + wrong) if right + wrong else nan,
        "precision_low": low,
        "precision_high": high,
        "expected_precision": _expected(known, logit),
        "recall": right / n_positive if n_positive else nan,
        "f1": 2 * right / (right + wrong + n_positive) if n_positive else nan,
        "false_alarms_per_hour": alarms,
    }


def _expected(known: ClassEvidence, logit: float) -> float:
    if not known.at_hand:
        return float("nan")
    return float(known.at_hand.expected_precision(np.array([logit]), known.positive)[0])
