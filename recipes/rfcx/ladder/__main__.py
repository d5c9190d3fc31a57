"""Climb the ladder and write it down.

    python -m recipes.rfcx.ladder --seeds 0 1 2

On simulated competitions: from confirmed rows alone to the finished default, then test-time
augmentation and a blend, and the same model with the full truth as ceiling. Everything lies below
--expdir; what is done is passed over, so a ladder that was stopped goes on. The table goes to
EXPDIR/ladder.md and, when all runs of at least three seeds are in it, to recipes/rfcx/RESULTS.md.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from local.config import load_config
from local.io.errors import CanopyError
from local.io.files import write_json, write_text
from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script
from recipes.rfcx.ladder.climb import (
    ROOT,
    Plan,
    Runner,
    blended,
    climb,
    commands,
    data_command,
    run_command,
    shown,
)
from recipes.rfcx.ladder.rungs import RUNS, list_rungs

NAMES = [run.name for run in RUNS]
RESULTS = Path("recipes/rfcx/RESULTS.md")
# Fewer seeds say too little for the page that people read.
LEAST_SEEDS = 3


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__, prog="ladder")
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="competitions and trainings")
    add("--rungs", nargs="+", default=NAMES, choices=NAMES, metavar="RUN", help=", ".join(NAMES))
    add("--epochs", type=int, help="epochs of every training (default: the configuration's)")
    add("--cycles", type=int, default=2, help="relabelling cycles to show (%(default)s)")
    add("--conf", type=Path, default=Path("conf/demo/ladder.yaml"), help="%(default)s")
    add("--expdir", type=Path, default=Path("exp/ladder"), help="%(default)s")
    add("--results", type=Path, default=RESULTS, help="page that gets the table (%(default)s)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--jobs", type=int, default=1, help="seeds at once (%(default)s)")
    add("--nj", type=int, help="processes of each of them (default: its share of the cores)")
    add("--dry-run", action="store_true", help="print the commands and do nothing")
    return parser.parse_args(argv)


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan of a command line; `CanopyError` where it cannot be carried out."""
    for name, least in (("epochs", 1), ("cycles", 0), ("jobs", 1), ("nj", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise CanopyError(f"--{name} is {value}; it must be {least} or more")
    if len(set(args.seeds)) < len(args.seeds) or min(args.seeds) < 0:
        given = " ".join(map(str, args.seeds))
        raise CanopyError(f"--seeds is {given}; give different numbers from 0 up")
    jobs = min(args.jobs, len(args.seeds))
    config = load_config(args.conf)
    plan = Plan(
        conf=args.conf,
        config=config,
        expdir=args.expdir,
        seeds=args.seeds,
        runs=[name for name in NAMES if name in args.rungs],
        epochs=args.epochs,
        cycles=max(args.cycles, config.relabel.n_cycles),
        device=args.device,
        jobs=jobs,
        nj=args.nj or max(1, (os.cpu_count() or 1) // jobs),
    )
    _check_runs(plan)
    return plan


def _check_runs(plan: Plan) -> None:
    if "tta" in plan.runs and "default" not in plan.runs:
        raise CanopyError("--rungs has tta, which uses the models of default; add default")
    blends = [run.name for run in plan.chosen if run.kind == "blend"]
    if blends and len(blended(plan)) < 2:
        raise CanopyError(f"--rungs has {blends[0]}, which needs two of tta, default and pull")


def main(argv: list[str] | None = None, runner: Runner = run_command) -> int:
    """Run what is not done, score everything, write the table."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)

    from recipes.rfcx.ladder.page import numbers, put_section, section
    from recipes.rfcx.ladder.scores import measure

    # Commands run in the project's folder; paths are told as seen from there.
    os.chdir(ROOT)
    plan = make_plan(args)
    if args.dry_run:
        for seed in plan.seeds:
            every = [command for run in plan.chosen for command in commands(plan, run, seed)]
            print("\n".join(shown(command) for command in [data_command(plan, seed), *every]))
        return 0
    clock = climb(plan, runner)
    measured = measure(plan, list_rungs(plan.default_cycles, plan.cycles))
    extra = f" LADDER={shlex.quote(shlex.join(argv))}" if argv else ""
    text = section(plan, measured, clock, f"make ladder{extra}")
    write_json(plan.expdir / "ladder.json", numbers(plan, measured, clock))
    write_text(plan.expdir / "ladder.md", text)
    print(text)
    if plan.runs == NAMES and len(plan.seeds) >= LEAST_SEEDS:
        put_section(args.results, text)
        print(f"ladder: written to {args.results}", file=sys.stderr)
    else:
        print(
            f"ladder: {plan.expdir / 'ladder.md'} has the table; {args.results} is written with "
            f"all rungs and {LEAST_SEEDS} seeds or more",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
