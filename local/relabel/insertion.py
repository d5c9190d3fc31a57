"""Confirmed calls inserted into recordings whose prevalence is wanted.

To tell how common a class is among unlabelled recordings one must know how a model scores those of
them that have it. Confirmed calls are few, and come from other sites. So each is cut out of its own
recording and laid into recordings drawn from the unlabelled ones, at the same level over the
background as it had: what the model then says is how it scores a recording there that has the
class. Only calls that the model's training did not see are used. `prevalence_mixture` and
`prevalence.estimate_tail` compare these scores with those of the recordings as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch

from local.features.store import FeatureStore
from local.inference.scores import Scores, clip_logits, pool_frames
from local.inference.views import inference_window
from local.io.errors import CanopyError
from local.jobs.interruption import stop_if_asked
from local.labels.grid import to_frames
from local.models import SedModel

# The background of a band: this quantile of its level over so many seconds around.
_BACKGROUND_SHARE, _BACKGROUND_S = 0.2, 30.0


@dataclass(frozen=True)
class _Window:
    """The input of a window with a call of a class in it, and the recording's row in `Scores`."""

    number: int
    column: int
    row: int
    x: np.ndarray


def insert_calls(
    model: SedModel,
    dump: FeatureStore,
    calls: pd.DataFrame,
    targets: Scores,
    n_insertions: int,
    rng: np.random.Generator,
    device: str,
) -> np.ndarray:
    """Clip logits (n_insertions, C) of drawn target recordings once a call is inserted in each.

    Parameters
    ----------
    model : in evaluation mode on `device`.
    calls : confirmed events that the model's training did not see.
    targets : this model's scores of the recordings to insert into, with frames.
    n_insertions : insertions a class; calls are used in turn, recordings drawn.

    Returns
    -------
    A recording that scores higher without the insertion keeps that score, as it would if the whole
    recording were scored again. The column of a class without calls is NaN. Views of test-time
    augmentation are left out.
    """
    config = dump.config
    result = np.full((n_insertions, len(targets.labels)), np.nan, dtype=np.float32)
    if not targets.recording_ids:
        return result
    before = clip_logits(targets, config.inference.pool)
    length = inference_window(config, model.step, dump)
    windows = _draw(dump, calls, targets, n_insertions, length, rng)
    while batch := list(islice(windows, config.inference.batch_size)):
        stop_if_asked("inserted calls")
        scores = _score(model, batch, dump, device)
        for window, score in zip(batch, scores, strict=True):
            column = window.column
            result[window.number, column] = max(score, before[window.row, column])
    return result


def _draw(
    dump: FeatureStore,
    calls: pd.DataFrame,
    targets: Scores,
    n_insertions: int,
    length: int,
    rng: np.random.Generator,
) -> Iterator[_Window]:
    for column, label in enumerate(targets.labels):
        rows = list(calls[calls["label"] == label].itertuples())
        rows = [rows[index] for index in rng.permutation(len(rows))]
        # More calls than insertions are not read.
        cuts = [_cut(dump, event, length) for event in rows[:n_insertions]]
        for number in range(n_insertions if cuts else 0):
            row = int(rng.integers(len(targets.recording_ids)))
            cut, bands = cuts[number % len(cuts)]
            x = _insert(dump, targets.recording_ids[row], cut, bands, length, rng)
            yield _Window(number, column, row, x)


def _cut(dump: FeatureStore, event: Any, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The call's frames relative to its own background, (F, n) or (n,), and its bands (F,) bool."""
    hop_s, limits = dump.hop_s, dump.front_end.band_edges_hz()
    n_frames = dump.n_frames(event.recording_id)
    first = min(to_frames(event.onset, hop_s), n_frames - 1)
    n = max(1, min(to_frames(event.offset - event.onset, hop_s), n_frames - first, length))
    cut = dump.crop(event.recording_id, first, n)
    if dump.front_end.level == "amplitude":
        return cut, np.ones(1, dtype=bool)
    if limits is None:
        raise CanopyError(
            f"{dump.folder}: calls cannot be inserted into {dump.front_end.kind} features, which "
            "have no bands of power in hertz; set prior.method to none or given"
        )
    low, high = np.nan_to_num([event.low_freq, event.high_freq], nan=-1.0)
    bands = (limits[:, 1] > low) & ((limits[:, 0] < high) | (high < 0))
    return cut - _background(dump, event.recording_id, first), bands


def _background(dump: FeatureStore, recording_id: str, around: int) -> np.ndarray:
    """(F, 1) level of each band's background near a frame."""
    span = to_frames(_BACKGROUND_S, dump.hop_s)
    n_frames = dump.n_frames(recording_id)
    first = int(np.clip(around - span // 2, 0, max(0, n_frames - span)))
    near = dump.crop(recording_id, first, min(span, n_frames))
    return np.quantile(near, _BACKGROUND_SHARE, axis=1, keepdims=True).astype(np.float32)


def _insert(
    dump: FeatureStore,
    recording_id: str,
    cut: np.ndarray,
    bands: np.ndarray,
    length: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """A window of the recording with the call somewhere in it.

    Log-mel: the louder of the two in each cell of the call's bands, which is their sum within 3 dB
    and leaves the background as loud as it was. Waveform: the sum.
    """
    n = cut.shape[-1]
    place = int(rng.integers(0, max(1, dump.n_frames(recording_id) - n + 1)))
    earliest = max(0, place + n - length)
    latest = max(0, min(place, dump.n_frames(recording_id) - length))
    start = int(rng.integers(min(earliest, latest), latest + 1))
    x = dump.crop(recording_id, start, length).copy()
    inside = slice(place - start, min(place - start + n, length))
    cut = cut[..., : inside.stop - inside.start]
    if dump.front_end.level == "amplitude":
        x[inside] += cut
        return x
    level = cut + _background(dump, recording_id, place)
    x[bands, inside] = np.maximum(x[bands, inside], level[bands])
    return x


@torch.inference_mode()
def _score(model: SedModel, batch: list[_Window], dump: FeatureStore, device: str) -> list[float]:
    """Clip logit of each window for the class that was inserted in it."""
    x = torch.from_numpy(np.stack([window.x for window in batch])).to(device)
    output = model(dump.front_end.as_input(x))
    columns = torch.tensor([window.column for window in batch], device=output.clip_logit.device)
    rows = torch.arange(len(batch), device=columns.device)
    pool = dump.config.inference.pool
    if pool.source == "window":
        return output.clip_logit[rows, columns].float().cpu().tolist()
    frames = output.frame_logit[rows, columns].float().cpu().numpy()
    return pool_frames(frames, dump.hop_s * model.step, pool).tolist()
