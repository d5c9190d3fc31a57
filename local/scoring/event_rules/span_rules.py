"""A rule of spans for each class, and the events that such rules make of a run's scores."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit

from local.config import Config
from local.io.errors import CanopyError
from local.labels.spans import SpanRule, frames_to_events
from local.scoring.event_rules.evidence import Evidence
from local.scoring.event_rules.rule_file import EventRule
from local.scoring.event_rules.thresholds import FALLBACK, ThresholdChoice, fit_thresholds

if TYPE_CHECKING:
    from local.inference.scores import Scores

COLUMNS = ("recording_id", "label", "onset", "offset", "score")


def default_choice(evidence: Evidence | None) -> ThresholdChoice:
    """How thresholds are chosen where nobody says: by the best F1 where it can be, else a half."""
    if evidence is None:
        return ThresholdChoice("fixed", FALLBACK)
    return ThresholdChoice("best-f1")


def default_rules(
    labels: list[str], config: Config, evidence: Evidence | None, fitted: EventRule | None
) -> list[SpanRule]:
    """One rule a class in logits: those of `bin/detect.py` where no option says another.

    Parameters
    ----------
    evidence : of the out-of-fold scores; None where they are not kept over time.
    fitted : the rule of a run that has one (rule.json).
    """
    if fitted is not None:
        choice = ThresholdChoice("fixed", fitted.threshold)
        lengths = [(fitted.min_duration, fitted.max_gap)] * len(labels)
        return make_span_rules(fit_thresholds(labels, choice, None), fitted.low_threshold, lengths)
    thresholds = fit_thresholds(labels, default_choice(evidence), evidence)
    return make_span_rules(thresholds, None, [config.relabel.lengths_of(one) for one in labels])


def make_span_rules(
    thresholds: pd.DataFrame,
    low_threshold: float | None,
    lengths: Sequence[tuple[float, float]],
    max_duration_s: float = np.inf,
) -> list[SpanRule]:
    """One rule a class, in logits.

    Parameters
    ----------
    thresholds : of `thresholds.fit_thresholds`.
    low_threshold : probability down to which a span goes on, at most the class's threshold; None:
        what was fitted.
    lengths : of each class, seconds that an event lasts at least and of gaps to close.
    """
    low = None if low_threshold is None else float(np.log(low_threshold) - np.log1p(-low_threshold))
    return [
        SpanRule(
            threshold=float(logit),
            low_threshold=float(fitted) if low is None else min(low, float(logit)),
            min_duration_s=min_duration_s,
            max_gap_s=max_gap_s,
            max_duration_s=max_duration_s,
        )
        for logit, fitted, (min_duration_s, max_gap_s) in zip(
            thresholds["logit"], thresholds["low_logit"], lengths, strict=True
        )
    ]


def events_of_run(
    scores: "Scores", rules: list[SpanRule], durations: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Events of all recordings, `COLUMNS`; scores are probabilities.

    Parameters
    ----------
    scores : over time, logits.
    rules : one a class, in logits.
    durations : recording -> seconds, where no event goes on beyond the end of its recording.
    """
    if not scores.frames and scores.recording_ids:
        raise CanopyError("no scores over time; set inference.keep_frames and infer again")
    rows = []
    for row, name in enumerate(scores.recording_ids):
        if np.isnan(scores.frames[row]).any():
            raise CanopyError(f"scores of recording {name} hold NaN; run stage 3 again")
        grid, end = scores.grid(row), np.inf if durations is None else durations[name]
        for label, track, rule in zip(scores.labels, scores.frames[row], rules, strict=True):
            spans = frames_to_events(track.astype(np.float64), grid, **vars(rule))
            rows += [
                (name, label, one.onset, min(one.offset, end), float(expit(one.score)))
                for one in spans
                if one.onset < end
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
