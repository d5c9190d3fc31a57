"""`mine` as it comes, with no setting at all, on made-up song: how well, and how long it takes.

    python tests/bench/song.py                    both sets, some ten minutes each on two cores
    python tests/bench/song.py --only syllables

song: calls of .06-.20 s with gaps of .02-.03 s; recordings of a voice that was left out are judged.
syllables: nine classes in 60 songs; 20 new songs are judged. The whole way of a user: run, detect,
score.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=["song", "syllables"])
    args = parser.parse_args()
    for name, make in (("song", make_song), ("syllables", make_syllables)):
        if args.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            make(Path(folder))
            any_overlap, half = f1_of_detections(Path(folder))
            seconds = time.monotonic() - began
        print(
            f"{name}: F1 {any_overlap:.3f} at any overlap, {half:.3f} at IoU > .5; {seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
