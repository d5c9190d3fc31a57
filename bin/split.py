#!/usr/bin/env python3
"""Stage 1: assign every recording to a fold, by label and group.

    bin/split.py --recipe demo

Writes EXPDIR/TAG/folds.csv (recording_id, fold) once. Recordings of one group share a fold; known
positives and known negatives of each class are spread evenly.
"""

import sys

from local.jobs.exit_codes import run_script
from local.stages.stage_options import stage_parser


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    args = stage_parser(__doc__).parse_args(argv)

    from local.stages.split import split
    from local.stages.starting import started

    with started(args, "split") as run:
        split(run)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
