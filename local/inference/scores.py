"""Scores of whole recordings: over time, and one a recording; the files they are kept in.

Validation, out-of-fold scores, test scores and relabelling all come through `score_recordings`,
which is the sliding windows of `sliding` over the feature files of stage 0. Averages over views and
models are means of probabilities, kept as logits that never saturate.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d
from scipy.special import expit
from tqdm import tqdm

from local.config import PoolConfig
from local.features.store import Dump
from local.inference.sliding import mean_logit, slide
from local.inference.views import View, list_views
from local.io.archives import UNREADABLE, read_npz
from local.io.errors import CanopyError
from local.io.files import file_digest, remove_leftovers, write_npz
from local.jobs.gpu_memory import batch_advice, peak_bytes
from local.jobs.interruption import stop_if_asked
from local.jobs.journal import Journal
from local.jobs.shards import Shard
from local.labels.grid import FrameGrid, to_frames
from local.models import SedModel, SedOutput

# Batches that the recordings of a block fill: what a killed run has to make again at most.
_BLOCK_BATCHES = 8


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


# -------------------------------------------------------------------------------------- averages


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


# ------------------------------------------------------------------------------- sliding windows


def score_recordings(
    model: SedModel,
    dump: Dump,
    recording_ids: list[str],
    labels: list[str],
    device: str,
    progress: str | None = None,
    kept: "KeptScores | None" = None,
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
    hop_s, start_s = config.hop_s * step, -0.5 * config.hop_s if dump.centred else 0.0
    frames, window = [], [np.zeros((0, len(labels)), dtype=np.float32)]
    blocks = list(_blocks(dump, recording_ids, views))
    if shard is not None:
        weights = [sum(map(dump.n_frames, names)) for names in blocks]
        blocks = [blocks[position] for position in shard.of(weights)]
        recording_ids = [name for names in blocks for name in names]
    dump.bring(recording_ids)
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


def _blocks(dump: Dump, recording_ids: list[str], views: list[View]) -> Iterator[list[str]]:
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
    dump: Dump,
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
    recordings = (partial(DumpFrames.at, dump, name) for name in recording_ids)
    scorers = [TorchScorer(model, device)]
    for chunk in slide(recordings, views, scorers, len(labels), step, config):
        parts.setdefault(chunk.row, []).append(chunk.frames)
        if chunk.window is not None:
            frames[chunk.row] = np.concatenate(parts.pop(chunk.row), axis=1)
            window[chunk.row] = chunk.window
    return frames, window


class DumpFrames:
    """The frames of a recording that stage 0 has read."""

    ended = True

    def __init__(self, dump: Dump, name: str) -> None:
        self._dump, self._name = dump, name
        self.n_known = dump.n_frames(name)

    @classmethod
    def at(cls, dump: Dump, name: str, stretch: float) -> "DumpFrames":
        """The recording, lasting `stretch` times as long."""
        return cls(dump.at(stretch), name)

    def reach(self, n: int) -> None:
        """All is there."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """(n_mels, k) or (k,) float32 of the frames [start, stop), as far as they exist."""
        return self._dump.crop(self._name, start, min(stop, self.n_known) - start)

    def release(self, reader: int, before: int) -> None:
        """Nothing is held."""


class TorchScorer:
    """A model as the sliding windows call it."""

    def __init__(self, model: SedModel, device: str) -> None:
        self._model, self._device = model, device

    @torch.inference_mode()
    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, n_mels, T) or (B, n) -> frame logits (B, C, T'), clip logits (B, C)."""
        with batch_advice("scoring", "inference.batch_size", len(x), partial(self._peak, x)):
            output = self._forward(x)
        return output.frame_logit.cpu().numpy(), output.clip_logit.cpu().numpy()

    def _forward(self, x: np.ndarray) -> SedOutput:
        batch = torch.from_numpy(x).to(self._device)
        return self._model(batch.unsqueeze(1) if self._model.input == "logmel" else batch)

    def _peak(self, x: np.ndarray, n: int) -> int:
        """Bytes on the GPU for `n` of these windows."""
        return peak_bytes(lambda: self._forward(x[:n]))


# ----------------------------------------------------------------------------------------- files


def save_scores(
    path: Path, scores: Scores, clip_logit: np.ndarray, keep_frames: bool, **extra: np.ndarray
) -> None:
    """Write `oof.npz`, `test.npz` or a fold's part.

    Members: recording_id (N,), label (C,), clip_logit (N, C), window_logit (N, C) and, when kept,
    frame_logit (C, sum n_i) with frame_offset (N + 1,), frame_hop_s, frame_start_s.
    """
    arrays = {
        "recording_id": np.array(scores.recording_ids, dtype=np.str_),
        "label": np.array(scores.labels, dtype=np.str_),
        "clip_logit": np.asarray(clip_logit, dtype=np.float32),
        "window_logit": np.asarray(scores.window, dtype=np.float32),
        **extra,
    }
    if keep_frames:
        lengths = [frames.shape[1] for frames in scores.frames]
        empty = np.zeros((len(scores.labels), 0), dtype=np.float32)
        arrays["frame_logit"] = np.concatenate([empty, *scores.frames], axis=1).astype(np.float32)
        arrays["frame_offset"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        arrays["frame_hop_s"] = np.float64(scores.hop_s)
        arrays["frame_start_s"] = np.float64(scores.start_s)
    write_npz(path, **arrays)


class KeptScores:
    """Scores of blocks of recordings, kept in a folder until all are there.

    Each block is an npz; the journal beside them says which recordings are in which, with the
    digest of the file. A block that is not whole is made again.

    Parameters
    ----------
    folder : of the journal `infer.journal` and the folder `infer.parts`.
    fingerprint : of all that decides the scores; blocks of another are thrown away.
    shard : a job beside others keeps a journal of its own, which who makes the whole takes over.
    """

    def __init__(self, folder: Path, fingerprint: str, shard: Shard | None = None) -> None:
        self._folder, self._parts = folder, folder / "infer.parts"
        name = "infer.journal" if shard is None else f"infer.journal.{shard.name}"
        self._journal = Journal(folder / name, fingerprint)
        if shard is None:
            for path in sorted(folder.glob("infer.journal.*of*")):
                self._journal.absorb(path)
            if not self._journal.items():
                self._clear()
        remove_leftovers(self._parts)

    def get(self, names: list[str]) -> Scores | None:
        """The scores of a block, if it was kept whole."""
        entries = [self._journal.get(name) for name in names]
        if any(entry is None or entry["block"] != names[0] for entry in entries):
            return None
        path = self._path(names)
        if not path.is_file() or file_digest(path) != entries[0]["digest"]:
            return None
        scores, _ = load_scores(path)
        return scores if scores.recording_ids == names else None

    def add(self, scores: Scores) -> None:
        """Keep a block."""
        names = scores.recording_ids
        save_scores(self._path(names), scores, scores.window, keep_frames=True)
        digest = file_digest(self._path(names))
        for name in names:
            self._journal.add(name, status="ok", block=names[0], digest=digest)

    def close(self) -> None:
        """Leave all for a later run."""
        self._journal.close()

    def remove(self) -> None:
        """Take everything away: all is done."""
        self._journal.remove()
        self.discard(self._folder)

    @staticmethod
    def discard(folder: Path) -> None:
        """Take away what a run left that was killed when all was done."""
        for path in folder.glob("infer.journal*"):
            path.unlink()
        if (folder / "infer.parts").is_dir():
            shutil.rmtree(folder / "infer.parts")

    def _path(self, names: list[str]) -> Path:
        return self._parts / f"{names[0]}.npz"

    def _clear(self) -> None:
        if self._parts.is_dir():
            shutil.rmtree(self._parts)


def load_scores(path: Path | str) -> tuple[Scores, dict[str, np.ndarray]]:
    """Read what `save_scores` wrote: the scores, and all members (clip_logit among them)."""
    path = Path(path)
    try:
        members = read_npz(path)
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such scores; run stage 3 first") from None
    except (OSError, *UNREADABLE) as error:
        raise CanopyError(f"{path}: not readable as npz ({error}); run stage 3 again") from None
    missing = {"recording_id", "label", "clip_logit", "window_logit"} - set(members)
    if missing:
        raise CanopyError(f"{path}: has no member {min(missing)}; run stage 3 again")
    fault = _scores_fault(members)
    if fault:
        raise CanopyError(f"{path}: {fault}; run stage 3 again")
    ids, labels = members["recording_id"].tolist(), members["label"].tolist()
    if "frame_logit" in members:
        frames = [
            members["frame_logit"][:, start:end] for start, end in pairwise(members["frame_offset"])
        ]
        hop_s, start_s = float(members["frame_hop_s"]), float(members["frame_start_s"])
    else:
        frames, hop_s, start_s = [], 0.0, 0.0
    return Scores(ids, labels, frames, members["window_logit"], hop_s, start_s), members


def _scores_fault(members: dict[str, np.ndarray]) -> str:
    """What contradicts itself in the members of a score file; "" when nothing does."""
    ids, labels = members["recording_id"], members["label"]
    if any(names.ndim != 1 or names.dtype.kind != "U" for names in (ids, labels)):
        return "its recordings and labels are no lists of text"
    for name in ("clip_logit", "window_logit"):
        logit = members[name]
        if logit.dtype.kind != "f" or logit.shape != (len(ids), len(labels)):
            return f"member {name} has shape {logit.shape}, expected {(len(ids), len(labels))}"
    if "frame_logit" not in members:
        return ""
    needed = {"frame_offset", "frame_hop_s", "frame_start_s"} - set(members)
    if needed:
        return f"has no member {min(needed)}"
    frames, offsets = members["frame_logit"], members["frame_offset"]
    if offsets.shape != (len(ids) + 1,) or offsets.dtype.kind not in "iu":
        return f"member frame_offset has shape {offsets.shape}, expected {(len(ids) + 1,)}"
    if frames.dtype.kind != "f" or frames.shape != (len(labels), int(offsets[-1])):
        return f"member frame_logit has shape {frames.shape}, not that of frame_offset"
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        return "member frame_offset does not increase from 0"
    times = [members[name] for name in ("frame_hop_s", "frame_start_s")]
    if any(time.shape != () or time.dtype.kind != "f" or not np.isfinite(time) for time in times):
        return "its frames have no time"
    return ""
