"""The ledger for people: a table for the terminal, and the scatter of CV against outside scores."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from local.io.errors import CanopyError
from local.io.files import atomic_path
from local.report.ledger import HAND_COLUMNS, Agreement, agreements, numbers
from local.report.text import shorten
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
_LONGEST_TAG = 32
# With more points than this, tags would cover each other.
_MOST_NAMES = 15
# Columns that a narrow terminal does without, first to go first.
_SPARED = ("date", "raw", "CV by cycle", "seed", "95 % interval", "recipe")


def ledger_table(frame: pd.DataFrame, path: Path, width: int | None = None) -> str:
    """Rows as text in columns; what is empty in all rows is left out.

    width : letters in a line; columns of less weight are left out where they do not fit. None
        leaves all.
    """
    if frame.empty:
        return f"{path}: no run yet"
    columns = {title: make(frame, path) for title, make in _COLUMNS.items()}
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    widths = {title: max(map(len, [title, *cells])) for title, cells in columns.items()}
    for title in _SPARED:
        if width is not None and sum(widths.values()) + 2 * (len(widths) - 1) > width:
            widths.pop(title, None)
    lines = []
    for row in range(-1, len(frame)):
        cells = [
            f"{title if row < 0 else columns[title][row]:{'<' if title in _TEXT else '>'}{space}}"
            for title, space in widths.items()
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _text(column: str, longest: int) -> Callable[[pd.DataFrame, Path], list[str]]:
    return lambda frame, path: [shorten(text, longest) for text in frame[column]]


def _score(column: str) -> Callable[[pd.DataFrame, Path], list[str]]:
    return lambda frame, path: [
        "" if np.isnan(value) else f"{value:.4f}" for value in numbers(frame, column, path)
    ]


def _interval(frame: pd.DataFrame, path: Path) -> list[str]:
    ends = zip(numbers(frame, "cv_low", path), numbers(frame, "cv_high", path), strict=True)
    return ["" if np.isnan(low + high) else f"{low:.3f}-{high:.3f}" for low, high in ends]


_COLUMNS: dict[str, Callable[[pd.DataFrame, Path], list[str]]] = {
    "date": lambda frame, path: [text[:10] for text in frame["date"]],
    "recipe": _text("recipe", 16),
    "tag": _text("tag", _LONGEST_TAG),
    "run": lambda frame, path: [text[:6] for text in frame["fingerprint"]],
    "seed": _text("seed", 8),
    "CV": _score("cv"),
    "95 % interval": _interval,
    "span AUC": _score("span_auc"),
    "CV by cycle": lambda frame, path: [
        text if " " in text else "" for text in frame["cv_by_cycle"]
    ],
    "raw": _score("test_truth_raw"),
    "truth": _score("test_truth"),
    "public": _score("public"),
    "private": _score("private"),
}
_TEXT = frozenset(["date", "recipe", "tag", "run", "CV by cycle"])


def agreement_lines(found: list[Agreement]) -> list[str]:
    """One line a pair of scores, or one that says why there is none."""
    if not found:
        return ["no run has a leaderboard score or a truth yet: bin/ledger.py set TAG --public 0.9"]
    width = max(len(f"{one.recipe}: {_pair(one)}") for one in found)
    return [
        f"{f'{one.recipe}: {_pair(one)}':<{width}}  n {one.n:>3}"
        f"  Pearson {_with_interval(one.pearson, one.pearson_interval)}"
        f"  Spearman {_with_interval(one.spearman, one.spearman_interval)}".rstrip()
        for one in found
    ]


def _pair(one: Agreement) -> str:
    return f"{_TITLES[one.ours]} with {_TITLES[one.theirs]}"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    if np.isnan(value):
        return f"{'-':>6} {'':<18}"
    ends = "" if np.isnan(interval[0]) else f"({interval[0]:+.3f} to {interval[1]:+.3f})"
    return f"{value:+.3f} {ends:<18}"


# ------------------------------------------------------------------------------------ the scatter


def scatter_figure(frame: pd.DataFrame, path: Path) -> Figure:
    """CV with its interval (x) against leaderboard or truth (y): a plot for each that has scores.

    Recipes differ by colour and marker; few points carry their tags.

    Raises
    ------
    CanopyError
        No run has both a CV and a score from outside.
    """
    x = numbers(frame, "cv", path)
    outside = {name: numbers(frame, name, path) for name in (*HAND_COLUMNS, "test_truth")}
    outside = {name: y for name, y in outside.items() if np.isfinite(x + y).any()}
    if not outside:
        raise CanopyError(
            f"{path}: no run has a leaderboard score or a truth, so there is nothing to draw; fill "
            "one in with bin/ledger.py set TAG --public SCORE"
        )
    ends = np.stack([x - numbers(frame, "cv_low", path), numbers(frame, "cv_high", path) - x])
    found = {(one.recipe, one.theirs): one for one in agreements(frame, path) if one.ours == "cv"}
    with drawing():
        width = _LEFT_PX + len(outside) * (_PLOT_PX + _GAP_PX)
        figure = new_figure(width, _TOP_PX + _PLOT_PX + _BOTTOM_PX)
        for column, (name, y) in enumerate(outside.items()):
            left = _LEFT_PX + column * (_PLOT_PX + _GAP_PX)
            axes = place(figure, left, _TOP_PX, _PLOT_PX, _PLOT_PX)
            _draw(axes, frame, x, y, np.maximum(np.nan_to_num(ends), 0))
            axes.set_xlabel(f"{_TITLES['cv']} (out-of-fold, known labels)")
            axes.set_title(_plot_title(name, [one for key, one in found.items() if key[1] == name]))
    return figure


def _plot_title(name: str, found: list[Agreement]) -> str:
    if len(found) == 1 and not np.isnan(found[0].spearman):
        return f"{_TITLES[name]}, n {found[0].n}, Spearman {found[0].spearman:+.2f}"
    return _TITLES[name]


def _draw(axes: Axes, frame: pd.DataFrame, x: np.ndarray, y: np.ndarray, ends: np.ndarray) -> None:
    recipes, tags = frame["recipe"], frame["tag"]
    known = np.isfinite(x + y)
    names = list(dict.fromkeys(recipes))
    for row, name in enumerate(names):
        mine = known & (recipes == name).to_numpy()
        if mine.any():
            colour = SERIES_COLOURS[row % len(SERIES_COLOURS)]
            axes.errorbar(
                *(x[mine], y[mine]),
                xerr=ends[:, mine],
                fmt=SERIES_MARKERS[row % len(SERIES_MARKERS)],
                color=colour,
                elinewidth=0.9,
                label=shorten(name, 24),
            )
    if known.sum() <= _MOST_NAMES:
        for row in np.flatnonzero(known):
            axes.annotate(
                shorten(tags.iloc[row], 20),
                (x[row], y[row]),
                xytext=(5, 5),
                textcoords="offset points",
                color=LIGHT["muted"],
                fontsize=10,
            )
    axes.margins(0.12)
    if len(names) > 1:
        axes.legend(loc="best")


def write_scatter(target: Path, frame: pd.DataFrame, path: Path) -> None:
    """Draw the scatter into an .svg or .png file."""
    writers = {".svg": to_svg, ".png": to_png}
    if target.suffix.lower() not in writers:
        raise CanopyError(f"--plot {target}: give a file that ends in .svg or .png")
    picture = writers[target.suffix.lower()](scatter_figure(frame, path))
    with atomic_path(target) as temporary:
        temporary.write_bytes(picture)
