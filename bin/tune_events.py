#!/usr/bin/env python3
"""The rule that makes events of a run's scores, fitted out-of-fold, and the events it makes.

    bin/tune_events.py exp/usv/default --tables dump/usv/tables --out exp/usv/default/events

Reads folds.csv, the last cycle's oof.npz and test.npz. Writes rule.json (the rule, its F1 and that
of rules fitted on the other folds), oof_events.csv (each fold's events by the rule of the others)
and test_events.csv. Annotations must be complete. Give `bin/detect.py` the options that it prints.
"""

import argparse
import sys
from pathlib import Path

from local.errors import CanopyError
from local.files import write_csv, write_json
from local.folds import read_folds
from local.inference import load_scores
from local.runs import run_script
from local.tables import read_tables
from local.tuning import RuleGrid, find_events, rule_words, tune


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    grid = RuleGrid()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="EXPDIR/TAG of a finished run")
    add("--tables", type=Path, required=True, help="DUMPDIR/tables of the run")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add("--iou", type=float, nargs="+", default=[0.0, 0.5], help="limits; 0: any overlap")
    for name in ("thresholds", "drops", "durations", "gaps"):
        add(f"--{name}", type=float, nargs="+", default=list(getattr(grid, name)))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Fit the rule and make the events."""
    args = parse_args(argv)
    cycles = [path for path in args.run.glob("cycle*") if (path / "oof.npz").is_file()]
    if not cycles:
        raise CanopyError(f"{args.run}: no out-of-fold scores; run stages 2 and 3 first")
    cycle = max(cycles, key=lambda path: int(path.name.removeprefix("cycle")))
    tables = read_tables(args.tables)
    folds = read_folds(args.run / "folds.csv", tables.recordings).set_index("recording_id")["fold"]
    names = ("thresholds", "drops", "durations", "gaps")
    grid = RuleGrid(**{name: tuple(getattr(args, name)) for name in names})
    scores, _ = load_scores(cycle / "oof.npz")
    train = set(tables.subset("train")["recording_id"])
    scores = scores.take([name for name in scores.recording_ids if name in train])
    tuned = tune(scores, tables.events, folds, grid, tuple(args.iou))
    test, _ = load_scores(cycle / "test.npz")
    write_csv(args.out / "oof_events.csv", tuned.events)
    write_csv(args.out / "test_events.csv", find_events(test, tuned.rule))
    words = rule_words(tuned.rule)
    write_json(
        args.out / "rule.json",
        {
            "rule": words,
            "iou": args.iou,
            "f1_nested": tuned.f1.tolist(),
            "f1_fitted": tuned.fitted.tolist(),
            "rules_of_folds": {str(fold): rule_words(rule) for fold, rule in tuned.nested.items()},
        },
    )
    for iou, nested, fitted in zip(args.iou, tuned.f1, tuned.fitted, strict=True):
        what = f"IoU > {iou:g}" if iou > 0 else "any overlap"
        print(f"F1, {what}: {nested:.3f} by rules of the other folds, {fitted:.3f} by this rule:")
    print(" ".join(f"--{key.replace('_', '-')} {value:g}" for key, value in words.items()))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
