"""Metrics of recordings against scikit-learn, against counting by hand, and at every odd corner."""

import tracemalloc
from pathlib import Path

import numpy as np
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
from local.scoring.metrics.auroc import AurocStatistic
from local.scoring.metrics.bootstrap import interval, of_rows, ratio_of_sums
from local.scoring.metrics.clip_metrics import (
    METRICS,
    chance_score,
    constant_row_score,
    metric_intervals,
    paired_difference_interval,
    score_metric,
    score_per_class,
)
from local.scoring.metrics.clip_tables import read_truth_table
from local.scoring.metrics.lwlrap import lwlrap

REAL = Path(__file__).resolve().parents[4] / "../shared/data/soundscapes/test_truth.csv"

every_metric = pytest.mark.parametrize("name", METRICS)


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


def seeded(seed):
    return np.random.default_rng(seed)


# --- LWLRAP -------------------------------------------------------------------------------------


def test_worked_example():
    truth = [[1, 0, 0], [0, 0, 1]]
    score = [[0.75, 0.5, 1.0], [1.0, 0.2, 0.1]]
    assert lwlrap(truth, score) == pytest.approx((1 / 2 + 1 / 3) / 2)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_weighted_by_positives(seed, ties):
    """Pins defect 37 of earlier systems: LWLRAP was averaged by batch, ties and NaN undefined."""
    truth, score = random_case(seed, ties=ties)
    expected = label_ranking_average_precision_score(truth, score, sample_weight=truth.sum(axis=1))
    assert lwlrap(truth, score) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_equals_its_definition_whatever_the_scores(data):
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    truth = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 1)))
    # Few distinct values, infinities among them: ties of every kind.
    values = st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0, np.inf])
    score = data.draw(hnp.arrays(np.float64, shape, elements=values))
    assert lwlrap(truth, score) == pytest.approx(by_hand(truth, score), nan_ok=True)


def test_ties_are_pessimistic_and_blind_to_class_order():
    """Pins defect 37 of earlier systems: LWLRAP was averaged by batch, ties and NaN undefined."""
    truth = np.array([[0, 0, 1, 0]])
    assert lwlrap(truth, np.ones((1, 4))) == 0.25
    truth, score = random_case(3, ties=True)
    order = seeded(0).permutation(truth.shape[1])
    assert lwlrap(truth[:, order], score[:, order]) == lwlrap(truth, score)


def test_only_the_order_within_a_row_matters():
    truth, score = random_case(4)
    assert lwlrap(truth, np.exp(3 * score) + 7) == lwlrap(truth, score)
    assert lwlrap(truth, score + np.arange(9)) != lwlrap(truth, score)


def test_rows_without_positives_are_skipped():
    truth, score = random_case(5)
    padded = np.vstack([truth, np.zeros((7, 9), int)])
    scores = np.vstack([score, seeded(1).normal(size=(7, 9))])
    assert lwlrap(padded, scores) == pytest.approx(lwlrap(truth, score), abs=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0)])
def test_no_positive_anywhere_is_nan(shape):
    truth = np.zeros(shape)
    assert np.isnan(lwlrap(truth, truth))
    assert np.isnan(score_per_class("lwlrap", truth, truth)).all()
    assert np.isnan(chance_score(truth))


def test_lwlrap_is_the_mean_of_classes_by_their_positives():
    truth, score = random_case(6)
    truth[:, 2] = 0
    value = score_per_class("lwlrap", truth, score)
    assert np.isnan(value).tolist() == [index == 2 for index in range(9)]
    weight = truth.sum(axis=0) / truth.sum()
    assert np.nansum(value * weight) == pytest.approx(lwlrap(truth, score))


def test_saturated_float32_sigmoids_tie_where_logits_do_not():
    truth, logit = np.array([[1, 0]]), np.array([[30.0, 25.0]])
    sigmoid = (1 / (1 + np.exp(-logit.astype(np.float32)))).astype(np.float32)
    assert lwlrap(truth, logit) == 1
    assert lwlrap(truth, sigmoid) == 0.5


def test_many_recordings_by_blocks_in_bounded_memory(monkeypatch):
    truth, score = random_case(8, n=20_000, c=50, ties=True)
    truth = truth.astype(bool)
    whole = lwlrap(truth, score)
    tracemalloc.start()
    lwlrap(truth, score)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All pairs of classes at once would take 50 MB even as bool, 400 MB as float64.
    assert peak < 40e6
    monkeypatch.setattr("local.scoring.metrics.lwlrap._BLOCK_CELLS", 1000)
    assert lwlrap(truth, score) == whole


# --- What is refused ----------------------------------------------------------------------------


@every_metric
def test_nan_is_refused_with_its_place(name):
    """Pins defect 37 of earlier systems: LWLRAP was averaged by batch, ties and NaN undefined."""
    truth, score = random_case(9)
    score[4, 7] = np.nan
    with pytest.raises(CanopyError, match="row 4, class 7 is NaN"):
        score_metric(name, truth, score)


@pytest.mark.parametrize("value", [0.45, 2, -1, np.nan])
@every_metric
def test_soft_and_coded_truth_is_refused(name, value):
    """Pins defect 37 of earlier systems: LWLRAP was averaged by batch, ties and NaN undefined."""
    truth, score = random_case(10)
    truth = truth.astype(float)
    truth[3, 1] = value
    with pytest.raises(CanopyError, match="row 3, class 1"):
        score_metric(name, truth, score)


@pytest.mark.parametrize(
    ("name", "truth", "score", "message"),
    [
        ("lwlrap", np.zeros((2, 3)), np.zeros((3, 2)), r"\(2, 3\).*\(3, 2\)"),
        ("map", np.zeros(3), np.zeros(3), r"\(3,\)"),
        ("lwlrap", [[1]], [["high"]], "numbers"),
        ("f1", [[1]], [[1]], "'f1'; known: auroc, lwlrap, map"),
    ],
)
def test_shapes_must_agree_and_metrics_be_known(name, truth, score, message):
    with pytest.raises(CanopyError, match=message):
        score_metric(name, truth, score)


# --- Average precision, AUROC, spans ------------------------------------------------------------


REFERENCES = {"map": average_precision_score, "auroc": roc_auc_score}


@pytest.mark.parametrize("name", REFERENCES)
def test_average_precision_and_auroc_equal_scikit_learn(name):
    truth, score = random_case(11, ties=True)
    expected = [REFERENCES[name](truth[:, c], score[:, c]) for c in range(9)]
    np.testing.assert_allclose(score_per_class(name, truth, score), expected)
    assert score_metric(name, truth, score) == pytest.approx(np.mean(expected))


def test_classes_without_data_are_nan_and_left_out_of_means():
    truth, score = random_case(12)
    truth[:, 0], truth[:, 1] = 0, 1
    assert np.isnan(score_per_class("map", truth, score)).tolist() == [True] + [False] * 8
    assert np.isnan(score_per_class("auroc", truth, score)).tolist() == [True] * 2 + [False] * 7
    assert score_metric("auroc", truth, score) == pytest.approx(
        score_metric("auroc", truth[:, 2:], score[:, 2:])
    )
    assert np.isnan(score_metric("auroc", truth[:, :2], score[:, :2]))


def test_infinite_scores_are_in_legal_order():
    truth = np.array([[1], [0], [1]])
    assert score_metric("auroc", truth, [[np.inf], [-np.inf], [0.0]]) == 1
    precision = score_metric("map", truth, [[-np.inf], [np.inf], [0.0]])
    assert precision == pytest.approx((1 / 2 + 1 / 3 * 2) / 2)


def span_statistic(label, positive, score, recording, n_classes):
    arrays = (np.asarray(each) for each in (recording, label, positive, score))
    return AurocStatistic("spans", *arrays, n_classes)


def test_auroc_of_spans_counts_pairs_of_known_spans():
    label, positive = [0, 0, 0, 0, 2, 2, 1], np.array([1, 1, 0, 0, 1, 0, 1], bool)
    score = [0.9, 0.2, 0.5, 0.2, -3.0, -3.0, 1.0]
    statistic = span_statistic(label, positive, score, np.zeros(7, int), 4)
    # Class 0: pairs (.9>.5), (.9>.2), (.2<.5), (.2=.2): 2.5 of 4.
    _, macro, *classes = statistic.values(np.ones((1, 1)))["spans"][0]
    np.testing.assert_array_equal(classes, [2.5 / 4, np.nan, 0.5, np.nan])
    assert macro == pytest.approx((2.5 / 4 + 0.5) / 2)
    with pytest.raises(CanopyError, match="spans: score 1 of 2 is NaN"):
        span_statistic([0, 0], np.ones(2, bool), [0, np.nan], [0, 0], 1)


def test_auroc_of_resampled_spans_equals_recomputing_every_resample():
    rng = seeded(3)
    label, recording = rng.integers(0, 3, size=120), rng.integers(0, 30, size=120)
    positive = rng.random(120) < 0.5
    score = rng.normal(size=120).round(1) + positive
    statistic = span_statistic(label, positive, score, recording, 3)

    def again(drawn):
        rows = np.concatenate([np.flatnonzero(recording == name) for name in drawn])
        one = span_statistic(label[rows], positive[rows], score[rows], np.zeros(len(rows), int), 3)
        return one.values(np.ones((1, 1)))["spans"][0, 1]

    fast = interval(lambda counts: statistic.values(counts)["spans"][:, 1], 30, seeded(7), 200)
    assert fast == pytest.approx(interval(of_rows(again), 30, seeded(7), 200), abs=1e-12)


# --- Baselines ----------------------------------------------------------------------------------


@pytest.mark.slow
@every_metric
def test_chance_is_the_mean_of_random_rankings(name):
    truth, _ = random_case(13, n=15, c=5)
    truth[0], truth[1] = 1, 0
    rng = seeded(0)
    draws = [score_metric(name, truth, rng.random(truth.shape)) for _ in range(600)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert chance_score(truth, name) == pytest.approx(np.mean(draws), abs=4 * error)


def test_chance_in_closed_cases():
    assert chance_score([[1]]) == 1
    assert chance_score([[1, 1, 1]]) == pytest.approx(1)
    assert chance_score([[1, 0]]) == pytest.approx((1 + 1 / 2) / 2)


def test_constant_row_ranks_by_prevalence():
    truth = np.array([[0, 1, 0], [0, 1, 1], [0, 1, 0]])
    row = np.array([0.0, 1.0, 1 / 3])
    assert constant_row_score(truth) == lwlrap(truth, np.tile(row, (3, 1))) == 1
    # Ties of prevalence are broken: never below the pessimistic reading of the same row.
    truth, _ = random_case(14, n=12)
    flat = np.broadcast_to(truth.mean(axis=0), truth.shape)
    assert constant_row_score(truth) >= lwlrap(truth, flat)


@pytest.mark.skipif(not REAL.exists(), reason="../shared/data/soundscapes is not there")
def test_baselines_on_real_truth():
    truth = read_truth_table(REAL).to_numpy()
    assert constant_row_score(truth) == pytest.approx(0.760, abs=0.0005)
    assert chance_score(truth) == pytest.approx(0.489, abs=0.005)


# --- Intervals ----------------------------------------------------------------------------------


def test_interval_has_the_width_that_theory_gives(monkeypatch):
    values = seeded(0).normal(size=400)
    mean = ratio_of_sums(values, np.ones(400))
    low, high = interval(mean, 400, seeded(1), 4000)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    # The block size decides memory, not numbers.
    monkeypatch.setattr("local.scoring.metrics.bootstrap._BLOCK_COUNTS", 1)
    assert interval(mean, 400, seeded(1), 4000) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.slow
@every_metric
def test_intervals_are_those_of_scoring_every_resample(name):
    truth, score = random_case(19)
    truth[:, 2] = 0
    overall, classes = metric_intervals(name, truth, score, seeded(4), 60)
    assert overall[0] < score_metric(name, truth, score) < overall[1]

    def slow(statistic):
        return interval(of_rows(statistic), len(truth), seeded(4), 60)

    np.testing.assert_allclose(
        overall, slow(lambda rows: score_metric(name, truth[rows], score[rows])), rtol=1e-12
    )
    for column in range(truth.shape[1]):
        alone = slow(lambda rows, at=column: score_per_class(name, truth[rows], score[rows])[at])
        np.testing.assert_allclose(classes[column], alone, rtol=1e-12)
    assert np.isnan(classes[2]).all()


@every_metric
def test_paired_difference_sees_what_separate_intervals_hide(name):
    truth, score = random_case(17, n=100)
    better = score + 0.15 * truth
    low, high = paired_difference_interval(name, truth, better, score, seeded(0), 100)
    gain = score_metric(name, truth, better) - score_metric(name, truth, score)
    assert 0 < low < gain < high
    first, second = (
        metric_intervals(name, truth, each, seeded(0), 100)[0] for each in (better, score)
    )
    assert first[0] < second[1]
    assert paired_difference_interval(name, truth, score, score, seeded(0), 20) == (0, 0)


@pytest.mark.parametrize(("shape", "n_resamples"), [((4, 2), 0), ((4, 2), 10), ((0, 2), 10)])
@every_metric
def test_intervals_without_data_are_nan(name, shape, n_resamples):
    overall, classes = metric_intervals(
        name, np.zeros(shape), np.ones(shape), seeded(0), n_resamples
    )
    assert np.isnan(overall).all()
    assert classes.shape == (2, 2)
    assert np.isnan(classes).all()
