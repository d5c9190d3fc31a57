"""One window with its targets, however it is read."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from local.features.front_ends.front_end import WAVEFORM
from local.features.store import FeatureStore
from local.labels.grid import FrameGrid, grid_of, overlap
from local.labels.targets import Targets, window_targets
from local.training.epoch_plan import TrainingSet
from local.training.window_reading import Variations


class WindowDataset(Dataset):
    """The windows of one epoch's plan; item i is the same whoever reads it and in what order."""

    def __init__(
        self,
        training_set: TrainingSet,
        dump: FeatureStore,
        plan: np.ndarray,
        window: int,
        step: int,
        n_classes: int,
        variations: Variations | None = None,
    ) -> None:
        self._training_set = training_set
        self._dump = dump
        self._plan = plan
        self._window = window
        self._step = step
        self._n_classes = n_classes
        self._vary = variations or Variations.none(len(plan))
        augment = dump.config.augment
        self._limits = None
        if augment.freq_masks > 0 and augment.freq_mask_spares_calls:
            self._limits = dump.front_end.band_edges_hz()
        # Frames read of a window, whatever stretch it draws: what a batch holds has one length.
        shortest = min(1.0, augment.stretch[0]) if augment.stretch is not None else 1.0
        self._n_read = window if shortest == 1 else int(np.ceil(window / shortest)) + 2

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        """`x` as a model takes a window, and the four targets of `labels.targets.Targets`.

        What augmentation asks for comes with it, as fields of `local.training.augment.Batch`.
        """
        row, start = (int(value) for value in self._plan[item])
        name = self._training_set.recording_ids[row]
        dump = self._dump.at(float(self._vary.dump_factor[item]))
        factor = float(self._vary.factor[item])
        # How many times as long the recording is as the window shows it.
        stretch = float(self._vary.dump_factor[item]) * factor
        grid = self._grid(dump, start, factor)
        targets = self._shown_targets(row, dump, start, grid, stretch, factor)
        found = {"x": crop_stretched(dump, name, start, self._window, factor)}
        if self._limits is not None:
            found["call_bands"] = self._call_bands(row, grid, stretch)
            found["call_bands"] |= self._partner_bands(item)
        if dump.config.augment.background_p > 0:
            found |= self._background(item, targets)
        if dump.config.augment.wave_p > 0:
            found |= self._wave(item, dump, name, start, factor)
        if self._vary.partner is not None:
            found |= self._partner(item, targets)
        for key in found.keys() & {"x", "background", "partner"}:
            found[key] = dump.front_end.as_input(found[key][None])[0]
        found |= {
            "clip_target": targets.clip_target,
            "clip_mask": targets.clip_mask,
            "frame_target": targets.frame_target,
            "frame_mask": targets.frame_mask,
        }
        return {key: torch.as_tensor(value) for key, value in found.items()}

    def describe(self, item: int) -> dict[str, Any]:
        """`recording_id` of the window and its `onset`, in seconds of the dump it is read from."""
        row, start = (int(value) for value in self._plan[item])
        onset = float(start) * self._dump.hop_s
        return {"recording_id": self._training_set.recording_ids[row], "onset": onset}

    def _grid(self, dump: FeatureStore, start: int, stretch: float = 1.0) -> FrameGrid:
        """Cells of the window from frame `start` on."""
        time = dump.front_end.hop_s, dump.front_end.begin
        return grid_of(self._window, *time, start, self._step, stretch)

    def _targets(self, row: int, grid: FrameGrid, stretch: float = 1.0) -> Targets:
        events = self._training_set.events.get(self._training_set.recording_ids[row])
        if events is not None and stretch != 1.0:
            events = events.stretched(stretch)
        config = self._dump.config
        soft, data = self._training_set.soft, config.data
        name = self._training_set.recording_ids[row]
        if soft is None or name not in soft:
            return window_targets(events, self._n_classes, grid, config.window, data)
        if row < len(self._training_set.unlabelled) and self._training_set.unlabelled[row]:
            # Annotation is complete where somebody annotated.
            data = data.model_copy(update={"annotation": "partial"})
        cells = soft.on(name, grid, stretch)
        return window_targets(events, self._n_classes, grid, config.window, data, cells)

    def _shown_targets(
        self,
        row: int,
        dump: FeatureStore,
        start: int,
        grid: FrameGrid,
        stretch: float = 1.0,
        factor: float = 1.0,
    ) -> Targets:
        """Targets of a window, without those of the repeats of a recording that is too short."""
        targets = self._targets(row, grid, stretch)
        if dump.config.window.short == "repeat":
            # The repeats of a short recording sound again where no annotation speaks.
            name = self._training_set.recording_ids[row]
            left = (dump.n_frames(name) - start) * factor
            inside = max(1, int(np.ceil(left / self._step - 1e-9)))
            targets.frame_mask[:, inside:] = 0.0
        return targets

    def _partner(self, item: int, like: Targets) -> dict[str, Any]:
        """The window mixed with another, and its targets; of nothing where there is none."""
        row, start = self._partner_place(item)
        found: dict[str, Any] = {"partnered": np.bool_(row >= 0)}
        targets = unknown(like)
        shape = (*self._dump.front_end.axes, self._window)
        x = np.zeros(shape, dtype=np.float32)
        if row >= 0:
            x = self._dump.crop(self._training_set.recording_ids[row], start, self._window)
            grid = self._grid(self._dump, start)
            targets = self._shown_targets(row, self._dump, start, grid)
        named = {f"partner_{part.name}": getattr(targets, part.name) for part in fields(targets)}
        return found | {"partner": x} | named

    def _partner_bands(self, item: int) -> np.ndarray:
        """(F,) bool: bands of the positive rows of the window mixed with another."""
        row, start = self._partner_place(item)
        if row < 0:
            return np.zeros(self._dump.front_end.n_bands, dtype=bool)
        return self._call_bands(row, self._grid(self._dump, start), 1.0)

    def _partner_place(self, item: int) -> tuple[int, int]:
        """Recording position and first frame; -1 for none."""
        if self._vary.partner is None:
            return -1, 0
        row, start = self._vary.partner[item]
        return int(row), int(start)

    def _call_bands(self, row: int, grid: FrameGrid, stretch: float) -> np.ndarray:
        """(F,) bool: the bands of the positive rows that reach into the window.

        A row of unknown band may call anywhere, so it takes all.
        """
        taken = np.zeros(self._dump.front_end.n_bands, dtype=bool)
        events = self._training_set.events.get(self._training_set.recording_ids[row])
        if events is None or self._limits is None:
            return taken
        shown = overlap(events.onset * stretch, events.offset * stretch, grid.start_s, grid.end_s)
        calls = (shown > 0) & (events.polarity > 0)
        band = np.full((int(calls.sum()), 2), np.nan)
        if self._training_set.event_band is not None:
            band = self._training_set.event_band[self._training_set.event_recording == row][calls]
        low, high = self._limits.T
        heard = (low < band[:, 1:]) & (high > band[:, :1])
        return (heard | np.isnan(band).any(axis=1)[:, None]).any(axis=0)

    def _background(self, item: int, targets: Targets) -> dict[str, Any]:
        """The sound to be laid under the window; what is known of it enters `targets`."""
        dump = self._dump
        augment = dump.config.augment
        row, start = (int(value) for value in self._vary.background[item])
        snr_db = float(self._vary.background_snr_db[item])
        shape = (*dump.front_end.axes, self._window)
        found: dict[str, Any] = {
            "background": np.zeros(shape, dtype=np.float32),
            "background_snr_db": np.float32(snr_db),
        }
        waves = dump.front_end.input != WAVEFORM and augment.wave_p > 0
        if waves:
            found["background_wave"] = np.zeros(self._n_samples, dtype=np.int16)
        if row < 0:
            return found
        name = self._training_set.recording_ids[row]
        if waves and self._vary.wave[item]:
            found["background_wave"] = dump.wave_behind(name, start, self._n_read)
        else:
            found["background"] = dump.crop(name, start, self._window)
        if augment.background_faint_db is None or snr_db < augment.background_faint_db:
            is_background = row >= self._training_set.n_own
            grid = self._grid(dump, start)
            add_background_labels(
                targets,
                unknown(targets) if is_background else self._targets(row, grid),
                soft=self._training_set.soft is not None,
            )
        return found

    def _wave(
        self, item: int, dump: FeatureStore, name: str, start: int, factor: float
    ) -> dict[str, Any]:
        """The waveform behind the window, and which of its frames make the window's."""
        chosen = self._vary.wave[item]
        if dump.front_end.input == WAVEFORM:
            return {"waved": chosen}
        left, share = _places(self._window, factor)
        frames = np.stack([left, left + 1])
        n_there = min(self._n_read, dump.n_frames(name) - start)
        if dump.config.window.short == "repeat":
            frames %= n_there
        else:
            frames[frames >= n_there] = -1
        wave = np.zeros(self._n_samples, dtype=np.int16)
        if chosen:
            wave = dump.wave_behind(name, start, self._n_read)
        return {"waved": chosen, "wave": wave, "wave_frames": frames, "wave_share": share}

    @property
    def _n_samples(self) -> int:
        """Samples of a waveform whose frames are `_n_read`."""
        return self._dump.front_end.n_samples(self._n_read)


def crop_stretched(
    dump: FeatureStore, name: str, start: int, window: int, factor: float
) -> np.ndarray:
    """`window` frames from frame `start` on, as if the recording lasted `factor` times as long.

    Frames are read where they would have stood, between two by linear interpolation.
    """
    if factor == 1.0:
        return dump.crop(name, start, window)
    left, share = _places(window, factor)
    source = dump.crop(name, start, int(left[-1]) + 2)
    return source[..., left] * (1 - share) + source[..., left + 1] * share


def _places(window: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the frames of a stretched window stand: the frame before, and the share of the next.

    Frame j stands for [j, j + 1) frames of stretched time from the window's beginning, so its
    middle is (j + 1/2) / factor of plain time from there.
    """
    places = np.maximum(0.0, (np.arange(window) + 0.5) / factor - 0.5)
    left = places.astype(np.int64)
    return left, (places - left).astype(np.float32)


def unknown(like: Targets) -> Targets:
    """Targets of a window of which nothing is known."""
    return Targets(*(np.zeros_like(getattr(like, part.name)) for part in fields(like)))


def add_background_labels(targets: Targets, background: Targets, soft: bool = False) -> None:
    """Change the targets of a window, in place, to what is known when a background sounds as well.

    A known presence stays. A known absence stays where the background has it too, and is unknown
    elsewhere: a rejected candidate of another class says nothing of this one.

    `soft`: targets are probabilities y. Of a claim, which weighs y for presence and 1 - y for
    absence, the latter keeps the share that the background lacks the class too; for verdicts this
    is the same rule. Where nothing is known of the background, the whole weighs y.
    """
    for part in ("clip", "frame"):
        target, mask = getattr(targets, f"{part}_target"), getattr(targets, f"{part}_mask")
        other = getattr(background, f"{part}_target")
        known_there = getattr(background, f"{part}_mask") > 0
        if soft:
            kept = target + (1 - target) * np.where(known_there, 1 - other, 0.0)
            mask *= kept
            np.divide(target, kept, out=target, where=known_there & (kept > 0))
        else:
            mask[(target == 0) & ~(known_there & (other == 0))] = 0.0
