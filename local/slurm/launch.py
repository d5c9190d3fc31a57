"""Runs and detections from a command line to Slurm: what is not done yet is handed in."""

import argparse
import logging
import os
from typing import Any

from local.detect.detect_options import parse_args as parse_detect
from local.detect.partition import site_rule
from local.io.errors import CanopyError
from local.slurm.conf import ClusterConf
from local.slurm.job_graph import Job, plan_detect, plan_run
from local.slurm.request import read_cluster_conf, request_of, run_context, stages_of
from local.slurm.sent_jobs import Home
from local.slurm.site import check_arrays, check_epoch, check_folders, check_site
from local.slurm.submitting import (
    check_idle,
    hand_in,
    make_submission,
    marked,
    sbatch_options,
    script_of,
    to_run,
)
from local.stages.stage_graph import PARTS, order

log = logging.getLogger("canopy")


def submit_run(args: argparse.Namespace) -> int:
    """Hand in what of a run is not done."""
    request, conf = request_of(args), read_cluster_conf(args.recipe, args.slurm_conf)
    home, jobs = Home.of_run(request.exp), plan_run(request, conf)
    check_folders([request.exp, request.dumpdir, request.datadir])
    context = run_context(request, conf, marked([request.exp, request.dumpdir]))
    stages = range(request.first, request.last + 1)
    if PARTS["train"] in [work.part for work in order(stages, request.cycles)]:
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


def _submit(
    home: Home, jobs: list[Job], context: dict[str, Any], conf: ClusterConf, dry_run: bool
) -> int:
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
