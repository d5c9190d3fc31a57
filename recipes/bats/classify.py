#!/usr/bin/env python3
"""Who calls, and why: a run's scores of voices beside mixtures of Gaussians over cepstra.

    recipes/bats/classify.py --tables dump/bats-context/tables --run exp/bats/context \
        --features dump/bats-context/FEATURE-ID --out exp/bats/context

For runs of task context or emitter. The network says of a voice the class of its highest mean
out-of-fold score over the voice; the mixtures are fitted on the voices of the other folds. Balanced
accuracy with intervals over files, the difference paired, beside chance. Of a run that ended with
stage 1, the mixtures alone. Writes voices.csv.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import recall_score

from local.baselines.cepstra import mfcc, segment_frames
from local.baselines.gmm import GmmClassifier, GmmParams
from local.config import load_config
from local.data.folds import read_folds
from local.data.tables import read_tables
from local.features.store import FeatureStore
from local.inference.score_files import load_scores
from local.inference.scores import Scores
from local.io.files import write_csv
from local.io.seeds import generator
from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script
from local.labels.grid import coverage
from local.scoring.metrics.bootstrap import interval, of_rows


def main(argv: list[str] | None = None) -> int:
    """Write and print the table."""
    parser = ScriptParser(__doc__)
    for name in ("tables", "run", "features", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--n-bootstrap", type=int, default=1000, help="resamples (%(default)s)")
    args = parser.parse_args(argv)
    tables = read_tables(args.tables)
    voices = tables.events[tables.events["polarity"] > 0].reset_index(drop=True)
    folds = read_folds(args.run / "folds.csv", tables.recordings).set_index("recording_id")["fold"]
    fold = folds.loc[voices["recording_id"]].to_numpy()
    said = {}
    kept = args.run / "cycle0" / "oof.npz"
    if kept.is_file():
        said["network"] = by_network(load_scores(kept)[0], voices)
    dump = FeatureStore(args.features, load_config(args.run / "config.yaml", []))
    said["mfcc_gmm"] = by_mixtures(dump, voices, fold)
    table = compared(said, voices, args.n_bootstrap)
    write_csv(args.out / "voices.csv", table)
    print(table.to_string(index=False))
    return 0


def by_network(scores: Scores, voices: pd.DataFrame) -> np.ndarray:
    """(V,) the class whose scores are highest in the mean over each voice."""
    rows = {name: row for row, name in enumerate(scores.recording_ids)}
    said = []
    for voice in voices.itertuples():
        row = rows[voice.recording_id]
        span = np.array([voice.onset]), np.array([voice.offset])
        share = coverage(*span, scores.grid(row))[0]
        said.append(scores.labels[int((scores.frames[row] @ share).argmax())])
    return np.array(said, dtype=object)


def by_mixtures(dump: FeatureStore, voices: pd.DataFrame, fold: np.ndarray) -> np.ndarray:
    """(V,) the class of each voice by mixtures fitted on the other folds."""
    segments = [
        mfcc(segment_frames(dump, voice.recording_id, voice.onset, voice.offset))
        for voice in voices.itertuples()
    ]
    truth = voices["label"].tolist()
    said = np.full(len(voices), "", dtype=object)
    for number in np.unique(fold):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        gmm = GmmClassifier(GmmParams(n_components=4)).fit(
            [segments[place] for place in train],
            [truth[place] for place in train],
            generator(0, "gmm", int(number)),
        )
        said[test] = gmm.predict([segments[place] for place in test])
    return said


def compared(said: dict[str, np.ndarray], voices: pd.DataFrame, n_resamples: int) -> pd.DataFrame:
    """Balanced accuracy of each system, and how far it is from the first's; chance in the end.

    A resample draws files; classes that none of them has do not count.
    """
    truth = voices["label"].to_numpy(dtype=object)
    by_file = list(voices.groupby("recording_id").indices.values())

    def accuracy(guess: np.ndarray, files: np.ndarray) -> float:
        rows = np.concatenate([by_file[place] for place in files])
        own = sorted(set(truth[rows]))
        return float(recall_score(truth[rows], guess[rows], labels=own, average="macro"))

    first = next(iter(said.values()))
    everything = np.arange(len(by_file))
    rows = []
    for system, guess in said.items():
        row: dict[str, object] = {"system": system, "voices": len(truth), "files": len(by_file)}
        for what, statistic in (
            ("balanced_accuracy", lambda files, own=guess: accuracy(own, files)),
            ("less_first", lambda files, own=guess: accuracy(own, files) - accuracy(first, files)),
        ):
            rng = generator(0, "voices")
            low, high = interval(of_rows(statistic), len(by_file), rng, n_resamples)
            row |= {what: statistic(everything), f"{what}_low": low, f"{what}_high": high}
        rows.append(row)
    chance = {"system": "chance", "balanced_accuracy": 1 / len(set(truth))}
    return pd.DataFrame([*rows, chance]).round(3)


if __name__ == "__main__":
    sys.exit(run_script(main))
