#!/usr/bin/env python3
"""Stage 5: submission.csv, events, results.json, report.html, a row of the ledger.

    bin/submit.py --recipe demo

Takes the last finished cycle, corrects class priors as section `prior` says, joins the scores on
the ids of the sample submission, scores every cycle on known labels (and on truth where there is
any: this is the only stage that opens it), draws the report and notes the run in the ledger. With
`events.tune` it fits the rule that makes events of scores, and writes rule.json and the events.
Another task than detection hands in files of its own.
"""

import logging
import sys

from local.jobs.exit_codes import run_script
from local.stages.stage_options import stage_parser

log = logging.getLogger("canopy")


def main(argv: list[str] | None = None) -> int:
    """Run the stage, write the report, and note the run in the ledger."""
    args = stage_parser(__doc__).parse_args(argv)

    from local.report.collect import build_report
    from local.report.html import write_report
    from local.report.ledger import ledger_path, record, run_row
    from local.stages.starting import started
    from local.stages.submit import submit

    with started(args, "submit") as run:
        page = run.exp / "report.html"
        submit(run, lambda *found: write_report(page, build_report(*found)))
        ledger = ledger_path(run.exp.parent, args.recipe)
        record(ledger, run_row(run.exp, args.recipe, run.config, run.tables))
        log.info("ledger: %s", ledger)
        log.info("report: %s", page)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
