#!/usr/bin/env python3
"""FileInfo.csv, Annotations.csv and their recordings -> the three tables.

    recipes/bats/prepare.py --datadir FOLDER --out dump/bats/tables --conf conf/bats/default.yaml

Without FileInfo.csv in the folder, a small simulated set is made there first. What is learned
(calls, contexts, emitters), from which files, and how bad rows are decided: README.md. Beside the
tables: bad_rows.csv, disagreements.csv and voices.csv with all attributes.
"""

import logging
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from local.jobs.exit_codes import run_script
from local.stages.stage_options import preparation_parser

if TYPE_CHECKING:
    from local.config import Config
    from local.stages.preparation import Preparation

log = logging.getLogger("canopy")

# Raised whenever `convert` makes other tables of the same data and settings.
VERSION = 1


def main(argv: list[str] | None = None) -> int:
    """Simulate where there is nothing, then write the tables unless they are up to date."""
    args = preparation_parser(__doc__).parse_args(argv)

    from local.stages.preparation import prepare

    return prepare(args, preparation, make_data)


def make_data(args: Namespace, config: "Config") -> None:
    """Simulate a small set where there is no data set."""
    from local.config import parse_section
    from recipes.bats.reading import FILE_INFO
    from recipes.bats.settings import PrepareConfig
    from recipes.bats.simulate import MARKER, simulate

    settings = parse_section(PrepareConfig, config.prepare, "prepare", args.conf).simulate
    is_ours = (args.datadir / MARKER).is_file() or not (args.datadir / FILE_INFO).is_file()
    if is_ours and simulate(settings, args.datadir, args.nj):
        log.info("simulated a data set of size %s in %s", settings.size, args.datadir)


def preparation(args: Namespace, config: "Config") -> "Preparation":
    """What the tables are made from."""
    from local.config import parse_section
    from local.stages.preparation import Preparation
    from recipes.bats.reading import ANNOTATIONS, FILE_INFO
    from recipes.bats.settings import PrepareConfig
    from recipes.bats.tables import convert

    settings, datadir = (
        parse_section(PrepareConfig, config.prepare, "prepare", args.conf),
        args.datadir,
    )
    return Preparation(
        version=VERSION,
        settings=settings.model_dump(mode="json"),
        inputs=[datadir / FILE_INFO, datadir / ANNOTATIONS],
        folders=[datadir / name for name in settings.noise],
        convert=lambda: convert(datadir, args.out, settings),
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
