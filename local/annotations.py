"""Annotation formats of the field, to and from the rows of `events`.

Rainforest CSV: one row a checked candidate, `recording_id, species_id, songtype_id, t_min, f_min,
t_max, f_max`; confirmed candidates in one file, rejected ones in another.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from local.tables import EVENT_COLUMNS, fail_at, read_table

RAINFOREST_COLUMNS = (
    "recording_id",
    "species_id",
    "songtype_id",
    "t_min",
    "f_min",
    "t_max",
    "f_max",
)


def read_rainforest(path: Path | str, polarity: int, source: str) -> pd.DataFrame:
    """Rows of a rainforest CSV as events, with `species_id` and `songtype_id` kept beside.

    The label is `s<species_id>`, as the columns of a submission are named. Row order is kept.

    Returns
    -------
    Columns of `events` and two integer columns `species_id`, `songtype_id`.
    """
    frame = read_table(path, RAINFOREST_COLUMNS)
    for column in ("species_id", "songtype_id"):
        fail_at(
            ~(frame[column] % 1 == 0),
            Path(path),
            frame,
            lambda row, column=column: f"{column} is {row[column]}, expected a whole number",
        )
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
    return events


def empty_events() -> pd.DataFrame:
    """An events table without rows, with the columns and types of one that has some."""
    text = {"recording_id", "label", "source"}
    return pd.DataFrame(
        {
            column: np.array([], dtype=object if column in text else float)
            for column in EVENT_COLUMNS
        }
    )
