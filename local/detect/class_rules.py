"""From options to a threshold and a rule of spans for each class."""

import argparse
import logging

import numpy as np
import pandas as pd

from local.config import Config
from local.detect.detectors import ModelSpec
from local.io.errors import CanopyError
from local.labels.spans import SpanRule
from local.scoring.event_rules.evidence import Evidence
from local.scoring.event_rules.span_rules import default_choice, make_span_rules
from local.scoring.event_rules.thresholds import FALLBACK, fit_thresholds, parse_choice

log = logging.getLogger("canopy")


def use_event_rule(models: list[ModelSpec], options: argparse.Namespace) -> None:
    """Fill options that were not given from the rule that the model's events were fitted with.

    An ensemble's scores are none that a rule was fitted on: it has none.
    """
    rule = models[0].rule
    if rule is None:
        return
    if len(models) > 1:
        log.info("the rule of events of %s is not used for an ensemble", models[0].path)
        return
    names = [name for name in rule.model_dump() if getattr(options, name) is None]
    kept = [name for name in rule.model_dump() if name not in names]
    for name in names:
        value = getattr(rule, name)
        setattr(options, name, str(value) if name == "threshold" else value)
    words = f"; as given: {', '.join(kept)}" if kept else ""
    log.info("the model's rule of events: %s%s", rule.words(), words)


def choose_thresholds(models: list[ModelSpec], text: str | None) -> pd.DataFrame:
    """Thresholds by the rule `text`; None is best-f1 where it can be, else a half.

    An ensemble goes by the evidence of its first model that has any.
    """
    rule = None if text is None else parse_choice(text)
    evidence = None
    if rule is None or rule.kind != "fixed":
        evidence = next((found for model in models if (found := model.evidence())), None)
    if rule is None:
        rule = default_choice(evidence)
        log.info("threshold: %s (--threshold says another)", _default_words(evidence))
    if len(models) > 1 and rule.kind != "fixed":
        log.info("thresholds are fitted on the scores of one model of the ensemble")
    thresholds = fit_thresholds(models[0].labels, rule, evidence)
    for row in thresholds[thresholds["note"] != ""].itertuples():
        log.warning("threshold of %s: %s", row.label, row.note)
    return thresholds


def _default_words(evidence: Evidence | None) -> str:
    """What classes' thresholds go by where no option says it."""
    if evidence is None:
        return f"{FALLBACK}"
    n, n_at_hand = (
        len(evidence.classes),
        sum(bool(one.at_hand) for one in evidence.classes.values()),
    )
    balance = "as many test recordings reach it as are estimated to hold the class"
    on_spans = "the best F1 on out-of-fold scores"
    if n_at_hand in (0, n):
        return balance if n_at_hand else on_spans
    return f"{balance} ({n_at_hand} of {n} classes), else {on_spans}"


def span_rules(
    thresholds: pd.DataFrame, config: Config, options: argparse.Namespace
) -> list[SpanRule]:
    """One rule a class, in logits.

    `options` has low_threshold, min_duration, max_duration, max_gap; None takes what was fitted,
    the section `relabel` of the configuration (durations) or no bound.
    """
    low = options.low_threshold
    if low is not None and not 0 < low < 1:
        raise CanopyError(f"--low-threshold is {low}, expected a probability between 0 and 1")
    longest = _given(options.max_duration, np.inf, "--max-duration")
    lengths = []
    for label in thresholds["label"]:
        shortest, gap = config.relabel.lengths_of(label)
        shortest = _given(options.min_duration, shortest, "--min-duration")
        gap = _given(options.max_gap, gap, "--max-gap")
        if longest < shortest:
            raise CanopyError(
                f"--max-duration {longest:g} is less than the least duration of the class "
                f"{label!r}, {shortest:g} s; raise it, or lower --min-duration"
            )
        lengths.append((shortest, gap))
    return make_span_rules(thresholds, low, lengths, longest)


def _given(value: float | None, otherwise: float, name: str) -> float:
    if value is None:
        return otherwise
    if not 0 <= value < np.inf:
        raise CanopyError(f"{name} is {value}, expected seconds, 0 or more")
    return value


def prior_shift(models: list[ModelSpec]) -> np.ndarray | None:
    """(C,) mean of the models' prior corrections; refused where none has one."""
    shifts = [shift for model in models if (shift := model.shift()) is not None]
    if len(shifts) < len(models):
        raise CanopyError(
            f"{models[0].path}: --prior run needs a run with a prior correction and results "
            "(stage 5); leave it out"
        )
    return np.mean(shifts, axis=0)
