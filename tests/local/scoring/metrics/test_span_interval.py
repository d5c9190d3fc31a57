import numpy as np
import pytest

from local.scoring import metrics


def test_the_interval_of_the_span_auc_equals_recomputing_every_resample():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, size=120)
    polarity = rng.choice([-1, 1], size=120)
    score = rng.normal(size=120).round(1) + 0.5 * polarity
    recording = rng.integers(0, 30, size=120)

    def statistic(drawn: np.ndarray) -> float:
        rows = np.concatenate([np.flatnonzero(recording == name) for name in drawn])
        return metrics.span_auc(label[rows], polarity[rows], score[rows]).macro

    slow = metrics.generic_interval(statistic, 30, np.random.default_rng(7), 200)
    fast = metrics.span_auc_interval(
        label, polarity, score, recording, np.random.default_rng(7), 200
    )
    assert fast == pytest.approx(slow, abs=1e-12)
