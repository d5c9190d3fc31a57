#!/usr/bin/env python3
"""Stage 4: out-of-fold scores of one cycle -> labels for the next.

    bin/relabel.py --recipe demo --cycle 1

Reads cycle<c-1>/oof.npz, proves that no score comes from a model that saw the recording's group,
and writes cycle<c>/soft_labels.npz or pseudo_events.csv (relabel.kind), and pseudo_summary.csv.
run.sh then trains and infers cycle c. Where the evidence of cycle c-1 fell, it writes ended.json.
A task that calibrates its outputs instead does so with --cycle 0, once.
"""

import sys

from local.jobs.exit_codes import run_script
from local.stages.stage_options import stage_parser


def main(argv: list[str] | None = None) -> int:
    """Run the stage for one cycle."""
    parser = stage_parser(__doc__)
    parser.add_argument("--cycle", type=int, default=1, help="cycle to make labels for, from 1 on")
    args = parser.parse_args(argv)
    if args.cycle < 0:
        parser.error("--cycle must be at least 1, or 0 for a task that calibrates its outputs")

    from local.stages.relabel import relabel
    from local.stages.starting import started

    with started(args, "relabel") as run:
        relabel(run, args.cycle)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
