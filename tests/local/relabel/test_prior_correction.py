"""From test scores to a submission."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from local.io.errors import CanopyError
from local.relabel.fold_scores import FoldScores
from local.relabel.prevalence import reliability, told_apart
from local.relabel.prior_correction import drawn_together, matching_shift, prior_correction
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


def sample(ids, columns=("s0", "s1")):
    return pd.DataFrame({"recording_id": ids, **dict.fromkeys(columns, "0.5")})


def test_no_correction(toy_config, tmp_path):
    found = prior_correction(LABELS, np.zeros((4, 3)), toy_config(), tmp_path)
    np.testing.assert_array_equal(found.shift, 0)
    np.testing.assert_array_equal(found.source, 0.5)


def test_mean_probabilities_become_the_prevalence():
    rng = np.random.default_rng(0)
    scores = rng.normal([-6.0, 0.0, 3.0], 2.0, (50, 3))
    wanted = np.array([0.3, 0.05, 0.9])
    shift = matching_shift(scores, wanted)
    np.testing.assert_allclose(expit(scores + shift).mean(axis=0), wanted, atol=1e-9)
    # Half of the way, and no further than the bound.
    np.testing.assert_allclose(matching_shift(scores, wanted, 0.5), shift / 2)
    np.testing.assert_array_equal(matching_shift(scores, wanted, 0.0), 0)
    bound = np.log(3.0)
    np.testing.assert_allclose(
        matching_shift(scores, wanted, max_ratio=3.0), np.clip(shift, -bound, bound)
    )


def test_recordings_show_no_less_than_half_a_one():
    scores = np.random.default_rng(0).normal(size=(20, 2))
    shift = matching_shift(scores, [0.0, 1.0])
    np.testing.assert_allclose(expit(scores + shift).mean(axis=0), [0.025, 0.975], atol=1e-9)
    silent = matching_shift(np.full((20, 1), -34.5), [0.5], max_ratio=1e20)
    np.testing.assert_allclose(silent, 34.5)


@settings(deadline=None)
@given(st.floats(-15.0, 15.0), st.floats(0.02, 0.98))
def test_what_is_added_to_all_scores_of_a_class_changes_nothing(offset, prevalence):
    scores = np.random.default_rng(0).normal(size=(30, 1))
    plain = scores + matching_shift(scores, [prevalence], max_ratio=1e15)
    moved = scores + offset
    moved = moved + matching_shift(moved, [prevalence], max_ratio=1e15)
    np.testing.assert_allclose(moved, plain, atol=1e-6)


def test_given_prevalence_is_matched_whole(toy_config, tmp_path):
    (tmp_path / "p.csv").write_text("label,prevalence\ns0,0.9\ns1,0.125\ns0_song4,0.5\n")
    config = toy_config(prior={"method": "given", "given": "p.csv"})
    found = prior_correction(LABELS, np.zeros((4, 3)), config, tmp_path)
    # Of four recordings all but half a one is seven eighths.
    np.testing.assert_allclose(found.shift, logit([0.875, 0.125, 0.5]), atol=1e-9)
    config = toy_config(prior={"method": "given", "given": "p.csv", "strength": 0.5})
    half = prior_correction(LABELS, np.zeros((4, 3)), config, tmp_path)
    np.testing.assert_allclose(half.shift, found.shift / 2)


def test_estimated_prevalence_is_matched(toy_config, tmp_path):
    # Scores on a scale of their own: negatives about -9, positives about -5.
    rng = np.random.default_rng(1)
    present = rng.random((2000, 3)) < [0.05, 0.6, 0.2]
    target = np.where(present, -5.0, -9.0) + 0.5 * rng.normal(size=present.shape)
    positive = np.tile(np.eye(3, dtype=int), (40, 1))
    known = np.where(positive, -5.0, -9.0) + 0.5 * rng.normal(size=positive.shape)
    folds = [FoldScores(known, positive, target)]
    settings = {"method": "estimated", "max_odds_ratio": 1e9, "least_auc": 0}
    config = toy_config(prior=settings)
    found = prior_correction(LABELS, target, config, tmp_path, folds)
    np.testing.assert_allclose(found.target, [0.05, 0.6, 0.2], rtol=0.25)
    whole = matching_shift(target, found.target, max_ratio=1e9)
    # Nothing was rejected, so nothing tells one estimate from another.
    np.testing.assert_allclose(found.shift, whole)
    half = toy_config(prior={**settings, "strength": 0.5})
    found = prior_correction(LABELS, target, half, tmp_path, folds)
    np.testing.assert_allclose(found.shift, whole / 2)


@pytest.mark.parametrize(("gap", "corrected"), [(3.0, True), (0.5, False)])
def test_prevalence_is_estimated_only_where_scores_tell_spans_apart(
    toy_config, tmp_path, gap, corrected
):
    rng = np.random.default_rng(2)
    present = rng.random((200, 3)) < [0.05, 0.6, 0.2]
    target = gap * present + rng.normal(size=present.shape)
    positive = np.tile(np.eye(3, dtype=int), (40, 1))
    known = gap * positive + rng.normal(size=positive.shape)
    label, verdict = np.repeat([0.0, 1.0, 2.0], 100), np.tile([1.0, 0.0], 150)
    spans = np.column_stack([gap * verdict + rng.normal(size=300), verdict, label])
    folds = [FoldScores(known, positive, target, spans=spans)]
    aucs = [roc_auc_score(verdict[label == c], spans[label == c, 0]) for c in range(3)]
    assert told_apart(folds) == pytest.approx(np.mean(aucs))
    assert (np.mean(aucs) >= 0.8) == corrected
    config = toy_config(prior={"method": "estimated"})
    found = prior_correction(LABELS, target, config, tmp_path, folds)
    assert found.shift.any() == corrected
    always = toy_config(prior={"method": "estimated", "least_auc": 0.0})
    assert prior_correction(LABELS, target, always, tmp_path, folds).shift.any()
    # Where nothing was rejected there is no such evidence either.
    bare = [FoldScores(known, positive, target)]
    assert np.isnan(told_apart(bare))
    found = prior_correction(LABELS, target, config, tmp_path, bare)
    assert not found.shift.any()
    assert "both confirmed and rejected" in found.distrust
    assert prior_correction(LABELS, target, always, tmp_path, bare).shift.any()


def test_a_class_is_corrected_as_far_as_its_scores_tell_spans_apart(toy_config, tmp_path):
    rng = np.random.default_rng(4)
    gap = np.array([5.0, 2.0, 0.0])
    target = rng.normal(size=(300, 3)) + gap * (rng.random((300, 3)) < [0.1, 0.7, 0.3])
    positive = np.tile(np.eye(3, dtype=int), (40, 1))
    known = gap * positive + rng.normal(size=positive.shape)
    label, verdict = np.repeat([0.0, 1.0, 2.0], 100), np.tile([1.0, 0.0], 150)
    spans = np.column_stack(
        [gap[label.astype(int)] * verdict + rng.normal(size=300), verdict, label]
    )
    folds = [FoldScores(known, positive, target, spans=spans)]
    # By a plain statement: ten spans of the mean AUC beside the hundred of a class.
    aucs = np.array([roc_auc_score(verdict[label == c], spans[label == c, 0]) for c in range(3)])
    drawn = (100 * aucs + 10 * aucs.mean()) / 110
    weight = np.maximum(0, 2 * drawn - 1)
    np.testing.assert_allclose(reliability(folds), weight)
    assert weight[0] > 0.9
    assert weight[2] < 0.3
    config = toy_config(prior={"method": "estimated", "least_auc": 0.5})
    found = prior_correction(LABELS, target, config, tmp_path, folds)
    whole = matching_shift(target, found.target)
    middle = (weight * whole).sum() / weight.sum()
    np.testing.assert_allclose(found.shift, middle + weight * (whole - middle))
    np.testing.assert_allclose(drawn_together(whole, np.zeros(3)), whole.mean())


def test_nothing_to_estimate_from_is_told(toy_config, tmp_path):
    config = toy_config(prior={"method": "estimated"})
    for scores, folds in ((np.zeros((0, 3)), [1]), (np.zeros((4, 3)), [])):
        with pytest.raises(CanopyError, match="no test recording is readable"):
            prior_correction(LABELS, scores, config, tmp_path, folds)
    (tmp_path / "p.csv").write_text("label,prevalence\ns0,0.9\ns1,0.125\ns0_song4,0.5\n")
    given = toy_config(prior={"method": "given", "given": "p.csv"})
    found = prior_correction(LABELS, np.zeros((0, 3)), given, tmp_path)
    np.testing.assert_array_equal(found.shift, 0)
    np.testing.assert_array_equal(found.target, [0.9, 0.125, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: matching_shift(np.zeros((2, 1)), [1.5]), "prevalence .* found 1.5"),
        (lambda: matching_shift(np.zeros((2, 1)), [np.nan]), "prevalence .* found nan"),
        (lambda: matching_shift(np.zeros((2, 1)), [0.5, 0.5]), r"\(2,\).*\(2, 1\)"),
        (lambda: matching_shift(np.zeros((0, 1)), [0.5]), r"\(0, 1\)"),
        (lambda: matching_shift([[0.0], [np.nan]], [0.5]), "row 1, class 0 is nan"),
        (lambda: matching_shift(np.zeros((2, 1)), [0.5], strength=-1), "strength is -1"),
        (lambda: matching_shift(np.zeros((2, 1)), [0.5], max_ratio=1), "max_odds_ratio is 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(CanopyError, match=message):
        call()


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
