"""The class of a voice: by a network's scores, and by mixtures of Gaussians over cepstra."""

import numpy as np
import pandas as pd
from sklearn.metrics import recall_score

from local.baselines.cepstra import mfcc, segment_frames
from local.baselines.gmm import GmmClassifier, GmmParams
from local.features.store import FeatureStore
from local.inference.scores import Scores
from local.io.seeds import generator
from local.labels.grid import coverage
from local.scoring.metrics.bootstrap import interval, of_rows


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
