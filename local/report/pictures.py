"""The picture of a recording: spectrogram, scores over time and events on one time axis.

`panel_figure` gives a `Figure`; `local.report.theme` makes SVG or PNG of it. Widths are CSS pixels,
so a page can hold a wide and a narrow drawing of the same thing with letters of the same size.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.special import expit

from local.io import files
from local.report.records import Detection, EventKind, RecordingPanel
from local.report.text import shorten
from local.report.theme import LIGHT, SERIES_COLOURS, drawing, new_figure, place, to_png

WIDE_PX = 900
NARROW_PX = 350

# More cells than this do not show at the size of a page and would only make it heavy.
MAX_COLUMNS = 560
MAX_ROWS = 96
MAX_TRACE_POINTS = 320
# Steps of shade: enough to look smooth, few enough to compress well.
N_SHADES = 48

_SPECTROGRAM_PX = 200
_STRIP_PX = 70
_STRIP_GAP_PX = 6
# Where the two rows of event bars lie below a strip's trace, in units of probability.
_GIVEN_ROW = (-0.34, 0.24)
_FOUND_ROW = (-0.68, 0.24)

# Room for the strip's title above a probability of 1.
_STRIP_TOP = 1.75
_NARROW_BELOW_PX = 500


# Fill, hatch and line tell the kinds apart without colour; given and found events also lie in
# different rows. The line is the same on the spectrogram, where colours would drown.
_EDGE = {
    EventKind.TRUE: LIGHT["green"],
    EventKind.KNOWN_POSITIVE: LIGHT["green"],
    EventKind.KNOWN_NEGATIVE: LIGHT["orange"],
    EventKind.PSEUDO: LIGHT["purple"],
    EventKind.DETECTED: LIGHT["blue"],
}
_FILL = {
    EventKind.TRUE: LIGHT["green"],
    EventKind.KNOWN_POSITIVE: "none",
    EventKind.KNOWN_NEGATIVE: "none",
    EventKind.PSEUDO: "none",
    EventKind.DETECTED: (LIGHT["blue"], 0.3),
}
_HATCH = {
    EventKind.KNOWN_POSITIVE: "+++",
    EventKind.KNOWN_NEGATIVE: "xxx",
    EventKind.PSEUDO: "////",
}
_DASH = {
    EventKind.TRUE: "-",
    EventKind.KNOWN_POSITIVE: "-",
    EventKind.KNOWN_NEGATIVE: (0, (1, 2)),
    EventKind.PSEUDO: (0, (5, 2, 1, 2)),
    EventKind.DETECTED: (0, (4, 2)),
}
_GIVEN = (EventKind.TRUE, EventKind.KNOWN_POSITIVE, EventKind.KNOWN_NEGATIVE)


def shown_labels(panel: RecordingPanel, n_classes: int) -> list[str]:
    """The classes a panel shows: those with given events first to be kept, in order of peak score.

    At most `n_classes`; a class that somebody labelled is worth seeing even where it scores low.
    """
    ranked = panel.top_labels(len(panel.labels))
    given = {event.label for event in panel.events if event.kind in _GIVEN}
    kept = [label for label in ranked if label in given]
    kept += [label for label in ranked if label not in given]
    return sorted(kept[:n_classes], key=ranked.index)


def panel_figure(panel: RecordingPanel, width_px: int = WIDE_PX, n_classes: int = 5) -> Figure:
    """Spectrogram above one strip a class, all on one time axis.

    A strip holds the class's probability over time (0 to 1) and below it two rows of event bars:
    what was given (true, known) and what was found (detected, pseudo). Boxes on the spectrogram
    bear the number of their strip.
    """
    labels = shown_labels(panel, n_classes)
    kinds = [kind for kind in EventKind if any(event.kind is kind for event in panel.events)]
    left, right, top = 46, 12, 8
    legend_rows = math.ceil(len(kinds) / (2 if width_px < _NARROW_BELOW_PX else 5))
    strips_top = top + _SPECTROGRAM_PX + _STRIP_GAP_PX
    strips_px = len(labels) * (_STRIP_PX + _STRIP_GAP_PX)
    height = strips_top + strips_px + 36 + 20 * legend_rows
    with drawing():
        figure = new_figure(width_px, height)
        inner = width_px - left - right
        axes = [place(figure, left, top, inner, _SPECTROGRAM_PX)]
        _draw_spectrogram(axes[0], panel, labels, min(inner, MAX_COLUMNS))
        for index, label in enumerate(labels):
            offset = strips_top + index * (_STRIP_PX + _STRIP_GAP_PX)
            axes.append(place(figure, left, offset, inner, _STRIP_PX))
            _draw_strip(axes[-1], panel, label, index + 1, min(inner, MAX_TRACE_POINTS))
        _share_time_axis(axes, panel.duration_s, width_px)
        _draw_legend(
            figure, kinds, left / width_px, n_columns=2 if width_px < _NARROW_BELOW_PX else 5
        )
    return figure


def write_panel_picture(
    path: Path | str, panel: RecordingPanel, width_px: int = WIDE_PX, scale: float = 1.5
) -> None:
    """Write one recording's picture as a PNG, e.g. for a page of documentation."""
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(to_png(panel_figure(panel, width_px), scale))


def pool(feats: np.ndarray, max_rows: int, max_columns: int) -> np.ndarray:
    """Shrink (n_mels, T) to at most that many cells: mean over rows, maximum over time.

    The maximum keeps calls that are shorter than a cell. Cells are as equal as they can be.
    """
    rows = np.linspace(0, feats.shape[0], min(feats.shape[0], max_rows) + 1).astype(int)
    columns = np.linspace(0, feats.shape[1], min(feats.shape[1], max_columns) + 1).astype(int)
    cells = np.add.reduceat(np.asarray(feats, dtype=np.float64), rows[:-1], axis=0)
    cells /= np.diff(rows)[:, None]
    return np.maximum.reduceat(cells, columns[:-1], axis=1)


def frequency_ticks(centres_hz: np.ndarray, n_ticks: int) -> tuple[np.ndarray, list[str], str]:
    """Positions on the row axis, texts and unit of round frequencies on any spaced mel axis."""
    low, high = float(centres_hz[0]), float(centres_hz[-1])
    decades = range(math.floor(math.log10(max(low, 1.0))), math.ceil(math.log10(max(high, 10.0))))
    candidates = np.array([step * 10.0**power for power in decades for step in (1, 2, 5)])
    candidates = candidates[(candidates >= low) & (candidates <= high)]
    rows = np.interp(candidates, centres_hz, np.arange(len(centres_hz)))
    if len(rows) == 0:
        candidates, rows = centres_hz[[0, -1]], np.array([0.0, len(centres_hz) - 1.0])
    # From the top down, drop what would touch the one above it.
    kept: list[int] = []
    for index in np.argsort(-rows):
        if not kept or rows[kept[-1]] - rows[index] >= len(centres_hz) / n_ticks:
            kept.append(int(index))
    unit, divisor = ("kHz", 1000.0) if high >= 1000 else ("Hz", 1.0)
    return rows[kept], [f"{candidates[index] / divisor:g}" for index in kept], unit


def _draw_spectrogram(
    axes: Axes, panel: RecordingPanel, labels: Sequence[str], max_columns: int
) -> None:
    image = pool(panel.feats, MAX_ROWS, max_columns)
    n_mels = panel.feats.shape[0]
    image = np.where(np.isfinite(image), image, np.nan)
    low, high = (0.0, 1.0)
    if not np.isnan(image).all():
        # The floor of silence and single clicks must not eat the range of the calls.
        low, high = np.nanpercentile(image, [5, 99.7])
    shades = np.clip((image - low) / max(high - low, 1e-9), 0, 1)
    axes.imshow(
        np.round(shades * (N_SHADES - 1)) / (N_SHADES - 1),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap="magma",
        vmin=0,
        vmax=1,
        extent=(0, panel.duration_s, -0.5, n_mels - 0.5),
    )
    positions, texts, unit = frequency_ticks(np.asarray(panel.mel_centres_hz, float), n_ticks=8)
    axes.set_yticks(positions, texts)
    axes.set_ylabel(unit, labelpad=2)
    axes.set_ylim(-0.5, n_mels - 0.5)
    for event in panel.events:
        _draw_box(axes, panel, event, labels)


def _draw_box(axes: Axes, panel: RecordingPanel, event: Detection, labels: Sequence[str]) -> None:
    """One event as a white box with a dark rim; the whole height where its band is unknown."""
    centres = np.asarray(panel.mel_centres_hz, float)
    rows = np.arange(len(centres))
    known = event.low_freq is not None and event.high_freq is not None
    low = float(np.interp(event.low_freq, centres, rows)) if known else -0.5
    high = float(np.interp(event.high_freq, centres, rows)) if known else len(centres) - 0.5
    corner, size = (event.onset, low), (event.offset - event.onset, max(high - low, 1.0))
    dash = _DASH[event.kind]
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="#000000", linewidth=2.6))
    axes.add_patch(
        Rectangle(corner, *size, fill=False, edgecolor="#ffffff", linewidth=1.3, linestyle=dash)
    )
    shown = event.label in labels
    # Given events bear their tag above, found ones below: the two often cover each other.
    given = event.kind in _GIVEN
    axes.annotate(
        str(labels.index(event.label) + 1) if shown else shorten(event.label, 8),
        (event.onset, low + size[1] if given else low),
        xytext=(3, -3 if given else 3),
        textcoords="offset points",
        ha="left",
        va="top" if given else "bottom",
        fontsize=10,
        color="#ffffff",
        annotation_clip=True,
        clip_on=True,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "#000000", "edgecolor": "none"},
    )


def _draw_strip(
    axes: Axes, panel: RecordingPanel, label: str, number: int, max_points: int
) -> None:
    colour = SERIES_COLOURS[(number - 1) % len(SERIES_COLOURS)]
    times, values = trace(panel, label, max_points)
    if len(times):
        axes.fill(
            np.concatenate([times[:1], times, times[-1:]]),
            np.concatenate([[0.0], np.nan_to_num(values), [0.0]]),
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    axes.plot(times, values, color=colour, linewidth=1.5)
    axes.axhline(0, color=LIGHT["line"], linewidth=0.8)
    axes.axhline(0.5, color=LIGHT["line"], linewidth=0.8, linestyle=":")
    for event in panel.events:
        if event.label == label:
            bottom, height = _GIVEN_ROW if event.kind in _GIVEN else _FOUND_ROW
            width = event.offset - event.onset
            axes.add_patch(Rectangle((event.onset, bottom), width, height, **_look(event.kind)))
    axes.set_ylim(-0.8, _STRIP_TOP)
    axes.set_yticks([0, 0.5, 1], ["0", "", "1"])
    title = shorten(panel.title_of(label), 28)
    if not np.isfinite(values).any():
        title += " (no scores)"
    _corner_text(axes, 0, str(number), LIGHT["card"], LIGHT["ink"])
    _corner_text(axes, 10 + 8 * len(str(number)), title, LIGHT["ink"], (LIGHT["card"], 0.75))


def _corner_text(axes: Axes, right_px: float, text: str, colour: str, ground: object) -> None:
    """Text at the top left corner of a strip, moved right by some pixels."""
    axes.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(4 + right_px, -3),
        textcoords="offset points",
        ha="left",
        va="top",
        fontsize=11,
        color=colour,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": ground, "edgecolor": "none"},
    )


def _look(kind: EventKind) -> dict:
    return {
        "edgecolor": _EDGE[kind],
        "facecolor": _FILL[kind],
        "hatch": _HATCH.get(kind),
        "linestyle": _DASH[kind],
        "linewidth": 1.3,
    }


def trace(
    panel: RecordingPanel, label: str, max_points: int = MAX_TRACE_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and probabilities of one class, thinned by maximum to few enough points."""
    probability = expit(np.asarray(panel.frame_logit[panel.labels.index(label)], dtype=np.float64))
    n = len(probability)
    if n == 0:
        return np.zeros(0), np.zeros(0)
    starts = np.linspace(0, n, min(n, max_points) + 1).astype(int)
    middle = (starts[:-1] + starts[1:]) / 2 * panel.frame_hop_s
    return middle, np.fmax.reduceat(probability, starts[:-1])


def _share_time_axis(axes: Sequence[Axes], duration_s: float, width_px: int) -> None:
    locator = MaxNLocator(nbins=6 if width_px < _NARROW_BELOW_PX else 12)
    for item in axes:
        item.set_xlim(0, duration_s)
        item.xaxis.set_major_locator(locator)
        item.tick_params(axis="x", labelbottom=item is axes[-1])
    axes[-1].set_xlabel("seconds")


def _draw_legend(figure: Figure, kinds: Sequence[EventKind], left: float, n_columns: int) -> None:
    if not kinds:
        return
    handles = [Patch(label=kind.value, **_look(kind)) for kind in kinds]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(left, 0),
        ncols=n_columns,
        borderpad=0,
        borderaxespad=0.2,
        handlelength=2.4,
        columnspacing=1.4,
    )
