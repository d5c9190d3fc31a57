"""Try rules for deciding on many small competitions, and write down what each is worth.

    python -m recipes.rfcx.transfer --sounds PATH/TO/SOUNDS

Every competition is trained once for each seed, which takes minutes each; its scores stay below
--expdir, and every rule is then tried on all of them. Competitions of real sounds need folders of
--sounds: esc10 (class folders of clips), soundscapes and soundscapes_town; those that are not there
are passed over. Trained anew is what has no scores: after a change of settings give another
--expdir. With no competition left out the table goes to recipes/rfcx/TRANSFER.md.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from local.io.errors import CanopyError
from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script
from recipes.rfcx.ladder.climb import ROOT
from recipes.rfcx.transfer.competitions import COMPETITIONS, Competition
from recipes.rfcx.transfer.first_training import place_of, train
from recipes.rfcx.transfer.relabelling import CYCLES, cycles_table, run_cycles

PAGE = Path("recipes/rfcx/TRANSFER.md")
NAMES = [one.name for one in COMPETITIONS]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__, prog="transfer")
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0], help="competitions and trainings (0)")
    add("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    add("--sounds", type=Path, default=Path("data/sounds"), help="real sounds (%(default)s)")
    add("--expdir", type=Path, default=Path("exp/transfer"), help="%(default)s")
    add("--cycles", nargs="+", choices=list(CYCLES), default=[], help="of relabelling, to run too")
    add("--page", type=Path, default=PAGE, help="the table (%(default)s)")
    return parser.parse_args(argv)


def chosen(args: argparse.Namespace) -> tuple[list[Competition], list[str]]:
    """Competitions that can be tried, and names of those whose sounds are not there."""
    wanted = [one for one in COMPETITIONS if args.only is None or one.name in args.only]
    there, passed = [], []
    for one in wanted:
        needed = one.needs(args.sounds)
        if needed is None or needed.is_dir():
            there.append(one)
        else:
            passed.append(one.name)
    if not there:
        raise CanopyError(f"--sounds {args.sounds}: holds no sounds of what --only names")
    return there, passed


def main(argv: list[str] | None = None) -> int:
    """Train what is not trained, try every rule, write the page."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    args.sounds, args.expdir = args.sounds.absolute(), args.expdir.absolute()
    args.page = (ROOT / args.page) if args.page == PAGE else args.page.absolute()
    os.chdir(ROOT)

    from recipes.rfcx.transfer.page import write_page
    from recipes.rfcx.transfer.tables import make_tables

    competitions, passed = chosen(args)
    for name in passed:
        print(f"transfer: {name} is passed over, its sounds are not there", file=sys.stderr)
    places = [
        place_of(one, seed, args.expdir, args.sounds) for seed in args.seeds for one in competitions
    ]
    for place in places:
        train(place, args.sounds)
        for tag in args.cycles:
            run_cycles(place, tag, args.sounds)
    ranking, events = make_tables(places)
    page = args.page
    if args.page == ROOT / PAGE and (passed or args.only):
        page = args.expdir / "TRANSFER.md"
        print(f"transfer: {PAGE} is written with all competitions alone", file=sys.stderr)
    told = f" TRANSFER={shlex.quote(shlex.join(argv))}" if argv else ""
    write_page(page, f"make transfer{told}", ranking, events, cycles_table(places), passed)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
