"""Scores of whole recordings, over time and one a recording, and what is done with them.

Averages over views and models are means of probabilities, kept as logits that never saturate. This
file and `score_files` need no PyTorch.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.special import expit, log_expit, logsumexp

from local.config import PoolConfig
from local.io.errors import CanopyError
from local.labels.grid import FrameGrid, to_frames


@dataclass(frozen=True)
class Scores:
    """Scores of N recordings and C classes, as logits.

    frames: N arrays (C, n_i) on grids of `hop_s` seconds that begin at `start_s`.
    window: (N, C) highest clip-wise score of any window.
    """

    recording_ids: list[str]
    labels: list[str]
    frames: list[np.ndarray]
    window: np.ndarray
    hop_s: float
    start_s: float

    def grid(self, row: int) -> FrameGrid:
        """Grid of one recording's frames."""
        return FrameGrid(self.frames[row].shape[1], self.hop_s, self.start_s)

    def take(self, names: list[str]) -> "Scores":
        """The named recordings, in that order."""
        position = {name: row for row, name in enumerate(self.recording_ids)}
        rows = [position[name] for name in names]
        frames = [self.frames[row] for row in rows] if self.frames else []
        return Scores(names, self.labels, frames, self.window[rows], self.hop_s, self.start_s)

    def join(self, others: "list[Scores]") -> "Scores":
        """These and those of other recordings, one after the other."""
        parts = [self, *others]
        names = [name for part in parts for name in part.recording_ids]
        frames = [one for part in parts for one in part.frames]
        window = np.concatenate([part.window for part in parts])
        return Scores(names, self.labels, frames, window, self.hop_s, self.start_s)


# -------------------------------------------------------------------------------------- averages


def mean_logit(logits: np.ndarray, axis: int = 0) -> np.ndarray:
    """Logit of the mean probability, exact also where a probability rounds to 0 or 1."""
    if logits.shape[axis] == 1:
        # The mean of one is that one; to and fro would cost more than a whole window's stitching.
        return logits.squeeze(axis)
    return logsumexp(log_expit(logits), axis=axis) - logsumexp(log_expit(-logits), axis=axis)


def average_scores(parts: list[Scores]) -> Scores:
    """Mean in probability over models that scored the same recordings."""
    first = parts[0]
    for other in parts[1:]:
        if other.recording_ids != first.recording_ids or other.labels != first.labels:
            raise CanopyError("scores to average differ in recordings or classes; infer again")
    if len(parts) == 1:
        return first
    frames = [
        mean_logit(np.stack([part.frames[row] for part in parts]))
        for row in range(len(first.recording_ids))
    ]
    window = mean_logit(np.stack([part.window for part in parts]))
    return Scores(first.recording_ids, first.labels, frames, window, first.hop_s, first.start_s)


# --------------------------------------------------------------------------------------- pooling


def pool_frames(frames: np.ndarray, hop_s: float, config: PoolConfig) -> np.ndarray:
    """(C, n) frame logits -> (C,) logits of a recording.

    max: of the frames. topk: logit of the mean probability of the highest frames that make up
    `seconds`. smooth_max: maximum of the moving average of probabilities over `seconds`.
    """
    if config.method == "max":
        return frames.max(axis=1)
    k = max(1, min(frames.shape[1], to_frames(config.seconds, hop_s)))
    if config.method == "topk":
        return mean_logit(np.sort(frames, axis=1)[:, -k:], axis=1)
    # Moving averages of both p and 1 - p, so that neither end loses digits.
    present = uniform_filter1d(expit(frames), k, axis=1, mode="nearest")
    absent = uniform_filter1d(expit(-frames), k, axis=1, mode="nearest")
    tiny = np.finfo(np.float64).tiny
    return (np.log(np.maximum(present, tiny)) - np.log(np.maximum(absent, tiny))).max(axis=1)


def clip_logits(scores: Scores, config: PoolConfig) -> np.ndarray:
    """(N, C) one score a recording and class: the same rule for every subset."""
    if config.source == "window":
        return scores.window
    pooled = [pool_frames(frames, scores.hop_s, config) for frames in scores.frames]
    return np.stack(pooled) if pooled else np.zeros((0, len(scores.labels)))
