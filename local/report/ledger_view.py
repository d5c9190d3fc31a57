"""The ledger for people: a table for the terminal, and the scatter of CV against outside scores."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from local.io.errors import CanopyError
from local.io.files import write_bytes
from local.report.ledger import HAND_COLUMNS, Agreement, numbers
from local.report.text import printable, shorten
from local.report.theme import (
    LIGHT,
    SERIES_COLOURS,
    SERIES_MARKERS,
    drawing,
    new_figure,
    place,
    to_png,
    to_svg,
)

_TITLES = {
    "cv": "CV",
    "span_auc": "span AUC",
    "public": "public leaderboard",
    "private": "private leaderboard",
    "test_truth": "test truth",
}
_PLOT_PX, _LEFT_PX, _TOP_PX, _BOTTOM_PX, _GAP_PX = 260, 56, 34, 48, 70
# With more points than this, tags would cover each other.
_MOST_NAMES = 15


def ledger_table(frame: pd.DataFrame, path: Path) -> str:
    """Rows as text in columns; what is empty in all rows is left out."""
    if frame.empty:
        return f"{path}: no run yet"
    low, high = (numbers(frame, name, path) for name in ("cv_low", "cv_high"))
    columns = {
        "date": frame["date"].str[:10],
        "recipe": [shorten(text, 16) for text in frame["recipe"]],
        "tag": [shorten(text, 32) for text in frame["tag"]],
        "run": frame["fingerprint"].str[:6],
        "seed": [shorten(text, 8) for text in frame["seed"]],
        "CV": _scores(frame, "cv", path),
        "95 % interval": [
            "" if np.isnan(a + b) else f"{a:.3f}-{b:.3f}" for a, b in zip(low, high, strict=True)
        ],
        "span AUC": _scores(frame, "span_auc", path),
        "raw": _scores(frame, "test_truth_raw", path),
        "truth": _scores(frame, "test_truth", path),
        "public": _scores(frame, "public", path),
        "private": _scores(frame, "private", path),
    }
    shown = pd.DataFrame({name: list(map(printable, cells)) for name, cells in columns.items()})
    return shown.loc[:, (shown != "").any()].to_string(index=False)


def _scores(frame: pd.DataFrame, column: str, path: Path) -> list[str]:
    return ["" if np.isnan(value) else f"{value:.4f}" for value in numbers(frame, column, path)]


def agreement_lines(found: list[Agreement]) -> list[str]:
    """One line a pair of scores, or one that says why there is none."""
    if not found:
        return ["no run has a leaderboard score or a truth yet: bin/ledger.py set TAG --public 0.9"]
    return [
        f"{one.recipe}: {_TITLES[one.ours]} with {_TITLES[one.theirs]}, n {one.n}: "
        f"Pearson {_number(one.pearson)}{_ends(one)}, Spearman {_number(one.spearman)}"
        for one in found
    ]


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:+.3f}"


def _ends(one: Agreement) -> str:
    return "" if np.isnan(one.low) else f" ({one.low:+.3f} to {one.high:+.3f})"


def scatter_figure(frame: pd.DataFrame, path: Path) -> Figure:
    """CV with its interval (x) against leaderboard or truth (y): a plot for each that has scores.

    Recipes differ by colour and marker; few points carry their tags.

    Raises
    ------
    CanopyError
        No run has both a CV and a score from outside.
    """
    x, low, high = (numbers(frame, name, path) for name in ("cv", "cv_low", "cv_high"))
    outside = {name: numbers(frame, name, path) for name in (*HAND_COLUMNS, "test_truth")}
    outside = {name: y for name, y in outside.items() if np.isfinite(x + y).any()}
    if not outside:
        raise CanopyError(
            f"{path}: no run has a leaderboard score or a truth, so there is nothing to draw; fill "
            "one in with bin/ledger.py set TAG --public SCORE"
        )
    ends = np.maximum(np.nan_to_num([x - low, high - x]), 0)
    names = frame["recipe"].unique()
    with drawing():
        width = _LEFT_PX + len(outside) * (_PLOT_PX + _GAP_PX)
        figure = new_figure(width, _TOP_PX + _PLOT_PX + _BOTTOM_PX)
        for column, (title, y) in enumerate(outside.items()):
            left = _LEFT_PX + column * (_PLOT_PX + _GAP_PX)
            axes = place(figure, left, _TOP_PX, _PLOT_PX, _PLOT_PX)
            known = np.isfinite(x + y)
            for row, name in enumerate(names):
                mine = known & (frame["recipe"] == name).to_numpy()
                axes.errorbar(
                    *(x[mine], y[mine]),
                    xerr=ends[:, mine],
                    fmt=SERIES_MARKERS[row % len(SERIES_MARKERS)],
                    color=SERIES_COLOURS[row % len(SERIES_COLOURS)],
                    elinewidth=0.9,
                    label=shorten(name, 24),
                )
            for row in np.flatnonzero(known) if known.sum() <= _MOST_NAMES else ():
                axes.annotate(
                    shorten(frame["tag"].iloc[row], 20),
                    (x[row], y[row]),
                    xytext=(5, 5),
                    textcoords="offset points",
                    color=LIGHT["muted"],
                    fontsize=10,
                )
            axes.margins(0.12)
            axes.set_xlabel(f"{_TITLES['cv']} (out-of-fold, known labels)")
            axes.set_title(_TITLES[title])
            if len(names) > 1:
                axes.legend(loc="best")
    return figure


def write_scatter(target: Path, frame: pd.DataFrame, path: Path) -> None:
    """Draw the scatter into an .svg or .png file."""
    writers = {".svg": to_svg, ".png": to_png}
    if target.suffix.lower() not in writers:
        raise CanopyError(f"--plot {target}: give a file that ends in .svg or .png")
    write_bytes(target, writers[target.suffix.lower()](scatter_figure(frame, path)))
