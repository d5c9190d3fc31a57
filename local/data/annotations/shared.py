"""What all annotation formats share: text of any usual encoding, numbers, names, the events frame.

An annotation frame has the columns of `events`, then `path` where the format names the sound file,
then whatever else the format holds, as text. Times are seconds, frequencies hertz.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd

from local.io import limits
from local.io.errors import CanopyError
from local.data.tables import EVENT_COLUMNS

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LINE_END = re.compile(r"\r\n|\n|\r")
# What programs add to the name of a recording when they name its table.
_TABLE_ENDING = re.compile(
    r"(\.Table\.?\d+)?(\.selections?)?\.txt|\.BirdNET\.(selection\.table\.txt|results\.\w+)",
    re.IGNORECASE,
)
_AUDIO_ENDING = re.compile(r"\.(wav|flac|ogg|mp3|aiff?|w64|opus|m4a)", re.IGNORECASE)


@dataclass(frozen=True)
class ReadOptions:
    """What a file itself may leave open.

    Attributes
    ----------
    column : the column that holds the label; None: guessed among the usual names (Raven, plain).
    label : one label for every row of a file that has no such column.
    columns : plain only, our name -> the file's name, as {"onset": "start_s"}.
    polarity : 1 or -1 for rows that do not say it; None: 1, but a rainforest table, whose rows may
        all be confirmed or all rejected, is an error.
    encoding : of the text; None: UTF-8, or what its byte order mark says.
    times_in_file : Raven tables of several files without `File Offset (s)`: times count from the
        start of each file (True) or this is an error (False).
    """

    column: str | None = None
    label: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    polarity: int | None = None
    encoding: str | None = None
    times_in_file: bool = False

    @property
    def usual_polarity(self) -> int:
        """What a row says that has no word on it: that the class sounds."""
        return 1 if self.polarity is None else self.polarity


DEFAULTS = ReadOptions()


# -------------------------------------------------------------------------------------- text in


def read_text(path: Path | str, encoding: str | None = None) -> str:
    """The text of a file: UTF-8 with or without its mark, UTF-16 with one, or as `encoding` says.

    Raises
    ------
    CanopyError
        The file is missing, or its bytes are not text of that encoding.
    """
    what = "table of annotations"
    try:
        if encoding is None:
            return limits.read_text(path, limits.MAX_TABLE_BYTES, what)
        limits.check_size(path, limits.MAX_TABLE_BYTES, what)
        text = Path(path).read_bytes().decode(encoding)
    except OSError as error:
        raise CanopyError(f"{path}: cannot be read ({error.strerror}); name a {what}") from None
    except UnicodeDecodeError as error:
        raise CanopyError(
            f"{path}: not text in {encoding} (byte {error.start}); name its encoding, or save it "
            "as UTF-8"
        ) from None
    except (LookupError, ValueError):
        raise CanopyError(
            f"{path}: encoding {encoding!r} is unknown; name one such as utf-8, utf-16 or cp1252"
        ) from None
    if "\0" in text:
        raise CanopyError(f"{path}: not text in {encoding} (it holds NUL characters); name another")
    return text.removeprefix("\ufeff")


def split_lines(text: str) -> list[tuple[int, str]]:
    """Numbered lines that are not blank; only CR, LF and CRLF end a line."""
    lines = enumerate(_LINE_END.split(text), start=1)
    return [(number, line) for number, line in lines if line.strip()]


def read_delimited(path: Path, text: str, separator: str) -> pd.DataFrame:
    """Text table of a csv with quotes; see `text_table`."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows, start = [], 1
    try:
        for fields in reader:
            rows.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        raise CanopyError(
            f"{path} line {reader.line_num}: not readable as csv ({error}); mend its quotes"
        ) from None
    return text_table(path, [(number, fields) for number, fields in rows if any(fields)])


def text_table(path: Path, rows: list[tuple[int, list[str]]]) -> pd.DataFrame:
    """Rows of text under the names of the first one; the index holds the lines of the file.

    Names lose the space around them. A row may lack empty fields at its end. Columns without a name
    and without content are dropped.

    Raises
    ------
    CanopyError
        No header, a repeated or missing name, or a row with more fields than the header.
    """
    if not rows:
        raise CanopyError(f"{path}: empty file; expected a line of column names")
    names = [name.strip() for name in rows[0][1]]
    if len(names) > limits.MAX_TABLE_COLUMNS:
        raise CanopyError(
            f"{path}: has {len(names)} columns, a table may have at most "
            f"{limits.MAX_TABLE_COLUMNS}; name the right file"
        )
    body = []
    for number, fields in rows[1:]:
        if any(fields[len(names) :]):
            raise CanopyError(
                f"{path} line {number}: {len(fields)} fields under {len(names)} column names; mend "
                "the row or its separators"
            )
        body.append(fields[: len(names)] + [""] * (len(names) - len(fields)))
    lines = [number for number, _ in rows[1:]]
    frame = pd.DataFrame(body, columns=range(len(names)), index=lines, dtype=object)
    kept = [i for i, name in enumerate(names) if name or (frame[i].str.strip() != "").any()]
    for position in kept:
        if not names[position]:
            raise CanopyError(f"{path}: column {position + 1} has no name; give it one")
        if names.index(names[position]) != position:
            raise CanopyError(f"{path}: column {names[position]!r} stands twice; keep one of them")
    return frame[kept].set_axis([names[i] for i in kept], axis=1)


def find_column(frame: pd.DataFrame, names: Iterable[str]) -> str | None:
    """The first of `names` that is a column, whatever its case."""
    known = {str(column).casefold(): str(column) for column in reversed(frame.columns)}
    return next((known[name.casefold()] for name in names if name.casefold() in known), None)


def numbers(
    frame: pd.DataFrame,
    column: str,
    path: Path,
    *,
    required: bool = False,
    decimal_comma: bool = False,
) -> pd.Series:
    """A text column as floats, exactly as written; empty cells are NaN unless `required`."""
    values = []
    for line, cell in frame[column].items():
        text = cell.strip()
        if decimal_comma and text.count(",") == 1:
            text = text.replace(",", ".")
        value = parse_number(text)
        if value is None and (text or required):
            raise CanopyError(
                f"{path} line {line}: {column} is {cell!r}, expected a number with a decimal point"
            )
        values.append(math.nan if value is None else value)
    return pd.Series(values, index=frame.index, dtype=float)


def parse_number(text: str) -> float | None:
    """A finite decimal number, or None."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------------------------------- names


def file_name(path: str) -> str:
    """Last part of a path written on any system."""
    return PureWindowsPath(path).name


def file_stem(path: str) -> str:
    """Name of a sound file without folder and ending."""
    return PureWindowsPath(path).stem


def table_stem(path: Path | str) -> str:
    """Name of the recording that a table's own name tells.

    `rec1.Table.1.selections.txt`, `rec1.txt`, `rec1.wav.txt` and
    `rec1.BirdNET.selection.table.txt` are all tables of `rec1`.
    """
    name = Path(path).name
    ending = re.search(rf"(?:{_TABLE_ENDING.pattern})$", name, re.IGNORECASE)
    stem = name[: ending.start()] if ending and ending.start() else Path(name).stem
    audio = re.search(rf"{_AUDIO_ENDING.pattern}$", stem, re.IGNORECASE)
    return stem[: audio.start()] if audio and audio.start() else stem


# ---------------------------------------------------------------------------------------- frames


def make_events(index: pd.Index, **columns: Any) -> pd.DataFrame:
    """An annotation frame with the given columns of `events`; the rest take their defaults.

    Labels lose the space around them. Frequencies default to unknown, polarity and weight to 1.
    """
    defaults = {"low_freq": math.nan, "high_freq": math.nan, "polarity": 1, "weight": 1.0}
    frame = pd.DataFrame(index=index)
    for name in EVENT_COLUMNS:
        frame[name] = columns.get(name, defaults.get(name))
    for name in ("recording_id", "label", "source"):
        frame[name] = frame[name].astype(object)
    frame["label"] = frame["label"].map(str.strip).astype(object)
    types = dict.fromkeys(("onset", "offset", "low_freq", "high_freq", "weight"), float)
    return frame.astype({**types, "polarity": int})


def check_spans(events: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The frame with a fresh index; refuses times and bands that stand the wrong way round.

    A row whose onset is its offset marks a point in time and passes.
    """
    faults = (
        ((events["onset"] < 0) | (events["onset"] > events["offset"]), "onset", "offset"),
        (events["low_freq"] > events["high_freq"], "low_freq", "high_freq"),
    )
    for bad, low, high in faults:
        if bad.any():
            line, row = events.index[bad.to_numpy()][0], events[bad].iloc[0]
            raise CanopyError(
                f"{path} line {line}: {low} {row[low]:g} and {high} {row[high]:g}; expected 0 <= "
                f"{low} <= {high}"
            )
    bad = ~events["polarity"].isin([1, -1])
    if bad.any():
        raise CanopyError(
            f"{path} line {events.index[bad.to_numpy()][0]}: polarity is "
            f"{events['polarity'][bad].iloc[0]}, expected 1 (sounds) or -1 (does not)"
        )
    return events.reset_index(drop=True)


def complete(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """A copy with all columns of `events`, so that detections can be written like annotations."""
    missing = [name for name in ("recording_id", "label", "onset", "offset") if name not in frame]
    if missing:
        raise ValueError(f"no column {', '.join(missing)} among {', '.join(map(str, frame))}")
    frame = frame.reset_index(drop=True)
    defaults = {"low_freq": math.nan, "high_freq": math.nan, "polarity": 1, "weight": 1.0}
    for name, value in {**defaults, "source": source}.items():
        if name not in frame:
            frame[name] = value
    return frame.astype(dict.fromkeys(("onset", "offset", "low_freq", "high_freq"), float))


def extra_columns(frame: pd.DataFrame, taken: Iterable[str] = ()) -> list[str]:
    """Columns beside those of `events`, `path` and `taken`."""
    known = {*EVENT_COLUMNS, "path", *taken}
    return [str(column) for column in frame.columns if column not in known]


# -------------------------------------------------------------------------------------- text out


def cell(value: Any) -> str:
    """One value as text: numbers in full and never in powers of ten, what is missing as nothing."""
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        return np.format_float_positional(value, trim="-")
    return str(value)


def check_cells(path: Path, texts: Iterable[str], forbidden: str, what: str) -> None:
    """Refuse text that the format would read back as something else."""
    for text in texts:
        if any(mark in text for mark in forbidden):
            raise CanopyError(
                f"{path}: {text!r} holds a tab or a line end, which {what} cannot hold; rename it"
            )
