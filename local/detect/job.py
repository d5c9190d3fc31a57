"""Detection in many recordings: a journal, processes, progress, and the outputs at the end."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from local import __version__
from local.detect.detectors import Detector, ModelSpec, Request, load
from local.detect.job_results import RECORD, WORK, Outcome, finish, write_days
from local.detect.outputs import ScoreFile, save_part, score_path
from local.detect.partition import SiteRule, by_day
from local.detect.sound import SoundFile, duration_of, printable
from local.detect.streaming import ScoresError, find_events
from local.io.errors import CanopyError, MachineError
from local.io.files import fingerprint, make_folder, read_json, write_text
from local.jobs.interruption import Interrupted, requested, stop_if_asked
from local.jobs.journal import Journal
from local.jobs.locks import LOCK_NAME
from local.jobs.shards import Shard
from local.jobs.workers import KILLED, Killed, run_all
from local.labels.spans import SpanRule

log = logging.getLogger("canopy")

# How often the main process looks whether it was asked to stop while its workers work.
_LOOK_S = 0.3


@dataclass(frozen=True)
class Job:
    """What is to be detected where, with what, and how it is written.

    thresholds : of `thresholds.fit_thresholds`. rules : one a class. shift : (C,) or None.
    sites : where tables are partitioned by site and date, how these are read from names.
    """

    request: Request
    models: list[ModelSpec]
    digests: list[str]
    sounds: list[SoundFile]
    out: Path
    formats: list[str]
    scores: str | None
    thresholds: pd.DataFrame
    rules: list[SpanRule]
    shift: np.ndarray | None
    n_processes: int
    shard: Shard | None = None
    sites: SiteRule | None = None

    @property
    def classes(self) -> pd.DataFrame:
        """Classes of the (first) model."""
        return self.models[0].classes

    @property
    def fingerprint(self) -> str:
        """Of all that decides what is found in a recording."""
        request = self.request
        return fingerprint(
            {
                "version": __version__,
                "models": self.digests,
                "engine": [request.engine, request.device, request.batch_size, request.tta],
                "rules": [vars(rule) for rule in self.rules],
                "shift": self.shift,
                "scores": self.scores,
            }
        )


def check_place(out: Path) -> None:
    """Refuse a file in the place of the folder to write."""
    if out.exists() and not out.is_dir():
        raise CanopyError(f"--out {out} is a file; give a folder")


def check_out(job: Job, force: bool) -> bool:
    """Whether the job was done before; refuse a folder that holds something else.

    A journal of the same job is gone on with.
    """
    out = job.out
    check_place(out)
    there = [path for path in out.iterdir() if path.name != LOCK_NAME] if out.is_dir() else []
    if force or not there:
        if job.shard is None:
            shutil.rmtree(out / WORK, ignore_errors=True)
        return False
    if (out / RECORD).is_file() and read_json(out / RECORD).get("job") == _job_print(job):
        # Of a run that was killed when all was done.
        shutil.rmtree(out / WORK, ignore_errors=True)
        return True
    begun = out / WORK / "job"
    if not begun.is_file() and there == [out / WORK]:
        return False  # another share is just beginning, or a run was killed as it began
    if begun.is_file() and begun.read_text(encoding="utf-8") == _begun(job):
        return False
    raise CanopyError(
        f"--out {out} holds other results, or other files; give another folder, or --force to "
        "write over them"
    )


def _begun(job: Job) -> str:
    """What shares and the job over all must have in common."""
    return f"{job.fingerprint} {job.sites.pattern}" if job.sites else job.fingerprint


def _job_print(job: Job) -> str:
    keys = [_key(sound)[0] for sound in job.sounds]
    made = {"detection": job.fingerprint, "sounds": keys, "formats": job.formats}
    return fingerprint(made | ({"sites": job.sites.pattern} if job.sites else {}))


def _key(sound: SoundFile) -> tuple[str, float]:
    """A recording as the journal knows it, another file in its place by another key; and bytes."""
    try:
        status = os.stat(sound.path)
    except OSError:
        return sound.name, 0.0
    return f"{sound.name}|{status.st_size}|{status.st_mtime_ns}", float(status.st_size)


def run_job(job: Job) -> Outcome:
    """Detect in what the journal does not have yet, then write all outputs.

    A share of the recordings keeps a journal of its own and writes no tables: the job over all
    takes it over.
    """
    work = job.out / WORK
    make_folder(work / "parts")
    (job.out / RECORD).unlink(missing_ok=True)
    write_text(work / "job", _begun(job))
    started = time.monotonic()
    name = "journal.jsonl" if job.shard is None else f"journal-{job.shard.name}.jsonl"
    with Journal(work / name, job.fingerprint) as journal:
        if job.shard is None:
            for path in sorted(work.glob("journal-*of*.jsonl")):
                journal.absorb(path)
        keys, sizes = map(list, zip(*map(_key, job.sounds), strict=True))
        waiting = [
            index
            for index, key in enumerate(keys)
            if not _is_done(journal.get(key), work) or not _scored(job, index, journal.get(key))
        ]
        if job.shard is not None:
            share = _share(job, job.shard, sizes)
            waiting = [index for index in waiting if index in share]
        elif len(waiting) < len(keys):
            log.info("%d of %d recordings were done before", len(keys) - len(waiting), len(keys))
        durations = {index: _duration(job.sounds[index]) for index in waiting}
        with _Progress(sum(durations.values())) as progress:
            for index, entry in _work(job, waiting, progress):
                journal.add(keys[index], **entry)
                if entry["status"] == "invalid":
                    log.warning("left out: %s", entry["reason"])
                elif entry["silent_s"] > 0:
                    log.info(
                        "%s: %.1f s of digital silence, where nothing is detected",
                        *(printable(job.sounds[index].name), entry["silent_s"]),
                    )
                progress.done(durations[index])
        if job.shard is not None:
            if job.sites is not None:
                write_days(job, job.sites, journal, keys, sorted(share))
            return Outcome(f"share {job.shard.name} is done", len(job.sounds))
        outcome = finish(job, journal, keys, _job_print(job), time.monotonic() - started)
        journal.remove()
    shutil.rmtree(work, ignore_errors=True)
    return outcome


def _share(job: Job, shard: Shard, sizes: Sequence[float]) -> set[int]:
    """Recordings of a share; of partitioned tables whole days of a site, which it then writes."""
    # By size: to ask a million files for their duration takes longer than it evens out.
    if job.sites is None:
        return set(shard.of(sizes))
    days = list(by_day(job.sites, job.sounds).values())
    chosen = shard.of([sum(sizes[index] for index in day) for day in days])
    return {index for number in chosen for index in days[number]}


def _is_done(entry: dict[str, Any] | None, work: Path) -> bool:
    if entry is None or entry.get("status") == "killed":
        return False
    return entry["status"] == "invalid" or (work / "parts" / entry["part"]).is_file()


def _scored(job: Job, index: int, entry: dict[str, Any] | None) -> bool:
    if job.scores is None or (entry or {}).get("status") == "invalid":
        return True
    return score_path(job.out, job.sounds[index], job.scores).is_file()


def _duration(sound: SoundFile) -> float:
    """Seconds, for the progress alone."""
    try:
        return float(np.nan_to_num(duration_of(sound.path)))
    except CanopyError:
        return 0.0


# -------------------------------------------------------------------------------------- the work


def _work(
    job: Job, waiting: list[int], progress: "_Progress"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Recordings and their entries, from this process or from several of one thread each."""
    stop = job.out / WORK / f"stop{job.shard.name if job.shard else ''}"
    stop.unlink(missing_ok=True)
    n = min(job.n_processes, len(waiting))
    if n <= 1:
        detector = load(job.request, job.models) if waiting else None
        for index in waiting:
            stop_if_asked(f"recording {printable(job.sounds[index].name)}")
            if detector is not None:
                yield index, _detect(job, detector, index, progress.within, stop_if_asked)
        return
    plain = Plan(
        *(job.request, job.sounds, job.out, job.scores, job.rules, job.shift, stop),
    )
    with _stop_file(stop):
        for index, entry in run_all(partial(_in_worker, plain), waiting, n):
            if isinstance(entry, Killed):
                yield index, {"status": "invalid", "reason": f"{job.sounds[index].path}: {KILLED}"}
                continue
            if entry["status"] == "stopped":
                raise Interrupted(requested() or "a signal", entry["place"])
            yield index, entry
            stop_if_asked(f"recording {printable(job.sounds[index].name)}")


@dataclass(frozen=True)
class Plan:
    """What of a job is sent to other processes."""

    request: Request
    sounds: list[SoundFile]
    out: Path
    scores: str | None
    rules: list[SpanRule]
    shift: np.ndarray | None
    stop: Path


_loaded: dict[str, Detector] = {}


def _in_worker(plan: Plan, index: int) -> dict[str, Any]:
    """One recording in a process of its own, whose models are loaded once."""
    key = str(plan.request)
    if key not in _loaded:
        _loaded[key] = load(plan.request)

    def look(place: str) -> None:
        if plan.stop.exists():
            raise Interrupted("the main process", place)

    try:
        look(f"recording {printable(plan.sounds[index].name)}")
        return _detect(plan, _loaded[key], index, lambda _: None, look)
    except Interrupted as stopped:
        return {"status": "stopped", "place": stopped.place}


class _stop_file:  # noqa: N801 (a context manager, used as a function)
    """While it is held, a signal to this process makes `path`, which its workers look for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            if requested():
                self._path.touch()
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _detect(
    plan: Job | Plan, detector: Detector, index: int, within: Any, look: Any
) -> dict[str, Any]:
    """Detect in one recording; its journal entry."""
    sound = plan.sounds[index]
    scores = None
    if plan.scores is not None:
        path = score_path(plan.out, sound, plan.scores)
        scores = ScoreFile(path, detector.labels, detector.hop_s, detector.start_s)

    def watch(seconds: float, logits: np.ndarray) -> None:
        within(seconds)
        if scores is not None:
            scores.add(logits)
        look(f"{seconds:.0f} s into {printable(sound.name)}, which begins anew")

    try:
        found = find_events(detector, sound.path, plan.rules, plan.shift, watch)
        if scores is not None:
            scores.finish()
    except (MachineError, ScoresError):
        raise
    except CanopyError as error:
        return {"status": "invalid", "reason": printable(str(error))}
    finally:
        if scores is not None:
            scores.drop()
    name = f"{index:07d}.npz"
    save_part(plan.out / WORK / "parts" / name, found)
    return {"status": "ok", "reason": "", "part": name, "silent_s": found.silent_s}


class _Progress:
    """A bar in seconds of sound, with remaining time and times real time."""

    def __init__(self, total_s: float) -> None:
        self._bar = tqdm(
            total=round(total_s),
            desc="detect",
            unit="s",
            disable=None,
            bar_format="{desc}: {percentage:3.0f}% of {total_fmt} s |{bar}| {elapsed} gone, "
            "{remaining} left, {rate_noinv_fmt} (times real time)",
        )
        self._inside = 0.0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def within(self, seconds: float) -> None:
        """So many seconds of the present recording are done."""
        self._bar.update(max(0.0, seconds - self._inside))
        self._inside = max(self._inside, seconds)

    def done(self, seconds: float) -> None:
        """The present recording is done."""
        self._bar.update(seconds - self._inside)
        self._inside = 0.0
