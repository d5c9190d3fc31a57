#!/usr/bin/env python3
"""Check a configuration, and what it says of the data, before any work.

    bin/check_config.py --recipe demo --stages "0 1 2 3 4 5"

Validates the file, builds the model and scores a window of noise with it, checks the mel filters,
and, where tables exist already and stage 0 is not among those that will run (or has prepared them:
--prepared), holds the settings against the recordings.
"""

import sys

from local.jobs.exit_codes import run_script
from local.stages.stage_options import stage_parser


def main(argv: list[str] | None = None) -> int:
    """Check."""
    parser = stage_parser(__doc__)
    parser.add_argument("--stages", default="0 1 2 3 4 5", help="stages that will run")
    parser.add_argument("--prepared", action="store_true", help="the tables are up to date")
    args = parser.parse_args(argv)

    from local.io.errors import CanopyError
    from local.stages.checks import check_config, check_data
    from local.stages.stage_graph import STAGES
    from local.stages.starting import started

    stages, known = set(args.stages.split()), {str(stage.number) for stage in STAGES}
    if not stages or not stages <= known:
        raise CanopyError(f'--stages is {args.stages!r}, expected numbers such as "0 1"')
    prepared = args.prepared or "0" not in stages
    with started(args, "check", prepared=prepared) as run:
        check_config(run.config)
        if prepared:
            check_data(run)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
