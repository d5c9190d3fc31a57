"""Stage 0 over a whole corpus: many recordings in many processes, one npz each, one manifest.

What is done is in the journal beside it, recording by recording, with its statistics and the sound
file's size, time and digest: a run that was killed goes on behind the last one, and a later one
makes only recordings whose sound is new or changed, whatever else the tables say of them. The
corpus is never in memory.
"""

import base64
import logging
import shutil
import stat
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from local.config import Config
from local.data.tables import read_table
from local.features.band_statistics import RunningStats
from local.features.front_ends.front_end import FrontEnd
from local.features.front_ends.front_end_registry import front_end_of
from local.features.npz import FeatureReader
from local.features.pack_files import Packed, forget, packed_files
from local.features.recording import process_recording
from local.features.silence import write_spans
from local.io.errors import CanopyError
from local.io.files import copy_file, file_digest, fingerprint, remove_leftovers
from local.jobs.interruption import stop_if_asked
from local.jobs.journal import Journal
from local.jobs.shards import Shard
from local.jobs.workers import KILLED, Killed, run_all

log = logging.getLogger("canopy")

JOURNAL_NAME = "preprocess.journal"

# Head-room on the disk beyond the estimated size of the dump.
_DISK_RESERVE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Job:
    """One recording to be made into one npz.

    path : of its sound, as the table has it. packed : where the npz lies in a pack, if it does.
    """

    recording_id: str
    path: str
    source: Path
    target: Path
    packed: Packed | None = None


def source_path(datadir: Path, path: str) -> Path:
    """Where a recording lies: absolute, or relative to the data folder."""
    return Path(path) if Path(path).is_absolute() else datadir / path


def check_corpus(recordings: pd.DataFrame, folder: Path, config: Config) -> None:
    """Faults that would only show after hours: rates, mel filters, disk."""
    front_end_of(config)
    if config.audio.other_rates == "refuse":
        other = recordings[recordings["sample_rate"] != config.audio.sample_rate]
        if len(other):
            row = other.iloc[0]
            raise CanopyError(
                f"{row['path']}: sample rate is {row['sample_rate']:.0f} Hz, audio.sample_rate is "
                f"{config.audio.sample_rate} ({len(other)} such recordings); set the true rate, or "
                "audio.other_rates to resample"
            )
    there = sum(path.stat().st_size for path in folder.glob("*.npz"))
    there += sum(place.size for place in packed_files(folder).values())
    needed = max(0, estimate_bytes(float(recordings["duration"].sum()), config) - there)
    free = shutil.disk_usage(folder).free
    if needed + _DISK_RESERVE_BYTES > free:
        raise CanopyError(
            f"{folder}: the features need about {needed} bytes, and {_DISK_RESERVE_BYTES} for what "
            f"follows, {free} bytes are free; make room or give another --dumpdir"
        )


def estimate_bytes(seconds: float, config: Config) -> int:
    """Size of the dump of so many seconds of sound, with its stretched ones."""
    front_end = front_end_of(config)
    samples = seconds * (1 + sum(config.features.stretches)) * config.audio.sample_rate
    numbers = samples / front_end.hop_length * front_end.n_numbers
    of_waves = samples * front_end.n_channels * 2 * front_end.keeps_wave
    return int(numbers * np.dtype(front_end.dtype).itemsize + of_waves)


def make_features(
    recordings: pd.DataFrame,
    datadir: Path,
    folder: Path,
    config: Config,
    device: str,
    nj: int,
    stretch: float = 1.0,
    shard: Shard | None = None,
) -> tuple[pd.DataFrame, RunningStats, int]:
    """Make the npz of every recording, played `stretch` times as long, or of a share of them.

    A share keeps a journal of its own, which the run over all recordings takes over.

    Returns
    -------
    manifest : recording_id, file, n_frames, duration, status, reason, `silence` in seconds, as
        "0-1.5 3-4", and `digest` of the sound file; in the order of `recordings`. It stands for the
        features among what later stages depend on.
    stats : of each number of a frame, over all usable recordings, in the order of `recordings`.
    n_made : how many were made; the others were there already.
    """
    jobs = _jobs(recordings, datadir, folder)
    front_end = front_end_of(config)
    made_by = fingerprint({"settings": front_end.settings, "x": stretch})
    name = JOURNAL_NAME
    if shard is not None:
        jobs = [jobs[row] for row in shard.of(recordings["duration"].tolist())]
        name = f"{JOURNAL_NAME}.{shard.name}"
        if not (folder / name).is_file() and (folder / JOURNAL_NAME).is_file():
            # What an earlier run made is not made again.
            copy_file(folder / JOURNAL_NAME, folder / name)
    with Journal(folder / name, made_by) as journal:
        if shard is None:
            for path in journals_of_shards(folder):
                journal.absorb(path)
        waiting = [job for job in jobs if not _is_made(job, journal)]
        forget(folder, [job.target.name for job in waiting if job.packed is not None])
        with closing(_run(waiting, front_end, device, nj, stretch)) as results:
            for job, result in tqdm(results, total=len(waiting), desc="preprocess", disable=None):
                journal.add(job.recording_id, **_entry(job, result))
                if result["status"] != "ok":
                    log.warning("invalid recording: %s", result["message"])
                stop_if_asked(f"recording {job.recording_id}")
        # Of processes that were killed and borne.
        remove_leftovers(folder)
        names = [job.recording_id for job in jobs]
        # A share speaks of its own recordings alone; else those stay that the tables had before.
        others = sorted({name for name, _ in journal.items()} - set(names)) if shard is None else []
        if others:
            log.info(
                "%s: %d recordings are not in the tables any more, such as %s; their features stay",
                *(folder, len(others), others[0]),
            )
        # In the order of the table, whatever was made when.
        journal.compact([*names, *others])
        entries = [journal.get(name) or {} for name in names]
    stats = RunningStats(front_end.n_numbers)
    for entry in entries:
        if entry["status"] == "ok":
            stats.merge(_unpack(entry["stats"]))
    columns = ["n_frames", "duration", "status", "reason", "silence", "digest"]
    manifest = pd.DataFrame(entries, columns=columns)
    manifest.insert(0, "recording_id", names)
    manifest.insert(1, "file", [job.target.name for job in jobs])
    return manifest, stats, len(waiting)


def _jobs(recordings: pd.DataFrame, datadir: Path, folder: Path) -> list[Job]:
    packed = packed_files(folder)
    return [
        Job(
            *(name, path, source_path(datadir, path), folder / f"{name}.npz"),
            packed.get(f"{name}.npz"),
        )
        for name, path in recordings[["recording_id", "path"]].itertuples(index=False)
    ]


def journals_of_shards(folder: Path) -> list[Path]:
    """What jobs that made a share each have left."""
    return sorted(folder.glob(f"{JOURNAL_NAME}.*of*"))


def all_there(folder: Path) -> bool:
    """Whether each recording that the manifest calls usable has a whole file still."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return False
    manifest = read_table(path, ("file", "status"))
    reader = FeatureReader()
    try:
        packed = packed_files(folder)
        for name in manifest["file"][manifest["status"] == "ok"]:
            reader.read_header(packed.get(name, folder / name))
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


def _is_made(job: Job, journal: Journal) -> bool:
    """Whether the journal holds this very recording, and what was made of it is there still.

    A file whose path or time differs is the same where size and content are: its entry then tells
    the new ones. What could not be used is tried again (a right on the file may have been given
    since), but for what kills its process.
    """
    entry, source = journal.get(job.recording_id), _source(job)
    if entry is None or source is None or entry["source"] is None:
        return False
    if entry["status"] != "ok" and not entry["killed"]:
        return False
    if (entry["path"], entry["source"]) != (job.path, source):
        if entry["source"][0] != source[0] or _digest(job) != entry["digest"]:
            return False
        entry |= {"path": job.path, "source": source}
        journal.add(job.recording_id, **entry)
    if entry["status"] != "ok":
        return True
    try:
        place = job.packed or job.target
        size = job.packed.size if job.packed else job.target.stat().st_size
        return size == entry["bytes"] and (
            FeatureReader().read_header(place).n_frames == entry["n_frames"]
        )
    except (FileNotFoundError, CanopyError):
        return False


def _known_by(job: Job) -> dict[str, Any]:
    """Size and time of change of the sound file and the digest of its content, as it is now."""
    source = _source(job)
    return {"source": source, "digest": None if source is None else _digest(job)}


def _source(job: Job) -> list[int] | None:
    """Size and time of change by which a recording is known as the same; None when it is gone.

    Equal or not: which is newer says nothing where clocks differ or were set back.
    """
    try:
        status = job.source.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns] if stat.S_ISREG(status.st_mode) else None


def _digest(job: Job) -> str | None:
    """None where it cannot be read: what reads it for its features says why."""
    try:
        return file_digest(job.source)
    except OSError:
        return None


def _entry(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """What the journal keeps of a recording."""
    ok = result["status"] == "ok"
    return {
        "status": result["status"],
        "reason": result["message"],
        "killed": result.get("killed", False),
        "path": job.path,
        "source": result["source"],
        "digest": result["digest"],
        "n_frames": result["n_frames"],
        "duration": result["duration"],
        "bytes": job.target.stat().st_size if ok else 0,
        "stats": _pack(result["stats"]) if ok else None,
        "silence": write_spans(result["silence"]) if ok else "",
    }


def _pack(stats: RunningStats) -> list[Any]:
    numbers = np.stack([stats.mean, stats.m2]).astype("<f8")
    return [stats.count, base64.b64encode(numbers.tobytes()).decode("ascii")]


def _unpack(packed: list[Any]) -> RunningStats:
    count, text = packed
    mean, m2 = np.frombuffer(base64.b64decode(text), dtype="<f8").reshape(2, -1)
    stats = RunningStats(len(mean))
    stats.count, stats.mean, stats.m2 = count, mean.copy(), m2.copy()
    return stats


def _run(
    jobs: list[Job], front_end: FrontEnd, device: str, nj: int, stretch: float
) -> Generator[tuple[Job, dict[str, Any]], None, None]:
    """Results in the order of the jobs: on a GPU from one process, else from `nj` of one thread."""
    work = partial(_work, front_end=front_end, device=device, stretch=stretch)
    n_processes = min(nj, len(jobs))
    if device != "cpu" or n_processes <= 1:
        yield from zip(jobs, map(work, jobs), strict=True)
        return
    # spawn: a forked process may inherit a locked thread pool of torch and hang.
    for job, result in run_all(work, jobs, n_processes, "spawn", _one_thread):
        yield job, _killed(job) if isinstance(result, Killed) else result


def _killed(job: Job) -> dict[str, Any]:
    message = f"{job.source}: {KILLED}; shorten it or leave it out"
    invalid = {"status": "invalid", "n_frames": 0, "duration": float("nan"), "stats": None}
    return {**invalid, "message": message, "killed": True, **_known_by(job)}


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _work(job: Job, front_end: FrontEnd, device: str, stretch: float) -> dict[str, Any]:
    known = _known_by(job)
    return process_recording(job.source, job.target, front_end, device, stretch) | known
