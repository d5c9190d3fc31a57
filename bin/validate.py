#!/usr/bin/env python3
"""Read the tables and all the sound of a recipe, and list everything that is wrong with them.

    bin/validate.py --recipe mine --datadir FOLDER --nj 4 --out faults.csv

Works before stage 0: tables that are not there are made by the recipe's preparation in DUMPDIR;
where that refuses, its reason is a fault like the others and every sound file below DATADIR is
decoded none the less. Prints one line a kind of fault and, with --out, writes every single one.
The exit code is 0 when nothing is wrong or only warnings are given, 1 when there are errors; with
--strict warnings count as errors. Nothing else is changed.
"""

import sys
from pathlib import Path

from local.jobs.exit_codes import run_script
from local.stages.stage_options import stage_parser


def main(argv: list[str] | None = None) -> int:
    """List the faults; 1 when there are errors."""
    parser = stage_parser(__doc__)
    parser.add_argument("--out", type=Path, help="csv of every fault")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    args = parser.parse_args(argv)

    from local.io.files import write_csv
    from local.io.limits import spreadsheet_safe
    from local.stages.quality.corpus_faults import findings_table, summary
    from local.stages.quality.validation import validate
    from local.stages.starting import plan

    findings, n_read = validate(plan(args, "check"), args)
    if args.out is not None:
        write_csv(args.out, spreadsheet_safe(findings_table(findings)))
    n_errors = sum(finding.severity == "error" for finding in findings)
    if findings:
        print(summary(findings))
    print(f"{n_read} recordings: {n_errors} errors, {len(findings) - n_errors} warnings")
    return int(bool(findings if args.strict else n_errors))


if __name__ == "__main__":
    sys.exit(run_script(main))
