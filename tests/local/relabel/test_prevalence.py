"""Estimators of prevalence: known ones are recovered, and the shift they give is exact."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.special import logit as logit_of

from local.io.errors import CanopyError
from local.relabel.fold_scores import FoldScores
from local.relabel.prevalence import (
    estimate_em,
    estimate_mean,
    estimate_tail,
    read_prevalence,
)
from local.relabel.prior_correction import odds_shift
from local.scoring.metrics.lwlrap import lwlrap

SOURCE = np.array([1 / 7, 1 / 7, 0.5])
TARGET = np.array([0.9, 0.02, 0.3])


def calibrated(prevalence, source, n=4000, separation=2.0, seed=0):
    """Truth (n, C), and the log-odds of an exact detector that believes in `source`."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, len(prevalence))) < prevalence
    observed = rng.normal(size=truth.shape) + separation * truth
    return truth, separation * observed - separation**2 / 2 + logit_of(source)


def test_shift_is_the_exact_rule_of_bayes():
    likelihood_ratio = 2.5
    before = SOURCE * likelihood_ratio / (SOURCE * likelihood_ratio + 1 - SOURCE)
    after = TARGET * likelihood_ratio / (TARGET * likelihood_ratio + 1 - TARGET)
    shift = odds_shift(SOURCE, TARGET)
    np.testing.assert_allclose(expit(logit_of(before) + shift), after)


def test_strength_and_bound():
    full = odds_shift(SOURCE, TARGET)
    np.testing.assert_allclose(odds_shift(SOURCE, TARGET, strength=0.5), full / 2)
    np.testing.assert_array_equal(odds_shift(SOURCE, TARGET, strength=0), 0)
    np.testing.assert_allclose(
        odds_shift(SOURCE, TARGET, max_ratio=3.0), np.clip(full, -np.log(3), np.log(3))
    )
    ends = odds_shift([0.5, 0.5], [0.0, 1.0], max_ratio=100.0)
    np.testing.assert_allclose(ends, [-np.log(100), np.log(100)])
    np.testing.assert_array_equal(odds_shift([0.5, 0.5], [0.0, 1.0], strength=0), 0)


def test_em_recovers_known_prevalences():
    prevalence = np.array([0.92, 0.02, 0.3, 1 / 7])
    source = np.full(4, 1 / 7)
    truth, logit = calibrated(prevalence, source)
    estimate = estimate_em(logit, source)
    np.testing.assert_allclose(estimate, truth.mean(axis=0), atol=0.015)
    # Much nearer than the mean of the uncorrected probabilities.
    plain = expit(logit).mean(axis=0)
    assert np.abs(plain - truth.mean(axis=0))[0] > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_em_is_the_maximum_of_the_likelihood(seed):
    source = np.array([0.3])
    _, logit = calibrated(np.array([0.6]), source, n=200, separation=1.0, seed=seed)
    ratio = np.exp(logit[:, 0] - logit_of(source[0]))

    def loss(prior):
        return -np.log(prior * ratio + 1 - prior).sum()

    best = minimize_scalar(loss, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-9})
    assert estimate_em(logit, source)[0] == pytest.approx(best.x, abs=1e-4)


def test_em_damping_changes_the_way_and_not_the_end():
    source = np.array([0.01])
    _, logit = calibrated(np.array([0.8]), source)
    slow = estimate_em(logit, source, max_step=0.05)
    assert slow == pytest.approx(estimate_em(logit, source, max_step=50.0), abs=1e-5)
    # One damped step goes no farther than it may.
    step = logit_of(estimate_em(logit, source, max_step=0.05, max_iterations=1))
    assert step - logit_of(source) == pytest.approx(0.05)


def test_em_leaves_a_class_with_almost_no_mass_at_its_source(caplog):
    source = np.array([1 / 7, 1 / 7])
    _, logit = calibrated(np.array([0.0, 0.5]), source, n=500, separation=4.0)
    estimate = estimate_em(logit, source)
    assert estimate[0] == source[0]
    assert estimate[1] == pytest.approx(0.5, abs=0.05)
    assert "number 0 not estimated" in caplog.text


def test_em_at_the_ends_is_finite():
    logit = np.array([[1e4, -1e4, np.inf], [1e4, -1e4, np.inf]])
    with np.errstate(over="raise", invalid="raise"):
        estimate = estimate_em(logit, [0.2, 0.2, 0.2])
    # Everywhere: held at what two recordings can show. Nowhere: not corrected.
    np.testing.assert_allclose(estimate, [0.5, 0.2, 0.5])
    # A source prior beyond that is not pulled down by the bound.
    np.testing.assert_allclose(estimate_em(logit, [0.9, 0.2, 0.2])[0], 0.9)


def test_correction_lifts_the_ranking():
    prevalence = np.array([0.9, 0.2, 0.05, 0.5, 0.01, 0.1])
    source = np.full(6, 1 / 7)
    truth, logit = calibrated(prevalence, source, separation=2.0)
    for target, gain in ((prevalence, 0.05), (estimate_em(logit, source), 0.05)):
        corrected = logit + odds_shift(source, target)
        assert lwlrap(truth, corrected) > lwlrap(truth, logit) + gain


def tail_by_hand(target, scores, mass, min_share):
    """The formula as it is written: every threshold in turn."""
    ratios = []
    for threshold in scores:
        kept = mass[scores >= threshold].sum() / mass.sum()
        if kept >= min_share - 1e-12:
            ratios.append(((target >= threshold).sum() + 1) / (len(target) + 1) / kept)
    return min(min(ratios), 1.0)


@pytest.mark.parametrize("n_inserted", [0, 30])
def test_tail_against_its_formula(n_inserted):
    rng = np.random.default_rng(2)
    folds, expected = [], []
    for n in (5, 9):
        known, target = rng.normal(2, 1, (n, 1)), rng.normal(0.5, 1.5, (40, 1))
        inserted = rng.normal(1.5, 1, (n_inserted, 1)) if n_inserted else None
        folds.append(FoldScores(known, np.ones((n, 1)), target, inserted))
        share = 100 / (14 + 100) if n_inserted else 0.0
        mass = [np.full(n, (1 - share) / n), np.full(n_inserted, share / max(1, n_inserted))]
        scores = known[:, 0] if inserted is None else np.concatenate([known, inserted])[:, 0]
        expected.append((n, tail_by_hand(target[:, 0], scores, np.concatenate(mass), 0.3)))
    wanted = sum(n * value for n, value in expected) / sum(n for n, _ in expected)
    np.testing.assert_allclose(estimate_tail(folds), [wanted])


def test_tail_finds_the_prevalence_where_confirmed_calls_are_few_and_of_other_sites():
    """Insertions halve what eight confirmed recordings, easier than the target's, get wrong."""
    rng = np.random.default_rng(0)
    prevalence = np.array([0.9, 0.5, 0.2, 0.05])
    present = rng.random((400, 4)) < prevalence
    folds = []
    for _ in range(4):
        target = np.where(present, 3.0, -2.0) + rng.normal(size=present.shape)
        known = 4.5 + rng.normal(size=(2, 4))
        inserted = np.maximum(3.0 + rng.normal(size=(100, 4)), target[rng.integers(400, size=100)])
        folds.append(FoldScores(known, np.ones((2, 4)), target, inserted))
    few = estimate_tail([replace(fold, inserted=None) for fold in folds])
    mended = estimate_tail(folds)
    error = [np.abs(np.log(found / prevalence)).max() for found in (few, mended)]
    assert error[1] < error[0] / 2


def test_tail_of_a_class_without_a_confirmed_positive_is_nan():
    fold = FoldScores(
        np.zeros((3, 2)), np.array([[1, 0]] * 3), np.zeros((5, 2)), np.full((4, 2), np.nan)
    )
    found = estimate_tail([fold, fold])
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_mean_is_of_calibrated_probabilities():
    """Scores stretched and shifted by the model come back to the probabilities they stand for."""
    rng = np.random.default_rng(3)
    honest = rng.normal(0, 2, (4000, 2)) + np.array([1.0, -1.0])
    verdict = rng.random(honest.shape) < expit(honest)
    model = 0.3 * honest - 5.0
    spans = np.column_stack([model.ravel(), verdict.ravel()]).astype(float)
    fold = FoldScores(model, verdict, model, spans=spans)
    np.testing.assert_allclose(estimate_mean([fold]), verdict.mean(axis=0), atol=0.02)
    bare = replace(fold, spans=spans[spans[:, 1] == 1])
    np.testing.assert_allclose(estimate_mean([bare]), expit(model).mean(axis=0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: odds_shift([0.5, 0.0], [0.5, 0.5]), "source prior .* found 0"),
        (lambda: odds_shift([0.5], [1.5]), "target prior .* found 1.5"),
        (lambda: odds_shift([0.5], [np.nan]), "target prior .* found nan"),
        (lambda: odds_shift([0.5], [0.5, 0.5]), r"\(1,\).*\(2,\)"),
        (lambda: odds_shift([0.5], [0.5], strength=-1), "strength is -1"),
        (lambda: odds_shift([0.5], [0.5], max_ratio=1), "max_odds_ratio is 1"),
        (lambda: estimate_em(np.zeros((0, 2)), [0.5, 0.5]), r"\(0, 2\)"),
        (lambda: estimate_em(np.zeros((2, 2)), [0.5]), r"\(1,\).*\(2, 2\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(CanopyError, match=message):
        call()


def test_prevalence_is_read_in_the_order_of_labels(tmp_path):
    path = tmp_path / "prevalence.csv"
    path.write_text("label,prevalence,note\nNA,0.25,x\na,0.5,\n", encoding="utf-8")
    assert read_prevalence(path, ["a", "NA"]).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,prevalence\na,0.1\n", "no prevalence of b"),
        ("label,prevalence\na,0.1\nb,0.1\nc,0.1\n", "row 4: label 'c'"),
        ("label,prevalence\na,0.1\nb,0.1\na,0.2\n", "row 4: label a stands twice"),
        ("label,prevalence\na,0.1\nb,0\n", "row 3: prevalence '0'"),
        ("label,prevalence\na,1\nb,0.1\n", "row 2: prevalence '1'"),
        ("label,prevalence\na,nan\nb,0.1\n", "row 2: prevalence 'nan'"),
        ("label,prevalence\na,often\nb,0.1\n", "row 2: prevalence 'often'"),
        ("label,share\na,0.1\n", "no column prevalence"),
        ("", "not readable"),
    ],
)
def test_faulty_prevalence_files_are_refused(tmp_path, text, message):
    path = tmp_path / "prevalence.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CanopyError, match=message) as caught:
        read_prevalence(path, ["a", "b"])
    assert str(path) in str(caught.value)
    with pytest.raises(CanopyError, match="no such file"):
        read_prevalence(tmp_path / "none.csv", ["a"])
