"""Thresholds from out-of-fold scores, against plain counting."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.scoring.event_rules.evidence import ClassEvidence, Evidence, collect_evidence
from local.scoring.event_rules.false_alarms import alarm_curve
from local.scoring.event_rules.thresholds import ThresholdChoice, fit_thresholds, parse_choice


def evidence_of(positive, negative, thresholds=(), alarms=()):
    parts = (positive, negative, thresholds, alarms)
    one = ClassEvidence(
        *(np.sort(np.array(part, dtype=float)) for part in parts[:3]), np.array(alarms)
    )
    return Evidence({"a": one}, 1.0)


def fit(rule, evidence):
    return fit_thresholds(["a"], parse_choice(rule), evidence).iloc[0]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("0.25", ThresholdChoice("fixed", 0.25)),
        ("best-f1", ThresholdChoice("best-f1")),
        ("precision=0.9", ThresholdChoice("precision", 0.9)),
        ("false-alarms=2", ThresholdChoice("false-alarms", 2.0)),
    ],
)
def test_rules(text, rule):
    assert parse_choice(text) == rule


@pytest.mark.parametrize(
    "text",
    ["0", "1", "-1", "nan", "best", "best-f1=3", "precision=2", "precision", "false-alarms=-1"],
)
def test_other_rules_are_refused(text):
    with pytest.raises(CanopyError, match="none of"):
        parse_choice(text)


def test_a_number_is_taken_as_it_is():
    row = fit("0.3", None)
    assert row["threshold"] == pytest.approx(0.3)
    assert row["logit"] == pytest.approx(logit(0.3))


def test_best_f1_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(20):
        positive, negative = rng.normal(1, 1, 30), rng.normal(0, 1, 50)
        row = fit("best-f1", evidence_of(positive, negative))

        def f1(at, positive=positive, negative=negative):
            right, wrong = (positive >= at).sum(), (negative >= at).sum()
            return 2 * right / (right + wrong + 30)

        best = max(f1(at) for at in np.concatenate([positive, negative]))
        assert f1(row["logit"]) == pytest.approx(best)
        assert row["f1"] == pytest.approx(best)


def test_precision_is_reached_at_the_lowest_threshold():
    positive, negative = np.array([0.0, 2.0, 3.0, 4.0]), np.array([-1.0, 1.0])
    row = fit("precision=0.75", evidence_of(positive, negative))
    assert row["precision"] >= 0.75
    assert row["recall"] == 1.0  # 4 right, 1 wrong at 0: 0.8
    row = fit("precision=1", evidence_of(positive, negative))
    assert (row["precision"], row["recall"]) == (1.0, 0.75)


@pytest.mark.parametrize("rule", ["best-f1", "precision=0.9", "false-alarms=1"])
def test_a_class_that_nothing_is_known_of_gets_a_half_and_a_note(rule):
    row = fit(rule, evidence_of([], []))
    assert row["threshold"] == 0.5
    assert row["note"]


def test_no_scores_at_all_is_one_sentence():
    with pytest.raises(CanopyError, match="best-f1 needs out-of-fold scores"):
        fit("best-f1", None)


def runs_at(parts, at, rows):
    """Runs at or above a threshold that hold no cell of a row, counted one cell at a time."""
    n = 0
    for part, mine in zip(parts, rows, strict=True):
        inside = touches = False
        for value, of_row in zip([*part, -np.inf], [*mine, False], strict=True):
            n += inside and not touches and not value >= at
            inside, touches = value >= at, value >= at and (touches or of_row)
    return n


@pytest.fixture
def scored():
    rng = np.random.default_rng(1)
    frames = [rng.normal(-2, 2, (2, n)).astype(np.float32) for n in (200, 130, 3)]
    scores = Scores(["x", "y", "z"], ["a", "b"], frames, np.zeros((3, 2)), 0.5, -0.25)
    events = pd.DataFrame(
        [("x", "a", 10.0, 20.0, 1), ("y", "a", 3.0, 4.0, 1), ("y", "a", 30.0, 40.0, -1)],
        columns=["recording_id", "label", "onset", "offset", "polarity"],
    )
    spans = events.assign(score=[5.0, 4.0, 1.0])
    return scores, events, spans


@pytest.mark.parametrize("allowed", [0, 50, 400, 3000])
def test_false_alarms_an_hour_against_counting(scored, allowed):
    scores, events, spans = scored
    evidence = collect_evidence(scores, spans, events, None)
    row = fit_thresholds(["a", "b"], ThresholdChoice("false-alarms", allowed), evidence).iloc[0]
    parts = [frames[0].astype(float).copy() for frames in scores.frames]
    centres = [-0.25 + 0.5 * (np.arange(len(part)) + 0.5) for part in parts]
    rows = [np.zeros(len(part), dtype=bool) for part in parts]
    for name, onset, offset in (("x", 10.0, 20.0), ("y", 3.0, 4.0)):
        place = scores.recording_ids.index(name)
        rows[place] |= (centres[place] + 0.25 > onset) & (centres[place] - 0.25 < offset)
    hours = sum(map(len, parts)) * 0.5 / 3600
    assert evidence.hours == pytest.approx(hours)
    found = runs_at(parts, row["logit"], rows) / hours
    assert found <= allowed
    assert row["false_alarms_per_hour"] == pytest.approx(found)
    # No stricter than it must be; there are never more than some 2000 runs an hour.
    most = max(runs_at(parts, at, rows) for at in np.concatenate(parts)) / hours
    if allowed:
        assert found > 0.7 * min(allowed, most)


@pytest.mark.parametrize("seed", range(20))
def test_the_curve_of_false_alarms_is_that_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 60, 4)
    # Few levels, so that many cells are equal, and smooth, so that runs are long.
    smooth = [np.convolve(rng.normal(size=n), np.ones(3), "same")[:n] for n in lengths]
    tracks = [np.round(track, 1) for track in smooth]
    rows = [rng.random(n) < rng.choice([0.0, 0.1, 0.5, 1.0]) for n in lengths]
    thresholds, alarms = alarm_curve(tracks, rows, 2.0)
    assert all(np.diff(thresholds) > 0)
    expected = [runs_at(tracks, at, rows) / 2.0 for at in thresholds]
    assert alarms.tolist() == expected
    above = runs_at(tracks, thresholds[-1] + 1e-6, rows) if len(thresholds) else 0
    assert above == 0


def test_edges_of_a_detection_are_no_false_alarms():
    """A detection that is wider than the box on both sides, and one beside it."""
    track = np.array([-9, 1, 2, 3, 3, 2, 1, -9, 2, -9.0])
    row = np.zeros(10, dtype=bool)
    row[3:5] = True
    thresholds, alarms = alarm_curve([track], [row], 1.0)
    assert dict(zip(thresholds.tolist(), alarms.tolist(), strict=True)) == {2.0: 1.0}
    # Where the score falls between the two, what lies beyond is an alarm.
    parted = np.where(np.arange(10) == 2, -9.0, track)
    thresholds, alarms = alarm_curve([parted], [row], 1.0)
    assert dict(zip(thresholds.tolist(), alarms.tolist(), strict=True)) == {1.0: 2.0, 2.0: 1.0}


def test_complete_annotations_make_negatives_of_all_else(scored):
    scores, events, spans = scored
    partial = collect_evidence(scores, spans, events, None)
    complete = collect_evidence(scores, spans, events, 5.0)
    assert len(partial.classes["a"].negative) == 1
    # Pieces of ten cells; those wholly inside the positive rows fall away.
    assert len(complete.classes["b"].negative) == 20 + 13 + 1
    assert len(complete.classes["a"].negative) == 1 + 20 + 13 + 1 - 2
    highest = max(frames[1].max() for frames in scores.frames)
    assert complete.classes["b"].negative.max() == pytest.approx(highest)


def test_evidence_survives_json(scored):
    evidence = collect_evidence(*(scored[0], scored[2], scored[1]), None)
    again = Evidence.from_dict(evidence.to_dict())
    for rule in ("best-f1", "precision=0.5", "false-alarms=100"):
        before = fit_thresholds(["a", "b"], parse_choice(rule), evidence)
        pd.testing.assert_frame_equal(before, fit_thresholds(["a", "b"], parse_choice(rule), again))
    assert expit(before["logit"].to_numpy()) == pytest.approx(before["threshold"].to_numpy())
