"""The three tables every recipe is prepared into: recordings, events and classes.

They are plain CSV. Reading validates: a fault is a `CanopyError` that names file, line, value and
mend. Times are seconds from the start of the file, frequencies hertz.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from local.errors import CanopyError
from local.files import file_digest, fingerprint, read_json, write_csv, write_json

RECORDING_COLUMNS = (
    "recording_id",
    "path",
    "subset",
    "duration",
    "sample_rate",
    "channels",
    "group",
)
EVENT_COLUMNS = (
    "recording_id",
    "label",
    "onset",
    "offset",
    "low_freq",
    "high_freq",
    "polarity",
    "weight",
    "source",
)
CLASS_COLUMNS = ("label", "name", "low_freq", "high_freq")
SUBSETS = ("train", "test", "unlabelled")
# Columns of any of our csv files that hold numbers; all others are text.
NUMBER_COLUMNS = frozenset(RECORDING_COLUMNS[3:6] + EVENT_COLUMNS[2:8]) | {
    "n_frames",
    "species_id",
    "songtype_id",
    "t_min",
    "t_max",
    "f_min",
    "f_max",
}

# Annotation programs round to milliseconds or to their pixel, so a box may end just after the file.
END_TOLERANCE_S = 0.1

# Ids become file names: letters, digits and a few marks, never a dot or a dash in front.
_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,199}")


@dataclass(frozen=True)
class Tables:
    """Recordings, events and classes that passed `check_tables`."""

    recordings: pd.DataFrame
    events: pd.DataFrame
    classes: pd.DataFrame

    @property
    def labels(self) -> list[str]:
        """Class labels in output order."""
        return self.classes["label"].tolist()

    def subset(self, *names: str) -> pd.DataFrame:
        """Recordings of the named subsets, in table order."""
        return self.recordings[self.recordings["subset"].isin(names)]


def read_tables(directory: Path | str) -> Tables:
    """Read and validate the tables of a prepared recipe."""
    directory = Path(directory)
    tables = Tables(
        read_table(directory / "recordings.csv", RECORDING_COLUMNS),
        read_table(directory / "events.csv", EVENT_COLUMNS),
        read_table(directory / "classes.csv", CLASS_COLUMNS),
    )
    check_tables(tables, directory)
    return tables


def read_table(path: Path | str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a CSV that must have `columns`; numbers become floats, empty ones NaN, all else text."""
    path = Path(path)
    try:
        frame = _read_text(path)
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such table; run stage 0 first, or check the path") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise CanopyError(
            f"{path}: not readable as CSV ({reason}); expected columns {', '.join(columns)}"
        ) from None
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise CanopyError(
            f"{path}: column {', '.join(missing)} is missing; found {', '.join(frame.columns)}"
        )
    for column in columns:
        if column in NUMBER_COLUMNS:
            frame[column] = _to_numbers(frame[column], path)
    return frame


def _read_text(path: Path) -> pd.DataFrame:
    """Rows of a CSV as text, one a line of the file, so that errors can name lines.

    Empty lines at the end do no harm. A line with more fields than the header is an error of the
    parser; with the header read as such, pandas would shift all columns by one instead.
    """
    lines = pd.read_csv(
        path,
        header=None,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8-sig",
        skip_blank_lines=False,
    )
    lines = lines.fillna("")
    filled = (lines != "").any(axis=1).to_numpy()
    lines = lines.iloc[: int(np.flatnonzero(filled)[-1]) + 1 if filled.any() else 0]
    if lines.empty:
        raise pd.errors.EmptyDataError("No columns to parse from file")
    twice = lines.iloc[0][lines.iloc[0].duplicated()]
    if len(twice):
        raise CanopyError(f"{path}: column {twice.iloc[0]!r} stands twice; keep one of them")
    return lines.iloc[1:].set_axis(lines.iloc[0].tolist(), axis=1).reset_index(drop=True)


def _to_numbers(column: pd.Series, path: Path) -> pd.Series:
    text = column.str.strip()
    numbers = pd.to_numeric(text.where(text != "", None), errors="coerce")
    bad = ~np.isfinite(numbers.astype(float)) & (text != "")
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise CanopyError(
            f"{path} line {row + 2}: {column.name} is {column.iloc[row]!r}, expected a number"
        )
    return numbers.astype(float)


def write_tables(directory: Path | str, tables: Tables, datadir: Path | str) -> None:
    """Validate and write the tables, and note which data folder they were made from."""
    directory = Path(directory)
    check_tables(tables, directory)
    write_csv(directory / "recordings.csv", tables.recordings[list(RECORDING_COLUMNS)])
    write_csv(directory / "events.csv", tables.events[list(EVENT_COLUMNS)])
    write_csv(directory / "classes.csv", tables.classes[list(CLASS_COLUMNS)])
    write_json(directory / "source.json", {"datadir": str(Path(datadir).resolve())})


def check_source(directory: Path | str, datadir: Path | str) -> None:
    """Refuse tables that were made from another data folder than `datadir`."""
    source = Path(directory) / "source.json"
    if not source.exists():
        return
    made_from = read_json(source)["datadir"]
    if Path(made_from) != Path(datadir).resolve():
        raise CanopyError(
            f"{directory} was made from {made_from}, not from {Path(datadir).resolve()}; give "
            "another --dumpdir, or --force to make it anew"
        )


def tables_digest(directory: Path | str, *names: str) -> str:
    """Digest of the named tables' content, for stamps and feature ids."""
    paths = {name: Path(directory) / f"{name}.csv" for name in names}
    absent = [str(path) for path in paths.values() if not path.is_file()]
    if absent:
        raise CanopyError(f"{absent[0]}: no such table; run stage 0 first, or check --dumpdir")
    return fingerprint({name: file_digest(path) for name, path in paths.items()})


def check_tables(tables: Tables, directory: Path | str = "") -> None:
    """Validate ids, numbers and references between the tables.

    Raises
    ------
    CanopyError
        For the first faulty row of the first fault found.
    """
    directory = Path(directory)
    _check_recordings(tables.recordings, directory / "recordings.csv")
    _check_classes(tables.classes, directory / "classes.csv")
    durations = tables.recordings.set_index("recording_id")["duration"]
    check_events(tables.events, durations, tables.labels, directory / "events.csv")


def fail_at(
    bad: pd.Series | np.ndarray, path: Path, frame: pd.DataFrame, say: Callable[[pd.Series], str]
) -> None:
    """Raise for the first row where `bad` holds; `say` words the fault of that row."""
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        row = int(rows[0])
        others = f" (and {len(rows) - 1} more rows like it)" if len(rows) > 1 else ""
        raise CanopyError(f"{path} line {row + 2}: {say(frame.iloc[row])}{others}")


def _check_recordings(frame: pd.DataFrame, path: Path) -> None:
    if frame.empty:
        raise CanopyError(f"{path}: no recordings; check the data folder")
    fail_at(
        ~frame["recording_id"].map(lambda text: bool(_SAFE_ID.fullmatch(text))),
        path,
        frame,
        lambda row: (
            f"recording_id {row['recording_id']!r} cannot name a file; use letters, digits, "
            "'_', '-', '.'"
        ),
    )
    # Two ids that differ only in case are one file on many laptops.
    fail_at(
        frame["recording_id"].str.lower().duplicated(),
        path,
        frame,
        lambda row: f"recording_id {row['recording_id']!r} stands twice; ids must be unique",
    )
    fail_at(
        ~frame["subset"].isin(SUBSETS),
        path,
        frame,
        lambda row: f"subset is {row['subset']!r}, expected one of {', '.join(SUBSETS)}",
    )
    fail_at(
        frame["group"].str.strip() == "",
        path,
        frame,
        lambda row: "group is empty; give the site or session, or the recording_id itself",
    )
    for column in ("duration", "sample_rate", "channels"):
        fail_at(
            ~(frame[column] > 0),
            path,
            frame,
            lambda row, column=column: (
                f"{column} of {row['recording_id']} is {row[column]}, expected more than 0"
            ),
        )


def _check_classes(frame: pd.DataFrame, path: Path) -> None:
    if frame.empty:
        raise CanopyError(f"{path}: no classes; list one label a row")
    fail_at(frame["label"].str.strip() == "", path, frame, lambda row: "label is empty")
    fail_at(frame["label"].duplicated(), path, frame, lambda row: f"label {row['label']!r} twice")


def check_events(
    frame: pd.DataFrame, durations: pd.Series, labels: list[str], path: Path | str
) -> None:
    """Validate rows of events against `durations` (indexed by recording_id) and known `labels`.

    `path` is the file the rows were read from in this order, so that errors name its lines.
    """
    path = Path(path)
    fail_at(
        ~frame["recording_id"].isin(durations.index),
        path,
        frame,
        lambda row: (
            f"recording_id {row['recording_id']!r} is not among the {len(durations)} recordings; "
            "mend the id or add the file"
        ),
    )
    fail_at(
        ~frame["label"].isin(labels),
        path,
        frame,
        lambda row: (
            f"label {row['label']!r} is not among the {len(labels)} classes; mend the row or add "
            "the class"
        ),
    )
    fail_at(
        ~((frame["onset"] >= 0) & (frame["onset"] < frame["offset"])),
        path,
        frame,
        lambda row: (
            f"onset {row['onset']} and offset {row['offset']} of {row['recording_id']}: expected "
            "0 <= onset < offset"
        ),
    )
    ends = frame["recording_id"].map(durations).astype(float)
    fail_at(
        frame["offset"] > ends + END_TOLERANCE_S,
        path,
        frame,
        lambda row: (
            f"offset {row['offset']} lies after the end of {row['recording_id']} "
            f"({durations[row['recording_id']]:.3f} s); check the times' unit and origin"
        ),
    )
    fail_at(
        ~frame["polarity"].isin([1, -1]),
        path,
        frame,
        lambda row: f"polarity is {row['polarity']}, expected 1 (sounds) or -1 (does not)",
    )
    fail_at(
        ~((frame["weight"] > 0) & (frame["weight"] <= 1)),
        path,
        frame,
        lambda row: f"weight is {row['weight']}, expected more than 0 and at most 1",
    )
    fail_at(
        frame["low_freq"] >= frame["high_freq"],
        path,
        frame,
        lambda row: f"low_freq {row['low_freq']} is not below high_freq {row['high_freq']}",
    )
