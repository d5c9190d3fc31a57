"""A made-up recording and report that the tests of the report share."""

import numpy as np
import pytest

from local.report.data import (
    Baseline,
    ClassRow,
    Curve,
    Detection,
    RecordingPanel,
    Report,
    ScoreRow,
)

NAN = float("nan")


@pytest.fixture
def make_panel():
    def build(**changes):
        rng = np.random.default_rng(3)
        parts = {
            "recording_id": "rec 1",
            "feats": rng.normal(-6, 2, (40, 900)).astype(np.float16),
            "hop_s": 0.02,
            "mel_centres_hz": np.geomspace(60, 9000, 40),
            "frame_logit": rng.normal(-3, 1, (4, 90)).astype(np.float32),
            "frame_hop_s": 0.2,
            "labels": ["frog", "owl", "toad", "wren"],
            "events": [
                Detection(2.0, 5.0, "owl", kind="true", low_freq=300, high_freq=900),
                Detection(2.2, 4.8, "owl", 0.83, "detected"),
                Detection(8.0, 9.0, "wren", kind="known negative"),
                Detection(10.0, 11.0, "frog", kind="known positive"),
                Detection(12.0, 13.0, "toad", 0.6, "pseudo"),
            ],
        }
        return RecordingPanel(**{**parts, **changes})

    return build


@pytest.fixture
def full_report(make_panel):
    return Report(
        title="a run",
        facts=[("recipe", "demo")],
        scores=[
            ScoreRow("LWLRAP", 1, "test", 0.8765, 0.84, 0.91, 48),
            ScoreRow("LWLRAP", 0, "test", 0.8123, 0.77, 0.85, 48),
            ScoreRow("LWLRAP", 0, "out-of-fold", NAN),
        ],
        baselines=[
            Baseline("LWLRAP", "test", "chance", 0.4891),
            Baseline("LWLRAP", "test", "constant row", 0.7602),
        ],
        classes=[
            ClassRow("frog", "Frog", 12, {"cycle 1": 0.5}, {"estimated": 0.25}),
            ClassRow("owl", "Owl", 3, {"cycle 1": NAN}, {"estimated": NAN}),
            ClassRow("toad", "Toad", None, {"cycle 1": 0.75}),
            ClassRow("wren", "Wren", 30, {}),
        ],
        curves=[
            Curve(0, fold, [1, 2, 3], {"loss": [3.0, 2.0, 1.0], "score": [NAN, NAN, 0.5]})
            for fold in (0, 1)
        ],
        panels=[make_panel()],
        provenance={"commit": "abc", "versions": {"numpy": "2"}, "seed": 0},
    )
