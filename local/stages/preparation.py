"""What the preparations of recipes share: whether the tables are up to date, and making them.

`prepare.py` of a recipe has a function `preparation` that tells what its tables are made from, and
makes nothing: `run.sh` calls it to see whether there is anything to do.
"""

import logging
import math
import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.config import Config
from local.data.tables import check_source
from local.io.errors import CanopyError
from local.io.files import fingerprint
from local.jobs.locks import lock_folder
from local.stages.dependencies import STAGES
from local.stages.logs import start_log
from local.stages.settings import of_recipe, resolve
from local.stages.stamps import Stamp

log = logging.getLogger("canopy")


@dataclass(frozen=True)
class Preparation:
    """What a recipe's tables are made from, and how.

    version : the recipe's own, raised whenever `convert` makes other tables of the same.
    settings : what they depend on beside the data; also what the data themselves were made by,
        where the recipe makes them.
    inputs : annotation files, compared by content.
    folders : hold recordings, compared by name, size and time of change, because reading a corpus
        to see that it is unchanged takes long.
    convert : writes the tables.
    """

    version: int
    settings: dict[str, Any]
    inputs: list[Path]
    folders: list[Path]
    convert: Callable[[], None]

    def stamp(self, datadir: Path, out: Path) -> Stamp:
        """The mark that the tables in `out` were made from the same data and settings.

        Raises
        ------
        CanopyError
            A file or a folder is missing.
        """
        absent = [path for path in self.inputs if not path.is_file()]
        if absent:
            raise CanopyError(f"{absent[0]}: no such file; complete the data or check --datadir")
        listings = {folder.name: _listing(folder) for folder in self.folders}
        settings = {
            **self.settings,
            "recipe's version": self.version,
            "files": fingerprint(listings),
        }
        named = {_name(n, path, datadir): path for n, path in enumerate(self.inputs)}
        return Stamp(out / "prepare.done.json", STAGES["prepare"].version, settings, named)


def prepare(
    args: Namespace,
    preparation: Callable[[Namespace, Config], Preparation],
    make_data: Callable[[Namespace, Config], None] | None = None,
) -> int:
    """Write a recipe's tables to `args.out` unless they are up to date; 0, the exit code.

    Parameters
    ----------
    args : of `stage_options.preparation_parser`.
    make_data : makes or fetches the raw data first, where they are missing.
    """
    start_log(args.out / "prepare.log")
    config = of_recipe(resolve(args.conf, args.overrides, None).config)
    if make_data is not None:
        make_data(args, config)
    return prepare_tables(args, preparation(args, config))


def prepare_tables(args: Namespace, made: Preparation) -> int:
    """Write the tables unless they were made from the same data and settings; 0, the exit code."""
    if not args.force:
        check_source(args.out, args.datadir)
    stamp = made.stamp(args.datadir, args.out)
    # Runs of other tags may share the tables: the second finds them made.
    with lock_folder(args.out, "this folder of tables", wait_s=math.inf):
        if stamp.is_done(args.force):
            return 0
        stamp.clear()
        made.convert()
        stamp.write([args.out / f"{name}.csv" for name in ("recordings", "events", "classes")])
    log.info("tables of %s written to %s", args.datadir, args.out)
    return 0


def _name(number: int, path: Path, datadir: Path) -> str:
    """What an input is called in the stamp: the same wherever the data folder lies."""
    inside = path.is_relative_to(datadir)
    return path.relative_to(datadir).as_posix() if inside else f"{number}: {path.name}"


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    if not folder.is_dir():
        raise CanopyError(f"{folder}: no such folder; check --datadir")
    return sorted(
        (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in os.scandir(folder)
        if entry.is_file()
    )
