#!/usr/bin/env python3
"""Rainforest competition layout -> the three tables.

    recipes/rfcx/prepare.py --datadir data/rfcx --out dump/rfcx/tables --conf conf/rfcx/default.yaml

Reads `train/`, `test/` (any audio libsndfile knows), `train_tp.csv`, `train_fp.csv` and
`sample_submission.csv`, at any sample rate, duration and number of classes. Confirmed candidates
become events of polarity 1 and source `tp`, rejected ones polarity -1 and source `fp`; everything
else stays unknown. Nothing else in the folder is opened. With `--set prepare.download=true` the
competition is fetched first when it is not there (see docs/competition.md).
"""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from pydantic import Field

from local.config import Config, Section, parse_section
from local.jobs.exit_codes import run_script
from local.stages.stage_options import preparation_parser

if TYPE_CHECKING:
    from local.stages.preparation import Preparation

# Raised whenever `convert` makes other tables of the same data and settings.
VERSION = 1


class PrepareConfig(Section):
    """The `prepare:` section of this recipe."""

    # Fetch the competition with the official client when the data folder lacks it.
    download: bool = False
    # Song types of a species as classes of their own, merged by maximum at submission.
    song_types: bool = False
    # csv of recording_id and site (or session): what must not straddle folds; relative to the data.
    groups: str | None = None
    # Unreadable recordings are left out and listed; above this share of all they stop the run.
    max_invalid_share: float = Field(default=0.0, ge=0.0, le=1.0)


def main(argv: list[str] | None = None) -> int:
    """Prepare the tables unless they are there already and up to date."""
    args = preparation_parser(__doc__).parse_args(argv)

    from local.stages.preparation import prepare

    return prepare(args, preparation, make_data)


def make_data(args: Namespace, config: Config) -> None:
    """Fetch the competition where that is asked for."""
    if parse_section(PrepareConfig, config.prepare, "prepare").download:
        from recipes.rfcx.download import fetch

        fetch(args.datadir)


def preparation(args: Namespace, config: Config) -> "Preparation":
    """What the tables are made from."""
    from local.stages.preparation import Preparation
    from recipes.rfcx.tables import convert

    settings = parse_section(PrepareConfig, config.prepare, "prepare")
    inputs = [args.datadir / name for name in ("train_tp.csv", "train_fp.csv")]
    inputs += [args.datadir / "sample_submission.csv"]
    inputs += [args.datadir / settings.groups] if settings.groups else []
    return Preparation(
        version=VERSION,
        # How the data came alters no table.
        settings=settings.model_dump(exclude={"download"}),
        inputs=inputs,
        folders=[args.datadir / "train", args.datadir / "test"],
        convert=lambda: convert(
            args.datadir,
            args.out,
            song_types=settings.song_types,
            groups=args.datadir / settings.groups if settings.groups else None,
            max_invalid_share=settings.max_invalid_share,
        ),
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
