"""The three tables every recipe is prepared into: recordings, events and classes.

They are plain CSV. Reading validates: a fault is a `CanopyError` that names file, line, value and
mend. Times are seconds from the start of the file, frequencies hertz.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from local.io.csv_cells import read_cells
from local.io.errors import CanopyError
from local.io.files import as_written, file_digest, fingerprint, read_json, write_csv, write_json
from local.io.limits import id_fault, label_fault

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


@dataclass(frozen=True)
class Check:
    """One kind of fault: `bad` (n,) tells the rows that have it, `say` words it for one of them."""

    fault: str
    bad: pd.Series
    say: Callable[[pd.Series], str]


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
        frame, comma = read_cells(path)
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such table; run stage 0 first, or check the path") from None
    except OSError as error:
        raise CanopyError(f"{path}: cannot be read ({error.strerror}); give a CSV file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise CanopyError(
            f"{path}: not readable as CSV ({reason}); expected columns {', '.join(columns)}"
        ) from None
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise CanopyError(
            f"{path}: column {', '.join(missing)} is missing; found "
            f"{', '.join(frame.columns)[:200]}"
        )
    for column in columns:
        if column in NUMBER_COLUMNS:
            frame[column] = _to_numbers(frame[column], path, comma)
    return frame


def _to_numbers(column: pd.Series, path: Path, comma: bool) -> pd.Series:
    text = column.str.strip()
    if comma:
        text = text.str.replace(",", ".", n=1, regex=False)
    numbers = pd.to_numeric(text.where(text != "", None), errors="coerce")
    bad = ~np.isfinite(numbers.astype(float)) & (text != "")
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise CanopyError(
            f"{path} line {row + 2}: {column.name} is {column.iloc[row]!r}, expected a number"
        )
    # pandas reads the last digits of long numbers amiss; Python gives the nearest float.
    exact = [float(cell) if cell else np.nan for cell in text]
    return pd.Series(exact, index=column.index, name=column.name, dtype=float)


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
    with as_written(source):
        made_from = Path(read_json(source)["datadir"])
    if made_from != Path(datadir).resolve():
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


def _raise_first(checks: Iterator[Check], path: Path | str, frame: pd.DataFrame) -> None:
    for check in checks:
        fail_at(check.bad, Path(path), frame, check.say)


def _check_recordings(frame: pd.DataFrame, path: Path) -> None:
    if frame.empty:
        raise CanopyError(f"{path}: no recordings; check the data folder")
    _raise_first(recording_checks(frame), path, frame)


def _check_classes(frame: pd.DataFrame, path: Path) -> None:
    if frame.empty:
        raise CanopyError(f"{path}: no classes; list one label a row")
    _raise_first(class_checks(frame), path, frame)


def check_events(
    frame: pd.DataFrame, durations: pd.Series, labels: list[str], path: Path | str
) -> None:
    """Validate rows of events against `durations` (indexed by recording_id) and known `labels`.

    `path` is the file the rows were read from in this order, so that errors name its lines.
    """
    _raise_first(event_checks(frame, durations, labels), path, frame)


# ------------------------------------------------------------------------- what is wrong with rows


def recording_checks(frame: pd.DataFrame) -> Iterator[Check]:
    """All that can be wrong with rows of recordings by themselves."""
    yield Check(
        "unsafe id",
        frame["recording_id"].map(id_fault) != "",
        lambda row: f"recording_id {row['recording_id']!r:.120} {id_fault(row['recording_id'])}",
    )
    for column in ("path", "group"):
        yield _printable_check(frame, column)
    # Two ids that differ only in case are one file on many laptops.
    yield Check(
        "id twice",
        frame["recording_id"].str.lower().duplicated(),
        lambda row: f"recording_id {row['recording_id']!r} stands twice; ids must be unique",
    )
    yield Check(
        "unknown subset",
        ~frame["subset"].isin(SUBSETS),
        lambda row: f"subset is {row['subset']!r}, expected one of {', '.join(SUBSETS)}",
    )
    yield Check(
        "no group",
        frame["group"].str.strip() == "",
        lambda row: "group is empty; give the site or session, or the recording_id itself",
    )
    for column in ("duration", "sample_rate", "channels"):
        yield _positive_check(frame, column)


def _printable_check(frame: pd.DataFrame, column: str) -> Check:
    return Check(
        "control character",
        ~frame[column].map(str.isprintable).astype(bool),
        lambda row: f"{column} {row[column]!r:.120} holds a control character; take it out",
    )


def _positive_check(frame: pd.DataFrame, column: str) -> Check:
    return Check(
        f"no {column}".replace("_", " "),
        ~(frame[column] > 0),
        lambda row: f"{column} of {row['recording_id']} is {row[column]}, expected more than 0",
    )


def class_checks(frame: pd.DataFrame) -> Iterator[Check]:
    """All that can be wrong with rows of classes by themselves."""
    yield Check(
        "unsafe label",
        frame["label"].map(label_fault) != "",
        lambda row: f"label {row['label']!r:.120} {label_fault(row['label'])}",
    )
    yield Check(
        "label twice", frame["label"].duplicated(), lambda row: f"label {row['label']!r} twice"
    )
    # Folders and pages are named after labels.
    yield Check(
        "label twice",
        frame["label"].str.casefold().duplicated() & ~frame["label"].duplicated(),
        lambda row: f"label {row['label']!r} differs from another in case alone; rename one",
    )


def event_checks(frame: pd.DataFrame, durations: pd.Series, labels: list[str]) -> Iterator[Check]:
    """All that can be wrong with rows of events, held against recordings and classes."""
    yield Check(
        "unknown recording",
        ~frame["recording_id"].isin(durations.index),
        lambda row: (
            f"recording_id {row['recording_id']!r} is not among the {len(durations)} recordings; "
            "mend the id or add the file"
        ),
    )
    yield Check(
        "unknown label",
        ~frame["label"].isin(labels),
        lambda row: (
            f"label {row['label']!r} is not among the {len(labels)} classes; mend the row or add "
            "the class"
        ),
    )
    yield Check(
        "no time",
        ~((frame["onset"] >= 0) & (frame["onset"] < frame["offset"])),
        lambda row: (
            f"onset {row['onset']} and offset {row['offset']} of {row['recording_id']}: expected "
            "0 <= onset < offset"
        ),
    )
    ends = frame["recording_id"].map(durations).astype(float)
    yield Check(
        "event outside",
        frame["offset"] > ends + END_TOLERANCE_S,
        lambda row: (
            f"offset {row['offset']} lies after the end of {row['recording_id']} "
            f"({durations[row['recording_id']]:.3f} s); check the times' unit and origin"
        ),
    )
    yield Check(
        "polarity",
        ~frame["polarity"].isin([1, -1]),
        lambda row: f"polarity is {row['polarity']}, expected 1 (sounds) or -1 (does not)",
    )
    yield Check(
        "weight",
        ~((frame["weight"] > 0) & (frame["weight"] <= 1)),
        lambda row: f"weight is {row['weight']}, expected more than 0 and at most 1",
    )
    yield Check(
        "no band",
        frame["low_freq"] >= frame["high_freq"],
        lambda row: f"low_freq {row['low_freq']} is not below high_freq {row['high_freq']}",
    )
