"""Pseudo events: where they are, where they are not, and what they say of themselves."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.config import Config, RelabelConfig
from local.data.tables import EVENT_COLUMNS, check_events
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.relabel.pseudo_labels import (
    allowed_by_confirmed,
    allowed_by_prevalence,
    bound,
    check_scores,
    make_pseudo_events,
    summarise,
)
from local.stages.experiment import Experiment
from local.training.epoch_plan import make_training_set, plan_epoch

LABELS = ["a", "b"]
HOP = 0.5


def scores_of(**recordings):
    """Scores of 0.5 s cells: a string a class, `#` is sure, `+` likely, `.` is no."""
    value = {"#": 3.0, "+": 0.5, ".": -3.0}
    frames = [
        np.array([[value[mark] for mark in line] for line in lines], dtype=np.float32)
        for lines in recordings.values()
    ]
    window = np.zeros((len(frames), len(LABELS)))
    return Scores(list(recordings), LABELS, frames, window, HOP, 0.0)


def true_rows(*rows):
    """Rows of (recording, label, onset, offset, polarity[, source])."""
    columns = ["recording_id", "label", "onset", "offset", "polarity", "source"]
    frame = pd.DataFrame([(*row, "tp")[:6] for row in rows], columns=columns)
    frame = frame.assign(low_freq=np.nan, high_freq=np.nan, weight=1.0)
    return frame[list(EVENT_COLUMNS)]


def make(scores, truth=None, names=None, cycle=1, shift=None, durations=None, **changes):
    rules = {"threshold": 0.8, "min_duration_s": 0.0, "max_gap_s": 0.0, **changes}
    names = scores.recording_ids if names is None else names
    durations = durations or dict.fromkeys(scores.recording_ids, 5.0)
    truth = true_rows() if truth is None else truth
    return make_pseudo_events(scores, names, truth, durations, RelabelConfig(**rules), cycle, shift)


def spans(events, label="a"):
    mine = events[events["label"] == label]
    return list(zip(mine["onset"], mine["offset"], strict=True))


def test_what_a_pseudo_event_says_of_itself():
    """Pins defect 39 of earlier systems: a file's name said where a row came from."""
    events = make(scores_of(r=["..##......", "........##"]), cycle=3, weight=0.4)
    assert events.columns.tolist() == list(EVENT_COLUMNS)
    assert spans(events, "a") == [(1.0, 2.0)]
    assert spans(events, "b") == [(4.0, 5.0)]
    assert set(events["source"]) == {"pseudo:cycle3"}
    assert set(events["weight"]) == {0.4}
    assert set(events["polarity"]) == {1}
    check_events(events, pd.Series({"r": 5.0}), LABELS, "pseudo_events.csv")


def test_defaults_make_no_negatives():
    """Pins defect 41 of earlier systems: pseudo labels denied, and were drawn class by class."""
    assert RelabelConfig().negative_below is None
    events = make(scores_of(r=["..........", "#.#......."]))
    assert (events["polarity"] == 1).all()
    asked = make(scores_of(r=["....####..", "##########"]), negative_below=0.1)
    assert spans(asked[asked["polarity"] < 0]) == [(0.0, 2.0), (4.0, 5.0)]
    assert (asked["weight"] == 0.5).all()


@pytest.mark.parametrize("polarity", [1, -1])
def test_true_rows_of_the_class_stand(polarity):
    """Pins defect 40 of earlier systems: pseudo labels overwrote what people had said."""
    # Confirmed and rejected rows both override, in their class and recording only.
    scores = scores_of(r=["##########", "##########"], q=["##########", ".........."])
    truth = true_rows(("r", "a", 1.25, 2.0, polarity), ("r", "a", 1.5, 3.0, polarity))
    events = make(scores, truth)
    assert spans(events[events["recording_id"] == "r"]) == [(0.0, 1.25), (3.0, 5.0)]
    assert spans(events, "b") == [(0.0, 5.0)]
    assert spans(events[events["recording_id"] == "q"]) == [(0.0, 5.0)]


def test_pseudo_rows_of_an_earlier_cycle_do_not_stand():
    truth = true_rows(("r", "a", 1.0, 2.0, 1, "pseudo:cycle1"))
    assert spans(make(scores_of(r=["##########", ".........."]), truth)) == [(0.0, 5.0)]


def test_what_is_left_beside_a_true_row_must_be_long_enough():
    truth = true_rows(("r", "a", 0.3, 2.0, 1))
    events = make(scores_of(r=["####......", "...#......"]), truth, min_duration_s=0.4)
    assert spans(events, "a") == []
    assert spans(events, "b") == [(1.5, 2.0)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("#+."), min_size=20, max_size=20),
    st.lists(st.tuples(st.floats(0, 9), st.floats(0.01, 4), st.sampled_from([1, -1])), max_size=4),
    st.sampled_from([None, 0.3]),
    st.sampled_from([None, 0.2]),
)
def test_no_pseudo_event_overlaps_a_true_row(marks, rows, low, negative):
    line = "".join(marks)
    truth = true_rows(*[("r", "a", on, min(on + long, 9.7), p) for on, long, p in rows])
    durations = {"r": 9.7}
    changes = {"low_threshold": low, "negative_below": negative, "max_gap_s": 0.6}
    events = make(scores_of(r=[line, line]), truth, durations=durations, **changes)
    check_events(events, pd.Series(durations), LABELS, "pseudo_events.csv")
    assert (events["offset"] <= 9.7).all()
    for event in events[events["label"] == "a"].itertuples():
        for row in truth.itertuples():
            assert min(event.offset, row.offset) - max(event.onset, row.onset) <= 0


def test_hysteresis_gaps_and_short_ones():
    scores = scores_of(r=[".+##+..+..", "#.#...#..."])
    assert spans(make(scores)) == [(1.0, 2.0)]
    assert spans(make(scores, low_threshold=0.6)) == [(0.5, 2.5)]
    assert spans(make(scores, max_gap_s=0.6), "b") == [(0.0, 1.5), (3.0, 3.5)]
    assert spans(make(scores, max_gap_s=0.6, min_duration_s=1.0), "b") == [(0.0, 1.5)]


def test_only_recordings_asked_for():
    scores = scores_of(r=["##########", ".........."], q=["##########", ".........."])
    assert set(make(scores, names=["q"])["recording_id"]) == {"q"}
    assert make(scores, names=[]).empty


def test_a_prior_shift_moves_the_threshold():
    scores = scores_of(r=["++........", "++........"])
    assert make(scores).empty
    events = make(scores, shift=np.array([2.0, 0.0]))
    assert set(events["label"]) == {"a"}


def test_scores_without_frames_are_refused():
    scores = Scores(["r"], LABELS, [], np.zeros((1, 2)), 0.0, 0.0)
    with pytest.raises(CanopyError, match=r"inference\.keep_frames"):
        check_scores(scores)


def test_scores_that_are_no_numbers_are_refused():
    scores = scores_of(r=["....", "...."], q=["####", "####"])
    check_scores(scores)
    scores.frames[1][1, 2] = -np.inf
    check_scores(scores)
    scores.frames[1][1, 2] = np.nan
    with pytest.raises(CanopyError, match="recording q has a score for b that is no number"):
        check_scores(scores)


def test_the_first_cell_of_centred_features_begins_at_zero():
    scores = scores_of(r=["##........", ".........."])
    early = Scores(scores.recording_ids, LABELS, scores.frames, scores.window, HOP, -0.05)
    assert spans(make(early)) == [(0.0, 0.95)]


def test_pseudo_events_are_not_balanced(toy):
    # Drawn as often as they stand there; true rows are drawn class by class.
    made = toy(
        window={"length_s": 2.0, "p_positive": 1, "p_negative": 0, "p_pseudo": 1, "p_random": 0}
    )
    experiment = Experiment(made.run)
    rows = [(f"r{i:02d}", "a" if i % 9 else "b", 5.6, 5.9, 1, "pseudo:cycle1") for i in range(18)]
    events = pd.concat([experiment.tables.events, true_rows(*rows)], ignore_index=True)
    training_set = make_training_set(
        experiment.tables, events, experiment.ids("train"), experiment.dump
    )
    plan = plan_epoch(training_set, made.run.config, 20, 4000, np.random.default_rng(0))
    # Only those two recordings have pseudo rows of class b, 2 of 18; half the windows are pseudo.
    late = plan[:, 1] >= 38
    rare = np.isin(
        plan[late, 0], [training_set.recording_ids.index(name) for name in ("r00", "r09")]
    )
    assert 0.05 < rare.mean() < 0.2


def test_the_summary_counts_every_class():
    events = make(scores_of(r=["##..##....", ".........."], q=["##........", ".........."]))
    table = summarise(events, LABELS).set_index("label")
    assert table.loc["a"].tolist() == [3, 2, 3.0]
    assert table.loc["b"].tolist() == [0, 0, 0]
    assert summarise(make(scores_of(r=["..", ".."])), LABELS)["events"].tolist() == [0, 0]


def test_no_class_is_labelled_in_more_recordings_than_it_may():
    """Of 20 recordings all pass 0.5 in class a; 0.7 of a prevalence of 0.5 are 7, the highest."""
    rng = np.random.default_rng(0)
    names = [f"r{i}" for i in range(20)]
    peaks = np.stack([rng.uniform(0.1, 4, 20), np.linspace(-3, 3, 20), np.full(20, 5.0)], axis=1)
    frames = [np.repeat(row[:, None], 10, axis=1).astype(np.float32) for row in peaks]
    scores = Scores(names, ["a", "b", "c"], frames, peaks, 0.1, 0.0)
    allowed = allowed_by_prevalence(np.array([0.5, 1.0, 0.0]), 0.7, 20)
    assert allowed.tolist() == [7, 14, 0]
    cut, n_passed = bound(scores, names, allowed, 0.5)
    # b has ten above the threshold and may have 14: it is left alone. c may have none.
    assert n_passed.tolist() == [20, 10, 20]
    assert (peaks - cut >= 0).sum(axis=0).tolist() == [7, 10, 0]
    assert set(np.flatnonzero(peaks[:, 0] >= cut[0])) == set(np.argsort(-peaks[:, 0])[:7])
    assert cut[1] == 0
    # A correction counts, and other recordings do not.
    shift = np.array([-9.0, 2.0, 0.0])
    cut, n_passed = bound(scores, names, allowed, 0.5, shift)
    assert cut[0] == n_passed[0] == 0
    assert (peaks[:, 1] + shift[1] - cut[1] >= 0).sum() == 14
    half, n_passed = bound(scores, names[:10], np.array([4, 20, 20]), 0.5)
    assert (peaks[:10, 0] >= half[0]).sum() == 4
    assert n_passed[0] == 10
    config = RelabelConfig(threshold=0.5, min_duration_s=0.0)
    cut, _ = bound(scores, names, allowed, 0.5)
    durations = dict.fromkeys(names, 1.0)
    events = make_pseudo_events(scores, names, true_rows(), durations, config, 1, None, cut)
    assert events.groupby("label")["recording_id"].nunique().to_dict() == {"a": 7, "b": 10}


def test_a_class_may_be_labelled_as_often_as_it_is_found_where_it_is_known():
    """Two recordings have a confirmed call of a that passes, none has one of b."""
    scores = scores_of(
        r=["##..##....", ".........."],
        q=["##........", ".........."],
        s=["..........", "#........."],
    )
    truth = true_rows(
        *(("r", "a", 0.0, 1.0, 1), ("r", "a", 2.0, 3.0, 1), ("q", "a", 0.0, 1.0, 1)),
        *(("s", "a", 0.0, 1.0, 1), ("s", "b", 0.0, 0.5, -1), ("q", "b", 0.0, 0.5, 1)),
        ("s", "b", 0.0, 0.5, 1, "pseudo:cycle1"),
    )
    assert allowed_by_confirmed(scores, truth, 5.0, 0.8).tolist() == [10, 0]
    assert allowed_by_confirmed(scores, truth, 1.4, 0.8).tolist() == [2, 0]
    shift = np.array([-3.0, 9.0])
    assert allowed_by_confirmed(scores, truth, 5.0, 0.8, shift).tolist() == [0, 5]


def test_a_bound_makes_no_negatives():
    """A raised threshold is no score below `negative_below`."""
    scores = scores_of(r=["####......", "++++++++++"])
    config = RelabelConfig(threshold=0.6, min_duration_s=0.0, negative_below=0.2)
    made = [
        make_pseudo_events(scores, ["r"], true_rows(), {"r": 5.0}, config, 1, None, cut)
        for cut in (None, np.array([0.0, 9.0]))
    ]
    assert spans(made[0], "b") == [(0.0, 5.0)]
    assert spans(made[1], "b") == []
    assert spans(made[0]) == spans(made[1])


def test_the_bound_needs_a_prevalence():
    with pytest.raises(ValueError, match=r"needs a prevalence; set prior\.method"):
        Config.model_validate({"relabel": {"prevalence_share": 0.5}})
