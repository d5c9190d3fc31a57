"""Clip tables (`recording_id` and one column a class): submissions and truth, read and joined."""

from pathlib import Path

import numpy as np
import pandas as pd

from local.io.csv_cells import read_cells
from local.io.errors import CanopyError

ID_COLUMN = "recording_id"


def read_clip_table(path: Path | str) -> pd.DataFrame:
    """Read a csv of `recording_id` and one number a class.

    Returns
    -------
    DataFrame
        Index `recording_id` (str, unique, order of the file), one float64 column a class.

    Raises
    ------
    CanopyError
        A missing or unreadable file, no `recording_id`, no class, a duplicate id or column, a cell
        that is empty, NaN or no number; the cell is named by recording and column.
    """
    try:
        # Text, so that ids keep their zeros and numbers all their digits.
        table, _ = read_cells(Path(path))
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such file; check the path") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CanopyError(f"{path}: not readable as csv ({reason}); write it anew") from None
    columns = [str(name).strip() for name in table.columns]
    _check_columns(path, columns)
    table = table.set_axis(columns, axis="columns").set_index(ID_COLUMN)
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise CanopyError(f"{path}: recording {twice} stands twice; keep one row of it")
    return _as_numbers(path, table)


def _check_columns(path: Path | str, columns: list[str]) -> None:
    if ID_COLUMN not in columns:
        raise CanopyError(
            f"{path}: no column {ID_COLUMN}, found {', '.join(columns[:5])}; add a header "
            f"{ID_COLUMN} and one column a class"
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise CanopyError(f"{path}: column {twice[0]} stands twice; keep one of them")
    if len(columns) == 1:
        raise CanopyError(f"{path}: no class beside {ID_COLUMN}; add one column a class")


def _as_numbers(path: Path | str, table: pd.DataFrame) -> pd.DataFrame:
    values = np.empty(table.shape)
    for column, name in enumerate(table.columns):
        for row, text in enumerate(table[name]):
            try:
                values[row, column] = float(text)
            except (TypeError, ValueError):
                values[row, column] = np.nan
            if np.isnan(values[row, column]):
                raise CanopyError(
                    f"{path}: recording {table.index[row]}, column {name} holds {text!r}; "
                    "every cell must be a number"
                )
    return pd.DataFrame(values, index=table.index, columns=table.columns)


def read_truth_table(path: Path | str) -> pd.DataFrame:
    """`read_clip_table` for truth: any cell other than 0 and 1 is a `CanopyError` naming it."""
    table = read_clip_table(path)
    bad = ~table.isin((0.0, 1.0)).to_numpy()
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise CanopyError(
            f"{path}: recording {table.index[row]}, column {table.columns[column]} holds "
            f"{table.iloc[row, column]:g}; truth must be 0 or 1"
        )
    return table


def join_clips(submission: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """`submission` in the rows and columns of `truth`; both as `read_clip_table` gives them.

    The order of rows and columns is free, their sets must be equal: a `CanopyError` counts what is
    missing or too many and names the first.
    """
    for what, ours, theirs in (
        ("class column", submission.columns, truth.columns),
        ("recording", submission.index, truth.index),
    ):
        for fault, found in (
            ("lacks", theirs.difference(ours)),
            ("has, and the truth has not,", ours.difference(theirs)),
        ):
            if len(found):
                raise CanopyError(
                    f"the submission {fault} {len(found)} {what}{'s' * (len(found) > 1)}, "
                    f"the first {found[0]}; both files must have the same"
                )
    return submission.loc[truth.index, truth.columns]
