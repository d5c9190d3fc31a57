"""Prevalence as the share of a mixture: its formula, what it recovers, what it does not claim."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logsumexp
from scipy.special import logit as logit_of
from scipy.stats import norm

from local.relabel import prevalence_mixture
from local.relabel.fold_scores import FoldScores
from local.relabel.prevalence import estimate_combined, estimate_tail
from local.relabel.prevalence_mixture import estimate_mixture
from local.relabel.prior_correction import matching_shift
from local.scoring.metrics.lwlrap import lwlrap

pytestmark = pytest.mark.slow

PREVALENCE = np.array([0.9, 0.6, 0.25, 0.1, 0.03])


def make_folds(n=300, gap=4.0, n_folds=4, n_confirmed=8, easier=0.0, seed=0, prevalence=PREVALENCE):
    """Folds of one truth (N, C): absent recordings score about -2, rejected spans a little less."""
    rng = np.random.default_rng(seed)
    n_classes = len(prevalence)
    gap = np.broadcast_to(gap, n_classes)
    present = np.arange(n)[:, None] < np.round(prevalence * n)
    present = rng.permuted(present, axis=0)
    folds = []
    for _ in range(n_folds):
        positive = np.tile(np.eye(n_classes, dtype=int), (n_confirmed, 1))
        spans = [
            np.column_stack([-2.6 + rng.normal(size=30), np.zeros(30), np.full(30, column)])
            for column in range(n_classes)
        ]
        folds.append(
            FoldScores(
                known=np.where(positive, gap - 2 + easier, -2.0) + rng.normal(size=positive.shape),
                positive=positive,
                target=np.where(present, gap - 2, -2.0) + rng.normal(size=present.shape),
                inserted=gap - 2 + rng.normal(size=(40, n_classes)),
                spans=np.concatenate(spans),
            )
        )
    return folds, present


def error(found, prevalence=PREVALENCE):
    """Root mean square error in ln odds."""
    return float(np.sqrt(np.mean((logit_of(found) - logit_of(prevalence)) ** 2)))


def test_known_prevalences_are_recovered():
    folds, present = make_folds()
    np.testing.assert_allclose(estimate_mixture(folds), present.mean(axis=0), rtol=0.15, atol=0.01)


def test_many_recordings_are_told_finer_than_the_grid_is():
    """ln odds between those that are tried, and more scores than are kept."""
    prevalence = expit(np.array([0.25, -0.7, -1.8, -2.8]))
    folds, present = make_folds(n=6000, gap=6.0, n_folds=2, prevalence=prevalence)
    np.testing.assert_allclose(estimate_mixture(folds), present.mean(axis=0), rtol=0.02)


@pytest.mark.parametrize("easier", [-0.8, 0.8])
def test_confirmed_calls_that_are_plainer_or_fainter_than_the_rest(easier):
    """The tail estimate takes fainter known calls for more recordings, plainer ones for fewer."""
    folds, present = make_folds(gap=4.0, easier=easier)
    folds = [replace(fold, inserted=fold.inserted + easier) for fold in folds]
    truth = present.mean(axis=0)
    assert error(estimate_mixture(folds), truth) < 0.3
    assert error(estimate_mixture(folds), truth) < error(estimate_tail(folds), truth)


def test_a_deaf_detector_leaves_the_middle_and_not_the_upper_bound():
    """Where nothing is heard, one class is as uncertain as any, and the others are not touched."""
    prevalence = np.array([0.3, 0.1, 0.05, 0.2])
    folds, present = make_folds(gap=np.array([0.3, 5.0, 5.0, 5.0]), prevalence=prevalence)
    found, bound = estimate_mixture(folds), estimate_tail(folds)
    assert found[0] < 0.6 < bound[0]
    np.testing.assert_allclose(found[1:], present.mean(axis=0)[1:], rtol=0.2)


def test_rejected_spans_tell_a_common_class_from_an_unheard_one():
    """All scores of a class lie together: where rejected spans lie below, it is present."""
    prevalence = np.array([0.97, 0.1, 0.1, 0.1])
    folds, _ = make_folds(gap=3.0, prevalence=prevalence)
    assert estimate_mixture(folds)[0] > 0.8
    bare = [replace(fold, spans=fold.spans[fold.spans[:, 2] != 0]) for fold in folds]
    assert estimate_mixture(bare)[0] < estimate_mixture(folds)[0]


def test_folds_are_one_view_each_and_not_further_recordings():
    folds, _ = make_folds(n_folds=2)
    np.testing.assert_allclose(estimate_mixture(folds * 3), estimate_mixture(folds), rtol=0.02)


def test_without_insertions_and_without_spans_there_still_is_an_estimate():
    folds, present = make_folds(gap=5.0)
    bare = [replace(fold, inserted=None, spans=None) for fold in folds]
    assert error(estimate_mixture(bare), present.mean(axis=0)) < 0.3


def test_a_class_without_a_confirmed_positive_is_nan():
    folds, _ = make_folds()
    silent = []
    for fold in folds:
        positive, inserted = fold.positive.copy(), fold.inserted.copy()
        positive[:, 2], inserted[:, 2] = 0, np.nan
        silent.append(replace(fold, positive=positive, inserted=inserted))
    found = estimate_mixture(silent)
    assert np.isnan(found[2])
    assert np.isfinite(np.delete(found, 2)).all()
    nothing = [replace(fold, positive=np.zeros_like(fold.positive)) for fold in folds]
    assert np.isnan(estimate_mixture(nothing)).all()


@pytest.mark.parametrize("n", [50, 2500])
def test_combined_trusts_the_mixture_less_with_more_recordings_and_above_the_bound(n):
    folds, _ = make_folds(n=n, gap=2.0)
    tail, mixture = (logit_of(estimate(folds)) for estimate in (estimate_tail, estimate_mixture))
    share = 1500 / (n + 1500)
    below, above = mixture < tail, mixture > tail
    assert below.any()
    assert above.any()
    wanted = np.where(below, (1 - share) * tail + share * mixture, np.nan)
    wanted[above] = ((1 - share**2) * tail + share**2 * mixture)[above]
    wanted = expit(wanted)
    np.testing.assert_allclose(estimate_combined(folds), wanted)


def test_combined_where_the_tail_says_all_and_where_nothing_is_confirmed():
    folds, _ = make_folds(n=20)
    sure = [
        replace(fold, target=fold.target + 50.0, positive=fold.positive * [1, 1, 1, 1, 0])
        for fold in folds
    ]
    found = estimate_combined(sure)
    assert ((found[:4] > 0.5) & (found[:4] < 1)).all()
    assert np.isnan(found[4])


def test_equal_scores_and_single_recordings_give_finite_numbers():
    folds, _ = make_folds(n=1, n_folds=1, n_confirmed=1)
    flat = [
        replace(fold, known=0 * fold.known, inserted=None, target=0 * fold.target) for fold in folds
    ]
    for case in (folds, flat):
        found = estimate_mixture(case)
        assert ((found > 0) & (found < 1)).all()


def posterior_by_hand(scores, expected, offset):
    """The formula as it is written: m1 and m0 integrated over a lattice, v at its mode."""
    tolerance, count = np.log(2.0), 20.0
    means = np.linspace(-4, 4, 41)
    m1, m0 = np.meshgrid(means, means, indexing="ij")
    result = []
    for log_odds in prevalence_mixture._LOG_ODDS:
        p = expit(log_odds)
        best = np.full(m1.shape, -np.inf)
        for v in np.linspace(0.5, 2.5, 21):
            density = p * norm.pdf(scores[:, None, None], m1, np.sqrt(v))
            density += (1 - p) * norm.pdf(scores[:, None, None], m0, np.sqrt(v))
            value = np.log(density).sum(axis=0) - count / 2 * (np.log(v) + expected[2] / v)
            best = np.maximum(best, value)
        best = best + norm.logpdf(m1, expected[0], tolerance)
        best = best + norm.logpdf(m0, expected[1] + offset, tolerance)
        result.append(logsumexp(best) + np.log(p * (1 - p)) / 2)
    return np.exp(result - logsumexp(result))


@pytest.mark.parametrize("seed", range(3))
def test_posterior_against_its_formula(seed):
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(40) < 0.3, 1.5, -1.5) + rng.normal(size=40)
    expected = (1.2, -1.8, 1.1)
    mixture = prevalence_mixture._Mixture(
        scores[:, None],
        40.0,
        prevalence_mixture._Expected(*(np.array([value]) for value in expected)),
    )
    found = expit(prevalence_mixture._FINE_LOG_ODDS) @ mixture.posterior()[:, 0]
    by_hand = posterior_by_hand(scores, expected, mixture._offset)
    assert found == pytest.approx(expit(prevalence_mixture._LOG_ODDS) @ by_hand, rel=0.08)


def drawn_competition(n, prevalence, n_confirmed, n_folds, seed):
    """Folds and truth whose scores are as unlike the mixture's as real ones may be.

    Absent recordings are skewed, and up to 12 % of them have a look-alike; present ones are faint
    in 15 %; a tenth of the classes is hardly heard. Known calls are plainer or fainter than the
    test's, by class, and a fifth of the rejected spans are look-alikes.
    """
    rng = np.random.default_rng(seed)
    n_classes, each = len(prevalence), max(1, n_confirmed // n_folds)
    heard = rng.random(n_classes) > 0.1
    gap = np.where(heard, rng.uniform(2, 7, n_classes), rng.uniform(0.2, 1, n_classes))
    base, low = rng.normal(-2, 0.6, n_classes), rng.normal(0.6, 0.6, n_classes)
    plainer, inserted_plainer = rng.normal(0.3, 0.4, n_classes), rng.normal(-0.3, 0.5, n_classes)
    wide, narrow = rng.uniform(0.8, 1.8, n_classes), rng.uniform(0.6, 1.1, n_classes)
    truth = rng.random((n, n_classes)) < prevalence
    truth[rng.integers(n, size=n_classes), np.arange(n_classes)] = True

    def calls(size, offset):
        loud = np.where(rng.random((size, n_classes)) < 0.15, 0.3, 1.0) * gap
        return base + loud + offset + wide * rng.normal(size=(size, n_classes))

    alike = rng.random((n, n_classes)) < rng.uniform(0, 0.12, n_classes)
    absent = base + narrow * (rng.gamma(2.0, 1.0, truth.shape) - 2) / 2**0.5 + 0.6 * gap * alike
    score = np.where(truth, np.maximum(calls(n, 0.0), absent), absent)
    folds = []
    for _ in range(n_folds):
        target = score + 0.5 * rng.normal(size=score.shape)
        positive = np.tile(np.eye(n_classes, dtype=int), (each, 1))
        drawn = target[rng.integers(n, size=(40, n_classes)), np.arange(n_classes)]
        rejected = base - low + narrow * rng.normal(size=(3 * each, n_classes))
        rejected += 0.6 * gap * (rng.random(rejected.shape) < 0.2)
        number = np.broadcast_to(np.arange(n_classes), rejected.shape)
        folds.append(
            FoldScores(
                known=base + gap + plainer + wide * rng.normal(size=positive.shape),
                positive=positive,
                target=target,
                inserted=np.maximum(drawn, calls(40, inserted_plainer)),
                spans=np.column_stack([rejected.ravel(), 0 * number.ravel(), number.ravel()]),
            )
        )
    return folds, truth


@pytest.mark.parametrize(
    ("n", "n_classes", "n_confirmed", "n_folds"),
    [(40, 8, 20, 4), (120, 16, 30, 4), (480, 24, 50, 2), (1500, 24, 50, 2)],
)
def test_combined_ranks_no_worse_than_either_where_scores_are_not_normal(
    n, n_classes, n_confirmed, n_folds
):
    """LWLRAP as submitted, mean of a few competitions, from common classes to rare ones."""
    prevalence = 0.9 * 0.82 ** (np.arange(n_classes) * 24 / n_classes)
    gains = {"none": [], "tail": [], "mixture": []}
    for seed in range(5 if n < 100 else 3):
        folds, truth = drawn_competition(n, prevalence, n_confirmed, n_folds, seed)
        logit = np.mean([fold.target for fold in folds], axis=0)

        def ranked(estimate, folds=folds, truth=truth, logit=logit):
            shift = matching_shift(logit, estimate(folds), 0.75)
            return lwlrap(truth, logit + shift)

        combined = ranked(estimate_combined)
        gains["none"].append(combined - lwlrap(truth, logit))
        gains["tail"].append(combined - ranked(estimate_tail))
        gains["mixture"].append(combined - ranked(estimate_mixture))
    assert np.mean(gains["none"]) > 0.04
    assert np.mean(gains["tail"]) > -0.004
    assert np.mean(gains["mixture"]) > -0.004
