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
from pathlib import Path
from typing import Any

from local.jobs.exit_codes import run_script
from local.stages.experiment import Experiment
from local.stages.options import stage_parser
from local.stages.places import Run
from local.stages.starting import started
from local.stages.submit import submit

log = logging.getLogger("canopy")


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    args = stage_parser(__doc__).parse_args(argv)
    with started(args, "submit") as run:
        submit(run, write_page)
        note(run, args.recipe)
    return 0


def write_page(experiment: Experiment, results: dict[str, Any]) -> list[Path]:
    """Write the report; the page and what lies beside it."""
    from local.report.collect import build_report
    from local.report.html import write_report

    return write_report(experiment.run.exp / "report.html", build_report(experiment, results))


def note(run: Run, recipe: str) -> None:
    """Note a finished run in the ledger."""
    from local.report.ledger import ledger_path, record, run_row

    ledger = ledger_path(run.exp.parent, recipe)
    record(ledger, run_row(run.exp, recipe, run.config, run.tables))
    log.info("ledger: %s", ledger)
    log.info("report: %s", run.exp / "report.html")


if __name__ == "__main__":
    sys.exit(run_script(main))
