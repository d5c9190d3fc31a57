"""From test scores to a submission."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import rankdata

from local.data.tables import Tables
from local.io.errors import CanopyError
from local.relabel.fold_scores import FoldScores
from local.relabel.prior_correction import prior_correction, training_prior
from local.scoring.metrics.lwlrap import lwlrap
from local.tasks.submission_csv import (
    check_submission,
    make_submission,
    merge_columns,
    ordered_probability,
    read_columns,
)

LABELS = ["s0", "s1", "s0_song4"]
COLUMNS = pd.DataFrame({"label": LABELS, "column": ["s0", "s1", "s0"]})


def events(*rows):
    columns = ["recording_id", "label", "polarity", "weight", "source"]
    return pd.DataFrame(rows, columns=columns)


EVENTS = events(
    ("x", "s0", 1, 1.0, "tp"),
    ("x", "s0", 1, 1.0, "tp"),
    ("y", "s0", -1, 1.0, "fp"),
    ("y", "s1", -1, 0.5, "fp"),
    ("z", "s1", 1, 0.5, "pseudo:cycle1"),
)


def sample(ids, columns=("s0", "s1")):
    return pd.DataFrame({"recording_id": ids, **dict.fromkeys(columns, "0.5")})


def test_prior_of_partial_annotations(toy_config):
    # (positive weight + 1) / (all weight + 2); pseudo rows say nothing.
    prior = training_prior(EVENTS, LABELS, toy_config())
    np.testing.assert_allclose(prior, [3 / 5, 1 / 2.5, 1 / 2])


def test_prior_of_complete_annotations(toy_config):
    prior = training_prior(EVENTS, LABELS, toy_config(data__annotation="complete"))
    np.testing.assert_allclose(prior, [2 / 4, 1 / 4, 1 / 4])


def tables_of():
    classes = pd.DataFrame({"label": LABELS})
    return Tables(pd.DataFrame(), EVENTS, classes)


def test_no_correction(toy_config, tmp_path):
    found = prior_correction(tables_of(), np.zeros((4, 3)), toy_config(), tmp_path)
    np.testing.assert_array_equal(found.shift, 0)


def test_given_prevalence_moves_the_odds(toy_config, tmp_path):
    (tmp_path / "p.csv").write_text("label,prevalence\ns0,0.9\ns1,0.1\ns0_song4,0.5\n")
    config = toy_config(prior={"method": "given", "given": "p.csv", "strength": 0.5})
    found = prior_correction(tables_of(), np.zeros((4, 3)), config, tmp_path)
    source = np.array([3 / 5, 1 / 2.5, 1 / 2])
    np.testing.assert_allclose(found.shift, 0.5 * (logit([0.9, 0.1, 0.5]) - logit(source)))


def test_estimated_prevalence_follows_the_scores(toy_config, tmp_path):
    rng = np.random.default_rng(0)
    present = rng.random((500, 3)) < [0.05, 0.9, 0.5]
    scores = np.where(present, 4.0, -4.0) + rng.normal(size=(500, 3))
    config = toy_config(prior={"method": "estimated", "estimator": "em"})
    found = prior_correction(tables_of(), scores, config, tmp_path)
    np.testing.assert_allclose(found.target, [0.05, 0.9, 0.5], atol=0.06)
    assert found.shift[0] < 0 < found.shift[1]


def test_prevalence_estimated_from_confirmed_positives(toy_config, tmp_path):
    # Scores on a scale of their own: negatives about -9, positives about -5.
    rng = np.random.default_rng(1)
    present = rng.random((2000, 3)) < [0.05, 0.6, 0.2]
    target = np.where(present, -5.0, -9.0) + 0.5 * rng.normal(size=present.shape)
    positive = np.tile(np.eye(3, dtype=int), (40, 1))
    known = np.where(positive, -5.0, -9.0) + 0.5 * rng.normal(size=positive.shape)
    folds = [FoldScores(known, positive, target)]
    config = toy_config(prior={"method": "estimated", "estimator": "tail"})
    found = prior_correction(tables_of(), target, config, tmp_path, folds)
    np.testing.assert_allclose(found.target, [0.05, 0.6, 0.2], rtol=0.25)
    assert found.shift[0] < found.shift[2] < found.shift[1]


def test_song_types_merge_by_maximum():
    scores = np.array([[1.0, 5.0, 3.0], [2.0, 0.0, -1.0]])
    merged, names = merge_columns(scores, LABELS, COLUMNS)
    assert names == ["s0", "s1"]
    np.testing.assert_array_equal(merged, [[3, 5], [2, 0]])


def test_columns_default_to_the_labels(tmp_path):
    assert read_columns(tmp_path, LABELS)["column"].tolist() == LABELS
    COLUMNS[:2].to_csv(tmp_path / "submission_columns.csv", index=False)
    with pytest.raises(CanopyError, match="no row for class s0_song4"):
        read_columns(tmp_path, LABELS)


def test_the_sample_decides_rows_and_columns():
    """Pins defect 34 of earlier systems: a submission was filled in the order of files."""
    # Joined on ids and names, whatever order either came in.
    scores = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    made, filled = make_submission(
        ["c", "a", "b"], scores, ["s0", "s1"], sample(["a", "b", "c"], ("s1", "s0"))
    )
    assert filled == []
    assert made.columns.tolist() == ["recording_id", "s1", "s0"]
    assert made["recording_id"].tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(made[["s0", "s1"]], expit([[2.0, 3.0], [4.0, 5.0], [0.0, 1.0]]))
    check_submission(made)


def test_without_a_sample_all_test_recordings_stand_there():
    made, _ = make_submission(["c", "a"], np.zeros((2, 2)), ["s0", "s1"], None)
    assert made["recording_id"].tolist() == ["c", "a"]


def test_an_unreadable_recording_gets_the_mean_of_the_readable():
    scores = logit(np.array([[0.2, 0.4], [0.6, 0.8]]))
    made, filled = make_submission(["a", "b"], scores, ["s0", "s1"], sample(["a", "q", "b", "p"]))
    assert filled == ["q", "p"]
    np.testing.assert_allclose(made.set_index("recording_id").loc[["q", "p"]], [[0.4, 0.6]] * 2)


def test_other_classes_than_the_sample_are_refused():
    with pytest.raises(CanopyError, match=r"sample_submission\.csv has 2 classes.*'s1'"):
        make_submission(["a"], np.zeros((1, 2)), ["s0", "s1"], sample(["a"], ("s0", "s2")))


def test_no_ties_through_the_file():
    """Pins defect 36 of earlier systems: rounding made ties."""
    # What ranked apart as logits does so after the csv.
    ranks = np.array([[17.0, 18.0, 18.0001, 80.0, -30.0, -30.0001, -500.0, 1e-7, 0.0, -1e-7]])
    ranks = np.concatenate([ranks, [[-600.0, 30.0, 30.0 + 1e-9, 37.0, 40.0, 79.0]]], axis=1)
    names = [f"s{i}" for i in range(16)]
    made, _ = make_submission(["a"], ranks, names, None)
    back = pd.read_csv(io.StringIO(made.to_csv(index=False, float_format="%.17g")))
    order = np.argsort(back[names].to_numpy()[0], kind="stable")
    assert order.tolist() == np.argsort(ranks[0]).tolist()
    assert len(set(back[names].to_numpy()[0])) == 16
    truth = np.eye(16, dtype=int)[[3]]
    assert lwlrap(truth, back[names]) == lwlrap(truth, ranks) == 1.0


@settings(deadline=None)
@given(st.lists(st.floats(-1000.0, 1000.0), min_size=1, max_size=60))
def test_probabilities_tie_only_where_logits_do(values):
    """Pins defect 36 of earlier systems: rounding made ties."""
    scores = np.array(values)
    probability = ordered_probability(scores)
    np.testing.assert_array_equal(rankdata(probability, "dense"), rankdata(scores, "dense"))
    np.testing.assert_allclose(probability, expit(scores), atol=1e-13)
    assert ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["a", 0.1, 0.2], "a stands twice"),
        (["b", float("nan"), 0.2], "b has nan for s0"),
        (["b", 0.1, 1.5], "b has 1.5 for s1"),
    ],
)
def test_what_is_no_submission(row, words):
    made = pd.DataFrame([["a", 0.5, 0.5], row], columns=["recording_id", "s0", "s1"])
    with pytest.raises(CanopyError, match=words):
        check_submission(made)
