"""The ledger: one row a finished run, with the leaderboard scores that a person fills in.

`exp/ledger.csv` holds the scores of every run, so that out-of-fold scores can be held against the
leaderboard. A row is known by recipe, tag and fingerprint: the same run finished again replaces
its row and keeps what a person wrote into it. Columns that people add are kept. Writers take turns
by a lock on a file beside it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, pearsonr, spearmanr

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

log = logging.getLogger("canopy")

KEY_COLUMNS = ("recipe", "tag", "fingerprint")
HAND_COLUMNS = ("public", "private")
SCORE_COLUMNS = ("cv", "cv_low", "cv_high", "span_auc", "test_truth", "test_truth_raw")
COLUMNS = (
    "date",
    *KEY_COLUMNS,
    "commit",
    "seed",
    "n_cycles",
    "metric",
    *SCORE_COLUMNS,
    "cv_by_cycle",
    "test_truth_by_cycle",
    "train_s",
    "submission",
    *HAND_COLUMNS,
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
    last, made = results["cycles"][-1], results["run"]
    known = last["scores"]["oof_known"]
    submission = folder / "submission.csv"
    finished = datetime.fromtimestamp((folder / "results.json").stat().st_mtime, timezone.utc)
    row = {
        "date": _stamp(finished),
        "recipe": recipe,
        "tag": folder.name,
        "fingerprint": run_fingerprint(config, tables),
        "commit": made.get("commit") or "",
        "seed": made.get("seed"),
        "n_cycles": last["cycle"],
        "metric": results["metric"],
        "cv": known["value"],
        "cv_low": known["low"],
        "cv_high": known["high"],
        "span_auc": known.get("span_auc"),
        "test_truth": _value(last, "test_truth"),
        "test_truth_raw": _value(last, "test_truth_raw"),
        "cv_by_cycle": _by_cycle(results, "oof_known"),
        "test_truth_by_cycle": _by_cycle(results, "test_truth"),
        "train_s": _training_seconds(folder, results["cycles"]),
        "submission": file_digest(submission)[:12],
        **dict.fromkeys(HAND_COLUMNS, ""),
    }
    return {name: _cell(value) for name, value in row.items()}


def blend_row(record: dict[str, Any], folder: Path, recipe: str) -> dict[str, str]:
    """The row of a blend, from its record (blend.json) and its submission in `folder`.

    Its CV is that of cross-fitted weights where weights were fitted.
    """
    known = record.get("oof_cross_fitted", record["oof"])
    members = [[one["tag"], one["cycle"], one["weight"]] for one in record["members"]]
    row = dict.fromkeys(COLUMNS, "") | {
        "date": _stamp(datetime.now(timezone.utc)),
        "recipe": recipe,
        "tag": folder.name,
        "fingerprint": fingerprint([record["method"], members])[:12],
        "commit": record["run"]["commit"],
        "seed": record["run"]["seed"],
        "metric": record["metric"],
        "cv": known["value"],
        "cv_low": known["low"],
        "cv_high": known["high"],
        "span_auc": record["oof"].get("span_auc"),
        "submission": file_digest(folder / "submission.csv")[:12],
    }
    return {name: _cell(value) for name, value in row.items()}


def _value(cycle: dict[str, Any], name: str) -> float | None:
    return cycle["scores"].get(name, {}).get("value")


def _by_cycle(results: dict[str, Any], name: str) -> str:
    values = [_value(cycle, name) for cycle in results["cycles"]]
    if all(value is None for value in values):
        return ""
    return " ".join("-" if value is None else f"{value:.4f}" for value in values)


def _cell(value: Any) -> str:
    """Text of a cell; six decimals, so that a score does not change when it is read and written."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _training_seconds(folder: Path, cycles: list[dict[str, Any]]) -> int | None:
    """Seconds of training, all cycles and folds together; None where no clock was kept."""
    total = 0.0
    for cycle in cycles:
        for path in sorted((folder / f"cycle{cycle['cycle']}").glob("fold*/timing.csv")):
            total += float(pd.to_numeric(read_table(path, ("seconds",))["seconds"], "coerce").sum())
    return round(total) or None


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


def _stamp(moment: datetime) -> str:
    """With milliseconds, as a small run may be done again within its second."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def read_ledger(path: Path) -> pd.DataFrame:
    """The rows as text, in the order of the file; other columns than ours come last and stay."""
    if not path.is_file():
        raise CanopyError(f"{path}: no ledger yet; finish a run (stage 5), or give --ledger FILE")
    frame = read_table(path, COLUMNS)
    return spreadsheet_plain(frame)


def _write(path: Path, frame: pd.DataFrame) -> None:
    """Write the rows; what a spreadsheet would take for a formula gets an apostrophe in front."""
    write_csv(path, spreadsheet_safe(frame))


def record(path: Path, row: dict[str, str]) -> None:
    """Add a run's row, or replace the one of the same recipe, tag and fingerprint in its place.

    What people wrote (leaderboard scores and columns of their own) is kept. Results that are noted
    already (same recipe, tag, date and submission) are left as they stand.
    """
    with locked(path):
        frame = read_ledger(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS))
        if _rows_like(frame, row, ("recipe", "tag", "date", "submission")).any():
            return
        same = _rows_like(frame, row, KEY_COLUMNS)
        if same.any():
            place = int(np.flatnonzero(same)[0])
            _warn_of_other(path, frame.loc[place], row)
            for name in set(COLUMNS) - set(HAND_COLUMNS):
                frame.loc[place, name] = row[name]
        else:
            blank = dict.fromkeys(frame.columns, "")
            frame = pd.concat([frame, pd.DataFrame([blank | row])], ignore_index=True)
        _write(path, frame)


def _rows_like(frame: pd.DataFrame, row: dict[str, str], columns: tuple[str, ...]) -> np.ndarray:
    return (frame[list(columns)] == [row[name] for name in columns]).all(axis=1).to_numpy()


def _warn_of_other(path: Path, before: pd.Series, row: dict[str, str]) -> None:
    if before["submission"] != row["submission"] and any(before[list(HAND_COLUMNS)]):
        log.warning(
            "%s: the leaderboard scores of %s were those of another submission.csv; mend them "
            "with bin/ledger.py set",
            path,
            row["tag"],
        )


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
    with locked(path) if path.is_file() else nullcontext():
        frame = read_ledger(path)
        place = _find(frame, path, tag, recipe, fingerprint)
        for name, value in scores.items():
            frame.loc[place, name] = str(value)
        _write(path, frame)
    return frame.loc[place]


def _find(
    frame: pd.DataFrame, path: Path, tag: str, recipe: str | None, fingerprint: str | None
) -> int:
    if tag not in set(frame["tag"]):
        near = get_close_matches(tag, frame["tag"].tolist(), 1, 0.0)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise CanopyError(f"{path}: no run of tag {tag!r}{hint}")
    chosen = frame[frame["tag"] == tag]
    if recipe is not None:
        if recipe not in set(chosen["recipe"]):
            known = ", ".join(sorted(set(chosen["recipe"])))
            raise CanopyError(f"{path}: {tag} is no run of recipe {recipe!r}, only of {known}")
        chosen = chosen[chosen["recipe"] == recipe]
    if chosen["recipe"].nunique() > 1:
        names = " and ".join(sorted(set(chosen["recipe"])))
        raise CanopyError(f"{path}: {tag} is a run of {names}; say which with --recipe")
    if fingerprint is not None:
        chosen = chosen[chosen["fingerprint"].str.startswith(fingerprint)]
    if len(chosen) != 1:
        listed = frame.loc[frame["tag"] == tag, ["fingerprint", "date"]]
        known = ", ".join(f"{one} ({date})" for one, date in listed.itertuples(index=False))
        raise CanopyError(
            f"{path}: {len(chosen)} rows fit tag {tag}; give --fingerprint, one of {known}"
        )
    return int(chosen.index[0])


# ------------------------------------------------------------------------- agreement with the truth


@dataclass(frozen=True)
class Agreement:
    """How a score of ours goes with a score from outside, over the runs of a recipe."""

    recipe: str
    ours: str
    theirs: str
    n: int
    pearson: float
    pearson_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]


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
    """Correlations by recipe of CV and span AUC with leaderboard and truth, where pairs exist.

    Intervals at 95 % by Fisher's transformation, for Spearman with the variance of Bonett and
    Wright (2000); NaN for fewer than 4 pairs, without variation, and at -1 and 1, where the
    approximation fails.
    """
    found = []
    for recipe in dict.fromkeys(frame["recipe"]):
        rows = frame[frame["recipe"] == recipe]
        for theirs in (*HAND_COLUMNS, "test_truth"):
            for ours in ("cv", "span_auc"):
                pair = np.stack([numbers(rows, ours, path), numbers(rows, theirs, path)])
                x, y = pair[:, np.isfinite(pair).all(axis=0)]
                if len(x):
                    found.append(Agreement(recipe, ours, theirs, len(x), *correlations(x, y)))
    return found


def correlations(
    x: np.ndarray, y: np.ndarray
) -> tuple[float, tuple[float, float], float, tuple[float, float]]:
    """Pearson's r with its interval, Spearman's rho with its interval."""
    nothing = (float("nan"), float("nan"))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return nothing[0], nothing, nothing[0], nothing
    r, rho = float(pearsonr(x, y).statistic), float(spearmanr(x, y).statistic)
    return r, _fisher(r, len(x), 1.0), rho, _fisher(rho, len(x), 1 + rho**2 / 2)


def _fisher(r: float, n: int, variance: float) -> tuple[float, float]:
    if n < 4 or abs(r) > 1 - 1e-12:
        return float("nan"), float("nan")
    reach = norm.ppf(0.975) * np.sqrt(variance / (n - 3))
    return float(np.tanh(np.arctanh(r) - reach)), float(np.tanh(np.arctanh(r) + reach))
