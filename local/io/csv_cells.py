"""CSV from outside to cells of text: its encoding, its separator, its shape, within limits."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

from local.io.errors import CanopyError
from local.io.limits import MAX_CELL_CHARACTERS, MAX_TABLE_BYTES, MAX_TABLE_COLUMNS, read_text

_NEW_LINE = re.compile(r"\r\n|\r|\n")
# Empty cells that a table may have beyond the characters of its text.
_SPARE_CELLS = 1_000_000


def read_cells(path: Path) -> tuple[pd.DataFrame, bool]:
    """Rows of a CSV as text, one a line of the file, so that errors can name lines.

    Empty lines at the end do no harm. A line with more fields than the header is an error of the
    parser; with the header read as such, pandas would shift all columns by one instead. Tables
    divided by semicolons, as spreadsheets write them where the comma is the decimal mark, are
    known by their header; the second value says whether this is one.

    Raises
    ------
    CanopyError
        No text, cut short, a column twice, or more than the limits allow.
    OSError, pandas.errors.ParserError, pandas.errors.EmptyDataError
        Not there, or no table; the caller knows what to say of it.
    """
    text = read_text(path, MAX_TABLE_BYTES, "table")
    text = text.rstrip("\r\n")
    header = _NEW_LINE.split(text, maxsplit=1)[0]
    semicolons = ";" in header and "," not in header
    separator = ";" if semicolons else ","
    _check_shape(path, text, separator)
    try:
        lines = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
        )
    except pd.errors.ParserError as error:
        # Its own ends with a new line.
        raise pd.errors.ParserError(" ".join(str(error).split())) from None
    lines = lines.fillna("")
    filled = (lines != "").any(axis=1).to_numpy()
    lines = lines.iloc[: int(np.flatnonzero(filled)[-1]) + 1 if filled.any() else 0]
    if lines.empty:
        raise pd.errors.EmptyDataError("No columns to parse from file")
    longest = max(int(lines[column].str.len().max()) for column in lines)
    if longest > MAX_CELL_CHARACTERS:
        raise CanopyError(
            f"{path}: has a cell of {longest} characters, at most {MAX_CELL_CHARACTERS} are read; "
            "perhaps a quotation mark is not closed"
        )
    _check_rows(path, text, separator, lines.shape[1])
    twice = lines.iloc[0][lines.iloc[0].duplicated()]
    if len(twice):
        raise CanopyError(f"{path}: column {twice.iloc[0]!r} stands twice; keep one of them")
    names = lines.iloc[0].tolist()
    return lines.iloc[1:].set_axis(names, axis=1).reset_index(drop=True), semicolons


def _check_shape(path: Path, text: str, separator: str) -> None:
    """Refuse what would become more cells than the text has characters for.

    The parser makes a full row of every empty line.
    """
    n_columns = _NEW_LINE.split(text, maxsplit=1)[0].count(separator) + 1
    if n_columns > MAX_TABLE_COLUMNS:
        raise CanopyError(
            f"{path}: has {n_columns} columns, a table may have at most {MAX_TABLE_COLUMNS}; name "
            "the right file"
        )
    n_lines = text.count("\n") + text.count("\r") + 1
    if n_lines * n_columns > len(text) + _SPARE_CELLS:
        raise CanopyError(f"{path}: consists of empty lines for the most part; take them out")


def _check_rows(path: Path, text: str, separator: str, n_columns: int) -> None:
    """Refuse a row with too few fields, which the parser would fill up: it may be cut short."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for number, row in enumerate(rows, start=1):
            if row and len(row) != n_columns:
                raise CanopyError(
                    f"{path} line {number}: has {len(row)} fields, expected {n_columns}; complete "
                    "the line, or copy the file again if it is cut short"
                )
    except csv.Error as error:
        raise CanopyError(
            f"{path} line {rows.line_num}: not readable as CSV ({error}); mend its quotes"
        ) from None
