"""The one sliding-window path: windows -> stitched scores over time -> one score a recording.

Validation, out-of-fold scores, test scores and relabelling all come through `score_recordings`.
Averages over views and models are means of probabilities, kept as logits that never saturate.
"""

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d
from scipy.special import expit, log_expit, logsumexp
from tqdm import tqdm

from local.config import Config, PoolConfig
from local.dataset import Dump
from local.errors import CanopyError
from local.files import write_npz
from local.labels import FrameGrid, to_frames
from local.models import SedModel
from local.views import View, list_views
from local.windows import Stitcher, n_cells, window_starts


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


# ------------------------------------------------------------------------------ averages of odds


def mean_logit(logits: np.ndarray, axis: int = 0) -> np.ndarray:
    """Logit of the mean probability, exact also where a probability rounds to 0 or 1."""
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


# ------------------------------------------------------------------------------- sliding windows


def score_recordings(
    model: SedModel,
    dump: Dump,
    recording_ids: list[str],
    labels: list[str],
    device: str,
    progress: str | None = None,
) -> Scores:
    """Score whole recordings with one model.

    Parameters
    ----------
    model : in evaluation mode on `device`.
    progress : words for the progress bar; None shows none.
    """
    config, step = dump.config, model.step
    views = list_views(config, step, dump)
    frames: list[np.ndarray] = []
    window = np.full((len(recording_ids), len(labels)), -np.inf)
    done = tqdm(total=len(recording_ids), desc=progress, disable=None if progress else True)
    batches = _run_batches(model, _requests(dump, recording_ids, views), config, device)
    stitcher: Stitcher | None = None
    viewed: list[np.ndarray] = []
    clips: list[np.ndarray] = []
    best: np.ndarray | None = None
    for request, frame_logit, clip_logit in batches:
        if request.first:
            stitcher = Stitcher(len(labels), request.n_frames, step, config.inference.stitch)
            best = np.full(len(labels), -np.inf)
        if stitcher is None or best is None:
            raise RuntimeError("a window came before the first of its recording")
        stitcher.add(_stitchable(frame_logit, config.inference.stitch), request.start)
        np.maximum(best, clip_logit, out=best)
        if request.last:
            name = recording_ids[request.row]
            stitched = _unstitch(stitcher.result(), config.inference.stitch)
            n_plain = n_cells(dump.n_frames(name), step)
            viewed.append(_to_plain_grid(stitched, request, n_plain, step if dump.centred else 0))
            clips.append(best)
        if request.last and request.view == len(views) - 1:
            frames.append(mean_logit(np.stack(viewed)).astype(np.float32))
            window[request.row] = mean_logit(np.stack(clips))
            viewed, clips = [], []
            done.update()
    done.close()
    start_s = -0.5 * config.hop_s if dump.centred else 0.0
    window = window.astype(np.float32)
    return Scores(recording_ids, labels, frames, window, config.hop_s * step, start_s)


def _stitchable(frame_logit: np.ndarray, method: str) -> np.ndarray:
    """Means are taken of probabilities; a maximum may be taken of logits as well."""
    return expit(frame_logit.astype(np.float64)) if method == "mean" else frame_logit


def _unstitch(stitched: np.ndarray, method: str) -> np.ndarray:
    if method == "max":
        return stitched
    clipped = np.clip(stitched, 1e-15, 1 - 1e-15)
    return np.log(clipped) - np.log1p(-clipped)


@dataclass(frozen=True)
class _Request:
    """One window of one view of one recording."""

    row: int
    view: int
    start: int
    n_frames: int
    first: bool
    last: bool
    flip: bool
    speed: float
    stretch: float
    crop: np.ndarray


def _requests(dump: Dump, recording_ids: list[str], views: list[View]) -> Iterator[_Request]:
    config = dump.config
    for row, name in enumerate(recording_ids):
        for position, view in enumerate(views):
            source = dump.at(view.stretch)
            n_plain = source.n_frames(name)
            n_frames = max(1, to_frames(n_plain / view.speed, 1.0))
            shift = to_frames(view.shift_s, config.hop_s)
            starts = window_starts(n_frames, view.window, view.overlap, shift)
            for start in starts:
                yield _Request(
                    row=row,
                    view=position,
                    start=int(start),
                    n_frames=n_frames,
                    first=start == starts[0],
                    last=start == starts[-1],
                    flip=view.flip,
                    speed=view.speed,
                    stretch=view.stretch,
                    crop=_look(source, name, int(start), n_plain, view),
                )


def _look(dump: Dump, name: str, start: int, n_plain: int, view: View) -> np.ndarray:
    """The input of one window as the view shows it."""
    if view.speed == 1.0:
        crop = dump.crop(name, start, view.window)
    else:
        # Frame i of the faster recording stands where frame i * speed stood.
        places = (start + np.arange(view.window)) * view.speed
        first = min(int(places[0]), max(0, n_plain - 1))
        source = dump.crop(name, first, int(np.ceil(places[-1])) + 2 - first)
        places = np.clip(places - first, 0, source.shape[-1] - 1)
        left = np.minimum(places.astype(np.int64), source.shape[-1] - 2)
        share = (places - left).astype(np.float32)
        crop = source[..., left] * (1 - share) + source[..., left + 1] * share
    if view.gain_db:
        if dump.centred:
            crop = crop + np.float32(view.gain_db * np.log(10) / 10)
        else:
            crop = crop * np.float32(10 ** (view.gain_db / 20))
    return crop


def _run_batches(
    model: SedModel, requests: Iterable[_Request], config: Config, device: str
) -> Iterator[tuple[_Request, np.ndarray, np.ndarray]]:
    """Windows of any recordings share batches; results come in the order of the requests."""
    waiting: list[_Request] = []
    for request in requests:
        if waiting and request.crop.shape != waiting[0].crop.shape:
            yield from _run_batch(model, waiting, device)
            waiting = []
        waiting.append(request)
        if len(waiting) == config.inference.batch_size:
            yield from _run_batch(model, waiting, device)
            waiting = []
    if waiting:
        yield from _run_batch(model, waiting, device)


@torch.inference_mode()
def _run_batch(
    model: SedModel, requests: list[_Request], device: str
) -> Iterator[tuple[_Request, np.ndarray, np.ndarray]]:
    x = torch.from_numpy(np.stack([request.crop for request in requests])).to(device)
    if model.input == "logmel":
        x = x.unsqueeze(1)
    # A flipped window is cut to whole cells first, so that its cells turn into its cells.
    flipped = torch.tensor([request.flip for request in requests], device=device)
    if bool(flipped.any()):
        whole = x.shape[-1] // model.step * model.step
        turned = torch.cat([x[..., :whole].flip(-1), x[..., whole:]], dim=-1)
        x = torch.where(flipped.view(-1, *[1] * (x.ndim - 1)), turned, x)
    output = model(x)
    frame = torch.where(flipped.view(-1, 1, 1), output.frame_logit.flip(-1), output.frame_logit)
    frame_logit, clip_logit = frame.cpu().numpy(), output.clip_logit.cpu().numpy()
    yield from zip(requests, frame_logit, clip_logit, strict=True)


def _to_plain_grid(stitched: np.ndarray, request: _Request, n_plain: int, step: int) -> np.ndarray:
    """Scores of a faster or slower view, brought back to the `n_plain` cells of plain time.

    Time 0 is the middle of the first frame, half a frame into the first cell of `step` frames (of
    samples, given as 0: its beginning).
    """
    ratio = request.speed / request.stretch
    if ratio == 1.0 and request.stretch == 1.0:
        return stitched
    centres = np.arange(n_plain) + 0.5
    places = (np.arange(stitched.shape[1]) + 0.5) * ratio
    if request.stretch != 1.0 and step:
        places += 0.5 * (1 - ratio) / step
    return np.stack([np.interp(centres, places, scores) for scores in stitched])


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


def load_scores(path: Path | str) -> tuple[Scores, dict[str, np.ndarray]]:
    """Read what `save_scores` wrote: the scores, and all members (clip_logit among them)."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            members = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such scores; run stage 3 first") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CanopyError(f"{path}: not readable as npz ({error}); run stage 3 again") from None
    missing = {"recording_id", "label", "clip_logit", "window_logit"} - set(members)
    if missing:
        raise CanopyError(f"{path}: has no member {min(missing)}; run stage 3 again")
    ids, labels = members["recording_id"].tolist(), members["label"].tolist()
    if "frame_logit" in members:
        frames = [
            members["frame_logit"][:, start:end] for start, end in pairwise(members["frame_offset"])
        ]
        hop_s, start_s = float(members["frame_hop_s"]), float(members["frame_start_s"])
    else:
        frames, hop_s, start_s = [], 0.0, 0.0
    return Scores(ids, labels, frames, members["window_logit"], hop_s, start_s), members
