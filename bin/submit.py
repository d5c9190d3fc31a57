#!/usr/bin/env python3
"""Stage 5: prior correction, submission.csv, events, results.json, report.html.

    bin/submit.py --recipe demo

Takes the last finished cycle, corrects class priors as section `prior` says, joins the scores on
the ids of the sample submission, scores every cycle on known labels (and on truth where there is
any: this is the only stage that opens it), draws the report and notes the run in the ledger. With
`events.tune` it fits the rule that makes events of scores, and writes rule.json and the events.
"""

import sys

from local.jobs.exit_codes import run_script
from local.stages.options import stage_parser
from local.stages.starting import started
from local.stages.submit import submit


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    args = stage_parser(__doc__).parse_args(argv)
    with started(args, "submit") as run:
        submit(run, args.recipe)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
