"""Windows of the dump with their targets: what to draw in an epoch, and how to read it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from local.config import Config
from local.errors import CanopyError
from local.features import FeatureReader
from local.labels import (
    EventArrays,
    events_by_recording,
    grid_of,
    needed_s,
    to_frames,
    window_targets,
)
from local.tables import Tables, read_table

MANIFEST_COLUMNS = ("recording_id", "file", "n_frames", "duration", "status", "reason")


class Dump:
    """The feature files of stage 0, by recording."""

    def __init__(self, folder: Path | str, config: Config) -> None:
        self.folder = Path(folder)
        self.config = config
        self.centred = config.features.kind == "logmel"
        manifest = read_table(self.folder / "manifest.csv", MANIFEST_COLUMNS)
        self._manifest = manifest.set_index("recording_id")
        self._valid = set(self._manifest.index[self._manifest["status"] == "ok"])
        self._n_frames = self._manifest["n_frames"].to_dict()
        self._reader = FeatureReader()

    def __contains__(self, recording_id: str) -> bool:
        """Whether the recording was read."""
        return recording_id in self._valid

    @property
    def n_bands(self) -> int:
        """Mel bands (1 for the waveform)."""
        return self.config.features.n_mels if self.centred else 1

    def n_frames(self, recording_id: str) -> int:
        """Length of a recording in feature frames (samples for the waveform)."""
        return int(self._n_frames[recording_id])

    def crop(self, recording_id: str, start: int, length: int) -> np.ndarray:
        """(n_mels, length) or (length,) float32 from frame `start`; short recordings are padded.

        The padding is the rule `window.short`: the recording's own repeats, or silence.
        """
        n = self.n_frames(recording_id)
        stop = min(n, start + length)
        path = self.folder / self._manifest.at[recording_id, "file"]
        crop = np.asarray(self._reader.read_crop(path, start, stop), dtype=np.float32)
        if not self.centred:
            crop *= np.float32(1 / 32768)
        missing = length - (stop - start)
        if missing <= 0:
            return crop
        if self.config.window.short == "repeat":
            return np.take(crop, np.arange(length), axis=-1, mode="wrap")
        fill = np.log(self.config.features.floor) if self.centred else 0.0
        widths = [(0, 0)] * (crop.ndim - 1) + [(0, missing)]
        return np.pad(crop, widths, constant_values=np.float32(fill))

    def check_lengths(self) -> None:
        """Refuse recordings shorter than the window unless a padding rule is given."""
        if self.config.window.short != "refuse":
            return
        window = self.config.window.length_s
        short = [
            name for name in self._valid if self._manifest.at[name, "duration"] < window - 1e-6
        ]
        if short:
            name = min(short)
            raise CanopyError(
                f"recording {name} lasts {self._manifest.at[name, 'duration']:.3f} s, less than "
                f"window.length_s {window:g} ({len(short)} such recordings); shorten the window or "
                "set window.short to repeat or silence"
            )


def window_frames(config: Config, step: int) -> int:
    """Length of a training window in frames: whole cells of `step`, nearest to `length_s`."""
    return max(1, to_frames(config.window.length_s, config.hop_s * step)) * step


@dataclass(frozen=True)
class Pool:
    """What a fold may draw from: recordings in order, and their events as flat arrays.

    `event_*` have one entry an event: the recording's position, class, onset, offset (s), and kind:
    0 true positive, 1 true negative, 2 pseudo.
    """

    recording_ids: list[str]
    n_frames: np.ndarray
    events: dict[str, EventArrays]
    event_recording: np.ndarray
    event_label: np.ndarray
    event_onset: np.ndarray
    event_offset: np.ndarray
    event_kind: np.ndarray


def make_pool(tables: Tables, events: pd.DataFrame, recording_ids: list[str], dump: Dump) -> Pool:
    """Collect recordings (those that could be read) and `events` that lie in them."""
    ids = [name for name in recording_ids if name in dump]
    position = {name: row for row, name in enumerate(ids)}
    mine = events[events["recording_id"].isin(position)]
    mine = mine.sort_values(["recording_id", "onset", "offset", "label"], kind="stable")
    index = {label: row for row, label in enumerate(tables.labels)}
    pseudo = mine["source"].astype(str).str.startswith("pseudo").to_numpy()
    negative = (mine["polarity"] < 0).to_numpy()
    return Pool(
        recording_ids=ids,
        n_frames=np.array([dump.n_frames(name) for name in ids], dtype=np.int64),
        events=events_by_recording(mine, tables.labels),
        event_recording=mine["recording_id"].map(position).to_numpy(dtype=np.int64),
        event_label=mine["label"].map(index).to_numpy(dtype=np.int64),
        event_onset=mine["onset"].to_numpy(dtype=np.float64),
        event_offset=mine["offset"].to_numpy(dtype=np.float64),
        event_kind=np.where(pseudo, 2, np.where(negative, 1, 0)),
    )


def plan_epoch(
    pool: Pool, config: Config, window: int, n_windows: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the windows of an epoch: (n_windows, 2) of recording position and first frame.

    The kind of a window is drawn first (true event, known negative, pseudo event, anywhere), then
    for true rows a class with equal chance and one of its rows, for pseudo rows any row: pseudo
    events keep their natural balance, which carries the prior of the recordings.
    """
    rule = config.window
    if not pool.recording_ids:
        raise CanopyError(
            "no readable train recording is left for this fold; look at the reasons in manifest.csv"
        )
    shares = np.array([rule.p_positive, rule.p_negative, rule.p_pseudo, rule.p_random])
    rows_of = [np.flatnonzero(pool.event_kind == kind) for kind in range(3)]
    for kind, rows in enumerate(rows_of):
        shares[kind] *= len(rows) > 0
    if shares.sum() == 0:
        raise CanopyError(
            "no window can be drawn: there are no events of the kinds that window.p_positive, "
            "p_negative and p_pseudo ask for, and window.p_random is 0; raise p_random"
        )
    kinds = rng.choice(4, size=n_windows, p=shares / shares.sum())
    plan = np.empty((n_windows, 2), dtype=np.int64)
    for kind in range(3):
        where = np.flatnonzero(kinds == kind)
        balanced = rule.balance_classes and kind != 2
        chosen = _draw_rows(rows_of[kind], pool.event_label, len(where), balanced, rng)
        plan[where, 0] = pool.event_recording[chosen]
        plan[where, 1] = _place(pool, chosen, window, config, rng)
    where = np.flatnonzero(kinds == 3)
    # Longer recordings hold more windows, so they are drawn more often.
    weight = pool.n_frames / pool.n_frames.sum()
    plan[where, 0] = rng.choice(len(pool.recording_ids), size=len(where), p=weight)
    room = np.maximum(0, pool.n_frames[plan[where, 0]] - window)
    plan[where, 1] = rng.integers(0, room + 1)
    return plan


def _draw_rows(
    rows: np.ndarray, labels: np.ndarray, n: int, balanced: bool, rng: np.random.Generator
) -> np.ndarray:
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    if not balanced:
        return rng.choice(rows, size=n)
    by_label = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    drawn = rng.integers(0, len(by_label), size=n)
    return np.array([rng.choice(by_label[label]) for label in drawn], dtype=np.int64)


def _place(
    pool: Pool, rows: np.ndarray, window: int, config: Config, rng: np.random.Generator
) -> np.ndarray:
    """First frames of windows drawn evenly from all those that show enough of the event."""
    onset, offset = pool.event_onset[rows], pool.event_offset[rows]
    needed = needed_s(offset - onset, config.window)
    # A window from frame s on shows [s, s + window) frames, half a frame earlier when centred.
    early_s = config.hop_s * (0.5 if config.features.kind == "logmel" else 0.0)
    earliest = np.ceil((onset + needed + early_s) / config.hop_s - window - 1e-6)
    latest = np.floor((offset - needed + early_s) / config.hop_s + 1e-6)
    start = rng.integers(
        earliest.astype(np.int64), np.maximum(latest, earliest).astype(np.int64) + 1
    )
    room = np.maximum(0, pool.n_frames[pool.event_recording[rows]] - window)
    return np.clip(start, 0, room)


class WindowDataset(Dataset):
    """The windows of one epoch's plan; item i is the same whoever reads it and in what order."""

    def __init__(
        self, pool: Pool, dump: Dump, plan: np.ndarray, window: int, step: int, n_classes: int
    ) -> None:
        self._pool = pool
        self._dump = dump
        self._plan = plan
        self._window = window
        self._step = step
        self._n_classes = n_classes

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        """`x` (1, F, T) or (n,), the four targets of `labels.Targets`, and the plan's row."""
        row, start = (int(value) for value in self._plan[item])
        name = self._pool.recording_ids[row]
        config = self._dump.config
        x = self._dump.crop(name, start, self._window)
        grid = grid_of(self._window, config.hop_s, self._dump.centred, start, self._step)
        targets = window_targets(
            self._pool.events.get(name), self._n_classes, grid, config.window, config.data
        )
        if config.window.short == "repeat":
            # The repeats of a short recording sound again where no annotation speaks.
            inside = max(1, -(-(self._pool.n_frames[row] - start) // self._step))
            targets.frame_mask[:, inside:] = 0.0
        return {
            "x": torch.from_numpy(x[None] if self._dump.centred else x),
            "clip_target": torch.from_numpy(targets.clip_target),
            "clip_mask": torch.from_numpy(targets.clip_mask),
            "frame_target": torch.from_numpy(targets.frame_target),
            "frame_mask": torch.from_numpy(targets.frame_mask),
            "row": torch.tensor(row),
        }
