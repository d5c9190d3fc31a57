#!/usr/bin/env python3
"""The rule that makes events of a run's scores, fitted out-of-fold, and the events it makes.

    bin/tune_events.py exp/usv/default --tables dump/usv/tables --out exp/usv/default/events

What stage 5 does with `events.tune`, alone: for other grids, or runs that were made without it.
Reads folds.csv, the last cycle's oof.npz and test.npz. Writes rule.json (the rule, its F1 and that
of rules fitted on the other folds), oof_events.csv (each fold's events by the rule of the others)
and test_events.csv. Annotations must be complete. `bin/detect.py RUN` goes by rule.json where --out
is the run's own folder; elsewhere, give it the options that are printed.
"""

import argparse
import sys
from pathlib import Path

from local.config.score import EventsConfig
from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script

# The option and the value of section `events` that it stands for.
GRID = {"thresholds": "thresholds", "drops": "drops", "durations": "durations_s", "gaps": "gaps_s"}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    grid = EventsConfig()
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="EXPDIR/TAG of a finished run")
    add("--tables", type=Path, required=True, help="DUMPDIR/tables of the run")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add("--iou", type=float, nargs="+", default=[0.0, 0.5], help="limits; 0: any overlap")
    add("--copies", metavar="PATTERN", help="ids that the rule is fitted on and no figure is of")
    add("--n-bootstrap", type=int, default=1000, help="resamples of the intervals (%(default)s)")
    for name, key in GRID.items():
        values = getattr(grid, key)
        add(f"--{name}", type=float, nargs="+", default=None if values is None else list(values))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Fit the rule and make the events."""
    args = parse_args(argv)

    from local.config import parse_section
    from local.data.annotated import Annotated
    from local.data.folds import read_folds
    from local.data.tables import read_tables
    from local.inference.score_files import (
        load_scores,
    )
    from local.io.errors import CanopyError
    from local.io.limits import MAX_RESAMPLES
    from local.jobs.locks import lock_folder
    from local.scoring.event_rules.tuning import RuleGrid, table_of_events, tune, write_events

    if not 0 <= args.n_bootstrap <= MAX_RESAMPLES:
        raise CanopyError(
            f"--n-bootstrap is {args.n_bootstrap}; give 0 (no intervals) to {MAX_RESAMPLES}"
        )
    cycles = [path for path in args.run.glob("cycle*") if (path / "oof.npz").is_file()]
    if not cycles:
        raise CanopyError(f"{args.run}: no out-of-fold scores; run stages 2 and 3 first")
    cycle = max(cycles, key=lambda path: int(path.name.removeprefix("cycle")))
    tables = read_tables(args.tables)
    folds = read_folds(args.run / "folds.csv", tables.recordings).set_index("recording_id")["fold"]
    chosen = {key: getattr(args, name) for name, key in GRID.items()}
    # Values that were given are judged as those of section `events` are.
    settings = parse_section(EventsConfig, {k: v for k, v in chosen.items() if v}, "events", "grid")
    grid = RuleGrid.of(settings, Annotated.of(tables))
    scores, _ = load_scores(cycle / "oof.npz")
    train = set(tables.subset("train")["recording_id"])
    scores = scores.take([name for name in scores.recording_ids if name in train])
    ious = tuple(args.iou)
    tuned = tune(scores, tables.events, folds, grid, ious, args.copies)
    test, _ = load_scores(cycle / "test.npz")
    with lock_folder(args.out, "this folder of events"):
        told = write_events(args.out, tuned, test, ious, cycle / "oof.npz", args.n_bootstrap, 0)
    print(table_of_events(told))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
