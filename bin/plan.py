#!/usr/bin/env python3
"""Hours of sound, workers and a measured rate -> wall time, storage and cost, with failures.

    bin/plan.py --hours 1e6 --workers 64 --rate 160
    bin/plan.py --hours 1e6 --workers 256 --per-node 64 --rate 270 --cost 0.04 --bandwidth 10

A worker is a core or a GPU, --rate its hours of sound an hour (tests/bench/sizing.py measures it;
docs/cluster.md has a table). A node fails with all its workers. The schedule is played through
--courses times with nodes that fail, from --seed. Every number is an option; defaults are round
guesses, not measurements.
"""

import argparse
import json
import math
import sys

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--hours", type=float, required=True, help="hours of sound")
    add("--workers", type=int, required=True, help="cores or GPUs at work")
    add("--rate", type=float, required=True, help="hours of sound an hour of one worker")
    add("--shards", type=int, default=0, help="shares (default: 8 a worker)")
    add("--recording-hours", type=float, default=1.0, help="length of a recording (%(default)s)")
    add("--gb-per-hour", type=float, default=0.2, help="sound on disk (%(default)s: FLAC, 48 kHz)")
    add("--kept-gb-per-hour", type=float, default=1e-4, help="kept (%(default)s: detections)")
    add("--spread", type=float, default=0.1, help="of workers' speed, as a share (%(default)s)")
    add("--mtbf", type=float, default=1000.0, help="hours between a node's failures (%(default)s)")
    add("--per-node", type=int, default=1, help="workers that a node has (%(default)s)")
    add("--repair", type=float, default=1.0, help="hours until it works again (%(default)s)")
    add("--requeue", type=float, default=0.05, help="hours until a share starts anew (%(default)s)")
    add("--start", type=float, default=0.01, help="hours to start a task (%(default)s)")
    add("--max-retries", type=int, default=20, help="of a share (%(default)s)")
    add("--bandwidth", type=float, default=math.inf, help="GB/s of the shared disk (no limit)")
    add("--cost", type=float, default=0.0, help="of a worker-hour (%(default)s)")
    add("--tb-month", type=float, default=0.0, help="cost of a TB on disk a month (%(default)s)")
    add("--courses", type=int, default=20, help="courses of events played (%(default)s)")
    add("--seed", type=int, default=0, help="%(default)s")
    add("--json", action="store_true", help="numbers for programs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Play and print."""
    args = parse_args(argv)

    from local.slurm.forecast import Machines, Workload, bottleneck, forecast

    n_shards = args.shards or 8 * args.workers
    load = Workload(
        args.hours, n_shards, args.recording_hours, args.gb_per_hour, args.kept_gb_per_hour
    )
    fleet = Machines(
        n_workers=args.workers,
        rate=args.rate,
        spread=args.spread,
        mtbf_hours=args.mtbf,
        repair_hours=args.repair,
        requeue_hours=args.requeue,
        start_hours=args.start,
        max_retries=args.max_retries,
        bandwidth_gb_s=args.bandwidth,
        cost=args.cost,
        per_node=args.per_node,
        tb_month=args.tb_month,
    )
    found = forecast(load, fleet, args.seed, max(1, args.courses))
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    print(
        f"{args.hours:g} h of sound, {args.workers} workers of {args.rate:g} h/h, {n_shards} shares"
    )
    for name, value in found.items():
        print(f"{name:38s} {value:12.4g}")
    print(f"bottleneck: {bottleneck(load, fleet, found)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
