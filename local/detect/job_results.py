"""What a detection job comes to: its tables, its record, and what is said of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from local import __version__
from local.detect.outputs import (
    load_part,
    summary_rows,
    summary_table,
    totals_table,
    write_summary,
    write_tables,
)
from local.detect.partition import ListenedHours, Partitions, SiteRule, keep_days, write_by_date
from local.detect.sound import SoundFile, printable
from local.io.files import fingerprint, write_csv, write_json
from local.io.limits import spreadsheet_safe
from local.jobs.journal import Journal

if TYPE_CHECKING:
    from local.detect.job import Job

RECORD = "detect.json"
WORK = ".work"


@dataclass
class Outcome:
    """What a job came to."""

    table: str
    n_recordings: int
    invalid: list[tuple[SoundFile, str]] = field(default_factory=list)


def finish(
    job: "Job", journal: Journal, keys: list[str], job_print: str, seconds: float
) -> Outcome:
    """All tables from what was found, the record last; `job_print` tells the job from others."""
    entries = [journal.get(key) or {} for key in keys]
    invalid = [
        (sound, entry["reason"])
        for sound, entry in zip(job.sounds, entries, strict=True)
        if entry["status"] != "ok"
    ]
    if job.sites is not None:
        rows = write_days(job, job.sites, journal, keys, range(len(keys)))
        write_by_date(job.out, rows)
        keep_days(job.out, rows)
        days = rows.drop_duplicates(["site", "date"])
        n_good, hours = int(days["recordings"].sum()), float(days["hours"].sum())
        table = totals_table(rows, job.thresholds, n_good, hours, len(invalid))
    else:
        table = _write_whole(job, entries)
    write_csv(job.out / "thresholds.csv", spreadsheet_safe(job.thresholds))
    write_json(job.out / RECORD, _record(job, job_print, invalid, seconds))
    return Outcome(table, len(job.sounds), invalid)


def write_days(
    job: "Job", sites: SiteRule, journal: Journal, keys: list[str], indices: Iterable[int]
) -> pd.DataFrame:
    """Tables of these recordings by site and date; one row a site, date and class."""
    work = job.out / WORK
    name = "days" if job.shard is None else f"days-{job.shard.name}"
    made_by = fingerprint({"detection": job.fingerprint, "formats": job.formats})

    def heard(index: int) -> ListenedHours:
        entry = journal.get(keys[index]) or {}
        part = work / "parts" / entry["part"] if entry["status"] == "ok" else None
        return ListenedHours(job.sounds[index], keys[index], part, entry["reason"])

    with Journal(work / f"{name}.jsonl", made_by) as days:
        if job.shard is None:
            for path in sorted(work.glob("days-*of*.jsonl")):
                days.absorb(path)
        nyquist_hz = job.models[0].config.audio.sample_rate / 2
        to = Partitions(job.out, sites, made_by, days, job.formats, job.classes, nyquist_hz)
        return to.write(map(heard, indices))


def _write_whole(job: "Job", entries: list[dict[str, Any]]) -> str:
    """Tables of all recordings together; the summary for the terminal."""
    parts = job.out / WORK / "parts"
    labels = job.models[0].labels
    rows: list[dict[str, Any]] = []

    def readable() -> Iterator[tuple[SoundFile, Any]]:
        for sound, entry in zip(job.sounds, entries, strict=True):
            found = load_part(parts / entry["part"]) if entry["status"] == "ok" else None
            rows.extend(summary_rows(sound, found, entry.get("reason", ""), labels))
            if found is not None:
                yield sound, found

    config = job.models[0].config
    write_tables(job.out, job.formats, readable(), job.classes, config.audio.sample_rate / 2)
    return summary_table(write_summary(job.out / "summary.csv", rows), job.thresholds)


def _record(
    job: "Job", job_print: str, invalid: list[tuple[SoundFile, str]], seconds: float
) -> dict[str, Any]:
    return {
        "canopy": __version__,
        "models": [printable(str(model.path)) for model in job.models],
        "digests": job.digests,
        "formats": job.formats,
        "site_date_pattern": job.sites.pattern if job.sites else None,
        "prior_shift": job.shift,
        "rules": [vars(rule) for rule in job.rules],
        "recordings": len(job.sounds),
        "invalid": [[printable(str(sound.path)), reason] for sound, reason in invalid],
        "seconds": seconds,
        "job": job_print,
    }
