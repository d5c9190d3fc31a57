#!/usr/bin/env python3
r"""Pictures for papers, as PNG and SVG.

    bin/plot.py recording site1.flac --end 12 --true events.csv --detected found.csv --out fig1
    bin/plot.py pr --system one=a/test.npz --truth events.csv --recordings recordings.csv --out fig2

`recording` draws a spectrogram with events and scores over time; `pr` precision against recall,
`alarms` recall against false alarms per hour and `psds` the curve of PSDS, of any number of
systems. docs/scoring.md shows each of them.
"""

import argparse
import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser

FORMATS = ("png", "svg")
PSDS = ("psds1", "psds2")


def _shared() -> ScriptParser:
    shared = ScriptParser(add_help=False)
    add = shared.add_argument_group("the picture").add_argument
    add("--out", type=Path, required=True, help="file name without its ending")
    add("--format", nargs="+", default=list(FORMATS), choices=FORMATS)
    add("--width-cm", type=float, default=17.0, help="(%(default)s)")
    add("--height-cm", type=float, help="(default: what the content needs)")
    add("--dpi", type=int, default=300, help="of PNG (%(default)s)")
    add("--font-pt", type=float, default=9.0, help="(%(default)s)")
    add("--force", action="store_true", help="write over a picture that is there")
    add("--label", nargs="+", default=[], help="classes (default: recording: those that sound)")
    add("--recordings", type=Path, help="recordings.csv")
    add("--threshold", type=float, default=0.5, help="least score of a detection (%(default)s)")
    return shared


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("recording", parents=[_shared()], help="spectrogram, events, scores")
    add = one.add_argument
    add("recording", help="a sound file, or an id of --recordings")
    add("--datadir", type=Path, default=Path(), help="what paths in --recordings start from")
    add("--start", type=float, default=0.0, help="seconds (%(default)s)")
    add("--end", type=float, help="seconds (default: the end)")
    for kind in ("true", "pseudo", "detected"):
        add(f"--{kind}", type=Path, help=f"table of {kind} events")
    add("--scores", type=Path, help="npz of scores over time")
    add("--n-classes", type=int, default=4, help="strips at most (%(default)s)")
    add("--f-min", type=float, default=0.0, help="hertz (%(default)s)")
    add("--f-max", type=float, help="hertz (default: half the sample rate)")
    add("--window-ms", type=float, default=25.0, help="of the spectrogram (%(default)s)")
    add("--colours", default="magma", choices=("magma", "grey"))
    add("--no-spectrogram", action="store_true", help="scores over time alone")
    for name in ("pr", "alarms", "psds"):
        several = kinds.add_parser(name, parents=[_shared()])
        add = several.add_argument
        add("--system", action="append", required=True, metavar="NAME=FILE")
        add("--truth", type=Path, required=True)
        add("--subset")
        add("--classes", type=Path)
        add("--iou", type=float, default=0.3, help="0: any overlap (%(default)s)")
        levels = ("clip", "event", "collar") if name == "pr" else ("event",)
        add("--level", default="event", choices=levels, help="collar needs `make setup-eval`")
        add("--collar", type=float, default=0.2, help="seconds (%(default)s)")
        add("--offset-share", type=float, default=0.5, help="of the event's length (%(default)s)")
        add("--onset-only", action="store_true", help="offsets may lie anywhere")
        add("--candidates", type=float, default=0.1, help="of npz scores (%(default)s)")
        add("--most", type=float, help="false alarms per hour at the right end")
        add("--setting", default="psds1", choices=PSDS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Draw; the exit code is 0 when done, 1 for a fault of the files, 2 for one of the options."""
    args = parse_args(argv)

    from local.io.errors import CanopyError
    from local.report.plots.from_files import draw_recording, draw_systems
    from local.report.plots.page import Page, save

    try:
        page = Page(args.width_cm, args.height_cm, args.dpi, args.font_pt)
        figure = (draw_recording if args.kind == "recording" else draw_systems)(args, page)
        paths = save(figure, args.out, args.format, page, args.force)
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
