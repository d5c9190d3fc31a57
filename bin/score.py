#!/usr/bin/env python3
r"""Score systems against truth: recordings, events, or confirmed and rejected spans.

    bin/score.py --submission exp/demo/default/submission.csv --truth data/demo/truth/test_clips.csv
    bin/score.py --system one=a/test.npz --system two=detections.csv \
        --truth data/demo/truth/test_events.csv --recordings dump/demo/tables/recordings.csv \
        --subset test --csv scores.csv

A system is a submission, a table of events or detections, or an npz of scores; truth is a csv of 0
and 1 or a table of events. With several systems, differences to the first are given with paired
intervals. docs/scoring.md says what each measure is.
"""

import argparse
import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser

LEVELS = ("auto", "clip", "event", "span")
PSDS = ("psds1", "psds2")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__)
    add = parser.add_argument_group("what").add_argument
    add("--submission", type=Path, help="one system: the same as --system submission=FILE")
    add("--system", action="append", default=[], metavar="NAME=FILE", help="may be given again")
    add("--truth", type=Path, required=True, help="csv of 0 and 1, or table of events")
    add("--annotation", default="auto", choices=("auto", "complete", "partial"))
    add("--recordings", type=Path, help="recordings.csv: which ones, lengths, groups")
    add("--subset", help="only recordings of this subset")
    add("--classes", type=Path, help="classes.csv (default: those of the truth or the scores)")
    add("--level", default="auto", choices=LEVELS)
    add = parser.add_argument_group("what counts as found").add_argument
    add("--threshold", type=float, default=0.5, help="least score (%(default)s)")
    add("--candidates", type=float, default=0.1, help="of npz scores, for AP (%(default)s)")
    add("--iou", type=float, nargs="+", default=[0.0, 0.3, 0.5], help="0: any overlap")
    add("--alarms-per-hour", type=float, nargs="+", default=[1.0, 10.0])
    add("--collar", type=float, default=0.2, help="seconds (%(default)s)")
    add("--offset-share", type=float, default=0.5, help="of the event's length (%(default)s)")
    add("--onset-only", action="store_true", help="offsets may lie anywhere")
    add("--segment", type=float, default=1.0, help="seconds (%(default)s)")
    add("--best-f1", action="store_true",
        help="event-based F1 at each class's best threshold; needs `make setup-eval`")  # fmt: skip
    add("--psds", nargs="*", choices=PSDS, help="needs `make setup-eval` (default: psds1 where it "
        "can be measured in seconds; with nothing behind it, none)")  # fmt: skip
    add = parser.add_argument_group("intervals and output").add_argument
    add("--n-bootstrap", type=_natural, default=1000, help="resamples; 0: none (%(default)s)")
    add("--seed", type=_natural, default=0, help="of the resamples (%(default)s)")
    add("--group", default="group", help="column of --recordings that holds groups (%(default)s)")
    add("--by-group", action="store_true", help="rows for each group as well")
    add("--cluster", action="store_true", help="draw whole groups instead of recordings")
    add("--metric", help="the measure shown for each class")
    add("--json", type=Path, help="write all numbers here")
    add("--csv", type=Path, help="write all numbers here, one row each")
    args = parser.parse_args(argv)
    if not args.submission and not args.system:
        parser.error("give --submission FILE or --system NAME=FILE")
    return args


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def main(argv: list[str] | None = None) -> int:
    """Score; the exit code is 0 when done, 1 for a fault of the files, 2 for one of the options."""
    args = parse_args(argv)

    from local.io.errors import CanopyError
    from local.io.files import write_csv, write_json
    from local.io.limits import spreadsheet_safe
    from local.scoring.evaluation.comparison_options import comparison_options
    from local.scoring.evaluation.comparison_table import make_comparison_table
    from local.scoring.evaluation.score_sources import named_paths, read_system, read_truth_file
    from local.scoring.evaluation.scoring_set import make_scoring_set
    from local.scoring.evaluation.table_text import format_comparison

    try:
        options = comparison_options(args)
        truth = read_truth_file(args.truth, args.annotation)
        paths = named_paths(args.system, args.submission)
        systems = [read_system(name, path) for name, path in paths.items()]
        scoring_set = make_scoring_set(
            truth, systems, args.recordings, args.subset, args.classes, args.group
        )
        table = make_comparison_table(truth, systems, scoring_set, options)
        text = format_comparison(table, args.metric)
        if args.json:
            write_json(args.json, table.as_json())
        if args.csv:
            write_csv(args.csv, spreadsheet_safe(table.rows))
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
