"""The report's line charts: scores by cycle and training curves.

Every function gives a `Figure` of a width in CSS pixels.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from local.report.page_records import Baseline, CalibrationBin, Curve, ScoreRow
from local.report.text import shorten
from local.report.theme import (
    LIGHT,
    SERIES_COLOURS,
    SERIES_DASHES,
    SERIES_MARKERS,
    drawing,
    new_figure,
    place,
)

_PLOT_PX = 170
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 52, 14, 30, 44
# Plots narrower than this lose their letters.
_MIN_PLOT_PX = 230
_BASELINE_DASHES = (":", "--", "-.")
# Columns of a fold's log in words; others keep their name.
_CURVE_TITLES = {
    "loss_total": "training loss, whole",
    "loss_clip": "training loss, recordings",
    "loss_frame": "training loss, moments",
    "valid": "score on the fold's known labels",
    "valid_span_auc": "span AUC on the fold's known labels",
}
# Nearer than this share of the axis, a line runs through the letters beside it.
_NEAR = 0.11


def score_groups(scores: Sequence[ScoreRow]) -> dict[tuple[str, str], list[ScoreRow]]:
    """Rows by (score, subset) in the order they came, each group in the order of its cycles."""
    groups: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in scores:
        groups.setdefault((row.name, row.subset), []).append(row)
    return {key: sorted(rows, key=lambda row: row.cycle) for key, rows in groups.items()}


def baselines_of(baselines: Sequence[Baseline], score: str, subset: str) -> list[Baseline]:
    """The baselines that stand beside one score of one subset."""
    return [item for item in baselines if item.score == score and item.subset == subset]


def scores_figure(
    scores: Sequence[ScoreRow], baselines: Sequence[Baseline], width_px: int
) -> Figure:
    """One plot a (score, subset): value and interval over cycles, baselines as level lines."""
    groups = score_groups(scores)
    with drawing():
        figure, axes = _grid(len(groups), width_px)
        for item, ((name, subset), rows) in zip(axes, groups.items(), strict=True):
            item.set_title(shorten(f"{name}: {subset}", 40))
            _draw_scores(item, rows, baselines_of(baselines, name, subset))
    return figure


def curve_lines(curves: Sequence[Curve]) -> dict[str, list[tuple[int, np.ndarray, np.ndarray]]]:
    """Series name -> (fold, epochs, values), without missing values and without empty series.

    A score that is only taken every few epochs thus gives a joined line.
    """
    lines: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for curve in curves:
        for name, series in curve.series.items():
            epochs = np.asarray(curve.epoch, dtype=np.float64)
            values = np.asarray(series, dtype=np.float64)
            known = np.isfinite(values)
            if known.any():
                lines.setdefault(name, []).append((curve.fold, epochs[known], values[known]))
    return lines


def curves_figure(curves: Sequence[Curve], width_px: int) -> Figure:
    """One plot a series (loss, score, ...) over epochs, one line a fold."""
    lines = curve_lines(curves)
    folds = sorted({fold for of_name in lines.values() for fold, _, _ in of_name})
    looks = {fold: fold_look(index) for index, fold in enumerate(folds)}
    legend_columns = max(1, width_px // 90)
    legend_px = 22 * math.ceil(len(folds) / legend_columns)
    # One axis for all, so that a score taken every few epochs stands where the loss stood then.
    last = max((epochs[-1] for of_name in lines.values() for _, epochs, _ in of_name), default=1)
    with drawing():
        figure, axes = _grid(len(lines), width_px, extra_px=legend_px)
        for item, (name, of_name) in zip(axes, lines.items(), strict=True):
            item.set_title(shorten(_CURVE_TITLES.get(name, name), 40))
            item.set_xlabel("epoch")
            item.set_xlim(0, last + 0.5)
            item.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            item.grid(axis="y")
            for fold, epochs, values in of_name:
                # Some six markers a line, whatever its length.
                item.plot(epochs, values, markevery=max(1, len(values) // 6), **looks[fold])
        handles = [Line2D([], [], label=f"fold {fold}", **look) for fold, look in looks.items()]
        figure.legend(handles=handles, loc="lower left", ncols=legend_columns, handlelength=3)
    return figure


def calibration_figure(bins: Sequence[CalibrationBin], width_px: int) -> Figure:
    """Share of known cells that sound over their mean score; beside or below it their number."""
    beside = width_px >= 2 * (_LEFT_PX + _RIGHT_PX + _MIN_PLOT_PX)
    side = 300 if beside else min(300, width_px - _LEFT_PX - _RIGHT_PX)
    row_px = _TOP_PX + side + _BOTTOM_PX
    with drawing():
        figure = new_figure(width_px, row_px if beside else 2 * row_px - side // 2)
        axes = place(figure, _LEFT_PX, _TOP_PX, side, side)
        left, top = (_LEFT_PX + side + 90, _TOP_PX) if beside else (_LEFT_PX, row_px + _TOP_PX)
        right = place(figure, left, top, side, side if beside else side // 2)
        axes.plot([0, 1], [0, 1], color=LIGHT["muted"], linestyle="--", linewidth=1.2)
        axes.plot(
            [item.mean_score for item in bins],
            [item.share_present for item in bins],
            color=LIGHT["blue"],
            marker="o",
            markersize=6,
        )
        axes.set_title("share of known cells that sound")
        axes.set_ylim(-0.02, 1.02)
        axes.grid()
        right.bar(
            [item.low for item in bins],
            [item.n for item in bins],
            width=[0.92 * (item.high - item.low) for item in bins],
            align="edge",
            color=LIGHT["blue"],
        )
        right.set_yscale("log")
        right.set_ylim(bottom=0.8)
        right.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        right.yaxis.set_minor_formatter(NullFormatter())
        right.set_title("number of cells")
        for item in (axes, right):
            item.set_xlim(-0.02, 1.02)
            item.set_xlabel("score")
    return figure


def fold_look(index: int) -> dict:
    """Colour, dash and marker of the index-th line; together they repeat only after 35."""
    return {
        "color": SERIES_COLOURS[index % len(SERIES_COLOURS)],
        "linestyle": SERIES_DASHES[index % len(SERIES_DASHES)],
        "marker": SERIES_MARKERS[index % len(SERIES_MARKERS)],
        "markersize": 5,
    }


def _grid(n: int, width_px: int, extra_px: float = 0) -> tuple[Figure, list[Axes]]:
    """A figure with `n` plots in as many columns as the width holds."""
    cell_px = _LEFT_PX + _RIGHT_PX + _MIN_PLOT_PX
    n_columns = max(1, min(n, width_px // cell_px))
    n_rows = max(1, math.ceil(n / n_columns))
    row_px = _TOP_PX + _PLOT_PX + _BOTTOM_PX
    figure = new_figure(width_px, n_rows * row_px + extra_px)
    # A lone plot does not stretch over the whole page: points would drift apart.
    column_px = min(width_px / n_columns, 460)
    axes = [
        place(
            figure,
            left=(index % n_columns) * column_px + _LEFT_PX,
            top=(index // n_columns) * row_px + _TOP_PX,
            width=column_px - _LEFT_PX - _RIGHT_PX,
            height=_PLOT_PX,
        )
        for index in range(n)
    ]
    return figure, axes


def _draw_scores(axes: Axes, rows: Sequence[ScoreRow], baselines: Sequence[Baseline]) -> None:
    cycles = np.array([row.cycle for row in rows], dtype=np.float64)
    values = np.array([row.value for row in rows], dtype=np.float64)
    # A missing bound is drawn as no interval on that side.
    below = np.nan_to_num(np.maximum(values - [row.low for row in rows], 0))
    above = np.nan_to_num(np.maximum([row.high for row in rows] - values, 0))
    axes.errorbar(
        cycles,
        values,
        yerr=np.stack([below, above]),
        color=LIGHT["blue"],
        marker="o",
        markersize=6,
        capsize=4,
        elinewidth=1.4,
    )
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")
    known = [item for item in baselines if np.isfinite(item.value)]
    for index, item in enumerate(known):
        dash = _BASELINE_DASHES[index % len(_BASELINE_DASHES)]
        axes.axhline(item.value, color=LIGHT["muted"], linewidth=1.3, linestyle=dash)
    axes.set_xticks(cycles)
    axes.set_xticklabels([f"{int(cycle)}" for cycle in cycles])
    axes.set_xlabel("cycle")
    axes.set_xlim(cycles.min() - 0.4, cycles.max() + 0.6)
    axes.margins(y=0.15)
    axes.grid(axis="y")
    _name_scores(axes, cycles, values, [item.value for item in known])
    _name_baselines(axes, cycles, values, known)


def _name_scores(
    axes: Axes, cycles: np.ndarray, values: np.ndarray, levels: Sequence[float]
) -> None:
    """Each value beside its point; below it where a baseline runs close above."""
    near = _NEAR * np.ptp(axes.get_ylim())
    for cycle, value in zip(cycles, values, strict=True):
        if np.isfinite(value):
            below = any(value < level < value + near for level in levels)
            axes.annotate(
                f"{value:.3f}",
                (cycle, value),
                xytext=(7, -15 if below else 5),
                textcoords="offset points",
                fontsize=11,
            )


def _name_baselines(
    axes: Axes, cycles: np.ndarray, values: np.ndarray, baselines: Sequence[Baseline]
) -> None:
    """In turn at the right and at the left, each on that side of its line where more room is."""
    near, middle = _NEAR * np.ptp(axes.get_ylim()), cycles.mean()
    for index, item in enumerate(baselines):
        at_right = index % 2 == 0
        beside = values[cycles >= middle] if at_right else values[cycles <= middle]
        others = [other.value for other in baselines if other is not item]
        gaps = [value - item.value for value in (*beside, *others) if np.isfinite(value)]
        above = min((gap for gap in gaps if gap >= 0), default=np.inf)
        below = min((-gap for gap in gaps if gap < 0), default=np.inf)
        under = above < 2 * near and below > above
        axes.annotate(
            f"{shorten(item.name, 24)} {item.value:.3f}",
            (1.0 if at_right else 0.01, item.value),
            xycoords=("axes fraction", "data"),
            xytext=(0, -12 if under else 3),
            textcoords="offset points",
            ha="right" if at_right else "left",
            fontsize=10.5,
            color=LIGHT["muted"],
            bbox={"facecolor": LIGHT["card"], "edgecolor": "none", "pad": 0.5},
        )
