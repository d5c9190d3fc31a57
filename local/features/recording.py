"""One recording from sound file to npz: the unit of work of stage 0."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from local.config import AudioConfig, FeatureConfig
from local.features.audio import probe, stream_audio
from local.features.band_statistics import RunningStats
from local.features.logmel import LogMel, stream_features
from local.features.npz import wave_to_int16, write_features
from local.features.tempo import stretch_stream
from local.io.errors import CanopyError, MachineError

# Samples decoded at once: 4 MB as float32, and some 2000 frames of a common front end.
_BLOCK_SAMPLES = 2**20
# Resampling lets peaks pass full scale by a little; more than this share of clipped samples means
# that the file is not scaled to [-1, 1] at all.
_MAX_CLIPPED_SHARE = 0.01


def process_recording(
    path: Path | str,
    out: Path | str,
    audio_config: AudioConfig,
    feature_config: FeatureConfig,
    device: str | torch.device = "cpu",
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
        and `message` says why; `message`: "" or that sentence; `n_frames`: frames written (samples
        for waveforms), 0 when invalid; `duration`: seconds by the file's header, times `stretch`,
        NaN when invalid;
        `stats`: `RunningStats` per mel band (one row for waveforms), None when invalid.

    Raises
    ------
    CanopyError
        The front end itself is impossible at this rate, which no other recording would mend.
    """
    # Built before the recording is opened, so that its faults are not taken for the recording's.
    front_end = (
        _front_end(feature_config, audio_config.sample_rate, str(device))
        if feature_config.kind == "logmel"
        else None
    )
    try:
        info = probe(path)
        samples = stream_audio(path, audio_config, _BLOCK_SAMPLES / info.sample_rate)
        if stretch != 1.0:
            samples = stretch_stream(samples, stretch, feature_config.n_fft)
        wave = None
        if front_end is None:
            array, stats = _wave(path, samples)
        elif feature_config.keep_wave:
            kept = _Kept(path)
            array, stats = _logmel(kept.pass_on(samples), front_end, feature_config.dtype)
            wave = kept.wave()
        else:
            array, stats = _logmel(samples, front_end, feature_config.dtype)
    except MachineError:
        raise
    except CanopyError as error:
        return {
            "status": "invalid",
            "message": str(error),
            "n_frames": 0,
            "duration": float("nan"),
            "stats": None,
        }
    duration = info.duration * stretch
    write_features(
        Path(out),
        array,
        sample_rate=audio_config.sample_rate,
        hop_length=feature_config.hop_length if front_end is not None else 1,
        duration=duration,
        wave=wave,
    )
    return {
        "status": "ok",
        "message": "",
        "n_frames": array.shape[-1],
        "duration": duration,
        "stats": stats,
    }


@lru_cache(maxsize=4)
def _front_end(config: FeatureConfig, sample_rate: int, device: str) -> LogMel:
    return LogMel(config, sample_rate).to(device)


def _logmel(
    samples: Iterator[np.ndarray], front_end: LogMel, dtype: str
) -> tuple[np.ndarray, RunningStats]:
    """Features (n_mels, T), frame after frame in memory, and their statistics before rounding."""
    stats = RunningStats(front_end.n_mels)
    parts = []
    for block in stream_features(samples, front_end):
        features = block.cpu().numpy()
        stats.update(features)
        parts.append(features.T.astype(dtype))
    return np.concatenate(parts).T, stats


def _wave(path: Path | str, samples: Iterator[np.ndarray]) -> tuple[np.ndarray, RunningStats]:
    """Samples (n,) as int16, and the statistics of their floating-point values."""
    stats = RunningStats(1)
    kept = _Kept(path)
    for block in kept.pass_on(samples):
        stats.update(block[None])
    return kept.wave(), stats


class _Kept:
    """Keeps as 16 bits the samples that pass by."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._parts: list[np.ndarray] = []
        self._n_clipped = 0

    def pass_on(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks."""
        for block in blocks:
            self._n_clipped += int(np.count_nonzero(np.abs(block) > 1.0))
            self._parts.append(wave_to_int16(block))
            yield block

    def wave(self) -> np.ndarray:
        """All samples (n,) int16."""
        wave = np.concatenate(self._parts)
        if self._n_clipped > _MAX_CLIPPED_SHARE * len(wave):
            raise CanopyError(
                f"{self._path}: {self._n_clipped} of {len(wave)} samples lie outside [-1, 1] and "
                "would be clipped; scale the file to full scale 1"
            )
        return wave
