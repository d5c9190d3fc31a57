"""Curves of several systems: precision against recall, hits against false alarms an hour."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from local.io.errors import CanopyError
from local.report.plots.page import COLOURS, DASHES, MARKERS, Page

_MARKS = 6


def pr_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], page: Page, title: str, chance: float
) -> Figure:
    """System -> (recall, precision), one line each; `chance` is the share of positives."""
    with page.drawing():
        figure, axes = _axes(page, title)
        for index, (name, (recall, precision)) in enumerate(curves.items()):
            if len(recall):
                first = np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])
                axes.plot(*first, label=name, **_look(index, len(recall)), drawstyle="steps-pre")
        if np.isfinite(chance):
            axes.axhline(chance, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        _finish(figure, axes)
    return figure


def alarm_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    page: Page,
    title: str,
    hits: str,
    most: float | None = None,
    logarithmic: bool = True,
) -> Figure:
    """System -> (false alarms an hour, hit rate), one line each, up to `most` alarms an hour."""
    with page.drawing():
        figure, axes = _axes(page, title)
        rates = np.concatenate([np.zeros(0), *(alarms for alarms, _ in curves.values())])
        rates = rates[rates > 0]
        if not rates.size:
            raise CanopyError("no false alarm at any threshold, so there is no curve to draw")
        end = most or float(rates.max())
        for index, (name, (alarms, rate)) in enumerate(curves.items()):
            if len(alarms):
                x = np.concatenate([alarms, [max(end, alarms[-1])]])
                y = np.concatenate([rate, rate[-1:]])
                axes.plot(x, y, label=name, **_look(index, len(x)), drawstyle="steps-post")
        if logarithmic:
            axes.set_xscale("symlog", linthresh=float(rates.min()), linscale=0.3)
            powers = range(math.ceil(math.log10(rates.min())), math.floor(math.log10(end)) + 1)
            ticks = [0.0, *(10.0**power for power in powers)]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="false alarms per hour", ylabel=hits, xlim=(0, end), ylim=(0, 1.02))
        _finish(figure, axes)
    return figure


def _axes(page: Page, title: str) -> tuple[Figure, Axes]:
    figure = page.figure(min(page.width_cm * 0.75, 9.0))
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.grid(color="0.9", linewidth=0.5)
    return figure, axes


def _look(index: int, n_points: int) -> dict:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 3.5,
        # Marks of different systems lie at different places.
        "markevery": (index * 3 % max(1, n_points), max(1, n_points // _MARKS)),
    }


def _finish(figure: Figure, axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, handlelength=3.2)
