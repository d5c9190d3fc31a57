"""Rainforest CSV: one row a checked candidate; confirmed and rejected ones have files of their own.

Columns `recording_id, species_id, songtype_id, t_min, f_min, t_max, f_max`. The label is
`s<species_id>`, as the columns of a submission are named.
"""

import re
from pathlib import Path

import pandas as pd

from local.data.annotations.shared import complete, extra_columns
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.data.tables import fail_at, read_table

RAINFOREST_COLUMNS = (
    "recording_id",
    "species_id",
    "songtype_id",
    "t_min",
    "f_min",
    "t_max",
    "f_max",
)


def _check_whole_numbers(frame: pd.DataFrame, column: str, path: Path) -> None:
    bad = ~(frame[column] % 1 == 0)
    fail_at(bad, path, frame, lambda row: f"{column} is {row[column]}, expected a whole number")


def read_rainforest(path: Path | str, polarity: int, source: str) -> pd.DataFrame:
    """Rows of a rainforest CSV as events, with `species_id` and `songtype_id` kept beside.

    Row order is kept, and so are further columns.

    Returns
    -------
    Columns of `events`, two integer columns `species_id`, `songtype_id`, and what else is there.
    """
    frame = read_table(path, RAINFOREST_COLUMNS)
    for column in ("species_id", "songtype_id"):
        _check_whole_numbers(frame, column, Path(path))
    events = pd.DataFrame(
        {
            "recording_id": frame["recording_id"],
            "label": "s" + frame["species_id"].astype(int).astype(str),
            "onset": frame["t_min"],
            "offset": frame["t_max"],
            "low_freq": frame["f_min"],
            "high_freq": frame["f_max"],
            "polarity": polarity,
            "weight": 1.0,
            "source": source,
        }
    )
    events["species_id"] = frame["species_id"].astype(int)
    events["songtype_id"] = frame["songtype_id"].astype(int)
    further = [column for column in frame.columns if column not in RAINFOREST_COLUMNS]
    return events.join(frame[further])


def write_rainforest(path: Path | str, frame: pd.DataFrame) -> None:
    """Write events of one polarity; confirmed and rejected ones go to files of their own.

    Labels must be `s<number>`; song type is 1 where the frame has none.
    """
    path = Path(path)
    frame = complete(frame, "tp")
    if frame["polarity"].nunique() > 1:
        raise CanopyError(
            f"{path}: confirmed and rejected rows cannot stand in one rainforest table; write one "
            "file for each polarity"
        )
    numbered = frame["label"].map(lambda label: bool(re.fullmatch(r"s[0-9]+", str(label))))
    if not numbered.all():
        raise CanopyError(
            f"{path}: label {frame['label'][~numbered].iloc[0]!r} has no species number; rename it "
            "to s0, s1, ..., or choose another format"
        )
    table = pd.DataFrame(
        {
            "recording_id": frame["recording_id"],
            "species_id": frame["label"].str[1:],
            "songtype_id": _song_types(frame),
            "t_min": frame["onset"],
            "f_min": frame["low_freq"],
            "t_max": frame["offset"],
            "f_max": frame["high_freq"],
        }
    )
    further = extra_columns(frame, ("species_id", "songtype_id"))
    write_csv(path, table.join(frame[further]))


def _song_types(frame: pd.DataFrame) -> pd.Series:
    if "songtype_id" not in frame:
        return pd.Series(1, index=frame.index)
    return pd.to_numeric(frame["songtype_id"]).fillna(1).astype(int)
