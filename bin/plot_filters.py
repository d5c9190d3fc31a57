#!/usr/bin/env python3
"""Draw the learned filters of a model of raw waveforms, before training and after.

    bin/plot_filters.py --model exp/bats/default/cycle0/fold0/best.pt --output filters.png

The name of --output says the kind of picture: .png or .svg. With --csv the edges of every filter,
in hertz, go to a table.
"""

import argparse
import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="best.pt of a fold")
    parser.add_argument("--output", type=Path, required=True, help="picture to write")
    parser.add_argument("--csv", type=Path, help="table of edges to write")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Draw; the exit code is 0 when done, 1 for a fault of the files."""
    args = parse_args(argv)

    from local.io.errors import CanopyError
    from local.report.filters import draw_filters

    try:
        draw_filters(args.model, args.output, args.csv)
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
