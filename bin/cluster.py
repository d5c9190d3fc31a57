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
import os
import sys
from pathlib import Path

from local.detect.options import parse_args as parse_detect
from local.detect.partition import site_rule
from local.io.errors import CanopyError
from local.jobs.exit_codes import run_script
from local.slurm.job_graph import Job, plan_detect, plan_run
from local.slurm.node_task import run_task
from local.slurm.record import Home, Submission
from local.slurm.request import read_cluster_conf, request_of, run_context, stages_of
from local.slurm.site import ask, check_arrays, check_epoch, check_folders, check_site
from local.slurm.status import describe, live_ids, states_of
from local.slurm.submitting import (
    check_idle,
    hand_in,
    make_submission,
    marked,
    sbatch_options,
    script_of,
    to_run,
)
from local.stages.options import stage_parser

log = logging.getLogger("canopy")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    shared = stage_parser(None)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit", parents=[shared], add_help=False, help="hand a run in")
    submit.add_argument("--stage", type=int, default=0)
    submit.add_argument("--stop-stage", type=int, default=5)
    submit.add_argument("--folds", default="")
    submit.add_argument("--n-cycles", type=int)
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
        return run_task(args.folder, args.job, args.index)
    if args.command == "submit":
        return submit_run(args)
    if args.command == "detect":
        return submit_detect(args)
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


def submit_run(args: argparse.Namespace) -> int:
    """Hand in what of a run is not done."""
    request, conf = request_of(args), read_cluster_conf(args.recipe, args.slurm_conf)
    home, jobs = Home.of_run(request.exp), plan_run(request, conf)
    check_folders([request.exp, request.dumpdir, request.datadir])
    context = run_context(request, conf, marked([request.exp, request.dumpdir]))
    if 2 in range(args.stage, args.stop_stage + 1):
        check_epoch(conf.of("train"), request.exp)
    return _submit(home, jobs, context, conf, args.dry_run)


def submit_detect(args: argparse.Namespace) -> int:
    """Hand in a detection."""
    options, conf = args.options, read_cluster_conf(None, args.slurm_conf)
    asked = parse_detect(options)
    if asked.shard or asked.force:
        raise CanopyError("--shard and --force go with no cluster.py detect: give another --out")
    site_rule(asked.partition, asked.site_date_pattern, asked.format)
    for path in (asked.model, *asked.others, *asked.paths):
        if not path.exists():
            raise CanopyError(f"{path}: no such file or folder; correct the path")
    out = asked.out
    home = Home(out.with_name(f"{out.name}.cluster"))
    context = {"title": out.name, "shared": marked([home.folder]), "dump": ""}
    context |= {"venv": os.environ.get("VENV") or os.path.abspath(".venv")}
    return _submit(home, plan_detect(options, out, conf), context, conf, args.dry_run)


def _submit(home: Home, jobs: list[Job], context: dict, conf: object, dry_run: bool) -> int:
    given = to_run(home, jobs, context)
    if not given:
        log.info("nothing to hand in: all tasks ended well with the same command and settings")
        return 0
    submission = make_submission(home, jobs, given, context)
    if dry_run:
        for number, job in enumerate(submission.jobs, start=1):
            submission.ids[job.name] = number
            options = " ".join(sbatch_options(submission, job))
            print(f"# ---- sbatch {options}  (job {number})\n{script_of(submission, job, conf)}")
        return 0
    check_site(conf, stages_of(submission.jobs))
    check_arrays({name: max(indices) + 1 for name, indices in given.items()})
    check_idle(home)
    hand_in(submission, conf)
    for job in submission.jobs:
        log.info("%8d %s: %d tasks", submission.ids[job.name], job.name, len(given[job.name]))
    log.info("how it stands: bin/cluster.py status %s", home.folder.parent)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
