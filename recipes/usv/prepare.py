#!/usr/bin/env python3
"""Recordings of ultrasonic calls beside tables of onset and offset -> the three tables.

    recipes/usv/prepare.py --datadir FOLDER --out dump/usv/tables --conf conf/usv/default.yaml

`rec_N.wav` with `gt_N.csv` (onset, offset in seconds, no header) is a train recording and a group
of its own; what has no row in its table is absent. `rec_N.wav` without a table, and those that
`prepare.test` names, are test recordings. See README.md.
"""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from local.jobs.exit_codes import run_script
from local.stages.stage_options import preparation_parser

if TYPE_CHECKING:
    from local.config import Config
    from local.stages.preparation import Preparation

# Raised whenever `convert` makes other tables of the same data and settings.
VERSION = 1


def main(argv: list[str] | None = None) -> int:
    """Prepare the tables unless they are there already and up to date."""
    args = preparation_parser(__doc__).parse_args(argv)

    from local.stages.preparation import prepare

    return prepare(args, preparation)


def preparation(args: Namespace, config: "Config") -> "Preparation":
    """What the tables are made from."""
    from local.config import parse_section
    from local.stages.preparation import Preparation
    from recipes.usv.settings import PrepareConfig
    from recipes.usv.tables import convert, find_pairs

    settings = parse_section(PrepareConfig, config.prepare, "prepare", args.conf)
    pairs = find_pairs(args.datadir, settings)
    return Preparation(
        version=VERSION,
        settings={
            "prepare": settings.model_dump(mode="json"),
            "sample_rate": config.audio.sample_rate,
            "n_folds": config.split.n_folds,
        },
        inputs=[table for _, table in pairs if table.is_file()],
        folders=[args.datadir],
        convert=lambda: convert(args.datadir, args.out, settings, config),
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
