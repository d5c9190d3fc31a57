"""Scores of a held-out fold that the ranks made together."""

import numpy as np

from local.inference.scores import Scores
from local.training.ranks import Ranks

# Who asked, where it was another rank that was asked.
OF_ANOTHER = "a signal to another rank"


def gather_scores(ranks: Ranks, part: Scores, recording_ids: list[str]) -> Scores:
    """The scores of all `recording_ids`, of which each rank has a part; to the bit what it made."""
    position = {name: row for row, name in enumerate(recording_ids)}
    n_classes = len(part.labels)
    own = np.array([position[name] for name in part.recording_ids], dtype=np.int64)
    lengths = np.array([frames.shape[1] for frames in part.frames], dtype=np.int64)
    flat = [np.asarray(frames, dtype=np.float32).ravel() for frames in part.frames]
    values = np.concatenate([np.zeros(0, np.float32), *flat])
    rows = np.concatenate(ranks.collect(own))
    each = zip(ranks.collect(lengths), ranks.collect(values), strict=True)
    frames = [
        piece.reshape(n_classes, -1)
        for counts, numbers in each
        for piece in np.split(numbers, np.cumsum(counts * n_classes)[:-1])
        if len(counts)
    ]
    window = np.concatenate(ranks.collect(np.asarray(part.window, dtype=np.float32).ravel()))
    names = [recording_ids[row] for row in rows]
    whole = Scores(
        names, part.labels, frames, window.reshape(-1, n_classes), part.hop_s, part.start_s
    )
    return whole.take(recording_ids)
