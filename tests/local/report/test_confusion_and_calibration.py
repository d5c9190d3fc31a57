import numpy as np
import pandas as pd
import pytest
from scipy.special import logit as logit_of

from local.data.tables import EVENT_COLUMNS
from local.inference.scores import Scores
from local.report.confusion_and_calibration import calibration_of, confusion_of


def made(probability, rows):
    """Scores of one recording, (C, n) probabilities of cells of one second, and its events."""
    frames = logit_of(np.asarray(probability, dtype=np.float64)).astype(np.float32)
    labels = ["a", "b", "c"][: len(frames)]
    scores = Scores(["r"], labels, [frames], frames.max(axis=1)[None], 1.0, 0.0)
    full = [("r", label, on, off, np.nan, np.nan, sign, 1.0, "x") for label, on, off, sign in rows]
    return scores, pd.DataFrame(full, columns=list(EVENT_COLUMNS))


def test_which_class_scores_highest_inside_confirmed_spans():
    probability = [[0.9, 0.2, 0.1, 0.1], [0.1, 0.8, 0.1, 0.1], [0.5, 0.6, 0.9, 0.1]]
    rows = [("a", 0, 1, 1), ("a", 1, 2, 1), ("b", 1, 2, 1), ("b", 3, 4, -1)]
    scores, events = made(probability, rows)
    found = confusion_of(scores, events, np.full(3, logit_of(0.55)))
    assert found.n == [2, 1, 0]
    np.testing.assert_allclose(found.highest, [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(found.above, [[0.5, 0.5, 0.5], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_allclose(found.mean_rank, [2.0, 1.0, np.nan])


def test_pseudo_rows_and_rejections_are_no_confirmation():
    scores, events = made([[0.9, 0.2]], [("a", 0, 1, -1)])
    assert confusion_of(scores, events, np.zeros(1)) is None


def test_calibration_counts_known_cells_alone():
    probability = [[0.05, 0.05, 0.95, 0.95, 0.95, 0.5], [0.31, 0.32, 0.33, 0.5, 0.5, 0.5]]
    # Half a cell is enough, less is not; of two that claim a cell the confirmation counts.
    rows = [("a", 0, 2.4, -1), ("a", 2, 4.5, 1), ("b", 0, 3, -1), ("b", 2, 3, 1)]
    bins = calibration_of(*made(probability, rows))
    assert [(item.low, item.n) for item in bins] == [(0.0, 2), (0.3, 3), (0.9, 3)]
    assert [item.share_present for item in bins] == pytest.approx([0, 1 / 3, 1])
    assert [item.mean_score for item in bins] == pytest.approx([0.05, 0.32, 0.95], abs=1e-6)


def test_calibration_agrees_with_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(2)
    probability = rng.uniform(0.001, 0.999, (1, 500))
    sounds = rng.uniform(size=500) < probability[0] ** 2
    rows = [("a", i, i + 1, 1 if sounds[i] else -1) for i in range(500)]
    bins = calibration_of(*made(probability, rows))
    share, mean = calibration.calibration_curve(sounds, probability[0], n_bins=10)
    assert [item.share_present for item in bins] == pytest.approx(share)
    assert [item.mean_score for item in bins] == pytest.approx(mean, abs=1e-6)


def test_without_frames_or_rows_there_is_nothing():
    scores, events = made([[0.9]], [])
    assert calibration_of(scores, events) == ()
    bare = Scores(["r"], ["a"], [], np.zeros((1, 1)), 0.0, 0.0)
    assert calibration_of(bare, events) == ()
    assert confusion_of(bare, events, np.zeros(1)) is None
