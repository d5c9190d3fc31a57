"""One recording from sound file to npz: the unit of work of stage 0."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from local.features.audio import probe, stream_audio
from local.features.band_statistics import RunningStats
from local.features.front_ends.front_end import FrontEnd
from local.features.npz import wave_to_int16, write_features
from local.features.silence import SilenceFinder
from local.io.errors import CanopyError, MachineError

# Samples decoded at once: 4 MB as float32, and some 2000 frames of a common front end.
_BLOCK_SAMPLES = 2**20
# Resampling lets peaks pass full scale by a little; more than this share of clipped samples means
# that the file is not scaled to [-1, 1] at all.
_MAX_CLIPPED_SHARE = 0.01


def process_recording(
    path: Path | str,
    out: Path | str,
    front_end: FrontEnd,
    device: str = "cpu",
    stretch: float = 1.0,
) -> dict[str, Any]:
    """Decode `path`, compute its features block by block, and write them to the npz `out`.

    Memory holds one block of samples and the finished features (and the waveform as 16 bits where
    it is kept). It sets no thread count: who starts many of these in processes gives each one
    thread. With `stretch` the recording is played that many times as long before anything else.

    Returns
    -------
    dict
        `status`: "ok", or "invalid" when the recording cannot be used, and then nothing is written
        and `message` says why; `message`: "" or that sentence; `n_frames`: frames written, 0 when
        invalid; `duration`: seconds by the file's header, times `stretch`, NaN when invalid;
        `stats`: `RunningStats` of each number of a frame, None when invalid; `silence`: (k, 2)
        seconds of digital silence.
    """
    try:
        info = probe(path)
        silence = SilenceFinder(info.sample_rate)
        block_s = _BLOCK_SAMPLES / info.sample_rate
        samples = stream_audio(path, front_end.audio, block_s, front_end.n_channels, silence)
        if stretch != 1.0:
            from local.features.time_stretch import stretch_stream

            samples = stretch_stream(samples, stretch, front_end.features.n_fft)
        heard = _Samples(path, front_end)
        array, stats = _features(heard.pass_on(samples), front_end, device)
        wave = heard.wave()
    except MachineError:
        raise
    except CanopyError as error:
        return {
            "status": "invalid",
            "message": str(error),
            "n_frames": 0,
            "duration": float("nan"),
            "stats": None,
            "silence": np.zeros((0, 2)),
        }
    duration = info.duration * stretch
    write_features(
        Path(out),
        array,
        sample_rate=front_end.audio.sample_rate,
        hop_length=front_end.hop_length,
        duration=duration,
        wave=wave,
    )
    return {
        "status": "ok",
        "message": "",
        "n_frames": array.shape[-1],
        "duration": duration,
        "stats": stats,
        "silence": silence.spans_s() * stretch,
    }


def _features(
    samples: Iterator[np.ndarray], front_end: FrontEnd, device: str
) -> tuple[np.ndarray, RunningStats]:
    """Features (*axes, T), frame after frame in memory, and their statistics before rounding."""
    stats = RunningStats(front_end.n_numbers)
    parts = []
    for features in front_end.stream(samples, device):
        stats.update(features.reshape(front_end.n_numbers, -1))
        parts.append(front_end.store(features).T)
    return np.concatenate(parts).T, stats


class _Samples:
    """Samples that pass by: kept as 16 bits where the front end asks for it, and never clipped."""

    def __init__(self, path: Path | str, front_end: FrontEnd) -> None:
        self._path = path
        self._keeps = front_end.keeps_wave
        self._bounded = self._keeps or front_end.dtype == "int16"
        self._parts: list[np.ndarray] = []
        self._n = self._n_clipped = 0

    def pass_on(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks."""
        for block in blocks:
            self._n += block.size
            if self._bounded:
                self._n_clipped += int(np.count_nonzero(np.abs(block) > 1.0))
            if self._keeps:
                self._parts.append(wave_to_int16(block))
            yield block

    def wave(self) -> np.ndarray | None:
        """All samples (n,) int16 where they are kept; too many outside [-1, 1] are refused."""
        if self._n_clipped > _MAX_CLIPPED_SHARE * self._n:
            raise CanopyError(
                f"{self._path}: {self._n_clipped} of {self._n} samples lie outside [-1, 1] and "
                "would be clipped; scale the file to full scale 1"
            )
        return np.concatenate(self._parts, axis=-1) if self._keeps else None
