#!/usr/bin/env python3
"""Find calls in any recordings with a trained model.

    bin/detect.py exp/demo/default recordings/ --out detections
    bin/detect.py published/demo night1.flac night2.flac --out detections --format raven csv
    bin/detect.py exp/demo/a recordings/ --with exp/demo/b --out both --threshold precision=0.9

MODEL is a run (EXPDIR/TAG), a checkpoint (best.pt) or a folder that bin/export.py wrote; several
are averaged in probability. PATHs are sound files, or folders that are searched through. Writes
into DIR: detections, summary.csv (each recording and class), thresholds.csv and detect.json. The
rule of events (rule.json) of a run holds for all that no option says. What was stopped goes on with
the same command. Jobs may take a share (--shard K/N, from 0 on), and one without it joins them all.
With --partition, for archives: Parquet by site and date, as recorders name files, and by_date.csv
and .parquet, detections and hours listened to of each class, site and date.

Exit codes: 0 done; 1 failure, or more unreadable files than --max-invalid-share (all else is
written); 2 usage; 75 stopped by a signal, the same command goes on.
"""

import argparse
import logging
import os
import sys

from local.detect.class_rules import choose_thresholds, prior_shift, span_rules, use_event_rule
from local.detect.detectors import Request, chosen_engine, describe, fingerprint_of
from local.detect.job import Job, check_out, check_place, run_job
from local.detect.options import CPU_BATCH, parse_args
from local.detect.partition import site_rule
from local.detect.sound import find_sounds
from local.io.errors import CanopyError
from local.jobs.exit_codes import run_script
from local.jobs.locks import lock_folder
from local.jobs.shards import parse_shard

log = logging.getLogger("canopy")


def plan(args: argparse.Namespace) -> Job:
    """The job that the command line asks for; nothing is written yet."""
    if args.jobs < 1 or (args.batch_size is not None and args.batch_size < 1):
        raise CanopyError("--jobs and --batch-size must be at least 1")
    if args.shard and args.force:
        raise CanopyError("--shard goes with no --force: give another --out")
    if not 0 <= args.max_invalid_share <= 1:
        raise CanopyError(f"--max-invalid-share is {args.max_invalid_share}, expected 0 to 1")
    sites = site_rule(args.partition, args.site_date_pattern, args.format)
    sounds = find_sounds(args.paths, args.out)
    device = args.device
    if device != "cpu":
        from local.jobs.devices import choose_device

        device = choose_device(device)
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    request = Request(
        paths=[args.model, *args.others],
        engine=args.engine,
        device=device,
        cycle=args.cycle,
        conf=args.conf,
        dumpdir=args.dumpdir,
        batch_size=args.batch_size or (CPU_BATCH if device == "cpu" else None),
        tta=not args.no_tta,
        n_threads=1 if args.jobs > 1 else cores,
    )
    models = describe(request)
    log.info("engine: %s; %d recordings", chosen_engine(request, models), len(sounds))
    use_event_rule(models, args)
    thresholds = choose_thresholds(models, args.threshold)
    return Job(
        request=request,
        models=models,
        digests=fingerprint_of(models),
        sounds=sounds,
        out=args.out,
        formats=list(dict.fromkeys(args.format or (["parquet"] if sites else ["raven", "csv"]))),
        sites=sites,
        scores=args.scores,
        thresholds=thresholds,
        rules=span_rules(thresholds, models[0].config, args),
        shift=prior_shift(models) if args.prior == "run" else None,
        n_processes=args.jobs if device == "cpu" else 1,
        shard=parse_shard(args.shard),
    )


def main(argv: list[str] | None = None) -> int:
    """Detect; the exit code tells whether too many files were unreadable."""
    args = parse_args(argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    job = plan(args)
    check_place(args.out)
    with lock_folder(args.out, "this folder of detections", shared=bool(args.shard), keep=False):
        if check_out(job, args.force):
            log.info("%s: done before with the same models, settings and recordings", args.out)
            return 0
        outcome = run_job(job)
    print(outcome.table)
    log.info("written to %s", args.out)
    share = len(outcome.invalid) / outcome.n_recordings
    if share > args.max_invalid_share:
        raise CanopyError(
            f"{len(outcome.invalid)} of {outcome.n_recordings} recordings could not be read, more "
            f"than --max-invalid-share {args.max_invalid_share:g}; the first: "
            f"{outcome.invalid[0][1]}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
