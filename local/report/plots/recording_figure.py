"""A recording, or a part of it: spectrogram with boxes, below it one strip a class.

A strip holds the class's score over time and three rows of bars: true (filled), pseudo (hatched)
and detected (open). Boxes on the spectrogram have the same three lines: solid, dash-dot, dashed;
events without frequencies have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from scipy.signal import ShortTimeFFT, get_window

from local.io.errors import CanopyError
from local.report.plots.page import COLOURS, Page

KINDS = ("true", "pseudo", "detected")
_RANGE_DB = 70.0
_LINE: dict[str, Any] = {"true": "-", "pseudo": (0, (5, 1.5, 1, 1.5)), "detected": (0, (3, 1.5))}
_FILL = {
    "true": {"facecolor": COLOURS[0], "edgecolor": COLOURS[0]},
    "pseudo": {"facecolor": "white", "edgecolor": COLOURS[2], "hatch": "//////"},
    "detected": {"facecolor": "white", "edgecolor": COLOURS[1]},
}
# Columns of a picture: more do not show and make an SVG heavy.
_MAX_COLUMNS = 3000


@dataclass(frozen=True)
class Annotated:
    """An event to draw: seconds, label, kind of `KINDS`; hertz, or NaN where unknown."""

    onset: float
    offset: float
    label: str
    kind: str
    low_freq: float = float("nan")
    high_freq: float = float("nan")


@dataclass(frozen=True)
class RecordingPicture:
    """What to draw.

    audio: (n,) samples of [start_s, end_s). scores: label -> (times in s, values in 0..1). labels:
    the strips, in this order. spectrogram False leaves it out.
    """

    audio: np.ndarray
    sample_rate: int
    start_s: float
    end_s: float
    labels: Sequence[str]
    events: Sequence[Annotated] = ()
    scores: dict[str, tuple[np.ndarray, np.ndarray]] | None = None
    threshold: float | None = None
    spectrogram: bool = True
    colours: str = "magma"
    f_min: float = 0.0
    f_max: float | None = None
    window_ms: float = 25.0


def read_part(path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int, float]:
    """The mean of the channels of [start_s, end_s), the sample rate, and the end in seconds."""
    try:
        with soundfile.SoundFile(path) as sound:
            rate = sound.samplerate
            length = sound.frames / rate
            end = length if end_s is None else min(end_s, length)
            if not 0 <= start_s < end:
                raise CanopyError(
                    f"{path}: --start {start_s:g} and --end {end:g} hold nothing of its "
                    f"{length:.2f} s"
                )
            sound.seek(round(start_s * rate))
            samples = sound.read(round((end - start_s) * rate), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise CanopyError(f"{path}: not readable as sound ({error})") from None
    return samples.mean(axis=1), rate, end


def recording_figure(picture: RecordingPicture, page: Page) -> Figure:
    """Draw it; see the module."""
    kinds = [kind for kind in KINDS if any(event.kind == kind for event in picture.events)]
    n_strips = len(picture.labels)
    top = 5.0 if picture.spectrogram else 0.0
    heights = ([top] if picture.spectrogram else []) + [1.6] * n_strips
    if not heights:
        raise CanopyError("nothing to draw; name classes, or leave the spectrogram in")
    with page.drawing():
        figure = page.figure(sum(heights) + 1.4)
        axes = np.atleast_1d(
            figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
        )
        strips = axes
        if picture.spectrogram:
            _draw_spectrogram(figure, axes[0], picture, page)
            strips = axes[1:]
        for label, strip in zip(picture.labels, strips, strict=True):
            _draw_strip(strip, picture, label, kinds, page)
        axes[-1].set_xlabel("time (s)")
        axes[-1].set_xlim(picture.start_s, picture.end_s)
        _legend(figure, picture, kinds)
    return figure


def decibels(picture: RecordingPicture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power (F, T) in dB below the loudest cell, and the borders of its columns and rows."""
    n_fft = max(16, round(picture.window_ms / 1000 * picture.sample_rate))
    audio = np.pad(picture.audio.astype(np.float64), (0, max(0, n_fft - len(picture.audio))))
    hop = max(1, n_fft // 4, len(audio) // _MAX_COLUMNS)
    transform = ShortTimeFFT(
        get_window("hann", n_fft), hop, picture.sample_rate, mfft=2 * n_fft, scale_to="psd"
    )
    # Edges that reach into the silence around the part are left out.
    power = transform.spectrogram(audio, p0=0, p1=len(audio) // hop + 1)
    level = 10 * np.log10(np.maximum(power, 1e-20))
    times = picture.start_s + (np.arange(power.shape[1] + 1) - 0.5) * hop / picture.sample_rate
    step = transform.f[1]
    return level - level.max(), times, np.append(transform.f, transform.f[-1] + step) - step / 2


def _draw_spectrogram(figure: Figure, axes: Axes, picture: RecordingPicture, page: Page) -> None:
    level, times, frequencies = decibels(picture)
    high = picture.f_max or picture.sample_rate / 2
    if not picture.f_min < high <= picture.sample_rate / 2:
        raise CanopyError(
            f"--f-max is {high:g} Hz and --f-min {picture.f_min:g} Hz; the recording holds 0 to "
            f"{picture.sample_rate / 2:g} Hz"
        )
    unit = 1000.0 if high >= 2000 else 1.0
    mesh = axes.imshow(
        level,
        origin="lower",
        aspect="auto",
        interpolation="antialiased",
        cmap="gray_r" if picture.colours == "grey" else "magma",
        # Background at the bottom of the scale, and single clicks beyond its top.
        vmin=max(-_RANGE_DB, float(np.percentile(level, 10))),
        vmax=float(np.percentile(level, 99.9)),
        extent=(times[0], times[-1], frequencies[0] / unit, frequencies[-1] / unit),
    )
    axes.set_ylim(picture.f_min / unit, high / unit)
    axes.set_ylabel("frequency (kHz)" if unit == 1000 else "frequency (Hz)")
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03, aspect=20)
    bar.set_label("level (dB)")
    outline: Any = bar.outline  # a Spine: its annotation says what it is called with
    outline.set_linewidth(0.4)
    rows: list[list[tuple[float, float]]] = []
    for event in sorted(picture.events, key=lambda one: (KINDS.index(one.kind), one.onset)):
        _draw_box(axes, event, picture, unit, page, rows)


def _draw_box(
    axes: Axes,
    event: Annotated,
    picture: RecordingPicture,
    unit: float,
    page: Page,
    taken: list[list[tuple[float, float]]],
) -> None:
    if event.offset <= picture.start_s or event.onset >= picture.end_s:
        return
    if np.isnan(event.low_freq) or np.isnan(event.high_freq):
        # Boxes over all frequencies would hide the rest; the strip below shows the event.
        return
    bottom, top = axes.get_ylim()
    low, high = max(bottom, event.low_freq / unit), min(top, event.high_freq / unit)
    if high <= low:
        return
    size = (event.offset - event.onset, high - low)
    inner, outer = ("white", "black") if picture.colours != "grey" else ("black", "white")
    for colour, width, line in ((outer, 2.2, "-"), (inner, 1.1, _LINE[event.kind])):
        axes.add_patch(
            Rectangle(
                (event.onset, low),
                *size,
                fill=False,
                edgecolor=colour,
                linewidth=width,
                linestyle=line,
            )
        )
    if event.kind != "true" and any(
        other.kind == "true"
        and other.label == event.label
        and not np.isnan(other.low_freq + other.high_freq)
        and min(other.offset, event.offset) > max(other.onset, event.onset)
        for other in picture.events
    ):
        # The true event bears the name already.
        return
    # Names stand in rows at the top, moved down where another one is in the way.
    length_s = picture.end_s - picture.start_s
    width_s = len(event.label) * page.font_pt * 0.75 / 28.35 / (page.width_cm * 0.82) * length_s
    begin = min(max(event.onset, picture.start_s), picture.end_s - width_s)
    span = (begin, begin + width_s)
    row = next(
        (i for i, row in enumerate(taken) if all(span[1] <= a or span[0] >= b for a, b in row)),
        len(taken),
    )
    if row == len(taken):
        taken.append([])
    taken[row].append(span)
    axes.annotate(
        event.label,
        (begin, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(1, -2 - row * page.font_pt * 1.35),
        textcoords="offset points",
        ha="left",
        va="top",
        fontsize=page.font_pt * 0.85,
        color="white",
        clip_on=True,
        bbox={"boxstyle": "square,pad=0.12", "facecolor": "black", "edgecolor": "none"},
    )


def _draw_strip(
    axes: Axes, picture: RecordingPicture, label: str, kinds: Sequence[str], page: Page
) -> None:
    if picture.scores and label in picture.scores:
        times, values = picture.scores[label]
        axes.plot(times, values, color=COLOURS[1], linewidth=1.0)
        axes.fill_between(times, values, color=COLOURS[1], alpha=0.15, linewidth=0)
        if picture.threshold is not None:
            axes.axhline(picture.threshold, color="0.35", linewidth=0.7, linestyle=":")
    height, gap = 0.2, 0.07
    for row, kind in enumerate(kinds):
        bottom = -(row + 1) * (height + gap)
        for event in picture.events:
            if event.kind == kind and event.label == label:
                width = event.offset - event.onset
                axes.add_patch(Rectangle((event.onset, bottom), width, height, **_look(kind)))
    axes.axhline(0, color="0.6", linewidth=0.5)
    axes.set_ylim(-len(kinds) * (height + gap) - gap, 1.05)
    axes.set_yticks([0, 1])
    axes.set_ylabel("score")
    axes.set_title(label, loc="left", pad=2, fontsize=page.font_pt * 0.9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _look(kind: str) -> dict:
    return {"linestyle": _LINE[kind], "linewidth": 0.9, **_FILL[kind]}


def _legend(figure: Figure, picture: RecordingPicture, kinds: Sequence[str]) -> None:
    handles: list = []
    for kind in kinds:
        if len(picture.labels):
            handles.append(Patch(label=kind, **_look(kind)))
        else:
            handles.append(Line2D([], [], color="black", linestyle=_LINE[kind], label=kind))
    if picture.scores:
        handles.append(Line2D([], [], color=COLOURS[1], label="score"))
        if picture.threshold is not None:
            text = f"threshold {picture.threshold:g}"
            handles.append(Line2D([], [], color="0.35", linestyle=":", label=text))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
