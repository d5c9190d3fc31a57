#!/usr/bin/env python3
"""Simulated competition -> the three tables; the competition is made first where it is missing.

    recipes/demo/prepare.py --datadir data/demo --out dump/demo/tables --conf conf/demo/default.yaml

The settings of the simulation are the `prepare:` section of the configuration (see README.md). The
tables come from what a competitor has; the truth stays closed.
"""

import logging
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from pydantic import Field

from local.config import Config, Share
from local.jobs.exit_codes import run_script
from local.stages.stage_options import preparation_parser
from recipes.demo.settings import DemoSettings, settings_from

if TYPE_CHECKING:
    from local.stages.preparation import Preparation

log = logging.getLogger("canopy")

# Raised whenever `convert` makes other tables of the same data and settings.
VERSION = 1


class PrepareConfig(DemoSettings):
    """The `prepare:` section of this recipe: the simulation, and how it becomes tables."""

    song_types: bool = Field(False, description="song types of a species as classes of their own")
    max_invalid_share: Share = Field(0.0, description="unreadable recordings that are put up with")


def main(argv: list[str] | None = None) -> int:
    """Simulate unless done before, then write the tables unless they are up to date."""
    args = preparation_parser(__doc__).parse_args(argv)

    from local.stages.preparation import prepare

    return prepare(args, preparation, make_data)


def make_data(args: Namespace, config: Config) -> None:
    """Simulate the competition unless it is there."""
    from recipes.demo.competition import simulate

    settings = settings_from(config.prepare, PrepareConfig)
    if simulate(settings, args.datadir, args.nj):
        n = settings.n_train + settings.n_test
        log.info("simulated %d recordings in %s", n, args.datadir)


def preparation(args: Namespace, config: Config) -> "Preparation":
    """What the tables are made from."""
    from local.stages.preparation import Preparation
    from recipes.rfcx.tables import convert

    settings, datadir = settings_from(config.prepare, PrepareConfig), args.datadir
    names = ("train_tp.csv", "train_fp.csv", "sample_submission.csv", "sites.csv")
    return Preparation(
        version=VERSION,
        settings=settings.model_dump(mode="json"),
        inputs=[datadir / name for name in names],
        folders=[datadir / "train", datadir / "test"],
        convert=lambda: convert(
            datadir,
            args.out,
            groups=datadir / "sites.csv",
            song_types=settings.song_types,
            max_invalid_share=settings.max_invalid_share,
        ),
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
