"""One rule that makes events of scores, fitted on out-of-fold scores over time.

Every rule of a grid (threshold, hysteresis, least duration, gap to close) is tried on every
recording once; the counts of its matches are kept by recording. From them follow both the rule that
is best on all recordings, for sound to come, and the honest figure: each fold's events are made by
the rule that is best on the other folds. What is maximised is the mean of F1 over the IoU limits,
pooled over recordings, averaged with its neighbours in the grid: a peak one step wide is chance.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.ndimage import uniform_filter
from scipy.special import expit, logit

from local.config import EventsConfig
from local.data.annotated import Annotated
from local.io.errors import CanopyError
from local.io.files import file_digest, write_csv, write_json
from local.io.seeds import generator
from local.labels.spans import SpanRule
from local.scoring.event_rules.labelled_lengths import event_lengths
from local.scoring.event_rules.rule_file import RULE, EventRule
from local.scoring.event_rules.span_rules import events_of_run
from local.scoring.metrics.bootstrap import interval, ratio_of_sums
from local.scoring.metrics.matching import EventList, count_matched, overlapping_pairs

if TYPE_CHECKING:
    from local.inference.scores import Scores

OOF_EVENTS, TEST_EVENTS = "oof_events.csv", "test_events.csv"
_DEFAULT = EventsConfig()


@dataclass(frozen=True)
class RuleGrid:
    """The values that are tried, in all combinations.

    thresholds : rising probabilities. drops : how far below the threshold, in logits, an event goes
    on. durations, gaps : least duration and gaps to close, seconds.
    """

    thresholds: tuple[float, ...] = _DEFAULT.thresholds
    drops: tuple[float, ...] = _DEFAULT.drops
    durations: tuple[float, ...] = (0.0,)
    gaps: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        """Check the values."""
        if not all(self.shape) or not all(0 < value < 1 for value in self.thresholds):
            raise CanopyError("thresholds must be probabilities between 0 and 1, and no list empty")
        if list(self.thresholds) != sorted(self.thresholds):
            raise CanopyError(f"thresholds are {list(self.thresholds)}; give them in rising order")
        if min(*self.drops, *self.durations, *self.gaps, 0.0) < 0:
            raise CanopyError("drops, durations and gaps must be 0 or more")

    @classmethod
    def of(cls, settings: EventsConfig, annotated: Annotated) -> "RuleGrid":
        """The grid of section `events`; lengths that it leaves open are those of labelled calls."""
        durations, gaps = event_lengths(annotated)
        return cls(
            settings.thresholds,
            settings.drops,
            durations if settings.durations_s is None else settings.durations_s,
            gaps if settings.gaps_s is None else settings.gaps_s,
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of values of each."""
        return len(self.thresholds), len(self.drops), len(self.durations), len(self.gaps)

    def rules(self) -> list[SpanRule]:
        """All rules, thresholds outermost, in logits."""
        return [
            SpanRule(float(logit(threshold)), float(logit(threshold)) - drop, duration, gap)
            for threshold, drop, duration, gap in product(
                self.thresholds, self.drops, self.durations, self.gaps
            )
        ]


def find_events(scores: "Scores", rule: SpanRule) -> pd.DataFrame:
    """Events of all recordings and classes by one rule in logits; scores are probabilities."""
    return events_of_run(scores, [rule] * len(scores.labels))


def count_matches(
    true: EventList, found: EventList, n_recordings: int, ious: tuple[float, ...]
) -> np.ndarray:
    """(N, 2 + I) of each recording: true events, found ones, and pairs matched at each IoU.

    Pairs are a largest one-to-one matching; a limit of 0 takes any overlap, others are exceeded.
    """
    n_classes = 1 + max([0, *true.label, *found.label])
    pairs = overlapping_pairs(true, found)
    hits = []
    for iou in ious:
        counted = count_matched(true, found, pairs.exceeding(iou), n_recordings, n_classes)
        hit, n_true, n_found = (one.sum(axis=1) for one in counted)
        hits.append(hit)
    return np.stack([n_true, n_found, *hits], axis=1)


def pooled_f1(counts: np.ndarray) -> np.ndarray:
    """Counts (..., N, 2 + I) -> (..., I) F1 of all recordings together; 1 where nothing is."""
    total = counts.sum(axis=-2)
    events = total[..., :1] + total[..., 1:2]
    found = np.divide(
        2 * total[..., 2:], events, out=np.ones_like(total[..., 2:]), where=events > 0
    )
    return np.asarray(found)


@dataclass(frozen=True)
class Tuned:
    """The fitted rule, and what each fold's events are by the rule of the others.

    rule : best on all recordings. nested : fold -> rule that is best on the other folds.

    Of recordings that are no copies, their `names` (N,):
    events : each fold's, by its nested rule. f1 : of those, one an IoU; fitted : of `rule`.
    counts : (N, 2 + I) of `count_matches` for those events.
    """

    rule: SpanRule
    nested: dict[int, SpanRule]
    events: pd.DataFrame
    f1: np.ndarray
    fitted: np.ndarray
    counts: np.ndarray
    names: list[str]


def tune(
    scores: "Scores",
    events: pd.DataFrame,
    fold: pd.Series,
    grid: RuleGrid,
    ious: tuple[float, ...] = (0.0, 0.5),
    copies: str | None = None,
) -> Tuned:
    """Fit the rule.

    Parameters
    ----------
    scores : out-of-fold, with frames.
    events : true events, annotated from end to end.
    fold : of each recording, indexed by recording_id; at least two.
    copies : pattern of ids of recordings that the rule is fitted on and that no figure is of.
    """
    if not scores.frames:
        raise CanopyError("no scores over time; set inference.keep_frames and infer again")
    folds = fold.loc[scores.recording_ids].to_numpy()
    if len(np.unique(folds)) < 2:
        raise CanopyError("scores of one fold only: a rule is judged on folds it was not fitted on")
    present = events[events["polarity"] > 0] if "polarity" in events else events
    n = len(scores.recording_ids)
    true = EventList.of(present, scores.recording_ids, scores.labels)
    rules = grid.rules()
    made = [find_events(scores, rule) for rule in rules]
    counts = np.stack(
        [
            count_matches(true, EventList.of(one, scores.recording_ids, scores.labels), n, ious)
            for one in made
        ]
    )
    best = _best(counts, grid)
    nested, parts, own = {}, [], np.zeros_like(counts[0])
    for number in np.unique(folds):
        mine = folds == number
        chosen = _best(counts[:, ~mine], grid)
        of_fold = [name for name, one in zip(scores.recording_ids, mine, strict=True) if one]
        nested[int(number)] = rules[chosen]
        parts.append(made[chosen][made[chosen]["recording_id"].isin(of_fold)])
        own[mine] = counts[chosen][mine]
    names = originals(scores.recording_ids, copies)
    judged = np.isin(scores.recording_ids, names)
    joined = pd.concat(parts, ignore_index=True)
    joined = joined[joined["recording_id"].isin(names)].reset_index(drop=True)
    own, fitted = own[judged], counts[best][judged]
    return Tuned(rules[best], nested, joined, pooled_f1(own), pooled_f1(fitted), own, names)


def originals(recording_ids: list[str], copies: str | None) -> list[str]:
    """The recordings that are no copies by the pattern of their ids; at least one."""
    names = [name for name in recording_ids if copies is None or not fnmatchcase(name, copies)]
    if recording_ids and not names:
        raise CanopyError(f"events.copies is {copies!r}, which all recordings are; narrow it")
    return names


def write_events(
    out: Path,
    tuned: Tuned,
    test: "Scores",
    ious: tuple[float, ...],
    made_from: Path,
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Write rule.json and the events of train (out-of-fold) and test recordings; what it tells.

    Parameters
    ----------
    made_from : the file of scores that the rule was fitted on.
    n_resamples, seed : of the intervals of F1 over recordings, 95 %.
    """
    true, found = tuned.counts[:, 0], tuned.counts[:, 1]
    measured = []
    for place, iou in enumerate(ious):
        rng = generator(seed, "event intervals", place)
        f1 = ratio_of_sums(2 * tuned.counts[:, 2 + place], true + found)
        low, high = interval(f1, len(true), rng, n_resamples)
        measured.append(
            {
                "iou": iou,
                "value": float(tuned.f1[place]),
                "low": low,
                "high": high,
                "fitted": float(tuned.fitted[place]),
            }
        )
    told = {
        "rule": rule_words(tuned.rule),
        "f1": measured,
        "n": len(tuned.counts),
        "n_true": int(true.sum()),
        "n_found": int(found.sum()),
        "rules_of_folds": {str(fold): rule_words(rule) for fold, rule in tuned.nested.items()},
    }
    write_csv(out / OOF_EVENTS, tuned.events)
    write_csv(out / TEST_EVENTS, find_events(test, tuned.rule))
    write_json(out / RULE, {**told, "made_from": file_digest(made_from)})
    return told


def iou_title(iou: float) -> str:
    """A limit of overlap in words."""
    return f"IoU > {iou:g}" if iou > 0 else "any overlap"


def table_of_events(told: dict[str, Any]) -> str:
    """What `write_events` tells, for the terminal."""
    lines = [
        f"event F1, {iou_title(one['iou'])}: {one['value']:.3f} "
        f"({one['low']:.3f}-{one['high']:.3f}) by rules of the other folds, "
        f"{one['fitted']:.3f} by this rule:"
        for one in told["f1"]
    ]
    return "\n".join([*lines, EventRule.model_validate(told["rule"]).words()])


def _best(counts: np.ndarray, grid: RuleGrid) -> int:
    """Place of the best rule by counts (rules, N, 2 + I); of equals the middle one."""
    f1 = pooled_f1(counts).mean(axis=-1).reshape(grid.shape)
    smooth = uniform_filter(f1, (5, 3, 3, 3), mode="nearest").ravel()
    equal = np.flatnonzero(smooth >= smooth.max() - 1e-12)
    return int(equal[len(equal) // 2])


def rule_words(rule: SpanRule) -> dict[str, Any]:
    """A rule in the words of bin/detect.py's options; thresholds as probabilities."""
    low = rule.threshold if rule.low_threshold is None else rule.low_threshold
    return {
        "threshold": round(float(expit(rule.threshold)), 6),
        "low_threshold": round(float(expit(low)), 6),
        "min_duration": rule.min_duration_s,
        "max_gap": rule.max_gap_s,
    }
