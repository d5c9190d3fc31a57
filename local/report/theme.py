"""Colours for two schemes and the way from a matplotlib figure to bytes.

Figures are drawn in the light colours. `to_svg` turns each of them into a CSS variable with a dark
value beside it, so that one SVG follows the reader's scheme, even inside an `<img>`. `to_png` keeps
the light colours on a plain card. One unit of a figure is one CSS pixel: `new_figure` takes pixels.

No pyplot and no lasting change of matplotlib's settings: `drawing()` sets them for a block.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

# token: (light, dark). Text tokens reach a contrast of 4.5 on `card`, the others 3.
TOKENS: dict[str, tuple[str, str]] = {
    "page": ("#f3f6f4", "#111613"),
    "card": ("#fefefe", "#1a211d"),
    "ink": ("#17211c", "#e6ece8"),
    "muted": ("#55615a", "#9fada5"),
    "line": ("#d5dcd8", "#37423c"),
    "edge": ("#7f8b84", "#748078"),
    "blue": ("#0b62a4", "#62b0f0"),
    "orange": ("#b84a00", "#ff9a5c"),
    "green": ("#00785a", "#35c79b"),
    "purple": ("#8f3f86", "#e08fd6"),
    "ochre": ("#7d6300", "#d9b93b"),
}
LIGHT = {token: pair[0] for token, pair in TOKENS.items()}

# Series are told apart by marker and dash as well as by colour.
SERIES_COLOURS = tuple(LIGHT[name] for name in ("blue", "orange", "green", "purple", "ochre"))
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SERIES_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))

_SETTINGS = {
    # Labels are untrusted and "$" is an ordinary character in them.
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12.0,
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": 12.0,
    "axes.edgecolor": LIGHT["line"],
    "axes.facecolor": "none",
    "axes.titlesize": 12.5,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 1.0,
    "svg.fonttype": "none",
    # Fixed, so that the same run gives the same page byte for byte.
    "svg.hashsalt": "canopy",
    "path.simplify": True,
    "figure.dpi": 72.0,
}
# "<" and quotes cannot stand in the text of an SVG, so these match drawing alone, never a label.
_PATH = re.compile(rb'<path (?:id="[^"]*" )?d="[^"]*"')
_LONG_DECIMAL = re.compile(rb"(\.\d\d)\d+")
_STYLE = re.compile(rb'<[^<>]* style="[^"]*"')
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def drawing() -> Iterator[None]:
    """Give matplotlib the report's look inside the block."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(width_px: float, height_px: float) -> Figure:
    """An empty transparent figure of that many CSS pixels."""
    return Figure(figsize=(width_px / 72, height_px / 72), facecolor="none")


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the figure's top left corner."""
    figure_width, figure_height = figure.get_size_inches() * 72
    return figure.add_axes(
        (
            left / figure_width,
            1 - (top + height) / figure_height,
            width / figure_width,
            height / figure_height,
        )
    )


def to_svg(figure: Figure) -> bytes:
    """The figure as an SVG that follows the reader's light or dark scheme."""
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    svg = _PATH.sub(lambda found: _LONG_DECIMAL.sub(rb"\1", found[0]), buffer.getvalue())
    svg = _STYLE.sub(_with_variables, svg)
    style = f"<style>{css_variables('svg')}</style>".encode()
    return svg.replace(b"<defs>", style + b"<defs>", 1)


def to_png(figure: Figure, scale: float = 1.5) -> bytes:
    """The figure as a PNG in the light colours, `scale` picture points a CSS pixel."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="png", dpi=72 * scale, facecolor=LIGHT["card"])
    return _indexed(buffer.getvalue())


def _with_variables(tag: re.Match) -> bytes:
    text = tag[0]
    for token, light in LIGHT.items():
        text = text.replace(light.encode(), f"var(--{token})".encode())
    return text


def _indexed(png: bytes) -> bytes:
    """The same opaque picture with at most 256 colours in a table: a third of the size."""
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def css_variables(selector: str) -> str:
    """CSS that defines every token as a variable of `selector`, light and dark.

    An attribute `data-scheme` of the selected element wins over what the system says.
    """
    light = "".join(f"--{token}:{pair[0]};" for token, pair in TOKENS.items())
    dark = "".join(f"--{token}:{pair[1]};" for token, pair in TOKENS.items())
    return (
        f"{selector}{{{light}}}@media (prefers-color-scheme:dark)"
        f"{{{selector}:not([data-scheme=light]){{{dark}}}}}{selector}[data-scheme=dark]{{{dark}}}"
    )
