"""Blends of scores and the fitting of their weights, against plain statements of both."""

import numpy as np
import pytest
from scipy.special import expit, logit

from local.detect.ensemble.averaging import blend, cross_fit, fit_weights, read_weights
from local.io.errors import CanopyError
from local.scoring.metrics.lwlrap import lwlrap


@pytest.fixture
def three():
    rng = np.random.default_rng(3)
    return [rng.normal(0, scale, (7, 4)) for scale in (1, 3, 0.5)]


WEIGHTS = np.array([1.0, 2.0, 0.0])


def test_probability_is_the_weighted_mean_of_probabilities(three):
    expected = logit((expit(three[0]) + 2 * expit(three[1])) / 3)
    np.testing.assert_allclose(blend(three, WEIGHTS, "probability"), expected, rtol=1e-9)


def test_probability_keeps_apart_what_rounds_to_one():
    scores = [np.array([[40.0], [60.0], [-60.0]]), np.array([[50.0], [60.0], [-40.0]])]
    mixed = blend(scores, np.ones(2), "probability")[:, 0]
    assert np.isfinite(mixed).all()
    # Near 1 the mean of 1 - p counts: ln 2 above the lower of the two.
    assert mixed[0] == pytest.approx(40 + np.log(2), abs=1e-4)
    assert mixed[1] == pytest.approx(60)
    assert mixed[2] == pytest.approx(-40 - np.log(2), abs=1e-4)


def test_logit_is_the_weighted_mean_of_logits(three):
    expected = (three[0] + 2 * three[1]) / 3
    np.testing.assert_allclose(blend(three, WEIGHTS, "logit"), expected)


def test_rank_orders_within_classes_and_keeps_their_levels(three):
    mixed = blend(three, WEIGHTS, "rank")
    mean = blend(three, WEIGHTS, "probability")
    for column in range(4):
        places = sum(
            weight * (three[row][:, column][:, None] > three[row][:, column][None]).sum(axis=1)
            for row, weight in ((0, 1), (1, 2))
        )
        # The same values as the probability blend's, in the order of mean ranks; ties share one.
        for a in range(7):
            for b in range(7):
                assert np.sign(mixed[a, column] - mixed[b, column]) == np.sign(
                    places[a] - places[b]
                )
        if len(set(places.tolist())) == 7:
            np.testing.assert_allclose(np.sort(mixed[:, column]), np.sort(mean[:, column]))
        assert mixed[:, column].mean() == pytest.approx(mean[:, column].mean(), abs=0.5)


def test_rank_is_deaf_to_the_scale_of_a_run(three):
    stretched = [three[0] * 0.5 - 1, three[1] * 9, three[2]]
    ours, theirs = (blend(scores, WEIGHTS, "rank") for scores in (three, stretched))
    np.testing.assert_array_equal(ours.argsort(axis=0), theirs.argsort(axis=0))


@pytest.mark.parametrize("method", ["probability", "rank", "logit"])
def test_one_run_with_all_the_weight_is_itself(three, method):
    np.testing.assert_allclose(blend(three, np.array([0, 5, 0]), method), three[1], rtol=1e-7)


@pytest.mark.parametrize(
    ("weights", "words"),
    [([1, 1], "3 runs need 3 weights"), ([1, -1, 1], "1,-1,1"), ([0, 0, 0], "0 or more")],
)
def test_faulty_weights(three, weights, words):
    with pytest.raises(CanopyError, match=words):
        blend(three, np.array(weights, float), "logit")


def test_scores_that_are_no_numbers_are_refused(three):
    three[0][2, 1] = np.inf
    with pytest.raises(CanopyError, match="finite"):
        blend(three, np.ones(3), "logit")


def test_weights_of_an_option():
    np.testing.assert_allclose(read_weights("1,2,1", 3), [0.25, 0.5, 0.25])
    np.testing.assert_allclose(read_weights("equal", 4), 0.25)
    for text in ("1,2", "best", "", "nan,1,1", "0,0,0"):
        with pytest.raises(CanopyError):
            read_weights(text, 3)


# ---------------------------------------------------------------------------------------- fitting


def labelled(n=200, seed=0):
    """Two runs that know different halves of the classes, and one of noise."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 6)) < 0.2
    noise = [rng.normal(size=(n, 6)) for _ in range(3)]
    first, second, third = (one.copy() for one in noise)
    first[:, :3] += 4 * truth[:, :3]
    second[:, 3:] += 4 * truth[:, 3:]
    return truth, [first, second, third]


def test_fitted_weights_share_between_the_runs_that_know():
    truth, runs = labelled()
    weights = fit_weights(runs, lambda mixed: lwlrap(truth, mixed), "logit")
    assert weights.sum() == pytest.approx(1)
    assert weights[2] < 0.15 < 0.3 < min(weights[:2])
    fitted = lwlrap(truth, blend(runs, weights, "logit"))
    assert fitted > max(lwlrap(truth, run) for run in runs) + 0.05


def test_fitting_never_ends_below_the_best_run():
    rng = np.random.default_rng(1)
    truth = rng.random((60, 5)) < 0.3
    runs = [rng.normal(size=(60, 5)) + strength * truth for strength in (0, 3, 0.1)]
    weights = fit_weights(runs, lambda mixed: lwlrap(truth, mixed), "probability", 5)
    assert lwlrap(truth, blend(runs, weights, "probability")) >= lwlrap(truth, runs[1])


def test_a_recordings_own_fold_never_sets_its_weights():
    truth, runs = labelled(90)
    fold = np.arange(90) % 3
    fit = cross_fit(runs, truth, fold, "lwlrap", "logit")
    assert set(fit.per_fold) == {0, 1, 2}
    for number, weights in fit.per_fold.items():
        rows = (fold != number) & truth.any(axis=1)
        again = fit_weights(
            runs, lambda mixed, rows=rows: lwlrap(truth[rows], mixed[rows]), "logit"
        )
        np.testing.assert_array_equal(weights, again)
        np.testing.assert_array_equal(
            fit.cross_fitted[fold == number], blend(runs, weights, "logit")[fold == number]
        )
    # Whatever the labels of a fold are, its blend stays.
    changed = truth.copy()
    changed[fold == 1] = np.roll(changed[fold == 1], 1, axis=1)
    other = cross_fit(runs, changed, fold, "lwlrap", "logit")
    np.testing.assert_array_equal(other.cross_fitted[fold == 1], fit.cross_fitted[fold == 1])


def test_no_label_nothing_to_fit(three):
    with pytest.raises(CanopyError, match="--weights equal"):
        fit_weights(three, lambda mixed: float("nan"), "logit")
