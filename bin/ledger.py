#!/usr/bin/env python3
"""The ledger of finished runs: show it, fill in leaderboard scores, draw CV against them.

    bin/ledger.py                                       # table and correlations
    bin/ledger.py --plot exp/ledger.svg                 # and the scatter
    bin/ledger.py set v021 --public 0.951 --private 0.957

Stage 5 of every run adds its row. `set` writes into the one row of that tag; where a tag was run
with several configurations, --fingerprint (column `run`) says which.
"""

import argparse
import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser

DEFAULT = Path("exp/ledger.csv")
HAND_COLUMNS = ("public", "private")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    shared = ScriptParser(add_help=False)
    # No defaults here: the value may stand before or after `set`.
    shared.add_argument(
        "--ledger",
        type=Path,
        default=argparse.SUPPRESS,
        help=f"the ledger's file (default: {DEFAULT})",
    )
    shared.add_argument("--recipe", default=argparse.SUPPRESS, help="only runs of this recipe")
    parser = ScriptParser(__doc__, parents=[shared])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the scatter (.svg or .png)")
    commands = parser.add_subparsers(dest="command", metavar="set", title="to fill in scores")
    fill = commands.add_parser(
        "set",
        help="write leaderboard scores into a run's row",
        description="Write leaderboard scores into the row of a run.",
        parents=[shared],
    )
    fill.add_argument("tag", metavar="TAG", help="name of the run (column `tag`)")
    for name in HAND_COLUMNS:
        fill.add_argument(f"--{name}", type=float, help=f"{name} leaderboard score, 0 to 1")
    fill.add_argument("--fingerprint", help="first digits of the run's fingerprint")
    args = parser.parse_args(argv)
    if args.command == "set" and all(getattr(args, name) is None for name in HAND_COLUMNS):
        fill.error("give --public, --private or both")
    return args


def main(argv: list[str] | None = None) -> int:
    """Show, draw or fill in; exit code 0 when done, 1 for a fault, 2 for one of the options."""
    args = parse_args(argv)

    from local.io.errors import CanopyError

    try:
        return run(args)
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks for."""
    from local.report.ledger import agreements, fill_in, read_ledger
    from local.report.ledger_view import agreement_lines, ledger_table, write_scatter

    path, recipe = getattr(args, "ledger", DEFAULT), getattr(args, "recipe", None)
    if args.command == "set":
        given = {name: getattr(args, name) for name in HAND_COLUMNS}
        scores = {name: value for name, value in given.items() if value is not None}
        row = fill_in(path, args.tag, scores, recipe, args.fingerprint)
        written = ", ".join(f"{name} {row[name]}" for name in scores)
        print(f"{path}: {row['recipe']} {row['tag']} ({row['fingerprint'][:6]}): {written}")
        return 0
    frame = read_ledger(path)
    if recipe is not None:
        frame = frame[frame["recipe"] == recipe]
    print(ledger_table(frame, path))
    if len(frame):
        print("", *agreement_lines(agreements(frame, path)), sep="\n")
    if args.plot:
        write_scatter(args.plot, frame, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
