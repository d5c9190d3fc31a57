"""Speed of the front end and of the feature files, as ratios measured in one run.

    python tests/bench/features.py

Each ratio compares two ways of doing the same thing on this machine, one thread each, in turns, by
the median of repeats; the targets are the project's own.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from threadpoolctl import threadpool_limits

from local.config import AudioConfig, FeatureConfig
from local.features.audio import load_audio
from local.features.front_ends.logmel import LogMelFrontEnd
from local.features.front_ends.logmel_torch import LogMel
from local.features.npz import FeatureReader, write_features
from local.features.pack_files import pack_files, packed_files
from local.features.recording import process_recording

SAMPLE_RATE = 48_000
SECONDS = 60
FRONT_END = FeatureConfig(n_fft=2048, hop_length=512, n_mels=128, f_min_hz=50.0)
CROP = 512


def main() -> int:
    """Measure, print the table, and return 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="repeats a median is taken of")
    parser.add_argument("--files", type=int, default=100, help="feature files to crop from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        rows = [
            *measure_front_end(Path(folder), options.repeats),
            *measure_crops(Path(folder), options.files, options.repeats),
        ]
    print(f"{'what':<46} {'measured':>10} {'target':>8}  met")
    for what, measured, target in rows:
        met = "-" if target is None else "yes" if measured >= target else "no"
        print(f"{what:<46} {measured:>10.2f} {target or '-':>8}  {met}")
    return int(any(target is not None and measured < target for _, measured, target in rows))


def measure_front_end(folder: Path, repeats: int) -> list[tuple[str, float, float | None]]:
    """Log-mel against librosa, and from FLAC to log-mel and to npz against real time."""
    wave = noise_and_tones()
    path = folder / "recording.flac"
    soundfile.write(path, wave, SAMPLE_RATE)
    audio = AudioConfig(sample_rate=SAMPLE_RATE)
    front_end = LogMel(FRONT_END, SAMPLE_RATE)
    out = folder / "recording.npz"
    stored = LogMelFrontEnd(audio, FRONT_END)
    ours, theirs, decoded, stored = medians(
        repeats,
        lambda: front_end(torch.from_numpy(wave)),
        lambda: librosa_log_mel(wave),
        lambda: front_end(torch.from_numpy(load_audio(path, audio))),
        lambda: process_recording(path, out, stored),
    )
    return [
        ("log-mel, times librosa's speed", theirs / ours, 1.8),
        ("decode + log-mel, times real time", SECONDS / decoded, 400.0),
        ("decode + log-mel + statistics + npz, times", SECONDS / stored, None),
    ]


def measure_crops(
    folder: Path, n_files: int, repeats: int
) -> list[tuple[str, float, float | None]]:
    """Random crops from feature files through the reader and through numpy.load."""
    rng = np.random.default_rng(0)
    n_frames = 1 + SAMPLE_RATE * SECONDS // FRONT_END.hop_length
    paths = [folder / f"{index}.npz" for index in range(n_files)]
    for path in paths:
        feats = rng.standard_normal((n_frames, FRONT_END.n_mels)).astype(np.float16).T
        write_features(path, feats, sample_rate=SAMPLE_RATE, hop_length=512, duration=SECONDS)
    order = [
        (paths[file], int(start))
        for file, start in zip(
            rng.permutation(n_files), rng.integers(0, n_frames - CROP, n_files), strict=True
        )
    ]
    pack_files(folder, [path.name for path in paths], 256 * 10**6)
    packed = packed_files(folder)
    for path in [*paths, *{place.path for place in packed.values()}]:
        read_from_disk(path)
    reader = FeatureReader()
    ours, in_packs, theirs, cold, cold_in_packs = medians(
        repeats,
        lambda: [reader.read_crop(path, start, start + CROP) for path, start in order],
        lambda: [reader.read_crop(packed[path.name], start, start + CROP) for path, start in order],
        lambda: [numpy_crop(path, start) for path, start in order],
        lambda: cold_crops(order),
        lambda: cold_crops([(packed[path.name], start) for path, start in order]),
    )
    return [
        (f"crops of {CROP} frames, times numpy.load", theirs / ours, 5.0),
        ("the same, each file's first crop", theirs / cold, None),
        ("crops a second", n_files / ours, None),
        ("crops from packs, times those from npz", ours / in_packs, 0.8),
        ("the same, each file's first crop", cold / cold_in_packs, None),
    ]


def noise_and_tones() -> np.ndarray:
    """A minute of noise with whistles in it: FLAC compresses it about as little as rain."""
    rng = np.random.default_rng(0)
    t = np.arange(SAMPLE_RATE * SECONDS) / SAMPLE_RATE
    tones = sum(0.05 * np.sin(2 * np.pi * hz * t) for hz in (440.0, 2500.0, 7000.0))
    return (tones + 0.1 * rng.standard_normal(len(t))).astype(np.float32)


def librosa_log_mel(wave: np.ndarray) -> np.ndarray:
    """The reference for the same front end."""
    mel = librosa.feature.melspectrogram(
        y=wave,
        sr=SAMPLE_RATE,
        n_fft=FRONT_END.n_fft,
        hop_length=FRONT_END.hop_length,
        n_mels=FRONT_END.n_mels,
        fmin=FRONT_END.f_min_hz,
        pad_mode="reflect",
    )
    return np.log(np.maximum(mel, FRONT_END.floor))


def numpy_crop(path: Path, start: int) -> np.ndarray:
    """A crop the plain way: the whole member is read first."""
    with np.load(path, allow_pickle=False) as archive:
        return archive["feats"][:, start : start + CROP].copy()


def read_from_disk(path: Path) -> None:
    """Have a file in memory as reading leaves it there: what was just written lies in it better."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    path.read_bytes()


def cold_crops(order: list[tuple[Path, int]]) -> list[np.ndarray]:
    """Crops by a reader that has not seen the files before."""
    reader = FeatureReader()
    return [reader.read_crop(path, start, start + CROP) for path, start in order]


def medians(repeats: int, *ways: Callable[[], object]) -> list[float]:
    """Median seconds of each way; they take turns, so that the machine's moods fall on all."""
    seconds: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way()
    for _ in range(repeats):
        for way, times in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            way()
            times.append(time.perf_counter() - start)
    return [float(np.median(times)) for times in seconds]


if __name__ == "__main__":
    sys.exit(main())
