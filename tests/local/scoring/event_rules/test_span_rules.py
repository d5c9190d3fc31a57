"""Which events a run's scores become: by the rules of bin/detect.py, one a class."""

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, logit

from local.config import Config
from local.detect.class_rules import choose_thresholds, span_rules, use_event_rule
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.labels.spans import SpanRule, frames_to_events
from local.scoring.event_rules.at_hand import AtHand
from local.scoring.event_rules.evidence import ClassEvidence, Evidence
from local.scoring.event_rules.rule_file import EventRule
from local.scoring.event_rules.span_rules import default_rules, events_of_run

LABELS = ["a", "b"]
CONFIG = Config.model_validate({"relabel": {"min_duration_s": 0.3, "max_gap_s": 0.2}})


def evidence():
    rng = np.random.default_rng(0)
    alarms = np.array([-1.0, 0.0, 1.0]), np.array([9.0, 4.0, 1.0])
    classes = {
        label: ClassEvidence(rng.normal(2, 1, 20), rng.normal(0, 1, 20), *alarms)
        for label in LABELS
    }
    return Evidence(classes, 1.0)


FITTED = EventRule(threshold=0.6, low_threshold=0.3, min_duration=0.2, max_gap=0.1)


@pytest.mark.parametrize("known", [evidence, lambda: None])
@pytest.mark.parametrize("fitted", [None, FITTED])
def test_the_rules_are_those_of_detection_without_options(known, fitted):
    model = SimpleNamespace(path="run", labels=LABELS, rule=fitted, evidence=known)
    names = ("threshold", "low_threshold", "min_duration", "max_duration", "max_gap")
    options = argparse.Namespace(**dict.fromkeys(names))
    use_event_rule([model], options)
    thresholds = choose_thresholds([model], options.threshold)
    expected = span_rules(thresholds, CONFIG, options)
    assert default_rules(LABELS, CONFIG, known(), fitted) == expected
    assert expected[0].min_duration_s == (0.2 if fitted else 0.3)


def test_least_durations_and_gaps_are_those_of_each_class():
    by_class = {"min_duration_s": {"a": 0.1, "b": 4.0}, "max_gap_s": {"a": 0.02, "b": 2.0}}
    config = Config.model_validate({"relabel": by_class})
    names = ("threshold", "low_threshold", "min_duration", "max_duration", "max_gap")
    options = argparse.Namespace(**dict.fromkeys(names))
    model = SimpleNamespace(path="run", labels=LABELS, rule=None, evidence=evidence)
    thresholds = choose_thresholds([model], None)
    rules = span_rules(thresholds, config, options)
    assert rules == default_rules(LABELS, config, evidence(), None)
    assert [(one.min_duration_s, one.max_gap_s) for one in rules] == [(0.1, 0.02), (4.0, 2.0)]
    # A fitted rule, and what an option says, is that of all classes.
    fitted = default_rules(LABELS, config, evidence(), FITTED)
    assert {(one.min_duration_s, one.max_gap_s) for one in fitted} == {(0.2, 0.1)}
    options.max_gap, options.max_duration = 0.5, 3.0
    with pytest.raises(CanopyError, match=r"--max-duration 3 .*class 'b', 4 s"):
        span_rules(thresholds, config, options)
    options.max_duration = None
    assert [one.max_gap_s for one in span_rules(thresholds, config, options)] == [0.5, 0.5]


def test_each_class_has_its_rule_and_no_event_goes_beyond_its_recording():
    rng = np.random.default_rng(1)
    frames = [rng.normal(size=(2, n)).astype("f4") for n in (40, 60)]
    scores = Scores(["x", "y"], LABELS, frames, np.zeros((2, 2)), 0.1, -0.05)
    rules = [SpanRule(0.5), SpanRule(1.0, 0.0, 0.2, 0.15)]
    found = events_of_run(scores, rules, {"x": 3.9, "y": 5.0})
    rows = []
    for row, (name, end) in enumerate((("x", 3.9), ("y", 5.0))):
        for column, rule in enumerate(rules):
            for one in frames_to_events(
                frames[row][column].astype(float), scores.grid(row), *list(vars(rule).values())
            ):
                if one.onset < end:
                    score = float(expit(one.score))
                    rows.append((name, LABELS[column], one.onset, min(one.offset, end), score))
    assert list(found.itertuples(index=False, name=None)) == rows
    assert len(rows) > 20
    assert events_of_run(scores, rules)["offset"].max() > 5


def test_a_shift_of_a_class_and_its_threshold_changes_no_event():
    rng = np.random.default_rng(2)
    frames = [rng.normal(size=(2, 50))]
    scores = Scores(["x"], LABELS, frames, np.zeros((1, 2)), 0.1, 0.0)
    moved = Scores(["x"], LABELS, [frames[0] + [[2.0], [-3.0]]], np.zeros((1, 2)), 0.1, 0.0)
    one = events_of_run(scores, [SpanRule(0.5, 0.1), SpanRule(0.5, 0.1)])
    two = events_of_run(moved, [SpanRule(2.5, 2.1), SpanRule(-2.5, -2.9)])
    assert one.drop(columns="score").equals(two.drop(columns="score"))


def test_scores_that_are_no_numbers_are_refused():
    frames = [np.zeros((2, 5)), np.full((2, 5), float(logit(0.9)))]
    frames[1][1, 3] = np.nan
    scores = Scores(["x", "y"], LABELS, frames, np.zeros((2, 2)), 0.1, 0.0)
    with pytest.raises(CanopyError, match="recording y hold NaN"):
        events_of_run(scores, [SpanRule(0.0)] * 2)
    without = Scores(["x", "y"], LABELS, [], np.zeros((2, 2)), 0.1, 0.0)
    with pytest.raises(CanopyError, match="keep_frames"):
        events_of_run(without, [SpanRule(0.0)] * 2)
    assert events_of_run(without.take([]), [SpanRule(0.0)] * 2).empty


@pytest.mark.parametrize("n_at_hand", [0, 1, 2])
def test_the_log_says_what_default_thresholds_go_by(caplog, n_at_hand):
    caplog.set_level("INFO", "canopy")
    known, at_hand = evidence(), AtHand.of(0.3, np.arange(50.0), np.zeros(0))
    for label in LABELS[:n_at_hand]:
        known.classes[label] = replace(known.classes[label], at_hand=at_hand)
    choose_thresholds([SimpleNamespace(path="run", labels=LABELS, evidence=lambda: known)], None)
    assert ("as many test recordings" in caplog.text) == (n_at_hand > 0)
    assert ("best F1" in caplog.text) == (n_at_hand < 2)
