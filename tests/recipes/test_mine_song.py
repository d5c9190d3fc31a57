"""`mine` as it comes, on made-up song: calls of .06-.20 s with gaps of .02-.03 s between them.

The whole way of a user: run, detect on recordings of a voice that was left out, score.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.data.annotations.formats import read_annotations
from local.data.annotations.shared import ReadOptions
from local.scoring.event_rules.tuning import count_matches, pooled_f1
from local.scoring.metrics.matching import EventList
from tests.simulated_calls import make_song, make_syllables

ROOT = Path(__file__).resolve().parents[2]


def call(*words) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=environment, check=True)


def spans(folder: Path) -> pd.DataFrame:
    """All selections below a folder."""
    frames = [
        read_annotations(path, "raven", ReadOptions()).assign(recording_id=path.name.split(".")[0])
        for path in sorted(folder.rglob("*.selections.txt"))
    ]
    return pd.concat(frames, ignore_index=True)


def f1_of_detections(path: Path, *options: str) -> np.ndarray:
    """F1 at any overlap and at IoU > .5 on `left_out`, of `mine` trained on `train`."""
    places = ["--dumpdir", path / "dump", "--expdir", path / "exp"]
    call("bin/run_stages.py", "--recipe", "mine", "--datadir", path / "train", *places, *options)
    out = path / "found"
    call(
        "bin/detect.py", path / "exp/default", path / "left_out", "--out", out, "--format", "raven"
    )
    truth, found = spans(path / "left_out"), spans(out)
    ids, labels = sorted(truth["recording_id"].unique()), sorted(truth["label"].unique())
    true, cut = (EventList.of(one.assign(score=1.0), ids, labels) for one in (truth, found))
    return pooled_f1(count_matches(true, cut, len(ids), (0.0, 0.5)))


def test_the_simulation_has_what_it_says(tmp_path):
    make_song(tmp_path, n=8)
    parts = {path.parent.name for path in tmp_path.rglob("*.wav")}
    assert parts == {"train", "left_out"}
    table = spans(tmp_path)
    lengths = table["offset"] - table["onset"]
    assert lengths.min() > 0.05
    assert lengths.max() < 0.22
    gaps = table.groupby("recording_id").apply(
        lambda rows: (rows["onset"].shift(-1) - rows["offset"]).dropna(), include_groups=False
    )
    assert gaps.min() > 0.018
    assert (gaps < 0.031).mean() > 0.5
    assert {soundfile.info(path).samplerate for path in tmp_path.rglob("*.wav")} == {32000}


@pytest.mark.slow
def test_song_of_a_voice_that_was_left_out(tmp_path):
    make_song(tmp_path)
    any_overlap, iou = f1_of_detections(tmp_path)
    assert any_overlap >= 0.93
    assert iou >= 0.9


@pytest.mark.slow
def test_syllables_of_nine_classes(tmp_path):
    make_syllables(tmp_path)
    any_overlap, iou = f1_of_detections(tmp_path)
    assert any_overlap >= 0.93
    assert iou >= 0.88
