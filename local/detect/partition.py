"""Detections of a large archive as Parquet partitioned by site and date, and what was listened to.

`detections/site=<site>/date=<date>/<digest>.parquet` and the same below `recordings/`: a layout
that pandas, DuckDB, Arrow in R and Spark read as one table. Site and date come from the names that
recorders give to files and people to folders. A site's day lies in one file, written whole by
whichever share of a job has it, and named by what it was made from: shares need no merging, and
trees of several jobs may be laid together.
"""

import io
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from local.detect.outputs import COLUMNS, detections, load_part, write_beside
from local.detect.sound import SoundFile, printable
from local.io.errors import CanopyError
from local.io.files import fingerprint, write_bytes, write_csv
from local.io.limits import file_name, spreadsheet_safe
from local.jobs.interruption import stop_if_asked
from local.jobs.journal import Journal

# The folder of a file, and its name as AudioMoth, Song Meters, SwiftOnes and BARs write it:
# 20210314_053000.WAV, SITE_20210314_053000.wav, 20210314T053000+1000_REC.flac.
PATTERN = (
    r"(?P<folder>[^/]*)/(?:(?P<site>[^/]+?)[_-])?"
    r"(?P<date>\d{4}-?\d{2}-?\d{2})[_T -]?(?P<time>\d{2}[-:]?\d{2}[-:]?\d{2})[^/]*$"
)
UNKNOWN = "unknown"
FOLDERS = ("detections", "recordings")
RECORDINGS = ("recording_id", "path", "start", "status", "duration_s", "detections", "reason")
# What is summed up of a site's day, one number a class.
_SUMS = ("recordings_with", "detections", "detected_s")
_MAX_FOLDER_CHARACTERS = 200


@dataclass(frozen=True)
class SiteDate:
    """Where and when a recording was made; `start` None where no time is known."""

    site: str
    date: str
    start: datetime | None

    @property
    def folder(self) -> Path:
        """Place of its partition, whatever its site is called."""
        return Path(f"site={file_name(self.site)}", f"date={self.date}")


@dataclass(frozen=True)
class SiteRule:
    """Site and date out of a file's path: groups `site`, else `folder`, and `date`, `time`."""

    pattern: str = PATTERN

    def __post_init__(self) -> None:
        """Refuse what is no such pattern."""
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise CanopyError(
                f"--site-date-pattern {self.pattern!r} is no regular expression ({error})"
            ) from None
        if not {"site", "folder", "date"} & set(groups):
            raise CanopyError(
                f"--site-date-pattern {self.pattern!r} names neither site nor date; name groups as "
                "in (?P<site>...) and (?P<date>...)"
            )

    def of(self, sound: SoundFile) -> SiteDate:
        """Where and when a file was recorded; what its path does not tell is `unknown`."""
        match = re.search(self.pattern, sound.path.absolute().as_posix())
        found = match.groupdict() if match else {}
        site = printable(found.get("site") or found.get("folder") or UNKNOWN)
        if len(file_name(site)) > _MAX_FOLDER_CHARACTERS:
            site = f"{site[:12]}-{fingerprint(site)[:8]}"
        day = _parsed(found.get("date"), 8)
        start = _parsed(f"{found.get('date')}{found.get('time')}", 14)
        return SiteDate(site, day.strftime("%Y-%m-%d") if day else UNKNOWN, start)


def site_rule(asked: bool, pattern: str | None, formats: list[str] | None) -> SiteRule | None:
    """The rule of options `--partition`, `--site-date-pattern` and `--format`; None without."""
    if not asked:
        if pattern is not None:
            raise CanopyError("--site-date-pattern goes with --partition")
        return None
    if formats is not None and ("csv" in formats or "parquet" not in formats):
        raise CanopyError(
            f"--partition goes with --format parquet, raven and audacity beside it, not with "
            f"{' '.join(formats)}; leave --format out for Parquet alone"
        )
    return SiteRule(PATTERN if pattern is None else pattern)


def _parsed(text: str | None, n_digits: int) -> datetime | None:
    """A date of digits, whatever stands between them; None where there is none such."""
    digits = re.sub(r"[^0-9]", "", text or "")
    if len(digits) != n_digits:
        return None
    parts = [digits[:4], *(digits[at : at + 2] for at in range(4, n_digits, 2))]
    try:
        found = datetime(*map(int, parts))  # type: ignore[arg-type]
    except ValueError:
        return None
    # From what a clock that was never set tells, to what some other number may look like.
    return found if 1970 <= found.year <= 2100 else None


@dataclass(frozen=True)
class ListenedHours:
    """A recording and its kept part, None where it was not readable, and why."""

    sound: SoundFile
    key: str
    part: Path | None
    reason: str


def by_day(rule: SiteRule, sounds: list[SoundFile]) -> dict[tuple[str, str], list[int]]:
    """Indices of the recordings of each site and date, in order of site and date."""
    found: dict[tuple[str, str], list[int]] = {}
    for index, sound in enumerate(sounds):
        where = rule.of(sound)
        found.setdefault((where.site, where.date), []).append(index)
    return dict(sorted(found.items()))


class Partitions:
    """Writes the tables of each site's day, unless its journal has it.

    Parameters
    ----------
    out : folder of the job.
    made_by : fingerprint of all that decides what is found in a recording.
    journal : of days that are written.
    """

    def __init__(
        self,
        out: Path,
        rule: SiteRule,
        made_by: str,
        journal: Journal,
        formats: list[str],
        classes: pd.DataFrame,
        nyquist_hz: float,
    ) -> None:
        self._out, self._rule, self._made_by = out, rule, made_by
        self._journal, self._formats = journal, formats
        self._classes, self._nyquist_hz = classes, nyquist_hz

    def write(self, heard: Iterable[ListenedHours]) -> pd.DataFrame:
        """Write all days of these recordings; one row a site, date and class."""
        heard = list(heard)
        rows = []
        for (site, date), indices in by_day(self._rule, [one.sound for one in heard]).items():
            stop_if_asked(f"site {site}, date {date}")
            day = [heard[index] for index in indices]
            made_of: dict[str, Any] = {"made_by": self._made_by, "where": [site, date]}
            made_of |= {"recordings": [[one.key, one.part is not None] for one in day]}
            name, folder = fingerprint(made_of)[:16], self._rule.of(day[0].sound).folder
            entry = self._journal.get(str(folder))
            if entry is None or entry["name"] != name or not self._is_there(folder, name):
                entry = self._write_day(day, folder, name)
                self._journal.add(str(folder), **entry)
            rows += self._rows(site, date, entry)
        columns = [
            "site",
            "date",
            "label",
            "recordings",
            "unreadable",
            "hours",
            *_SUMS,
            "max_score",
        ]
        return pd.DataFrame(rows, columns=columns)

    def _is_there(self, folder: Path, name: str) -> bool:
        return all((self._out / top / folder / f"{name}.parquet").is_file() for top in FOLDERS)

    def _rows(self, site: str, date: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
        shared = {"site": site, "date": date}
        shared |= {name: entry[name] for name in ("recordings", "unreadable", "hours")}
        return [
            {
                **shared,
                "label": label,
                **{name: entry[name][column] for name in _SUMS},
                "max_score": entry["max_score"][column],
            }
            for column, label in enumerate(self._classes["label"])
        ]

    def _write_day(self, day: list[ListenedHours], folder: Path, name: str) -> dict[str, Any]:
        """Write the tables of one day; what it comes to."""
        n = len(self._classes)
        found_rows: list[pd.DataFrame] = []
        about: list[tuple[Any, ...]] = []
        sums = {name: np.zeros(n) for name in _SUMS}
        highest = np.zeros(n)
        seconds = 0.0
        for one in day:
            start = self._rule.of(one.sound).start
            ids = (printable(one.sound.recording_id), printable(str(one.sound.path)), start)
            if one.part is None:
                about.append((*ids, "invalid", np.nan, 0, one.reason))
                continue
            found = load_part(one.part)
            frame = detections(one.sound, found, self._classes)
            write_beside(self._out, self._formats, one.sound, frame, self._nyquist_hz)
            about.append((*ids, "ok", found.duration, len(frame), ""))
            found_rows.append(frame.assign(time=_times(start, frame["onset"])))
            index = np.asarray(found.label, dtype=np.int64)
            counts = np.bincount(index, minlength=n)
            lengths = np.asarray(found.offset) - np.asarray(found.onset)
            sums["detections"] += counts
            sums["recordings_with"] += counts > 0
            sums["detected_s"] += np.bincount(index, weights=lengths, minlength=n)
            highest = np.maximum(highest, expit(found.highest))
            seconds += found.duration
        columns = [*COLUMNS, "time"]
        whole = pd.concat(found_rows) if found_rows else pd.DataFrame(columns=columns)
        for top, frame in zip(
            FOLDERS, (whole, pd.DataFrame(about, columns=list(RECORDINGS))), strict=True
        ):
            _write_parquet(self._out / top / folder, name, frame, top)
        return {
            "name": name,
            "recordings": len(found_rows),
            "unreadable": len(day) - len(found_rows),
            "hours": seconds / 3600,
            "recordings_with": sums["recordings_with"].astype(int).tolist(),
            "detections": sums["detections"].astype(int).tolist(),
            "detected_s": sums["detected_s"].tolist(),
            "max_score": highest.tolist(),
        }


def _times(start: datetime | None, onsets: pd.Series) -> np.ndarray:
    """Time of day at which detections begin, by the recorder's clock."""
    base = np.datetime64(start if start else "NaT", "ms")
    return base + np.rint(onsets.to_numpy(np.float64) * 1000).astype("timedelta64[ms]")


def _write_parquet(folder: Path, name: str, frame: pd.DataFrame, kind: str) -> None:
    """One file, of the same columns and types as all others of its kind, alone in its folder."""
    import pyarrow as pa
    from pyarrow import parquet

    text, number, moment = pa.string(), pa.float64(), pa.timestamp("ms")
    types = dict.fromkeys(COLUMNS, number) | {"time": moment}
    if kind == "recordings":
        types = {"start": moment, "duration_s": number, "detections": pa.int64()}
    texts = ("recording_id", "path", "label", "status", "reason")
    schema = pa.schema([(c, text if c in texts else types[c]) for c in frame.columns])
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)
    path, content = folder / f"{name}.parquet", io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(None), content)
    write_bytes(path, content.getvalue())
    for other in folder.glob("*.parquet"):
        if other != path:  # of a day that had other recordings then
            other.unlink()


def write_by_date(out: Path, table: pd.DataFrame) -> None:
    """Write by_date.csv and by_date.parquet."""
    write_csv(out / "by_date.csv", spreadsheet_safe(table))
    text = dict.fromkeys(("site", "date", "label"), "string")
    write_bytes(out / "by_date.parquet", table.astype(text).to_parquet(None, index=False))


def keep_days(out: Path, table: pd.DataFrame) -> None:
    """Remove days that are not in the table: an earlier job's, of recordings that are gone."""
    days = table[["site", "date"]].drop_duplicates().itertuples(index=False)
    kept = {SiteDate(site, date, None).folder for site, date in days}
    for top in FOLDERS:
        for day in (out / top).glob("site=*/date=*"):
            if day.relative_to(out / top) not in kept:
                shutil.rmtree(day)
                if not any(day.parent.iterdir()):
                    day.parent.rmdir()
