"""Cepstra against other libraries, mixtures against the formula, and classes that can be told."""

import librosa
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from local.baselines.cepstra import mfcc
from local.baselines.gmm import GmmClassifier, GmmParams
from local.io.errors import CanopyError


@pytest.mark.slow
def test_cepstra_are_librosas():
    log_bands = np.random.default_rng(0).standard_normal((40, 60))
    expected = librosa.feature.mfcc(S=log_bands, n_mfcc=13, dct_type=2, norm="ortho")
    found = mfcc(log_bands, 13)
    np.testing.assert_allclose(found[:13], expected, atol=1e-9)
    slopes = librosa.feature.delta(expected, width=9, order=1, mode="interp")
    np.testing.assert_allclose(found[13:], slopes, atol=1e-9)
    np.testing.assert_array_equal(mfcc(log_bands, 13, delta=False), found[:13])


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 8, 9, 10])
def test_cepstra_of_short_spans(n_frames):
    log_bands = np.arange(n_frames)[None] * np.ones((12, 1))
    found = mfcc(log_bands, 5)
    assert found.shape == (10, n_frames)
    # A level that rises by 1 a frame has a slope of sqrt(12) in the first coefficient.
    np.testing.assert_allclose(found[5], np.sqrt(12) if n_frames >= 3 else 0, atol=1e-9)
    with pytest.raises(ValueError, match="13 coefficients of 12 bands"):
        mfcc(log_bands, 13)


def clouds(n, rng):
    """Segments of two classes with the same mean: only a mixture can tell them."""
    segments, labels = [], []
    for index in range(n):
        n_frames = int(rng.integers(5, 30))
        side = rng.choice([-3.0, 3.0], n_frames) if index % 2 else np.zeros(n_frames)
        segments.append(np.stack([side, np.zeros(n_frames)]) + rng.standard_normal((2, n_frames)))
        labels.append("two sides" if index % 2 else "middle")
    return segments, labels


def test_classes_are_told_apart_and_chance_stays_chance():
    rng = np.random.default_rng(0)
    segments, labels = clouds(60, rng)
    classifier = GmmClassifier(GmmParams(n_components=2)).fit(segments, labels, rng)
    tried, true = clouds(200, rng)
    assert np.mean([a == b for a, b in zip(classifier.predict(tried), true, strict=True)]) > 0.97
    sure = np.exp(classifier.scores(tried)).max(axis=1).mean()
    shuffled = [str(label) for label in rng.permutation(labels)]
    lost = GmmClassifier(GmmParams(n_components=2)).fit(segments, shuffled, rng)
    # Labels that mean nothing leave both classes about as likely.
    assert sure > 0.75
    assert np.exp(lost.scores(tried)).max(axis=1).mean() < 0.6


@pytest.mark.parametrize("prior", ["equal", "frequency"])
def test_scores_are_the_formula_and_survive_a_file(prior, tmp_path):
    rng = np.random.default_rng(1)
    segments, labels = clouds(31, rng)
    classifier = GmmClassifier(GmmParams(n_components=3, prior=prior)).fit(segments, labels, rng)
    classifier.save(tmp_path / "gmm.npz")
    again = GmmClassifier.load(tmp_path / "gmm.npz")
    assert again.labels == classifier.labels == ["middle", "two sides"]
    np.testing.assert_allclose(again.scores(segments), classifier.scores(segments), atol=1e-9)
    with np.load(tmp_path / "gmm.npz", allow_pickle=False) as stored:
        m = dict(stored)
    log_prior = np.log([0.5, 0.5]) if prior == "equal" else np.log([16 / 31, 15 / 31])
    for segment, found in zip(segments[:5], classifier.scores(segments[:5]), strict=True):
        frames = (segment.T - m["mean"]) / m["scale"]
        posterior = []
        for index in range(2):
            part = slice(3 * index, 3 * index + 3)
            logs = [
                np.log(w) + multivariate_normal(mean, np.diag(var)).logpdf(frames)
                for w, mean, var in zip(
                    m["weights"][part], m["means"][part], m["variances"][part], strict=True
                )
            ]
            posterior.append(logsumexp(logs, axis=0).mean() + log_prior[index])
        np.testing.assert_allclose(found, posterior - logsumexp(posterior), atol=1e-8)


def test_the_same_generator_fits_the_same_mixtures():
    segments, labels = clouds(40, np.random.default_rng(2))
    one, same = (
        GmmClassifier(GmmParams(max_frames=50)).fit(segments, labels, np.random.default_rng(7))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.scores(segments), same.scores(segments))


def test_a_class_with_a_single_frame_can_be_fitted():
    segments = [np.zeros((2, 1)), np.ones((2, 40)) + np.random.default_rng(0).normal(size=(2, 40))]
    classifier = GmmClassifier().fit(segments, ["rare", "common"], np.random.default_rng(0))
    assert np.isfinite(classifier.scores(segments)).all()


def test_what_is_no_classifier_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("other.npz", "absent.npz"):
        with pytest.raises(CanopyError, match=f"{name}: not a saved classifier"):
            GmmClassifier.load(tmp_path / name)
