"""Scores on known labels and on truth."""

import numpy as np
import pandas as pd
import pytest

from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.scoring.known_labels import (
    known_positives,
    known_rows,
    read_truth,
    score_against,
    score_known,
    span_scores,
)
from local.scoring.metrics.lwlrap import lwlrap

LABELS = ["a", "b"]


def rows(*events):
    columns = ["recording_id", "label", "onset", "offset", "polarity", "source"]
    return pd.DataFrame([(*event, "tp")[:6] for event in events], columns=columns)


EVENTS = rows(
    ("x", "a", 0.0, 1.0, 1),
    ("x", "b", 0.0, 1.0, -1, "fp"),
    ("y", "b", 2.0, 3.0, 1),
    ("y", "b", 3.5, 4.5, 1),
    ("y", "a", 0.0, 5.0, 1, "pseudo:cycle1"),
    ("z", "a", 0.0, 1.0, -1, "fp"),
    ("elsewhere", "a", 0.0, 1.0, 1),
)


def scores_of(values, hop=1.0, start=0.0):
    names = list(values)
    frames = [np.array(values[name], dtype=np.float32) for name in names]
    window = np.stack([f.max(axis=1) for f in frames])
    return Scores(names, LABELS, frames, window, hop, start)


def test_pseudo_rows_are_never_known():
    """Pins defect 43 of earlier systems: cycles were judged on labels they had made."""
    assert not known_rows(EVENTS)["source"].str.startswith("pseudo").any()
    truth = known_positives(EVENTS, ["x", "y", "z"], LABELS)
    assert truth.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_a_span_scores_by_its_highest_frame():
    frames = {"x": [[1, 9, 9, 9, 9], [2, 8, 8, 8, 8]], "y": [[0] * 5, [0, 0, 3, 4, 5]]}
    spans = span_scores(scores_of(frames), EVENTS)
    assert spans["score"].tolist() == [1, 2, 3, 5]  # x a, x b, y b 2-3 s, y b 3.5-4.5 s
    assert spans["class"].tolist() == [0, 1, 1, 1]
    assert spans["polarity"].tolist() == [1, -1, 1, 1]


def test_a_span_beyond_the_last_frame_takes_the_last():
    spans = span_scores(scores_of({"x": [[1, 2], [3, 4]]}), rows(("x", "a", 2.05, 2.1, 1)))
    assert spans["score"].tolist() == [2]


def test_known_scores(toy_config):
    frames = {n: np.random.default_rng(i).normal(size=(2, 5)) for i, n in enumerate("xyz")}
    scores = scores_of(frames)
    clip = scores.window.astype(np.float64)
    result = score_known(scores, clip, EVENTS, toy_config(score__n_bootstrap=100))
    # z has no known positive and is left out.
    assert result["n"] == 2
    assert result["value"] == pytest.approx(lwlrap([[1, 0], [0, 1]], clip[:2]))
    assert result["low"] <= result["value"] <= result["high"]
    spans = span_scores(scores, EVENTS).set_index(["class", "polarity"])["score"].sort_index()
    auc_a = float(spans[(0, 1)].item() > spans[(0, -1)].item())
    auc_b = (spans.loc[(1, 1)] > spans[(1, -1)].item()).mean()
    assert result["span_auc"] == pytest.approx((auc_a + auc_b) / 2)


def test_the_interval_is_the_same_every_time(toy_config):
    config = toy_config(score__n_bootstrap=50)
    rng = np.random.default_rng(0)
    truth, logit = rng.integers(0, 2, (30, 2)), rng.normal(size=(30, 2))
    one, two = (score_against(truth, logit, config, "n") for _ in range(2))
    assert (one["low"], one["high"]) == (two["low"], two["high"])
    assert one["low"] < one["value"] < one["high"]


def test_no_known_positive_is_no_number(toy_config):
    frames = {"z": np.zeros((2, 5))}
    scores = scores_of(frames)
    result = score_known(scores, scores.window, EVENTS, toy_config())
    assert np.isnan(result["value"])
    assert result["n"] == 0


def test_without_frames_there_is_no_span_auc(toy_config):
    scores = Scores(["x"], LABELS, [], np.zeros((1, 2)), 0.0, 0.0)
    assert "span_auc" not in score_known(scores, np.zeros((1, 2)), EVENTS, toy_config())


def test_truth_is_joined_on_ids_and_columns(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("recording_id,b,a,c\ny,1,0,0\nx,0,1,0\n")
    assert read_truth(path, ["x", "y"], ["a", "b"]).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(CanopyError, match=r"truth\.csv: no column d"):
        read_truth(path, ["x"], ["a", "d"])
    with pytest.raises(CanopyError, match=r"truth\.csv: no row for recording z"):
        read_truth(path, ["x", "z"], ["a"])
