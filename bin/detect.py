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
from pathlib import Path

from local.detect.job import Job, check_out, check_place, run_job
from local.detect.model import ENGINES, Request, chosen_engine, describe, fingerprint_of
from local.detect.outputs import FORMATS, SCORE_FORMATS
from local.detect.partition import site_rule
from local.detect.rules import choose_thresholds, prior_shift, span_rules, use_event_rule
from local.detect.sound import find_sounds
from local.errors import CanopyError
from local.event_rules.thresholds import RULES
from local.running.locks import lock_folder
from local.running.shards import parse_shard
from local.runs import run_script

log, CPU_BATCH = logging.getLogger("canopy"), 4


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="run, checkpoint or published folder")
    add("paths", nargs="+", type=Path, metavar="PATH", help="sound files and folders of them")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add("--with", dest="others", type=Path, action="append", default=[], metavar="MODEL",
        help="one more model of an ensemble; may be given again")  # fmt: skip
    add("--format", nargs="+", choices=FORMATS, help="(raven csv; partitioned: parquet)")
    add("--partition", action="store_true", help="a folder a site and date, for large archives")
    add("--site-date-pattern", metavar="REGEX", help="of paths; groups site, date and time")
    add("--scores", choices=SCORE_FORMATS, help="write scores over time as well")
    add("--threshold", help=f"{RULES} (default: best-f1 where out-of-fold scores are, else 0.5)")
    add("--low-threshold", type=float, metavar="P",
        help="detections grow from the threshold down to this probability")  # fmt: skip
    add("--min-duration", type=float, metavar="S", help="seconds (default: as in relabel)")
    add("--max-duration", type=float, metavar="S", help="leave out longer ones (default: none)")
    add("--max-gap", type=float, metavar="S", help="gaps to close (default: as in relabel)")
    add("--prior", choices=("none", "run"), default="none",
        help="run: with the run's correction for its test set (%(default)s)")  # fmt: skip
    add("--engine", choices=ENGINES, default="auto", help="auto: ONNX Runtime where it can be")
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="%(default)s")
    add("--batch-size", type=int, help=f"windows at once (default: {CPU_BATCH}; GPU: the run's)")
    add("--no-tta", action="store_true", help="leave out the run's test-time augmentation")
    add("--jobs", type=int, default=1, help="processes; above 1 each has one thread (%(default)s)")
    add("--cycle", default="last", help="of a run: last, or N (%(default)s)")
    add("--conf", type=Path, help="of a checkpoint: the config.yaml of its run")
    add("--dumpdir", type=Path, help="of a run: its tables and features (default: as it noted)")
    add("--max-invalid-share", type=float, default=0.0, help="unreadable files borne (%(default)s)")
    add("--force", action="store_true", help="write over what is in DIR")
    add("--shard", metavar="K/N", help="detect in this share only")
    return parser.parse_args(argv)


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
        from local.runs import choose_device

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
    args = parse_args(argv)
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
