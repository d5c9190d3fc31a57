#!/usr/bin/env python3
"""Simulated competition -> the three tables; the competition is made first where it is missing.

    recipes/demo/prepare.py --datadir data/demo --out dump/demo/tables --conf conf/demo/default.yaml

The settings of the simulation are the `prepare:` section of the configuration (see README.md). The
tables come from what a competitor has; the truth stays closed.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from pydantic import Field

from local.config import Share
from local.jobs.exit_codes import run_script
from local.stages.preparation import prepare_arguments, prepare_tables
from recipes.demo.competition import simulate
from recipes.demo.settings import DemoSettings, settings_from
from recipes.rfcx.prepare import convert

log = logging.getLogger("canopy")

# Raised whenever `convert` makes other tables of the same data and settings.
VERSION = 1


class PrepareConfig(DemoSettings):
    """The `prepare:` section of this recipe: the simulation, and how it becomes tables."""

    song_types: bool = Field(False, description="song types of a species as classes of their own")
    max_invalid_share: Share = Field(0.0, description="unreadable recordings that are put up with")


def main(argv: list[str] | None = None) -> int:
    """Simulate unless done before, then write the tables unless they are up to date."""
    args, config = prepare_arguments(__doc__, argv)
    settings = settings_from(config.prepare, PrepareConfig)
    datadir: Path = args.datadir
    if simulate(settings, datadir, args.nj):
        log.info("simulated %d recordings in %s", settings.n_train + settings.n_test, datadir)
    choices: dict[str, Any] = {
        "song_types": settings.song_types,
        "max_invalid_share": settings.max_invalid_share,
    }
    names = ("train_tp.csv", "train_fp.csv", "sample_submission.csv", "sites.csv")
    return prepare_tables(
        args,
        version=VERSION,
        settings=choices,
        inputs=[datadir / name for name in names],
        folders=[datadir / "train", datadir / "test"],
        convert=lambda: convert(datadir, args.out, groups=datadir / "sites.csv", **choices),
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
