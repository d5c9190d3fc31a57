"""A model over whole recordings of the store: the sliding windows of `sliding`, block by block.

Validation, out-of-fold scores, test scores and relabelling all come through `score_recordings`.
"""

import logging
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from local.features.front_ends.front_end import FrontEnd
from local.features.store import FeatureStore
from local.inference.score_files import PartialScores
from local.inference.scores import Scores
from local.inference.sliding import slide
from local.inference.views import View, list_views
from local.jobs.gpu_memory import advise_batch_size, peak_bytes
from local.jobs.interruption import stop_if_asked
from local.jobs.shards import Shard
from local.labels.grid import to_frames
from local.models import SedModel, SedOutput

log = logging.getLogger("canopy")

# Batches that the recordings of a block fill: what a killed run has to make again at most.
_BLOCK_BATCHES = 8


def score_recordings(
    model: SedModel,
    dump: FeatureStore,
    recording_ids: list[str],
    labels: list[str],
    device: str,
    progress: str | None = None,
    kept: "PartialScores | None" = None,
    shard: Shard | None = None,
) -> Scores:
    """Score whole recordings with one model.

    Only the recordings of one block share batches, so that scores do not depend on where an earlier
    run was stopped.

    Parameters
    ----------
    model : in evaluation mode on `device`.
    progress : words for the progress bar; None shows none.
    kept : keeps blocks as they are made, and knows those made before.
    shard : score this share of the blocks only.

    Raises Interrupted, between blocks, when the run was asked to stop.
    """
    config, step = dump.config, model.step
    views = list_views(config, step, dump)
    hop_s, start_s = dump.front_end.hop_s * step, dump.front_end.start_s
    frames: list[np.ndarray] = []
    window = [np.zeros((0, len(labels)), dtype=np.float32)]
    blocks = list(_blocks(dump, recording_ids, views))
    if shard is not None:
        weights = [sum(map(dump.n_frames, names)) for names in blocks]
        blocks = [blocks[position] for position in shard.of(weights)]
        recording_ids = [name for names in blocks for name in names]
    dump.bring(recording_ids)
    silent_s = [dump.silent_s(name) for name in recording_ids]
    if progress and any(silent_s):
        log.info(
            "%s: %d recordings hold %.1f s of digital silence, where nothing is scored",
            *(progress, np.count_nonzero(silent_s), sum(silent_s)),
        )
    done = tqdm(total=len(recording_ids), desc=progress, disable=None if progress else True)
    for names in blocks:
        part = kept.get(names) if kept is not None else None
        if part is None:
            scored = _score_block(model, dump, names, labels, device, views)
            part = Scores(names, labels, *scored, hop_s, start_s)
            if kept is not None:
                kept.add(part)
            stop_if_asked(f"recording {names[-1]}")
        frames += part.frames
        window.append(part.window)
        done.update(len(names))
    done.close()
    return Scores(recording_ids, labels, frames, np.concatenate(window), hop_s, start_s)


def _blocks(dump: FeatureStore, recording_ids: list[str], views: list[View]) -> Iterator[list[str]]:
    """Consecutive recordings whose windows fill several batches: few batches are not full."""
    limit = _BLOCK_BATCHES * dump.config.inference.batch_size
    names: list[str] = []
    n_windows = 0
    for name in recording_ids:
        names.append(name)
        for view in views:
            n_frames = max(1, to_frames(dump.at(view.stretch).n_frames(name) / view.speed, 1.0))
            n_windows += -(-n_frames // (view.window - view.overlap))
        if n_windows >= limit:
            yield names
            names, n_windows = [], 0
    if names:
        yield names


def _score_block(
    model: SedModel,
    dump: FeatureStore,
    recording_ids: list[str],
    labels: list[str],
    device: str,
    views: list[View],
) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames and window scores of recordings, as `Scores` holds them."""
    config, step = dump.config, model.step
    frames: list[np.ndarray] = [np.zeros((len(labels), 0), np.float32) for _ in recording_ids]
    parts: dict[int, list[np.ndarray]] = {}
    window = np.full((len(recording_ids), len(labels)), -np.inf, dtype=np.float32)
    recordings = (partial(StoredFrames.at, dump, name) for name in recording_ids)
    scorers = [TorchScorer(model, dump.front_end, device)]
    for chunk in slide(recordings, views, scorers, len(labels), step, config):
        parts.setdefault(chunk.row, []).append(chunk.frames)
        if chunk.window is not None:
            frames[chunk.row] = np.concatenate(parts.pop(chunk.row), axis=1)
            window[chunk.row] = chunk.window
    return frames, window


class StoredFrames:
    """The frames of a recording that stage 0 has read."""

    ended = True

    def __init__(self, dump: FeatureStore, name: str) -> None:
        self._dump, self._name = dump, name
        self.n_known = dump.n_frames(name)

    @classmethod
    def at(cls, dump: FeatureStore, name: str, stretch: float) -> "StoredFrames":
        """The recording, lasting `stretch` times as long."""
        return cls(dump.at(stretch), name)

    def reach(self, n: int) -> None:
        """All is there."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """(*axes, k) float32 of the frames [start, stop), as far as they exist."""
        return self._dump.crop(self._name, start, min(stop, self.n_known) - start)

    def silence(self, after_s: float) -> np.ndarray:
        """(k, 2) seconds of all its digital silence."""
        return self._dump.silence(self._name)

    def release(self, reader: int, before: int) -> None:
        """Nothing is held."""


class TorchScorer:
    """A model as the sliding windows call it."""

    def __init__(self, model: SedModel, front_end: FrontEnd, device: str) -> None:
        self._model, self._front_end, self._device = model, front_end, device

    @torch.inference_mode()
    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, *axes, T) -> frame logits (B, C, T'), clip logits (B, C)."""
        with advise_batch_size("scoring", "inference.batch_size", len(x), partial(self._peak, x)):
            output = self._forward(x)
        return output.frame_logit.cpu().numpy(), output.clip_logit.cpu().numpy()

    def _forward(self, x: np.ndarray) -> SedOutput:
        batch = torch.from_numpy(x).to(self._device)
        return self._model(self._front_end.as_input(batch))

    def _peak(self, x: np.ndarray, n: int) -> int:
        """Bytes on the GPU for `n` of these windows."""
        return peak_bytes(lambda: self._forward(x[:n]))
