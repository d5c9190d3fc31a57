"""Plain CSV: our own events table, or the least that tells who calls when.

`recording_id` (or a sound file's name, or else the name of the table), `label`, `onset`, `offset`;
the other columns of `events` where they are there. Separated by comma, semicolon or tab; with
semicolons or tabs a decimal comma is understood.
"""

from pathlib import Path

import pandas as pd

from local.data.annotations.shared import (
    DEFAULTS,
    ReadOptions,
    cell,
    check_spans,
    complete,
    extra_columns,
    file_stem,
    find_column,
    make_events,
    numbers,
    parse_number,
    read_delimited,
    read_text,
    table_stem,
)
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.data.tables import EVENT_COLUMNS

SOURCE = "csv"

# Names that are understood without being told, the first that is there.
_SYNONYMS = {
    "recording_id": ("recording_id", "recording"),
    "path": ("path", "file", "filename", "file_name"),
    "label": ("label", "species", "annotation", "class", "category"),
    "onset": ("onset", "start", "begin", "start_time", "start_s", "onset_s"),
    "offset": ("offset", "end", "stop", "end_time", "end_s", "offset_s"),
}


def read_plain(path: Path | str, options: ReadOptions = DEFAULTS) -> pd.DataFrame:
    """Rows as an annotation frame; columns that have no meaning here are kept as text.

    Raises
    ------
    CanopyError
        No text, no header, a missing or repeated column, or a cell that is no number.
    """
    path = Path(path)
    text = read_text(path, options.encoding)
    separator = _separator(text)
    header = _header_to_add(text, separator)
    table = read_delimited(path, header + text, separator)
    table.index -= header.count("\n")  # lines of the file
    names = _names(table, path, options)
    for name in ("onset", "offset"):
        if name not in names:
            raise CanopyError(
                f"{path}: no column {name}; found {', '.join(table.columns)}; say which of them it "
                f"is, as in columns {name}=start"
            )
    if "label" not in names and options.label is None:
        raise CanopyError(
            f"{path}: no column for the labels; found {', '.join(table.columns)}; name the one "
            "that holds them as column, or give one label for all rows as label"
        )
    events = make_events(table.index, **_values(table, path, names, options, separator))
    if "path" in names:
        events["path"] = table[names["path"]].str.strip()
    used = set(names.values())
    for name in table.columns:
        if name not in used:
            events[name] = table[name]
    return check_spans(events, path)


def write_plain(path: Path | str, frame: pd.DataFrame) -> None:
    """Write all columns as CSV: those of `events`, then `path`, then all others."""
    frame = complete(frame, SOURCE)
    columns = [*EVENT_COLUMNS, *(["path"] if "path" in frame else []), *extra_columns(frame)]
    write_csv(path, frame[columns].map(cell))


def _separator(text: str) -> str:
    """The one of comma, semicolon and tab that the header has most of."""
    header = text.lstrip("\r\n").split("\n", 1)[0]
    return max((",", ";", "\t"), key=header.count)


def _header_to_add(text: str, separator: str) -> str:
    """A header line where the text begins with two numbers, and perhaps a label, instead."""
    first = text.lstrip("\r\n").split("\n", 1)[0].strip().split(separator)
    if len(first) > 3 or len(first) < 2 or None in map(parse_number, first[:2]):
        return ""
    return separator.join(("onset", "offset", "label")[: len(first)]) + "\n"


def _names(table: pd.DataFrame, path: Path, options: ReadOptions) -> dict[str, str]:
    """Our names -> the table's."""
    told = dict(options.columns)
    if options.column is not None:
        told["label"] = options.column
    known = [*EVENT_COLUMNS, "path"]
    for name, column in told.items():
        if name not in known:
            raise CanopyError(f"columns names {name!r}, expected one of {', '.join(known)}")
        if column not in table.columns:
            raise CanopyError(
                f"{path}: no column {column!r} for {name}; found {', '.join(table.columns)}"
            )
    names: dict[str, str] = {}
    for name in known:
        free = table.drop(columns=[*told.values(), *names.values()], errors="ignore")
        found = told.get(name) or find_column(free, _SYNONYMS.get(name, (name,)))
        # One label for all rows was asked for, unless a column of them was named as well.
        if found and not (name == "label" and options.label is not None and name not in told):
            names[name] = found
    return names


def _values(
    table: pd.DataFrame, path: Path, names: dict[str, str], options: ReadOptions, separator: str
) -> dict[str, object]:
    values: dict[str, object] = {"polarity": options.usual_polarity, "source": SOURCE}
    values["label"] = table[names["label"]] if "label" in names else options.label
    if "source" in names:
        values["source"] = table[names["source"]]
    for name in ("onset", "offset", "low_freq", "high_freq", "polarity", "weight"):
        if name in names:
            required = name not in ("low_freq", "high_freq")
            values[name] = numbers(
                table, names[name], path, required=required, decimal_comma=separator != ","
            )
    if "recording_id" in names:
        # A sound file's name is taken for the recording of that name.
        values["recording_id"] = table[names["recording_id"]].str.strip()
    elif "path" in names:
        values["recording_id"] = table[names["path"]].str.strip().map(file_stem)
    else:
        values["recording_id"] = table_stem(path)
    return values
