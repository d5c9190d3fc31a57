"""A made-up viewer and report that the tests of the report share."""

import numpy as np
import pytest

from local.report.media import encode_picture, encode_sound
from local.report.page_records import (
    Baseline,
    Box,
    CalibrationBin,
    ChangeExample,
    ChangeRow,
    ClassRow,
    Clip,
    Confusion,
    Curve,
    EventClassRow,
    EventKind,
    EventScores,
    Item,
    Media,
    Report,
    ScoreRow,
    Viewer,
)

NAN = float("nan")


RATE = 8000


def beep_at(onset: float, duration_s: float, rate: int = RATE) -> np.ndarray:
    """Near silence with a tone of a quarter second."""
    time = np.arange(round(duration_s * rate)) / rate
    inside = (time >= onset) & (time < onset + 0.25)
    return (0.5 * np.sin(2 * np.pi * 1000 * time) * inside).astype(np.float32)


@pytest.fixture
def beep():
    """Function: onset and duration in seconds, rate -> near silence with a short tone."""
    return beep_at


def make_media(number: int, duration_s: float) -> Media:
    rng = np.random.default_rng(number)
    image = rng.normal(-6, 1, (32, 300))
    image[10:20, 50:80] += 5
    return Media(encode_picture(image), encode_sound(beep_at(1.0, duration_s), RATE))


def make_clip(number: int, name: str, labels: list[str], with_media: bool = True) -> Clip:
    own, other = labels[number % len(labels)], labels[(number + 1) % len(labels)]
    share = (number * 37 % 100) / 100
    items = [
        Item(own, 1.0, 1.25, 0.95 - 0.5 * share, 300, 900, by_cycle=share, by_fold=0.1),
        Item(other, 2.0, 3.0, 0.3 + 0.3 * share, by_label=0.3 + 0.3 * share, pseudo=True),
    ]
    if number % 3 == 0:
        items.append(Item(own, 4.0, 5.0, 0.05, 300, 900, missed=True, by_label=0.95))
    traces = {label: np.abs(np.sin(np.arange(60) / 9 + number)) for label in (own, other)}
    return Clip(
        recording_id=name,
        subset="train" if number % 2 else "test",
        start_s=0.0,
        end_s=6.0,
        items=items,
        events=[
            Box(1.0, 1.25, own, EventKind.TRUE, 300, 900),
            Box(2.0, 3.0, other, EventKind.KNOWN_NEGATIVE),
            Box(2.1, 2.9, other, EventKind.PSEUDO),
        ],
        traces=traces,
        trace_hop_s=0.1,
        media=(lambda: make_media(number, 6.0)) if with_media else Media,
    )


@pytest.fixture
def make_viewer():
    """Function: number of clips -> a viewer of clips of six seconds with a tone at 1 s."""

    def build(n: int = 6, with_media: bool = True, labels=("frog", "owl", "toad"), **changes):
        labels = list(labels)
        parts = {
            "clips": [make_clip(i, f"rec{i:04d}", labels, with_media) for i in range(n)],
            "labels": labels,
            "names": {labels[0]: "Common frog"},
            "thresholds": dict.fromkeys(labels, 0.4),
            "mel_centres_hz": np.geomspace(60, 3900, 32).tolist(),
            "key": "canopy-review-test",
            "note": "made up",
            "n_jobs": 2,
        }
        return Viewer(**{**parts, **changes})

    return build


@pytest.fixture
def full_report(make_viewer):
    return Report(
        title="a run",
        facts=[("recipe", "demo")],
        scores=[
            ScoreRow("LWLRAP", 1, "test", 0.8765, 0.84, 0.91, 48),
            ScoreRow("LWLRAP", 0, "test", 0.8123, 0.77, 0.85, 48),
            ScoreRow("LWLRAP", 0, "out-of-fold", NAN),
        ],
        event_scores=[
            EventScores(
                cycle=1,
                subset="test, true events",
                n=48,
                averages={
                    "F1": {"micro": (0.431, 0.35, 0.52), "macro": (0.46, 0.4, 0.5)},
                    "false alarms an hour": {"micro": (1234.0, 900.0, 2000.0)},
                },
                classes=[
                    EventClassRow(
                        *("frog", "Frog", 40, 30),
                        {"F1": (0.75, 0.5, 0.875), "false alarms an hour": (12.5, 4.0, 30.0)},
                    ),
                    EventClassRow("owl", "Owl", 20, 20, {"F1": (0.05, NAN, NAN)}),
                ],
                worst="worst class by F1: owl, 0.050 (1 of 20 true events found, 20 detections)",
                rates=["false alarms an hour"],
            )
        ],
        baselines=[
            Baseline("LWLRAP", "test", "chance", 0.4891),
            Baseline("LWLRAP", "test", "constant row", 0.7602),
        ],
        classes=[
            ClassRow(
                *("frog", "Frog", 12, {"cycle 1": 0.5}, {"estimated": 0.25}),
                intervals={"cycle 1": (0.375, 0.75)},
            ),
            ClassRow("owl", "Owl", 3, {"cycle 1": NAN}, {"estimated": NAN}),
            ClassRow("toad", "Toad", None, {"cycle 1": 0.75}),
            ClassRow("wren", "Wren", 30, {}),
        ],
        curves=[
            Curve(0, fold, [1, 2, 3], {"loss": [3.0, 2.0, 1.0], "score": [NAN, NAN, 0.5]})
            for fold in (0, 1)
        ],
        confusion=Confusion(
            labels=["frog", "owl", "toad", "wren"],
            n=[4, 2, 0, 1],
            highest=np.array([[0.75, 0.25, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]),
            above=np.eye(4),
            mean_rank=np.array([1.25, 1.0, NAN, 3.0]),
        ),
        calibration=[
            CalibrationBin(0, 0.1, 0.04, 0.01, 900),
            CalibrationBin(0.9, 1, 0.96, 0.8, 50),
        ],
        changes=[
            ChangeRow(1, "frog", 12, 9, 8.5, 12, 0, 0.031),
            ChangeRow(1, "owl", 0, 0, 0.0, 0, 0, NAN),
        ],
        change_examples=[ChangeExample("added", "rec0001", "owl", 1.0, 1.5)],
        viewer=make_viewer(),
        provenance={"commit": "abc", "versions": {"numpy": "2"}, "seed": 0},
    )
