"""Raven selection tables: tab-separated text, one selection a row.

A table of one sound counts times from its start. A table of several files names `Begin File` (or
`Begin Path`); there `Begin Time (s)` counts from the start of the whole sequence and
`File Offset (s)` from the start of that file, which is what our onset is.
"""

import math
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import pandas as pd

from local.data.annotations.shared import (
    DEFAULTS,
    ReadOptions,
    cell,
    check_cells,
    check_spans,
    complete,
    extra_columns,
    file_name,
    file_stem,
    find_column,
    make_events,
    numbers,
    read_text,
    split_lines,
    table_stem,
    text_table,
)
from local.io.errors import CanopyError
from local.io.files import write_text

BEGIN, END = "Begin Time (s)", "End Time (s)"
LOW, HIGH = "Low Freq (Hz)", "High Freq (Hz)"
BEGIN_FILE, BEGIN_PATH, FILE_OFFSET = "Begin File", "Begin Path", "File Offset (s)"
SOURCE = "raven"

# Where labels are usually kept. Of the first group only one may be there, else it must be said
# which; the others are taken in this order.
_USUAL = ("Annotation", "Annotations", "Species", "Label", "Labels", "Class")
_ALSO = ("Common Name", "Species Code", "Scientific Name", "Tag", "Tags", "Call", "Call Type")
# Columns of our own, written only where a row differs from what is taken without them.
_OWN = {"polarity": "Polarity", "weight": "Weight", "source": "Source"}
_ID = "recording_id"
# Position of a file in its sequence, kept beside the events so that the table can be written again.
_SEQUENCE_START = "sequence_start"
# Sums of times in a sequence are rounded to a nanosecond, or their last digits would wander.
_DIGITS = 9
_VIEW_JOIN = " + "


def read_raven(path: Path | str, options: ReadOptions = DEFAULTS) -> pd.DataFrame:
    """Selections as an annotation frame.

    Where Raven wrote a selection once a view (waveform and spectrogram), one row remains: the
    spectrogram's, with both names in `View`. Other columns are kept as text. A selection that ends
    in another file (`End File`) has its offset after the end of its own.

    Raises
    ------
    CanopyError
        No text, no header, a missing or repeated column, a cell that is no number, no column of
        labels or several, several files without `File Offset (s)`.
    """
    path = Path(path)
    lines = split_lines(read_text(path, options.encoding))
    table = text_table(path, [(number, line.split("\t")) for number, line in lines])
    for name in (BEGIN, END):
        if name not in table.columns:
            raise CanopyError(
                f"{path}: column {name} is missing, so this is no Raven selection table; found "
                f"{', '.join(table.columns)}"
            )
    table = _one_row_a_selection(table)
    label_column = _label_column(table, path, options)
    begin, end = (numbers(table, name, path, required=True) for name in (BEGIN, END))
    sounds = _sounds(table)
    onset, offset, sequence_start = _times(table, path, begin, end, sounds, options)
    events = make_events(
        table.index,
        recording_id=_ids(table, path, sounds),
        label=table[label_column] if label_column else options.label,
        onset=onset,
        offset=offset,
        low_freq=numbers(table, LOW, path) if LOW in table else math.nan,
        high_freq=numbers(table, HIGH, path) if HIGH in table else math.nan,
        **_own_columns(table, path, options),
    )
    if (sounds != "").any():
        events["path"] = sounds
    if (sequence_start != 0).any():
        events[_SEQUENCE_START] = sequence_start
    used = {BEGIN, END, LOW, HIGH, label_column, BEGIN_FILE, BEGIN_PATH, FILE_OFFSET, _ID}
    used |= set(_OWN.values())
    for name in table.columns:
        if name not in used:
            events[name] = table[name]
    return check_spans(events, path)


def write_raven(
    path: Path | str,
    frame: pd.DataFrame,
    *,
    annotation_column: str = "Annotation",
    durations: Mapping[str, float] | None = None,
) -> None:
    """Write events or detections as one selection table.

    Parameters
    ----------
    frame : needs `recording_id, label, onset, offset`; other columns of `events` are written where
        they say something, `path` becomes `Begin File` (and `Begin Path`), any further column is
        kept under its own name.
    annotation_column : name of the column of labels.
    durations : seconds of every recording, in the order in which Raven opens them as one sequence.
        Without them each file's times count from its own start, which Raven shows rightly only
        when it opens the files one by one.
    """
    path = Path(path)
    frame = complete(frame, SOURCE)
    columns = _columns(path, frame, annotation_column, durations)
    texts = [*columns, *(text for column in columns.values() for text in column)]
    check_cells(path, texts, "\t\r\n", "a selection table")
    rows = [list(columns), *_a_row_a_view(columns)]
    write_text(path, "".join("\t".join(row) + "\n" for row in rows))


# --------------------------------------------------------------------------------------- reading


def _one_row_a_selection(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that differ in `View` alone, or repeat a selection's times in another view, are one."""
    if "View" not in table.columns or "Selection" not in table.columns or table.empty:
        return table
    keys = [name for name in ("Selection", "Channel", BEGIN, END, BEGIN_FILE) if name in table]
    kept, views = [], []
    for _, group in table.groupby(keys, sort=False, dropna=False):
        names = group["View"].tolist()
        if len(set(names)) < len(names):  # the same view twice: these are selections of their own
            kept += group.index.tolist()
            views += names
            continue
        spectrogram = [name.strip().casefold().startswith("spectrogram") for name in names]
        kept.append(group.index[spectrogram.index(True) if True in spectrogram else 0])
        views.append(_VIEW_JOIN.join(names))
    joined = pd.Series(views, index=kept, dtype=object).sort_index()
    return table.loc[joined.index].assign(View=joined)


def _label_column(table: pd.DataFrame, path: Path, options: ReadOptions) -> str | None:
    """The column of labels; None where one label was given for all."""
    found = ", ".join(table.columns)
    if options.column is not None:
        column = find_column(table, [options.column])
        if column is None:
            raise CanopyError(
                f"{path}: no column {options.column!r} for the labels; found {found}; name one of "
                "these as column"
            )
        return column
    if options.label is not None:
        return None
    usual = [name for name in _USUAL if find_column(table, [name])]
    if len(usual) > 1:
        raise CanopyError(
            f"{path}: columns {' and '.join(usual)} could both hold the labels; say which is meant "
            "as column"
        )
    column = find_column(table, [*usual, *_ALSO])
    if column is None:
        raise CanopyError(
            f"{path}: no column known to hold labels; found {found}; name the one that does as "
            "column, or give one label for all rows as label"
        )
    return column


def _sounds(table: pd.DataFrame) -> pd.Series:
    """Path, or else name, of the file each selection begins in; empty where it is not told."""
    sounds = pd.Series("", index=table.index, dtype=object)
    for name in (BEGIN_PATH, BEGIN_FILE):
        if name in table.columns:
            sounds = sounds.where(sounds != "", table[name].str.strip())
    return sounds


def _ids(table: pd.DataFrame, path: Path, sounds: pd.Series) -> pd.Series:
    if _ID in table.columns:
        return table[_ID]
    names = table[BEGIN_FILE].str.strip() if BEGIN_FILE in table.columns else sounds
    names = names.where(names != "", sounds)
    return names.map(file_stem).where(names != "", table_stem(path)).astype(object)


def _times(
    table: pd.DataFrame,
    path: Path,
    begin: pd.Series,
    end: pd.Series,
    sounds: pd.Series,
    options: ReadOptions,
) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Onset and offset from the start of the file, and where the file starts in its sequence."""
    nowhere = pd.Series(0.0, index=table.index)
    if FILE_OFFSET not in table.columns:
        if sounds.nunique() > 1 and not options.times_in_file:
            raise CanopyError(
                f"{path}: {sounds.nunique()} sound files but no column {FILE_OFFSET}, so times may "
                "count from the start of all; add that measurement in Raven, or say times_in_file "
                "if they count from the start of each file"
            )
        return begin, end, nowhere
    onset = numbers(table, FILE_OFFSET, path).fillna(begin)
    same = onset == begin
    offset = end.where(same, (onset + (end - begin)).round(_DIGITS))
    return onset, offset, nowhere.where(same, (begin - onset).round(_DIGITS))


def _own_columns(table: pd.DataFrame, path: Path, options: ReadOptions) -> dict[str, object]:
    own: dict[str, object] = {"polarity": options.usual_polarity, "source": SOURCE}
    for name, column in _OWN.items():
        if column in table.columns:
            text = name == "source"
            own[name] = table[column] if text else numbers(table, column, path, required=True)
    return own


# --------------------------------------------------------------------------------------- writing


def _columns(
    path: Path, frame: pd.DataFrame, annotation_column: str, durations: Mapping[str, float] | None
) -> dict[str, list[str]]:
    """Every column of the table as text, in the order in which Raven writes them."""
    start = _sequence_starts(frame, durations)
    shifted = start != 0
    begin = frame["onset"].where(~shifted, (start + frame["onset"]).round(_DIGITS))
    end = frame["offset"].where(~shifted, (start + frame["offset"]).round(_DIGITS))
    native: dict[str, pd.Series] = {
        "Selection": frame.get("Selection", pd.Series(range(1, len(frame) + 1), dtype=object)),
        "View": frame.get("View", pd.Series("Spectrogram 1", index=frame.index)),
        "Channel": frame.get("Channel", pd.Series("1", index=frame.index)),
        BEGIN: begin.astype(float),
        END: end.astype(float),
    }
    if frame[["low_freq", "high_freq"]].notna().any(axis=None) or frame.empty:
        native |= {LOW: frame["low_freq"].astype(float), HIGH: frame["high_freq"].astype(float)}
    native |= _file_columns(path, frame)
    native[annotation_column] = frame["label"]
    for name, usual in (("polarity", 1), ("weight", 1.0), ("source", SOURCE)):
        if (frame[name] != usual).any():
            native[_OWN[name]] = frame[name]
    extras = extra_columns(frame, ("Selection", "View", "Channel", _SEQUENCE_START))
    for name in extras:
        if name in native:
            raise CanopyError(f"{path}: column {name!r} would stand twice; rename it")
        native[name] = frame[name]
    return {name: [cell(value) for value in values] for name, values in native.items()}


def _sequence_starts(frame: pd.DataFrame, durations: Mapping[str, float] | None) -> pd.Series:
    if durations is not None:
        starts = dict(zip(durations, accumulate(durations.values(), initial=0.0), strict=False))
        return frame["recording_id"].map(starts).astype(float).fillna(0.0)
    if _SEQUENCE_START in frame.columns:
        return frame[_SEQUENCE_START].astype(float).fillna(0.0)
    return pd.Series(0.0, index=frame.index)


def _file_columns(path: Path, frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Which file each row is of, as far as the table's own name does not tell."""
    columns = {}
    told = pd.Series(table_stem(path), index=frame.index, dtype=object)
    if "path" in frame.columns:
        paths = frame["path"].map(cell)
        columns[BEGIN_FILE] = paths.map(file_name)
        if (paths.map(file_name) != paths).any():
            columns[BEGIN_PATH] = paths
        columns[FILE_OFFSET] = frame["onset"].astype(float)
        told = paths.map(file_stem).where(paths != "", told)
    if (told != frame["recording_id"]).any():
        columns[_ID] = frame["recording_id"]
    return columns


def _a_row_a_view(columns: dict[str, list[str]]) -> list[list[str]]:
    position = list(columns).index("View")
    rows = []
    for row in zip(*columns.values(), strict=True):
        for view in row[position].split(_VIEW_JOIN):
            rows.append([*row[:position], view, *row[position + 1 :]])
    return rows
