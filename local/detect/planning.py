"""From the options of detection to the job that they ask for."""

import argparse
import logging
import os

from local.detect.class_rules import choose_thresholds, prior_shift, span_rules, use_event_rule
from local.detect.detect_options import CPU_BATCH
from local.detect.detectors import Request, chosen_engine, describe, fingerprint_of
from local.detect.job import Job
from local.detect.partition import site_rule
from local.detect.sound import find_sounds
from local.io.errors import CanopyError
from local.jobs.devices import choose_device
from local.jobs.shards import parse_shard

log = logging.getLogger("canopy")


def plan_job(args: argparse.Namespace) -> Job:
    """The job that the command line asks for; nothing is written yet."""
    if args.jobs < 1 or (args.batch_size is not None and args.batch_size < 1):
        raise CanopyError("--jobs and --batch-size must be at least 1")
    if args.shard and args.force:
        raise CanopyError("--shard goes with no --force: give another --out")
    if not 0 <= args.max_invalid_share <= 1:
        raise CanopyError(f"--max-invalid-share is {args.max_invalid_share}, expected 0 to 1")
    sites = site_rule(args.partition, args.site_date_pattern, args.format)
    sounds = find_sounds(args.paths, args.out)
    device = args.device if args.device == "cpu" else choose_device(args.device)
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
