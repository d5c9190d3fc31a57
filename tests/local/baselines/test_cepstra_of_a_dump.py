"""Which frames of a dump belong to a span."""

import numpy as np
import pandas as pd
import pytest

from local.baselines.cepstra import segment_frames
from local.config import Config
from local.features.npz import write_features
from local.features.store import FeatureStore
from local.io.errors import CanopyError
from local.io.files import write_csv

RATE, HOP = 250_000, 250


@pytest.fixture
def dump(tmp_path):
    """Thirty frames of 1 ms; band 0 of frame i is i."""
    config = Config(
        audio={"sample_rate": RATE},
        features={"n_fft": 512, "hop_length": HOP, "n_mels": 4, "f_min_hz": 1e4},
    )
    feats = np.tile(np.arange(30, dtype=np.float32), (4, 1))
    write_features(tmp_path / "a.npz", feats, sample_rate=RATE, hop_length=HOP, duration=0.029)
    row = {"recording_id": "a", "file": "a.npz", "n_frames": 30, "duration": 0.029}
    write_csv(tmp_path / "manifest.csv", pd.DataFrame([{**row, "status": "ok", "reason": ""}]))
    return FeatureStore(tmp_path, config)


@pytest.mark.parametrize(
    ("span", "frames"),
    [
        ((0.0, 0.002), [0, 1, 2]),  # frame i stands for [i - 1/2, i + 1/2) ms
        ((0.0031, 0.0034), [3]),
        ((0.0035, 0.0055), [4, 5]),
        ((0.0275, 0.5), [28, 29]),
    ],
)
def test_frames_that_a_span_touches(dump, span, frames):
    np.testing.assert_array_equal(segment_frames(dump, "a", *span)[0], frames)


def test_spans_beyond_the_recording_are_refused(dump):
    with pytest.raises(CanopyError, match=r"recording a: span 0.5 to 0.6 s lies outside it"):
        segment_frames(dump, "a", 0.5, 0.6)
