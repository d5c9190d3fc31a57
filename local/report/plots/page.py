"""Size, letters and files of a picture."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from local.io.errors import CanopyError
from local.io.files import atomic_path

CM_PER_INCH = 2.54
# Okabe and Ito (2008): told apart by readers with any common colour blindness.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "X")


@dataclass(frozen=True)
class Page:
    """Width and height in cm (height None: what the content needs), letters in points."""

    width_cm: float = 17.0
    height_cm: float | None = None
    dpi: int = 300
    font_pt: float = 9.0

    def __post_init__(self) -> None:
        faults = {
            "--width-cm": (self.width_cm, 3, 200),
            "--height-cm": (self.height_cm or 10, 2, 200),
            "--dpi": (self.dpi, 30, 1200),
            "--font-pt": (self.font_pt, 4, 40),
        }
        for option, (value, low, high) in faults.items():
            if not low <= value <= high:
                raise CanopyError(f"{option} is {value:g}; it must lie between {low} and {high}")

    def figure(self, height_cm: float) -> Figure:
        """An empty figure; `height_cm` is taken where the page has none of its own."""
        height = self.height_cm or height_cm
        size = (self.width_cm / CM_PER_INCH, height / CM_PER_INCH)
        return Figure(figsize=size, layout="constrained", facecolor="white")

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Give matplotlib this page's look inside the block."""
        settings = {
            # Labels are untrusted and "$" is an ordinary character in them.
            "text.parse_math": False,
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": self.font_pt,
            "axes.labelsize": self.font_pt,
            "axes.titlesize": self.font_pt,
            "xtick.labelsize": self.font_pt * 0.9,
            "ytick.labelsize": self.font_pt * 0.9,
            "legend.fontsize": self.font_pt * 0.9,
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.1,
            "hatch.linewidth": 0.7,
            "legend.frameon": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "canopy",
        }
        with matplotlib.rc_context(settings):
            yield


def save(figure: Figure, stem: Path, formats: Sequence[str], page: Page, force: bool) -> list[Path]:
    """Write `stem`.png and/or `stem`.svg; a file that is there needs `force`."""
    paths = [stem.with_name(f"{stem.name}.{name}") for name in formats]
    for path in paths:
        if path.exists() and not force:
            raise CanopyError(f"{path} is there already; give another --out, or --force")
    for path, name in zip(paths, formats, strict=True):
        (FigureCanvasSVG if name == "svg" else FigureCanvasAgg)(figure)
        with page.drawing(), atomic_path(path) as temporary:
            metadata = {"Date": None} if name == "svg" else None
            figure.savefig(temporary, format=name, dpi=page.dpi, metadata=metadata)
    return paths
