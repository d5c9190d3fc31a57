#!/usr/bin/env python3
"""Runs as jobs of a Slurm cluster.

    ./run.sh --launcher slurm --recipe demo      hands a run in (calls `submit` with its options)
    bin/cluster.py status exp/demo/default       how it stands, why, and where its logs are
    bin/cluster.py cancel exp/demo/default       takes its jobs back
    bin/cluster.py detect -- exp/demo/default recordings/ --out found    detection in shares

What stages ask for stands in conf/slurm.conf, changed by conf/RECIPE/slurm.conf and --slurm-conf
FILE (or CANOPY_SLURM_CONF). Given again, the same command hands in what is not done.

Exit codes: 0 done; 1 failure (status: something did not end well); 2 usage; 75 stopped.
"""

import argparse
import logging
import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script
from local.stages.stage_options import stage_parser

log = logging.getLogger("canopy")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    shared = stage_parser(None)
    parser = ScriptParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit", parents=[shared], add_help=False, help="hand a run in")
    submit.add_argument("--stage", type=int, default=0)
    submit.add_argument("--stop-stage", type=int, default=5)
    submit.add_argument("--folds", default="")
    submit.add_argument("--cache", help="folder of a node's own disk, as in '$TMPDIR'")
    submit.add_argument("--seeds", default="", help='several runs of one dump, as "0 1 2"')
    detect = commands.add_parser("detect", help="bin/detect.py in shares")
    detect.add_argument("options", nargs="+", metavar="-- OPTIONS of bin/detect.py")
    for each in (submit, detect):
        each.add_argument("--slurm-conf", type=Path)
        each.add_argument("--dry-run", action="store_true", help="print the scripts")
    for name, words in (("status", "how a run stands"), ("cancel", "take its jobs back")):
        commands.add_parser(name, help=words).add_argument("run", type=Path, metavar="EXPDIR/TAG")
    task = commands.add_parser("task", help="(of jobs) run one task on this node")
    task.add_argument("folder", type=Path)
    task.add_argument("job")
    task.add_argument("index", type=int)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what is asked."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    if args.command == "task":
        from local.slurm.node_task import run_task

        return run_task(args.folder, args.job, args.index)
    if args.command in ("submit", "detect"):
        from local.slurm.launch import submit_detect, submit_run

        return submit_run(args) if args.command == "submit" else submit_detect(args)

    from local.slurm.sent_jobs import Home, Submission
    from local.slurm.site import ask
    from local.slurm.status import describe, live_ids, states_of

    home = Home.find(args.run)
    newest = home.submissions()[-1]
    if args.command == "status":
        print(describe(home, newest))
        states = states_of(home, Submission.load(newest))
        return int(any(state.state in ("failed", "lost", "cancelled") for state in states))
    submission = Submission.load(newest)
    live = live_ids(submission)
    if live:
        ask("scancel", *live)
        submission.cancelled += live
        submission.save()
    log.info("%d tasks cancelled", len(live))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
