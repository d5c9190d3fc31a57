"""What the preparations of recipes share: options, and whether the tables are up to date."""

import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local.config import Config, load_config
from local.data.tables import check_source
from local.io.errors import CanopyError
from local.io.files import fingerprint
from local.jobs.arguments import ScriptParser
from local.jobs.locks import lock_folder
from local.stages.dependencies import STAGES
from local.stages.logs import start_log
from local.stages.stamps import Stamp

log = logging.getLogger("canopy")


def prepare_arguments(description: str | None, argv: list[str] | None = None) -> tuple[Any, Config]:
    """Options of a recipe's preparation, and the configuration."""
    parser = ScriptParser(description)
    parser.add_argument("--datadir", type=Path, required=True, help="folder of the raw data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables to write")
    parser.add_argument("--conf", type=Path, required=True, help="version, for `prepare:`")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel processes")
    parser.add_argument("--force", action="store_true", help="prepare even if done before")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args(argv)
    start_log(args.out / "prepare.log")
    return args, load_config(args.conf, args.overrides)


def prepare_tables(
    args: Any,
    *,
    version: int,
    settings: dict[str, Any],
    inputs: list[Path],
    folders: list[Path],
    convert: Callable[[], None],
) -> int:
    """Call `convert` unless the tables in `args.out` were made from the same data and settings.

    `version` is the recipe's own, raised whenever `convert` makes other tables of the same.
    `inputs` are annotation files (compared by content), `folders` hold recordings (compared by
    name, size and time of change, because reading a corpus to see that it is unchanged takes long).
    """
    if not args.force:
        check_source(args.out, args.datadir)
    absent = [path for path in inputs if not path.is_file()]
    if absent:
        raise CanopyError(f"{absent[0]}: no such file; complete the data or check --datadir")
    listings = {folder.name: _listing(folder) for folder in folders}
    settings = {**settings, "recipe's version": version, "files": fingerprint(listings)}
    named = {_name(n, path, args.datadir): path for n, path in enumerate(inputs)}
    own = STAGES["prepare"].version
    stamp = Stamp(args.out / "prepare.done.json", own, settings, named)
    # Runs of other tags may share the tables: the second finds them made.
    with lock_folder(args.out, "this folder of tables", wait_s=math.inf):
        if stamp.is_done(args.force):
            return 0
        stamp.clear()
        convert()
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
