"""One rule for events: the grid finds the right one, and a fold never judges its own."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.scoring.event_rules.tuning import (
    RuleGrid,
    count_matches,
    pooled_f1,
    rule_words,
    tune,
)
from local.scoring.metrics.matching import EventList

HOP = 0.001
GRID = RuleGrid((0.3, 0.5, 0.7), (0.0, 1.0), (0.0, 0.01), (0.0, 0.01))


def scores_of(*tracks) -> Scores:
    names = [f"r{number}" for number in range(len(tracks))]
    frames = [logit(np.asarray(track))[None].astype(np.float32) for track in tracks]
    return Scores(names, ["call"], frames, np.zeros((len(tracks), 1), np.float32), HOP, 0.0)


def track_of(level: float, noise: float) -> np.ndarray:
    """Calls at 0-50 ms, 200-250 ms and 450-500 ms of 500; clicks of 5 ms in between."""
    track = np.full(500, 0.05)
    for first in (0, 200, 450):
        track[first : first + 50] = level
    track[220:225] = 0.05  # A gap that is no end.
    for first in (100, 300):
        track[first : first + 5] = noise
    return track


def events_of(names) -> pd.DataFrame:
    rows = [(name, "call", at, at + 0.05) for name in names for at in (0.0, 0.2, 0.45)]
    return pd.DataFrame(rows, columns=["recording_id", "label", "onset", "offset"])


def test_a_rule_that_separates_calls_from_clicks_is_found():
    scores = scores_of(*[track_of(0.8, 0.9)] * 3)
    fold = pd.Series([0, 1, 2], index=scores.recording_ids)
    tuned = tune(scores, events_of(scores.recording_ids), fold, GRID)
    assert tuned.f1.tolist() == [1.0, 1.0]
    words = rule_words(tuned.rule)
    # Clicks are louder than calls, so only their length tells; gaps of 5 ms are closed.
    assert (words["min_duration"], words["max_gap"]) == (0.01, 0.01)
    first = tuned.events[tuned.events["recording_id"] == "r0"]
    assert first["onset"].iloc[0] == 0.0
    assert first["offset"].iloc[-1] == pytest.approx(0.5)


def test_a_fold_is_judged_by_the_rule_of_the_others():
    # The last recording would need a low threshold, which the others' loud clicks forbid.
    noisy = np.where(track_of(0.9, 0.05) > 0.5, 0.9, 0.6)
    scores = scores_of(noisy, noisy, track_of(0.4, 0.05))
    fold = pd.Series([0, 1, 2], index=scores.recording_ids)
    tuned = tune(scores, events_of(scores.recording_ids), fold, GRID)
    assert (tuned.events["recording_id"] == "r2").sum() == 0
    assert tuned.f1[0] < 1.0
    assert sorted(tuned.nested) == [0, 1, 2]


def test_copies_are_fitted_on_and_no_figure_is_theirs():
    """Faint copies bring the threshold down; events and counts are those of the originals."""
    loud, faint = track_of(0.9, 0.05), track_of(0.4, 0.05)
    scores = scores_of(loud, faint, loud, faint)
    fold = pd.Series([0, 0, 1, 1], index=scores.recording_ids)
    events = events_of(scores.recording_ids)
    plain = tune(scores.take(["r0", "r2"]), events, fold, GRID)
    assert rule_words(plain.rule)["threshold"] > 0.4
    tuned = tune(scores, events, fold, GRID, copies="r[13]")
    assert rule_words(tuned.rule)["threshold"] < 0.4
    assert tuned.names == ["r0", "r2"]
    assert set(tuned.events["recording_id"]) == {"r0", "r2"}
    assert tuned.counts[:, :2].tolist() == [[3, 3], [3, 3]]
    assert len(tune(scores, events, fold, GRID).counts) == 4
    with pytest.raises(CanopyError, match="which all recordings are"):
        tune(scores, events, fold, GRID, copies="r*")


def test_counts_are_those_of_a_largest_matching():
    def events(*spans):
        onset, offset = np.array(spans, dtype=float).T
        zeros = np.zeros(len(spans), dtype=np.int64)
        return EventList(zeros, zeros, onset, offset, np.ones(len(spans)))

    # One detection over two calls answers one; exactly half is not more than half.
    counts = count_matches(events((0, 1), (2, 3)), events((0.5, 2.5), (2.0, 2.5)), 1, (0.0, 0.5))
    assert counts.tolist() == [[2, 2, 2, 0]]
    assert pooled_f1(counts).tolist() == [1.0, 0.0]
    assert pooled_f1(np.zeros((1, 3))).tolist() == [1.0]


def test_rows_of_other_recordings_and_classes_are_left_out():
    rows = events_of(["r0", "x"])
    rows.loc[0, "label"] = "other"
    assert len(EventList.of(rows, ["r0"], ["call"])) == 2


def test_what_cannot_be_tuned_says_so():
    scores = scores_of(track_of(0.8, 0.1))
    with pytest.raises(CanopyError, match="one fold only"):
        tune(scores, events_of(["r0"]), pd.Series([0], index=["r0"]), GRID)
    with pytest.raises(CanopyError, match="rising"):
        RuleGrid(thresholds=(0.5, 0.3))
    with pytest.raises(CanopyError, match="between 0 and 1"):
        RuleGrid(thresholds=(1.5,))
