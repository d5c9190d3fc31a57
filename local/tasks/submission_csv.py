"""submission.csv: test scores joined on the ids of the sample submission, checked and written."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from local.data.tables import read_table
from local.io.errors import CanopyError
from local.io.files import write_csv

log = logging.getLogger("canopy")


def write_submission(
    folder: Path, tables_dir: Path, labels: list[str], recording_ids: list[str], logit: np.ndarray
) -> Path:
    """Write submission.csv of corrected logits (N, C) into a folder, and return its path."""
    submission, filled = join_submission(tables_dir, labels, recording_ids, logit)
    if filled:
        log.warning("%d test recordings were unreadable and got class means", len(filled))
    write_csv(folder / "submission.csv", submission, float_format="%.17g")
    return folder / "submission.csv"


def read_columns(tables_dir: Path, labels: list[str]) -> pd.DataFrame:
    """Which class goes to which column of the submission (columns label, column)."""
    path = tables_dir / "submission_columns.csv"
    if not path.exists():
        return pd.DataFrame({"label": labels, "column": labels})
    columns = read_table(path, ("label", "column"))
    missing = [label for label in labels if label not in set(columns["label"])]
    if missing:
        raise CanopyError(f"{path}: no row for class {missing[0]}; prepare the tables again")
    return columns


def merge_columns(
    logit: np.ndarray, labels: list[str], columns: pd.DataFrame
) -> tuple[np.ndarray, list[str]]:
    """Classes that share a column (song types of a species) become their maximum.

    (N, C) -> (N, K) and the K column names, in the order in which they first appear.
    """
    column_of = dict(zip(columns["label"], columns["column"], strict=True))
    names = list(dict.fromkeys(column_of[label] for label in labels))
    merged = [
        logit[:, [row for row, label in enumerate(labels) if column_of[label] == name]].max(axis=1)
        for name in names
    ]
    return np.stack(merged, axis=1), names


# Steps of floating point, near 1 of 1.1e-16, between probabilities that would tie: so many that
# readers of the csv that round the last digits (pandas, by default) still tell them apart.
_STEP = 64


def ordered_probability(logit: np.ndarray) -> np.ndarray:
    """Probabilities in float64 of logits of any shape; they tie only where the logits do.

    The logistic function rounds neighbours to one number, above 36.7 all to 1 and below -745 all
    to 0, and ties decide ranks. What would tie stands some steps of floating point apart, in the
    order of the logits; other probabilities stay what they are.
    """
    logit = np.asarray(logit, dtype=np.float64)
    values, place = np.unique(logit, return_inverse=True)
    steps = _STEP * np.arange(len(values))
    # As integers the bits of numbers from 0 up are in their order, a step of floating point a unit.
    bits = expit(values).view(np.int64) - steps
    bits = np.minimum.accumulate(bits[::-1])[::-1]
    bits = np.maximum.accumulate(np.maximum(bits, 0)) + steps
    probability = bits.view(np.float64)[place].reshape(logit.shape)
    return np.where(np.isnan(logit), np.nan, probability)


def make_submission(
    recording_ids: list[str], logit: np.ndarray, names: list[str], sample: pd.DataFrame | None
) -> tuple[pd.DataFrame, list[str]]:
    """Probabilities in the rows and columns of the sample submission, joined on recording_id.

    A recording of the sample that could not be read gets the mean of each class, so that the file
    is complete.

    Returns
    -------
    submission : recording_id and one column a class.
    filled : recordings that got the mean.
    """
    scores = pd.DataFrame(ordered_probability(logit), recording_ids, names)
    if sample is None:
        return scores.rename_axis("recording_id").reset_index(), []
    columns = [column for column in sample.columns if column != "recording_id"]
    if set(columns) != set(names):
        odd = sorted(set(columns) ^ set(names))[0]
        raise CanopyError(
            f"sample_submission.csv has {len(columns)} classes, the model {len(names)}; {odd!r} is "
            "in one of them only; prepare the tables again"
        )
    filled = [name for name in sample["recording_id"] if name not in scores.index]
    for name in filled:
        scores.loc[name] = scores.loc[recording_ids].mean()
    joined = scores.loc[sample["recording_id"], columns]
    return joined.rename_axis("recording_id").reset_index(), filled


def join_submission(
    tables_dir: Path, labels: list[str], recording_ids: list[str], logit: np.ndarray
) -> tuple[pd.DataFrame, list[str]]:
    """The checked submission of corrected logits (N, C), as the prepared tables want it.

    Song types are merged, and rows are joined with the sample submission where there is one.
    Returns what `make_submission` does.
    """
    merged, names = merge_columns(logit, labels, read_columns(tables_dir, labels))
    path = tables_dir / "sample_submission.csv"
    sample = read_table(path, ("recording_id",)) if path.exists() else None
    submission, filled = make_submission(recording_ids, merged, names, sample)
    check_submission(submission)
    return submission, filled


def check_submission(submission: pd.DataFrame) -> None:
    """Refuse a submission with doubled ids, or values that are no probabilities."""
    doubled = submission["recording_id"].duplicated()
    if doubled.any():
        raise CanopyError(f"submission: {submission['recording_id'][doubled].iloc[0]} stands twice")
    values = submission.drop(columns="recording_id").to_numpy()
    bad = np.argwhere(~((values >= 0) & (values <= 1)))
    if len(bad):
        row, column = bad[0]
        raise CanopyError(
            f"submission: {submission['recording_id'].iloc[row]} has {values[row, column]} for "
            f"{submission.columns[column + 1]}, no probability; infer again"
        )
