"""What detection leaves: selection tables, labels, CSV, Parquet, scores over time, the summary."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from local.data.annotations.audacity import write_audacity
from local.data.annotations.raven import write_raven
from local.detect.sound import SoundFile, printable
from local.detect.streaming import Found
from local.io.errors import CanopyError
from local.io.files import (
    atomic_path,
    disk_fault,
    fingerprint,
    make_folder,
    write_bytes,
    write_csv,
    write_npz,
)
from local.io.limits import spreadsheet_safe

# Of 255 that a name may have; the rest is for endings and for names of files in the making.
_MAX_STEM_BYTES = 200
COLUMNS = (
    *("recording_id", "path", "onset", "offset", "label", "score"),
    *("low_freq", "high_freq"),
)
# Times are told to a microsecond, less than a sample of any recorder: 2.23, not 2.2300000000000004.
_DECIMALS = 6
# Rows of scores over time written at once.
_SCORE_ROWS = 8192


def save_part(path: Path, found: Found) -> None:
    """Keep what was found in one recording until the job is done."""
    write_npz(
        path,
        onset=np.asarray(found.onset, dtype=np.float64),
        offset=np.asarray(found.offset, dtype=np.float64),
        label=np.asarray(found.label, dtype=np.int64),
        score=np.asarray(found.score, dtype=np.float64),
        highest=found.highest,
        duration=np.float64(found.duration),
    )


def load_part(path: Path) -> Found:
    """Read what `save_part` wrote."""
    try:
        with np.load(path, allow_pickle=False) as part:
            return Found(
                float(part["duration"]),
                part["highest"],
                *(part[name].tolist() for name in ("onset", "offset", "label", "score")),
            )
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CanopyError(f"{path}: not readable ({error}); detect anew with --force") from None


def detections(sound: SoundFile, found: Found, classes: pd.DataFrame) -> pd.DataFrame:
    """Detections of one recording in order of time; scores are probabilities."""
    labels = classes["label"].to_numpy(dtype=object)
    index = np.asarray(found.label, dtype=np.int64)
    frame = pd.DataFrame(
        {
            "recording_id": printable(sound.recording_id),
            "path": printable(str(sound.path)),
            "onset": np.round(found.onset, _DECIMALS),
            "offset": np.round(found.offset, _DECIMALS),
            "label": labels[index],
            "score": found.probability(),
            "low_freq": classes["low_freq"].to_numpy(dtype=np.float64)[index],
            "high_freq": classes["high_freq"].to_numpy(dtype=np.float64)[index],
        },
        columns=list(COLUMNS),
    )
    return frame.sort_values(["onset", "offset", "label"], ignore_index=True, kind="stable")


def write_tables(
    out: Path,
    formats: Iterable[str],
    parts: Iterable[tuple[SoundFile, Found]],
    classes: pd.DataFrame,
    nyquist_hz: float,
) -> list[Path]:
    """Write detections of all recordings in the formats asked for; returns the files."""
    formats = list(formats)
    frames, written = [], []
    for sound, found in parts:
        frame = detections(sound, found, classes)
        frames.append(frame)
        written += write_beside(out, formats, sound, frame, nyquist_hz)
    whole = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))
    if "csv" in formats:
        written.append(out / "detections.csv")
        write_csv(written[-1], spreadsheet_safe(whole))
    if "parquet" in formats:
        written.append(out / "detections.parquet")
        text = dict.fromkeys(("recording_id", "path", "label"), "string")
        write_bytes(written[-1], whole.astype(text).to_parquet(None, index=False))
    return written


def write_beside(
    out: Path, formats: list[str], sound: SoundFile, frame: pd.DataFrame, nyquist_hz: float
) -> list[Path]:
    """Write the formats that have a file a recording; returns the files."""
    written = []
    if "raven" in formats:
        written.append(_raven(out / "raven", sound, frame, nyquist_hz))
    if "audacity" in formats:
        path = _beside(out / "audacity", sound, ".txt")
        write_audacity(path, _plain_names(spreadsheet_safe(frame), sound))
        written.append(path)
    return written


def _beside(folder: Path, sound: SoundFile, ending: str) -> Path:
    """A file in the place below `folder` that the recording has below what was given.

    A long name is cut, and told from others by a digest: ours are longer by their ending.
    """
    name = Path(sound.name)
    stem = name.stem
    if len(os.fsencode(stem)) > _MAX_STEM_BYTES:
        stem = f"{stem[: _MAX_STEM_BYTES // 4]}-{fingerprint(name.stem)[:8]}"
    return folder / name.parent / f"{stem}{ending}"


def _plain_names(frame: pd.DataFrame, sound: SoundFile) -> pd.DataFrame:
    """One recording's rows with no more of its path than its stem, which the file's name tells."""
    return frame.assign(recording_id=printable(Path(sound.name).stem)).drop(columns="path")


def _raven(folder: Path, sound: SoundFile, frame: pd.DataFrame, nyquist_hz: float) -> Path:
    path = _beside(folder, sound, ".Table.1.selections.txt")
    rows = _plain_names(spreadsheet_safe(frame), sound)
    # Raven opens no selection without a band.
    rows = rows.fillna({"low_freq": 0.0, "high_freq": nyquist_hz})
    if not any(mark in sound.path.name for mark in "\t\r\n"):
        rows = rows.assign(path=printable(sound.path.name))
    write_raven(path, rows)
    return path


# ------------------------------------------------------------------------------- scores over time


class ScoreFile:
    """Scores of one recording over time, written as they come and whole or not at all.

    npz: `frame_logit` (C, n) float32, `label`, `frame_hop_s`, `frame_start_s`. parquet: `time_s`
    (centre of a cell) and one float32 column of probabilities a class.
    """

    def __init__(self, path: Path, labels: list[str], hop_s: float, start_s: float) -> None:
        self._path, self._labels, self._hop_s, self._start_s = path, labels, hop_s, start_s
        self._raw = path.with_name(f".{path.name}.raw")
        make_folder(path.parent)
        try:
            self._stream = open(self._raw, "wb")  # noqa: SIM115 (closed by finish or drop)
        except OSError as error:
            raise disk_fault(self._raw, error) from None

    def add(self, logits: np.ndarray) -> None:
        """Further (C, k) logits."""
        content = np.ascontiguousarray(logits.T, dtype=np.float32).tobytes()
        try:
            self._stream.write(content)
            self._stream.flush()
        except OSError as error:
            raise disk_fault(self._raw, error, len(content)) from None

    def drop(self) -> None:
        """Leave nothing behind."""
        # What a full disk did not take it refuses again.
        with suppress(OSError):
            self._stream.close()
        self._raw.unlink(missing_ok=True)

    def finish(self) -> None:
        """Write the file."""
        self._stream.close()
        shape = (self._raw.stat().st_size // (4 * len(self._labels)), len(self._labels))
        cells = np.memmap(self._raw, np.float32, "r", shape=shape) if shape[0] else np.zeros(shape)
        if self._path.suffix == ".npz":
            write_npz(
                self._path,
                frame_logit=cells.T,
                label=np.array(self._labels, dtype=np.str_),
                frame_hop_s=np.float64(self._hop_s),
                frame_start_s=np.float64(self._start_s),
            )
        else:
            self._parquet(cells)
        self.drop()

    def _parquet(self, cells: np.ndarray) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        fields = [("time_s", pa.float64()), *((label, pa.float32()) for label in self._labels)]
        schema = pa.schema(fields)
        # Through streams: Arrow takes no names of files that are not UTF-8.
        with (
            atomic_path(self._path) as temporary,
            open(temporary, "wb") as stream,
            parquet.ParquetWriter(stream, schema) as to,
        ):
            for first in range(0, len(cells), _SCORE_ROWS):
                some = np.asarray(cells[first : first + _SCORE_ROWS], dtype=np.float64)
                times = self._start_s + self._hop_s * (first + np.arange(len(some)) + 0.5)
                columns = [times, *expit(some.T).astype(np.float32)]
                to.write_table(pa.table([pa.array(one) for one in columns], schema=schema))


def score_path(out: Path, sound: SoundFile, ending: str) -> Path:
    """Where the scores over time of a recording are written."""
    return _beside(out / "scores", sound, f".{ending}")


# ---------------------------------------------------------------------------------------- summary


def summary_rows(
    sound: SoundFile, found: Found | None, reason: str, labels: list[str]
) -> list[dict[str, Any]]:
    """Rows of summary.csv: one a recording and class; one for a recording that was not readable."""
    about = {
        "recording_id": printable(sound.recording_id),
        "path": printable(str(sound.path)),
        "status": "invalid" if found is None else "ok",
    }
    if found is None:
        return [{**about, "reason": reason}]
    index = np.asarray(found.label, dtype=np.int64)
    seconds = np.asarray(found.offset) - np.asarray(found.onset)
    counts = np.bincount(index, minlength=len(labels))
    lengths = np.bincount(index, weights=seconds, minlength=len(labels))
    highest = expit(found.highest)
    return [
        {
            **about,
            "duration_s": found.duration,
            "label": label,
            "detections": int(counts[column]),
            "detected_s": round(float(lengths[column]), _DECIMALS),
            "max_score": float(highest[column]),
            "reason": "",
        }
        for column, label in enumerate(labels)
    ]


def write_summary(path: Path, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Write summary.csv."""
    columns = ["recording_id", "path", "status", "duration_s", "label", "detections"]
    columns += ["detected_s", "max_score", "reason"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["detections"] = frame["detections"].astype("Int64")
    write_csv(path, spreadsheet_safe(frame))
    return frame


def summary_table(summary: pd.DataFrame, thresholds: pd.DataFrame) -> str:
    """The summary for the terminal: one line a class, those with detections first."""
    good = summary[summary["status"] == "ok"]
    with_any = (good["detections"] > 0).astype(int)
    recordings = good.drop_duplicates("recording_id")
    return totals_table(
        good.assign(recordings_with=with_any),
        thresholds,
        len(recordings),
        recordings["duration_s"].sum() / 3600,
        int((summary["status"] != "ok").sum()),
    )


def totals_table(
    rows: pd.DataFrame, thresholds: pd.DataFrame, n_good: int, hours: float, n_invalid: int
) -> str:
    """Sums over rows of `label, detections, recordings_with, detected_s, max_score`, and a foot."""
    limits = thresholds.set_index("label")["threshold"]
    names = [str(label) for label in thresholds["label"]]
    width = max([len("all"), *map(len, names)])
    lines = [
        f"{'class':<{width}}  threshold  detections  recordings   seconds  highest score",
    ]
    totals = []
    for label, part in rows.groupby("label", sort=False):
        n, n_with = int(part["detections"].sum()), int(part["recordings_with"].sum())
        totals.append((n, str(label), n_with, part["detected_s"].sum(), part["max_score"].max()))
    for n, label, n_recordings, seconds, highest in sorted(totals, key=lambda row: -row[0]):
        lines.append(
            f"{label:<{width}}  {limits[label]:>9.4f}  {n:>10}  {n_recordings:>10}  "
            f"{seconds:>8.1f}  {highest:>13.4f}"
        )
    lines.append(
        f"{n_good} recordings, {hours:.2f} hours, "
        f"{int(rows['detections'].sum())} detections; {n_invalid} recordings left out"
    )
    return "\n".join(lines)
