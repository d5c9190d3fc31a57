#!/usr/bin/env python3
"""Check a configuration, and what it says of the data, before any work.

    bin/check_config.py --recipe demo --stages "0 1 2 3 4 5"
    bin/check_config.py --recipe demo --print relabel.n_cycles

Validates the file, builds the model and scores a window of noise with it, checks the mel filters,
and, where tables exist already, holds the settings against the recordings. As the first to write to
the experiment's folder it takes the lock, which run.sh keeps for all stages.
"""

import sys

from local.io.errors import CanopyError
from local.jobs.exit_codes import run_script
from local.stages.checks import check_config, check_data
from local.stages.options import stage_parser
from local.stages.starting import started


def main(argv: list[str] | None = None) -> int:
    """Check, or print one value."""
    parser = stage_parser(__doc__)
    parser.add_argument("--stages", default="0 1 2 3 4 5", help="stages that will run")
    parser.add_argument("--print", dest="key", help="print the value of section.key and stop")
    args = parser.parse_args(argv)
    with started(args, "check") as run:
        if args.key is not None:
            print(_value(run.config, args.key))
            return 0
        check_config(run.config)
        stages = {int(stage) for stage in args.stages.split()}
        if 0 not in stages:
            check_data(run)
    return 0


def _value(config: object, key: str) -> object:
    value = config
    for part in key.split("."):
        if not hasattr(value, part):
            raise CanopyError(f"--print {key}: there is no such key")
        value = getattr(value, part)
    return value


if __name__ == "__main__":
    sys.exit(run_script(main))
