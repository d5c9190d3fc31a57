"""The feature files of stage 0, by recording, and the length of a window over them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from local.config import Config
from local.data.tables import read_table
from local.features.cache import copy_here
from local.features.front_ends.front_end_registry import front_end_of
from local.features.npz import FeatureReader, stretched_folder
from local.features.pack_files import Packed, Place, packed_files
from local.features.silence import read_spans, widened
from local.io.errors import CanopyError
from local.labels.windows import pad_short

MANIFEST_COLUMNS = ("recording_id", "file", "n_frames", "duration", "status", "reason")


class FeatureStore:
    """The feature files of stage 0, by recording; `at` gives those of the stretched recordings.

    A file lies by itself or in a pack; `cache` is where either is copied to, nearer by (`bring`).
    """

    def __init__(self, folder: Path | str, config: Config, cache: Path | None = None) -> None:
        self.folder = Path(folder)
        self.config = config
        self.front_end = front_end_of(config)
        manifest = read_table(self.folder / "manifest.csv", MANIFEST_COLUMNS)
        self._manifest = manifest.set_index("recording_id")
        self._valid = set(self._manifest.index[self._manifest["status"] == "ok"])
        self._n_frames = self._manifest["n_frames"].to_dict()
        self._silence = self._manifest.get("silence", pd.Series(dtype=str)).to_dict()
        self._packed = packed_files(self.folder)
        self._reader = FeatureReader()
        self._places: dict[str, Packed | Path] = {
            name: self._packed.get(file) or self.folder / file
            for name, file in self._manifest["file"].items()
        }
        self._cache, self._brought = cache, set[str]()
        self._stretched: dict[float, FeatureStore] = {}

    def __contains__(self, recording_id: str) -> bool:
        """Whether the recording was read."""
        return recording_id in self._valid

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.front_end.hop_s

    @property
    def longest(self) -> int:
        """Frames of the longest recording; 0 when there is none."""
        return max((int(self._n_frames[name]) for name in self._valid), default=0)

    def n_frames(self, recording_id: str) -> int:
        """Length of a recording in frames."""
        return int(self._n_frames[recording_id])

    def at(self, factor: float) -> "FeatureStore":
        """The dump of the same recordings lasting `factor` times as long; itself for 1."""
        if factor == 1.0:
            return self
        if factor not in self._stretched:
            folder = stretched_folder(self.folder, factor)
            if not (folder / "manifest.csv").is_file():
                raise CanopyError(
                    f"{folder}: there is no dump of recordings stretched by {factor:g}; run stage "
                    "0 with this configuration"
                )
            other = FeatureStore(folder, self.config, self._cache)
            absent = sorted(self._valid - other._valid)
            if absent:
                raise CanopyError(
                    f"{folder}: lacks recording {absent[0]}, which the plain dump has; run stage 0 "
                    "with --force"
                )
            other.bring(sorted(self._brought))
            self._stretched[factor] = other
        return self._stretched[factor]

    def bring(self, recording_ids: Iterable[str]) -> None:
        """Copy what these recordings need to the cache, if there is one, and read it from there.

        Packs are copied whole. What is read is the same to the byte; what does not fit, or cannot
        be written there, is read where it lies. Stretched dumps follow when they are asked for.
        """
        names = [name for name in dict.fromkeys(recording_ids) if name in self._valid]
        names = [name for name in names if name not in self._brought]
        if self._cache is None or not names:
            return
        self._brought.update(names)
        # Of a pack all that is in it, which is what its copy is held against.
        packs: dict[Path, list[Packed]] = {}
        for packed in self._packed.values():
            packs.setdefault(packed.path, []).append(packed)
        paths = {_path(self._places[name]): None for name in names}
        copies = copy_here(self.folder, {path: packs.get(path) for path in paths}, self._cache)
        for name in names:
            place = self._places[name]
            copy = copies.get(_path(place), _path(place))
            self._places[name] = replace(place, path=copy) if isinstance(place, Packed) else copy
        for other in self._stretched.values():
            other.bring(names)

    def crop(self, recording_id: str, start: int, length: int) -> np.ndarray:
        """(*axes, length) float32 from frame `start`; short recordings are padded.

        The padding is the rule `window.short`: the recording's own repeats, or silence.
        """
        n = self.n_frames(recording_id)
        stop = min(n, start + length)
        crop = self.front_end.restore(self._reader.read_crop(self.place(recording_id), start, stop))
        return pad_short(crop, length, self.config.window.short, self.front_end.fill)

    def wave_behind(self, recording_id: str, start: int, length: int) -> np.ndarray:
        """Samples that `FrontEnd.excerpt` turns into frames [start, start + length), int16.

        (n_samples(length),), mirrored at the ends of the recording as stage 0 mirrors it. What lies
        further beyond the end is zero, as are the frames there of no meaning.
        """
        before = self.front_end.n_before
        path = self.place(recording_id)
        n = self._reader.n_samples(path)
        first = start * self.front_end.hop_length - before
        stop = first + self.front_end.n_samples(length)
        out = np.zeros(stop - first, dtype=np.int16)
        if first >= 0 and stop <= n:
            out[:] = self._reader.read_wave(path, first, stop)
            return out
        places = np.arange(first, min(stop, n + before))
        period = max(1, 2 * (n - 1))
        places = np.minimum(places % period, period - places % period) if n > 1 else places * 0
        low = int(places.min())
        out[: len(places)] = self._reader.read_wave(path, low, int(places.max()) + 1)[places - low]
        return out

    def silence(self, recording_id: str) -> np.ndarray:
        """(k, 2) seconds of digital silence; what reaches the recording's ends reaches beyond."""
        spans = self._spans(recording_id)
        return widened(spans, float(self._manifest.at[recording_id, "duration"]))

    def silent_s(self, recording_id: str) -> float:
        """Seconds of digital silence."""
        return float(np.diff(self._spans(recording_id)).sum())

    def _spans(self, recording_id: str) -> np.ndarray:
        text = self._silence.get(recording_id, "")
        try:
            return read_spans(text)
        except ValueError:
            raise CanopyError(
                f"{self.folder / 'manifest.csv'}: silence of {recording_id} is {text!r:.80}, "
                "expected spans of seconds; run stage preprocess again"
            ) from None

    def place(self, recording_id: str) -> Place:
        """Where the features of a recording are read from: a file, or a part of a pack."""
        return self._places[recording_id]

    def check_lengths(self) -> None:
        """Refuse recordings shorter than the window unless a padding rule is given."""
        rule = self.config.window
        if rule.short != "refuse":
            return
        durations = self._manifest.loc[sorted(self._valid), "duration"]
        # Recordings of one length may differ by a frame of rounding.
        whole_s = durations.max() - self.hop_s
        short = durations[durations < (whole_s if rule.whole else rule.length_s) - 1e-6]
        if len(short) == 0:
            return
        name = short.index[0]
        if rule.whole:
            raise CanopyError(
                f"recording {name} lasts {short.iloc[0]:.3f} s, the longest {durations.max():.3f} s"
                f", and window.whole makes windows of the longest ({len(short)} such recordings); "
                "set window.short to repeat or silence"
            )
        raise CanopyError(
            f"recording {name} lasts {short.iloc[0]:.3f} s, less than window.length_s "
            f"{rule.length_s:g} ({len(short)} such recordings); shorten the window or set "
            "window.short to repeat or silence"
        )


def _path(place: Packed | Path) -> Path:
    return place.path if isinstance(place, Packed) else place
