"""Stage 0 over a whole corpus: many recordings in many processes, one npz each, one manifest.

What is there and newer than its sound is not made again. Statistics are merged as recordings come;
the corpus is never in memory.
"""

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from local.config import Config
from local.errors import CanopyError
from local.features import FeatureReader, RunningStats, check_filters, process_recording
from local.features.dump import FeatureInfo
from local.tables import read_table

log = logging.getLogger("canopy")

# Head-room on the disk beyond the estimated size of the dump.
_DISK_RESERVE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Job:
    """One recording to be made into one npz."""

    recording_id: str
    source: Path
    target: Path


def source_path(datadir: Path, path: str) -> Path:
    """Where a recording lies: absolute, or relative to the data folder."""
    return Path(path) if Path(path).is_absolute() else datadir / path


def check_corpus(recordings: pd.DataFrame, folder: Path, config: Config) -> None:
    """Faults that would only show after hours: rates, mel filters, disk."""
    if config.features.kind == "logmel":
        check_filters(config.features, config.audio.sample_rate)
    if config.audio.other_rates == "refuse":
        other = recordings[recordings["sample_rate"] != config.audio.sample_rate]
        if len(other):
            row = other.iloc[0]
            raise CanopyError(
                f"{row['path']}: sample rate is {row['sample_rate']:.0f} Hz, audio.sample_rate is "
                f"{config.audio.sample_rate} ({len(other)} such recordings); set the true rate, or "
                "audio.other_rates to resample"
            )
    needed = estimate_bytes(float(recordings["duration"].sum()), config)
    free = shutil.disk_usage(folder).free
    if needed + _DISK_RESERVE_BYTES > free:
        raise CanopyError(
            f"{folder}: the features need about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB "
            "are free; give another --dumpdir"
        )


def estimate_bytes(seconds: float, config: Config) -> int:
    """Size of the dump of so many seconds of sound, with its stretched ones."""
    seconds *= 1 + sum(config.features.stretches)
    wave = seconds * config.audio.sample_rate * 2
    if config.features.kind == "wave":
        return int(wave)
    bytes_each = np.dtype(config.features.dtype).itemsize
    features = seconds / config.hop_s * config.features.n_mels * bytes_each
    return int(features + wave * config.features.keep_wave)


def make_features(
    recordings: pd.DataFrame,
    datadir: Path,
    folder: Path,
    config: Config,
    device: str,
    nj: int,
    stretch: float = 1.0,
) -> tuple[pd.DataFrame, RunningStats, int]:
    """Make the npz of every recording, played `stretch` times as long.

    Returns
    -------
    manifest : recording_id, file, n_frames, duration, status, reason; in the order of `recordings`.
    stats : per mel band, over the recordings made in this call.
    n_made : how many were made; the others were there already.
    """
    jobs = [
        Job(row.recording_id, source_path(datadir, row.path), folder / f"{row.recording_id}.npz")
        for row in recordings.itertuples()
    ]
    rows: dict[str, tuple] = {}
    waiting = []
    for job in jobs:
        info = _made_before(job)
        if info is None:
            waiting.append(job)
        else:
            rows[job.recording_id] = (info.n_frames, info.duration, "ok", "")
    stats = RunningStats(config.features.n_mels if config.features.kind == "logmel" else 1)
    results = _run(waiting, config, device, nj, stretch)
    for job, result in tqdm(results, total=len(waiting), desc="preprocess", disable=None):
        rows[job.recording_id] = (
            result["n_frames"],
            result["duration"],
            result["status"],
            result["message"],
        )
        if result["status"] == "ok":
            stats.merge(result["stats"])
        else:
            log.warning("invalid recording: %s", result["message"])
    manifest = pd.DataFrame(
        [(job.recording_id, job.target.name, *rows[job.recording_id]) for job in jobs],
        columns=["recording_id", "file", "n_frames", "duration", "status", "reason"],
    )
    return manifest, stats, len(waiting)


def all_there(folder: Path) -> bool:
    """Whether each recording that the manifest calls usable has a whole file still."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return False
    manifest = read_table(path, ("file", "status"))
    reader = FeatureReader()
    try:
        for name in manifest["file"][manifest["status"] == "ok"]:
            reader.read_header(folder / name)
    except CanopyError as error:
        log.warning("%s", error)
        return False
    return True


def check_invalid_share(manifest: pd.DataFrame, limit: float) -> None:
    """Stop when more recordings than allowed could not be used."""
    invalid = manifest[manifest["status"] != "ok"]
    if len(invalid) > limit * len(manifest):
        raise CanopyError(
            f"{len(invalid)} of {len(manifest)} recordings cannot be used, more than "
            f"audio.max_invalid_share {limit:g}; the first: {invalid['reason'].iloc[0]}"
        )


def _made_before(job: Job) -> FeatureInfo | None:
    try:
        if job.target.stat().st_mtime_ns < job.source.stat().st_mtime_ns:
            return None
        return FeatureReader().read_header(job.target)
    except (OSError, CanopyError):
        return None


def _run(
    jobs: list[Job], config: Config, device: str, nj: int, stretch: float
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Results in the order of the jobs: on a GPU from one process, else from `nj` of one thread."""
    work = partial(_work, config=config, device=device, stretch=stretch)
    n_processes = min(nj, len(jobs))
    if device != "cpu" or n_processes <= 1:
        yield from zip(jobs, map(work, jobs), strict=True)
        return
    # spawn: a forked process may inherit a locked thread pool of torch and hang.
    with ProcessPoolExecutor(n_processes, get_context("spawn"), initializer=_one_thread) as pool:
        chunk = max(1, min(8, len(jobs) // (4 * n_processes)))
        yield from zip(jobs, pool.map(work, jobs, chunksize=chunk), strict=True)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _work(job: Job, config: Config, device: str, stretch: float) -> dict[str, Any]:
    return process_recording(job.source, job.target, config.audio, config.features, device, stretch)
