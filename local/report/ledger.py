"""The ledger: one row a finished run, with the leaderboard scores that a person fills in.

`exp/ledger.csv` holds the scores of every run, so that out-of-fold scores can be held against the
leaderboard. A row is known by recipe, tag and fingerprint: the same run finished again replaces
its row and keeps what a person wrote into it. Columns that people add are kept. Writers take turns
by a lock on a file beside it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr

from local.config import Config
from local.data.tables import read_table, tables_digest
from local.io.errors import CanopyError
from local.io.files import (
    disk_fault,
    file_digest,
    fingerprint,
    make_folder,
    read_json,
    try_lock,
    write_csv,
)
from local.io.limits import spreadsheet_plain, spreadsheet_safe
from local.stages.experiment import submitted_cycle

log = logging.getLogger("canopy")

KEY_COLUMNS = ("recipe", "tag", "fingerprint")
HAND_COLUMNS = ("public", "private")
COLUMNS = (
    *("date", *KEY_COLUMNS, "commit", "seed", "metric", "cv", "cv_low", "cv_high", "span_auc"),
    *("test_truth", "test_truth_raw", "submission", *HAND_COLUMNS),
)
# How often who waits for the ledger looks whether it is free.
_POLL_S = 0.05


def ledger_path(expdir: Path, recipe: str) -> Path:
    """Where the runs below `expdir` are noted.

    Recipes that lie side by side as exp/RECIPE share exp/ledger.csv; any other folder has its own.
    """
    shared = expdir.name == recipe and expdir.parent.name == "exp"
    return (expdir.parent if shared else expdir) / "ledger.csv"


# ----------------------------------------------------------------------------------- rows of runs


def run_fingerprint(config: Config, tables: Path) -> str:
    """12 hex digits: the resolved configuration and the prepared tables.

    Left out: `prepare`, whose effect is in the tables, and what alters no score: `report`, and how
    often training saves its state.
    """
    left_out: dict[str, Any] = {"prepare": True, "report": True, "train": {"save_minutes"}}
    settings = config.model_dump(mode="json", exclude=left_out)
    digest = tables_digest(tables, "recordings", "events", "classes")
    return fingerprint({"settings": settings, "tables": digest})[:12]


def run_row(folder: Path, recipe: str, config: Config, tables: Path) -> dict[str, str]:
    """The row of a finished run, from the files that stage 5 left in its folder."""
    results = read_json(folder / "results.json")
    chosen = submitted_cycle(results)
    scores = next(one["scores"] for one in results["cycles"] if one["cycle"] == chosen)
    truth = {name: scores.get(name, {}).get("value") for name in ("test_truth", "test_truth_raw")}
    finished = (folder / "results.json").stat().st_mtime
    key = {"recipe": recipe, "fingerprint": run_fingerprint(config, tables)}
    # The first score is the one that runs are compared by.
    return _row(folder, finished, results, next(iter(scores.values())), key | truth)


def blend_row(record: dict[str, Any], folder: Path, recipe: str) -> dict[str, str]:
    """The row of a blend, from its record (blend.json) and its submission in `folder`.

    Its CV is that of cross-fitted weights where weights were fitted.
    """
    members = [[one["tag"], one["cycle"], one["weight"]] for one in record["members"]]
    key = {"recipe": recipe, "fingerprint": fingerprint([record["method"], members])[:12]}
    spans = {"span_auc": record["oof"].get("span_auc")}
    known = record.get("oof_cross_fitted", record["oof"])
    return _row(folder, time.time(), record, known, key | spans)


def _row(
    folder: Path,
    finished: float,
    record: dict[str, Any],
    known: dict[str, float],
    others: dict[str, Any],
) -> dict[str, str]:
    """Text of all columns; those that only a person fills in are empty."""
    submission = folder / "submission.csv"
    date = datetime.fromtimestamp(finished, timezone.utc).isoformat(timespec="milliseconds")
    row = dict.fromkeys(COLUMNS) | {
        "date": date.replace("+00:00", "Z"),
        "tag": folder.name,
        "commit": record["run"].get("commit"),
        "seed": record["run"].get("seed"),
        "metric": record["metric"],
        "cv": known["value"],
        "cv_low": known["low"],
        "cv_high": known["high"],
        "span_auc": known.get("span_auc"),
        "submission": file_digest(submission)[:12] if submission.is_file() else None,
    }
    return {name: _cell(value) for name, value in (row | others).items()}


def _cell(value: Any) -> str:
    """Text of a cell; six decimals, so that a score does not change when it is read and written."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------------------------- the file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the ledger's lock: others wait. It is a file beside it, let go when its holder dies."""
    make_folder(path.parent)
    lock = path.with_name(f".{path.name}.lock")
    try:
        stream = open(lock, "ab")  # noqa: SIM115
    except OSError as error:
        raise disk_fault(lock, error) from None
    with stream:
        while try_lock(stream.fileno()) is False:
            time.sleep(_POLL_S)
        yield


def read_ledger(path: Path) -> pd.DataFrame:
    """The rows as text, in the order of the file; other columns than ours come last and stay."""
    if not path.is_file():
        raise CanopyError(f"{path}: no ledger yet; finish a run (stage 5), or give --ledger FILE")
    return spreadsheet_plain(read_table(path, COLUMNS))


def record(path: Path, row: dict[str, str]) -> None:
    """Add a run's row, or replace the one of the same recipe, tag and fingerprint in its place.

    What people wrote (leaderboard scores and columns of their own) is kept. Results that are noted
    already (same recipe, tag, date and submission) are left as they stand.
    """
    with locked(path):
        frame = read_ledger(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS))
        if len(_like(frame, row, ("recipe", "tag", "date", "submission"))):
            return
        same = _like(frame, row, KEY_COLUMNS).index
        if len(same):
            before = frame.loc[same[0]]
            if before["submission"] != row["submission"] and any(before[list(HAND_COLUMNS)]):
                log.warning(
                    "%s: the leaderboard scores of %s were those of another submission.csv; mend "
                    "them with bin/ledger.py set",
                    path,
                    row["tag"],
                )
            made = [name for name in COLUMNS if name not in HAND_COLUMNS]
            frame.loc[same[0], made] = [row[name] for name in made]
        else:
            blank = dict.fromkeys(frame.columns, "")
            frame = pd.concat([frame, pd.DataFrame([blank | row])], ignore_index=True)
        write_csv(path, spreadsheet_safe(frame))


def _like(frame: pd.DataFrame, row: dict[str, str], columns: tuple[str, ...]) -> pd.DataFrame:
    return frame[(frame[list(columns)] == [row[name] for name in columns]).all(axis=1)]


def fill_in(
    path: Path,
    tag: str,
    scores: dict[str, float],
    recipe: str | None = None,
    fingerprint: str | None = None,
) -> pd.Series:
    """Write leaderboard scores into the one row that is meant; return the row.

    Parameters
    ----------
    scores : column (public, private) -> value from 0 to 1.
    recipe, fingerprint : which of several rows of this tag; a fingerprint's first digits do.

    Raises
    ------
    CanopyError
        A score outside 0 to 1, no such row (the nearest tag is named), more than one.
    """
    for name, value in scores.items():
        if not 0 <= value <= 1:
            raise CanopyError(f"--{name} is {value:g}; a leaderboard score lies between 0 and 1")
    read_ledger(path)
    with locked(path):
        frame = read_ledger(path)
        place = _find(frame, path, tag, recipe, fingerprint or "")
        for name, value in scores.items():
            frame.loc[place, name] = str(value)
        write_csv(path, spreadsheet_safe(frame))
    return frame.loc[place]


def _find(frame: pd.DataFrame, path: Path, tag: str, recipe: str | None, fingerprint: str) -> int:
    tagged = frame[frame["tag"] == tag]
    if tagged.empty:
        near = get_close_matches(tag, frame["tag"].tolist(), 1, 0.0)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise CanopyError(f"{path}: no run of tag {tag!r}{hint}")
    chosen = tagged[tagged["fingerprint"].str.startswith(fingerprint)]
    if recipe is not None:
        chosen = chosen[chosen["recipe"] == recipe]
    if len(chosen) != 1:
        listed = tagged[["recipe", "fingerprint", "date"]].itertuples(index=False)
        known = ", ".join(f"{name} {run} ({date})" for name, run, date in listed)
        raise CanopyError(
            f"{path}: {len(chosen)} rows fit tag {tag}; say which with --recipe and --fingerprint: "
            f"{known}"
        )
    return int(chosen.index[0])


# ------------------------------------------------------------------------- agreement with the truth


class Agreement(NamedTuple):
    """How a score of ours goes with a score from outside, over the `n` runs that have both.

    Correlations are NaN without variation; low and high are the 95 % interval of Pearson's.
    """

    recipe: str
    ours: str
    theirs: str
    n: int
    pearson: float
    low: float
    high: float
    spearman: float


def numbers(frame: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """A column of scores (N,), NaN where it is empty; anything else than 0 to 1 is refused."""
    text = frame[column].str.strip()
    values = pd.to_numeric(text.where(text != "", None), errors="coerce").astype(float)
    bad = np.flatnonzero((text != "") & ~values.between(0, 1))
    if len(bad):
        raise CanopyError(
            f"{path} line {frame.index[bad[0]] + 2}: {column} is {text.iloc[bad[0]]!r}, expected "
            "a number from 0 to 1 or nothing"
        )
    return values.to_numpy()


def agreements(frame: pd.DataFrame, path: Path) -> list[Agreement]:
    """Correlations by recipe of CV and span AUC with leaderboard and truth, where pairs exist."""
    found = []
    for recipe, rows in frame.groupby("recipe", sort=False):
        for theirs in (*HAND_COLUMNS, "test_truth"):
            for ours in ("cv", "span_auc"):
                pair = np.stack([numbers(rows, ours, path), numbers(rows, theirs, path)])
                x, y = pair[:, np.isfinite(pair).all(axis=0)]
                if len(x):
                    found.append(Agreement(str(recipe), ours, theirs, len(x), *correlations(x, y)))
    return found


def correlations(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Pearson's r, its interval by Fisher's transformation (from 4 pairs on), Spearman's rho."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return (np.nan,) * 4
    found = pearsonr(x, y)
    low, high = found.confidence_interval() if len(x) > 3 else (np.nan, np.nan)
    return float(found.statistic), float(low), float(high), float(spearmanr(x, y).statistic)
