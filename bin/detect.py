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

import logging
import sys

from local.detect.detect_options import parse_args
from local.jobs.exit_codes import run_script

log = logging.getLogger("canopy")


def main(argv: list[str] | None = None) -> int:
    """Detect; the exit code tells whether too many files were unreadable."""
    args = parse_args(argv, __doc__)

    from local.detect.job import check_out, check_place, run_job
    from local.detect.planning import plan_job
    from local.io.errors import CanopyError
    from local.jobs.locks import lock_folder

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    job = plan_job(args)
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
