"""Metrics against scikit-learn, against counting by hand, and at every odd corner."""

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from local.io.errors import CanopyError
from local.scoring import metrics

REAL = Path(__file__).resolve().parents[4] / "../shared/data/soundscapes/test_truth.csv"


def by_hand(truth, score):
    """LWLRAP from its definition, cell by cell."""
    precisions = []
    for t, s in zip(truth, score, strict=True):
        for c in np.flatnonzero(t):
            rank = sum(s >= s[c])
            precisions.append(sum((s >= s[c]) & (t == 1)) / rank)
    return float(np.mean(precisions)) if precisions else float("nan")


def random_case(seed, n=60, c=9, ties=False):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, c)) < 0.25).astype(int)
    score = rng.normal(size=(n, c)) + truth
    return truth, np.round(score) if ties else score


# --- LWLRAP -------------------------------------------------------------------------------------


def test_worked_example():
    truth = [[1, 0, 0], [0, 0, 1]]
    score = [[0.75, 0.5, 1.0], [1.0, 0.2, 0.1]]
    assert metrics.lwlrap(truth, score) == pytest.approx((1 / 2 + 1 / 3) / 2)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_weighted_by_positives(seed, ties):
    """Pins defect 37 of earlier systems: LWLRAP was averaged by batch, ties and NaN undefined."""
    truth, score = random_case(seed, ties=ties)
    expected = label_ranking_average_precision_score(truth, score, sample_weight=truth.sum(axis=1))
    assert metrics.lwlrap(truth, score) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_equals_its_definition_whatever_the_scores(data):
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    truth = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 1)))
    # Few distinct values, infinities among them: ties of every kind.
    values = st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0, np.inf])
    score = data.draw(hnp.arrays(np.float64, shape, elements=values))
    assert metrics.lwlrap(truth, score) == pytest.approx(by_hand(truth, score), nan_ok=True)


def test_ties_are_pessimistic_and_blind_to_class_order():
    """Pins defect 37 of earlier systems: LWLRAP was averaged by batch, ties and NaN undefined."""
    truth = np.array([[0, 0, 1, 0]])
    assert metrics.lwlrap(truth, np.ones((1, 4))) == 0.25
    truth, score = random_case(3, ties=True)
    order = np.random.default_rng(0).permutation(truth.shape[1])
    assert metrics.lwlrap(truth[:, order], score[:, order]) == metrics.lwlrap(truth, score)


def test_only_the_order_within_a_row_matters():
    truth, score = random_case(4)
    assert metrics.lwlrap(truth, np.exp(3 * score) + 7) == metrics.lwlrap(truth, score)
    assert metrics.lwlrap(truth, score + np.arange(9)) != metrics.lwlrap(truth, score)


def test_rows_without_positives_are_skipped_and_counted():
    truth, score = random_case(5)
    padded = np.vstack([truth, np.zeros((7, 9), int)])
    scores = np.vstack([score, np.random.default_rng(1).normal(size=(7, 9))])
    assert metrics.lwlrap(padded, scores) == pytest.approx(metrics.lwlrap(truth, score), abs=1e-12)
    assert metrics.n_skipped(padded) == metrics.n_skipped(truth) + 7


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0)])
def test_no_positive_anywhere_is_nan(shape):
    truth = np.zeros(shape)
    assert np.isnan(metrics.lwlrap(truth, truth))
    assert np.isnan(metrics.per_class_lwlrap(truth, truth)[0]).all()
    assert np.isnan(metrics.chance_score(truth))


def test_per_class_values_add_up():
    truth, score = random_case(6)
    truth[:, 2] = 0
    value, weight = metrics.per_class_lwlrap(truth, score)
    assert np.isnan(value[2])
    assert weight[2] == 0
    assert weight.sum() == pytest.approx(1)
    assert np.nansum(value * weight) == pytest.approx(metrics.lwlrap(truth, score))
    np.testing.assert_allclose(weight, truth.sum(axis=0) / truth.sum())


def test_weights_are_repetitions():
    truth, score = random_case(7)
    times = np.random.default_rng(2).integers(0, 4, size=len(truth))
    again = np.repeat(np.arange(len(truth)), times)
    assert metrics.lwlrap(truth, score, times) == pytest.approx(
        metrics.lwlrap(truth[again], score[again])
    )
    np.testing.assert_allclose(
        metrics.per_class_lwlrap(truth, score, times)[0],
        metrics.per_class_lwlrap(truth[again], score[again])[0],
    )
    with pytest.raises(CanopyError, match=r"\(59,\)"):
        metrics.lwlrap(truth, score, times[1:])
    with pytest.raises(CanopyError, match="not negative"):
        metrics.lwlrap(truth, score, -np.ones(len(truth)))


def test_saturated_float32_sigmoids_tie_where_logits_do_not():
    truth, logit = np.array([[1, 0]]), np.array([[30.0, 25.0]])
    sigmoid = (1 / (1 + np.exp(-logit.astype(np.float32)))).astype(np.float32)
    assert metrics.lwlrap(truth, logit) == 1
    assert metrics.lwlrap(truth, sigmoid) == 0.5


def test_many_recordings_by_blocks_in_bounded_memory(monkeypatch):
    truth, score = random_case(8, n=20_000, c=50, ties=True)
    truth = truth.astype(bool)
    whole = metrics.lwlrap(truth, score)
    tracemalloc.start()
    metrics.lwlrap(truth, score)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All pairs of classes at once would take 50 MB even as bool, 400 MB as float64.
    assert peak < 40e6
    monkeypatch.setattr("local.scoring.metrics.ranking._BLOCK_CELLS", 1000)
    assert metrics.lwlrap(truth, score) == whole


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", metrics.METRICS)
def test_nan_is_refused_with_its_place(name):
    """Pins defect 37 of earlier systems: LWLRAP was averaged by batch, ties and NaN undefined."""
    truth, score = random_case(9)
    score[4, 7] = np.nan
    with pytest.raises(CanopyError, match="row 4, class 7 is NaN"):
        metrics.score_metric(name, truth, score)


@pytest.mark.parametrize("value", [0.45, 2, -1, np.nan])
@pytest.mark.parametrize("name", metrics.METRICS)
def test_soft_and_coded_truth_is_refused(name, value):
    """Pins defect 37 of earlier systems: LWLRAP was averaged by batch, ties and NaN undefined."""
    truth, score = random_case(10)
    truth = truth.astype(float)
    truth[3, 1] = value
    with pytest.raises(CanopyError, match="row 3, class 1"):
        metrics.score_metric(name, truth, score)


def test_shapes_must_agree():
    with pytest.raises(CanopyError, match=r"\(2, 3\).*\(3, 2\)"):
        metrics.lwlrap(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(CanopyError, match=r"\(3,\)"):
        metrics.lwlrap(np.zeros(3), np.zeros(3))
    with pytest.raises(CanopyError, match="numbers"):
        metrics.lwlrap([[1]], [["high"]])


def test_unknown_metric_lists_the_known():
    with pytest.raises(CanopyError, match=r"'f1'; known: auroc, lwlrap, map"):
        metrics.score_metric("f1", [[1]], [[1]])


# --- Average precision, AUROC, spans ------------------------------------------------------------


def test_average_precision_and_auroc_equal_scikit_learn():
    truth, score = random_case(11, ties=True)
    expected = [average_precision_score(truth[:, c], score[:, c]) for c in range(9)]
    np.testing.assert_allclose(metrics.average_precision(truth, score), expected)
    assert metrics.score_metric("map", truth, score) == pytest.approx(np.mean(expected))
    expected = [roc_auc_score(truth[:, c], score[:, c]) for c in range(9)]
    np.testing.assert_allclose(metrics.auroc(truth, score), expected)
    assert metrics.score_metric("auroc", truth, score) == pytest.approx(np.mean(expected))


def test_classes_without_data_are_nan_and_left_out_of_means():
    truth, score = random_case(12)
    truth[:, 0], truth[:, 1] = 0, 1
    assert np.isnan(metrics.average_precision(truth, score)).tolist() == [True] + [False] * 8
    assert np.isnan(metrics.auroc(truth, score)).tolist() == [True, True] + [False] * 7
    assert metrics.macro_auroc(truth, score) == pytest.approx(
        metrics.macro_auroc(truth[:, 2:], score[:, 2:])
    )
    assert np.isnan(metrics.macro_auroc(truth[:, :2], score[:, :2]))


def test_infinite_scores_are_in_legal_order():
    truth = np.array([[1], [0], [1]])
    assert metrics.auroc(truth, [[np.inf], [-np.inf], [0.0]])[0] == 1
    precision = metrics.average_precision(truth, [[-np.inf], [np.inf], [0.0]])[0]
    assert precision == pytest.approx((1 / 2 + 1 / 3 * 2) / 2)


def test_span_auc_counts_pairs_of_known_spans():
    label = np.array([0, 0, 0, 0, 2, 2, 1])
    polarity = np.array([1, 1, -1, -1, 1, -1, 1])
    score = np.array([0.9, 0.2, 0.5, 0.2, -3.0, -3.0, 1.0])
    result = metrics.span_auc(label, polarity, score, n_classes=4)
    # Class 0: pairs (.9>.5), (.9>.2), (.2<.5), (.2=.2): 2.5 of 4.
    np.testing.assert_array_equal(result.per_class, [2.5 / 4, np.nan, 0.5, np.nan])
    assert result.macro == pytest.approx((2.5 / 4 + 0.5) / 2)
    assert result.n_positive.tolist() == [2, 1, 1, 0]
    assert result.n_negative.tolist() == [2, 0, 1, 0]


def test_span_auc_of_nothing_is_nan():
    assert np.isnan(metrics.span_auc([], [], []).macro)


@pytest.mark.parametrize(
    ("label", "polarity", "score", "message"),
    [
        ([0, 5], [1, -1], [0, 0], "row 1 has a class index"),
        ([0, -1], [1, -1], [0, 0], "row 1 has a class index"),
        ([0, 1], [1, 0], [0, 0], "row 1 has a polarity"),
        ([0, 1], [1, -1], [np.nan, 0], "row 0 has a NaN"),
        ([0, 1], [1], [0, 0], "one length"),
    ],
)
def test_span_auc_refuses(label, polarity, score, message):
    with pytest.raises(CanopyError, match=message):
        metrics.span_auc(label, polarity, score, n_classes=2)


# --- Baselines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lwlrap", "map", "auroc"])
def test_chance_is_the_mean_of_random_rankings(name):
    truth, _ = random_case(13, n=15, c=5)
    truth[0], truth[1] = 1, 0
    rng = np.random.default_rng(0)
    draws = [metrics.score_metric(name, truth, rng.random(truth.shape)) for _ in range(600)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert metrics.chance_score(truth, name) == pytest.approx(np.mean(draws), abs=4 * error)


def test_chance_in_closed_cases():
    assert metrics.chance_score([[1]]) == 1
    assert metrics.chance_score([[1, 1, 1]]) == pytest.approx(1)
    assert metrics.chance_score([[1, 0]]) == pytest.approx((1 + 1 / 2) / 2)


def test_constant_row_ranks_by_prevalence():
    truth = np.array([[0, 1, 0], [0, 1, 1], [0, 1, 0]])
    row = np.array([0.0, 1.0, 1 / 3])
    assert metrics.constant_row_score(truth) == metrics.lwlrap(truth, np.tile(row, (3, 1))) == 1
    # Ties of prevalence are broken: never below the pessimistic reading of the same row.
    truth, _ = random_case(14, n=12)
    flat = np.broadcast_to(truth.mean(axis=0), truth.shape)
    assert metrics.constant_row_score(truth) >= metrics.lwlrap(truth, flat)


@pytest.mark.skipif(not REAL.exists(), reason="../shared/data/soundscapes is not there")
def test_baselines_on_real_truth():
    truth = metrics.read_truth_table(REAL).to_numpy()
    assert metrics.constant_row_score(truth) == pytest.approx(0.760, abs=0.0005)
    assert metrics.chance_score(truth) == pytest.approx(0.489, abs=0.005)


# --- Bootstrap ----------------------------------------------------------------------------------


def test_fast_interval_equals_the_generic_one():
    truth, score = random_case(15)
    fast = metrics.bootstrap_interval(truth, score, np.random.default_rng(5), 200)
    slow = metrics.generic_interval(
        lambda rows: by_hand(truth[rows], score[rows]), len(truth), np.random.default_rng(5), 200
    )
    assert fast == pytest.approx(slow)
    assert fast[0] < metrics.lwlrap(truth, score) < fast[1]


def test_interval_has_the_width_that_theory_gives(monkeypatch):
    values = np.random.default_rng(0).normal(size=400)
    low, high = metrics.ratio_interval(values, np.ones(400), np.random.default_rng(1), 4000)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    # The block size decides memory, not numbers.
    monkeypatch.setattr("local.scoring.metrics.bootstrap._BLOCK_COUNTS", 1)
    again = metrics.ratio_interval(values, np.ones(400), np.random.default_rng(1), 4000)
    assert again == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("name", ["map", "auroc"])
def test_interval_of_other_metrics(name):
    truth, score = random_case(16)
    low, high = metrics.bootstrap_interval(truth, score, np.random.default_rng(0), 100, name)
    assert low < metrics.score_metric(name, truth, score) < high


@pytest.mark.parametrize("name", ["lwlrap", "map", "auroc"])
def test_intervals_of_classes_are_those_of_each_alone(name):
    truth, score = random_case(19)
    truth[:, 2] = 0
    rng = np.random.default_rng(4)
    overall, classes = metrics.bootstrap_intervals(truth, score, rng, 60, name)
    assert overall == metrics.bootstrap_interval(truth, score, np.random.default_rng(4), 60, name)
    for column in range(truth.shape[1]):
        alone = metrics.generic_interval(
            lambda rows, at=column: metrics.score_per_class(name, truth[rows], score[rows])[at],
            len(truth),
            np.random.default_rng(4),
            60,
        )
        np.testing.assert_allclose(classes[column], alone, rtol=1e-12)
    assert np.isnan(classes[2]).all()


@pytest.mark.parametrize("name", ["lwlrap", "auroc"])
def test_paired_difference_sees_what_separate_intervals_hide(name):
    truth, score = random_case(17, n=100)
    better = score + 0.15 * truth
    rng = np.random.default_rng(0)
    low, high = metrics.paired_difference_interval(truth, better, score, rng, 100, name)
    gain = metrics.score_metric(name, truth, better) - metrics.score_metric(name, truth, score)
    assert 0 < low < gain < high
    first = metrics.bootstrap_interval(truth, better, np.random.default_rng(0), 100, name)
    second = metrics.bootstrap_interval(truth, score, np.random.default_rng(0), 100, name)
    assert first[0] < second[1]
    same = metrics.paired_difference_interval(truth, score, score, rng, 20, name)
    assert same == (0, 0)


def test_intervals_without_data_are_nan():
    truth, score = random_case(18)
    rng = np.random.default_rng(0)
    assert np.isnan(metrics.bootstrap_interval(truth, score, rng, 0)).all()
    assert np.isnan(metrics.bootstrap_interval(np.zeros((4, 2)), np.ones((4, 2)), rng, 10)).all()
    assert np.isnan(metrics.bootstrap_interval(np.zeros((0, 2)), np.ones((0, 2)), rng, 10)).all()
    with pytest.raises(CanopyError, match="confidence"):
        metrics.bootstrap_interval(truth, score, rng, 10, confidence=95)


# --- Clip tables --------------------------------------------------------------------------------


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_clip_tables_keep_ids_and_digits(tmp_path):
    path = write(tmp_path / "s.csv", "recording_id,a,b\n007,0.1234567890123456,-inf\n1e5,2,3\n")
    table = metrics.read_clip_table(path)
    assert list(table.index) == ["007", "1e5"]
    assert table.loc["007"].tolist() == [0.1234567890123456, -np.inf]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable as csv"),
        ("id,a\nx,1\n", "no column recording_id"),
        ("recording_id\nx\n", "no class"),
        ("recording_id,a,a\nx,1,2\n", "column 'a' stands twice"),
        ("recording_id,a\nx,1\nx,2\n", "recording x stands twice"),
        ("recording_id,a\nx,1\ny,\n", "recording y, column a holds ''"),
        ("recording_id,a\nx,NaN\n", "recording x, column a holds 'NaN'"),
        ("recording_id,a,b\nx,1\n", "line 2: has 2 fields, expected 3"),
        ("recording_id,a\nx,1,2\n", "not readable as csv"),
    ],
)
def test_clip_tables_refuse_in_one_sentence(tmp_path, text, message):
    path = write(tmp_path / "s.csv", text)
    with pytest.raises(CanopyError, match=message) as caught:
        metrics.read_clip_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truth_tables_hold_only_0_and_1(tmp_path):
    path = write(tmp_path / "t.csv", "recording_id,a,b\nx,1,0\ny,0,0.5\n")
    with pytest.raises(CanopyError, match=r"recording y, column b holds 0\.5"):
        metrics.read_truth_table(path)
    with pytest.raises(CanopyError, match="no such file"):
        metrics.read_truth_table(tmp_path / "none.csv")


def test_join_is_by_name_and_complete():
    truth = pd.DataFrame({"a": [1.0, 0.0], "b": [0.0, 1.0]}, index=["x", "y"])
    mixed = pd.DataFrame({"b": [4.0, 3.0], "a": [2.0, 1.0]}, index=["y", "x"])
    joined = metrics.join_clips(mixed, truth)
    assert joined.to_numpy().tolist() == [[1, 3], [2, 4]]
    for bad, message in [
        (mixed.drop(index="x"), "lacks 1 recording, the first x"),
        (mixed.rename(index={"x": "z"}), "lacks 1 recording, the first x"),
        (pd.concat([mixed, mixed.rename(index={"x": "p", "y": "q"})]), "2 recordings, the first p"),
        (mixed.drop(columns="b"), "lacks 1 class column, the first b"),
        (mixed.assign(c=0.0), "1 class column, the first c"),
    ]:
        with pytest.raises(CanopyError, match=message):
            metrics.join_clips(bad, truth)
