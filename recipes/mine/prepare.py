#!/usr/bin/env python3
"""Your own recordings and their annotations -> the three tables.

    recipes/mine/prepare.py --datadir FOLDER --out dump/mine/tables --conf conf/mine/default.yaml

Recordings lie anywhere below the folder; annotations (Raven selection tables, Audacity labels, csv)
beside them or in a folder of their own. All else is said in section `prepare:` of the configuration
(see README.md). Annotations of test recordings are kept out of events.csv: they go to
test_events.csv and test_truth.csv, for scoring alone.
"""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from local.jobs.exit_codes import run_script
from local.stages.stage_options import preparation_parser

if TYPE_CHECKING:
    from local.config import Config
    from local.data.tables import Tables
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
    from local.features.audio import SOUND_SUFFIXES
    from local.stages.preparation import Preparation
    from local.stages.settings import resolve
    from recipes.mine.folder import find_files, listing
    from recipes.mine.settings import PrepareConfig
    from recipes.mine.tables import annotation_files, convert

    def settled(tables: "Tables") -> "Config":
        return resolve(args.conf, args.overrides, tables).config

    settings = parse_section(PrepareConfig, config.prepare, "prepare", args.conf)
    files = annotation_files(args.datadir, settings)
    folder = settings.annotation_folder(args.datadir)
    sounds = find_files(args.datadir, settings.recordings, SOUND_SUFFIXES)
    return Preparation(
        version=VERSION,
        settings={
            "prepare": settings.model_dump(mode="json"),
            "n_folds": config.split.n_folds,
            "recordings": listing(sounds, args.datadir),
            "annotations": [path.relative_to(folder).as_posix() for path in files],
        },
        inputs=[*files, *settings.own_files(args.datadir)],
        folders=[],
        convert=lambda: convert(args.datadir, args.out, settings, config, settled),
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
