"""Stage 0: recordings -> features in npz files, and a manifest."""

import logging
import math
import os
from pathlib import Path

from local.data.tables import Tables, read_tables
from local.features.corpus import (
    JOURNAL_NAME,
    all_there,
    check_corpus,
    check_invalid_share,
    journals_of_shards,
    make_features,
    source_path,
)
from local.features.npz import stretched_folder
from local.io.errors import CanopyError
from local.io.files import fingerprint, write_csv, write_json
from local.jobs.locks import lock_folder
from local.jobs.shards import Shard
from local.stages.checks import check_data
from local.stages.dependencies import STAGES
from local.stages.inputs import stage_settings
from local.stages.run import Run
from local.stages.run_record import note_work
from local.stages.stamps import Stamp

log = logging.getLogger("canopy")


def preprocess(run: Run, shard: Shard | None) -> None:
    """Make the features of all recordings, and of all stretched ones; or a share of them."""
    tables = read_tables(run.tables)
    # Also where the features are there: another version may ask for what these tables lack.
    check_data(run)
    for factor in (1.0, *run.config.features.stretches):
        folder = stretched_folder(run.features, factor)
        # Runs of other tags may share the dump: the second finds it made.
        with lock_folder(folder, "this dump", shared=shard is not None, wait_s=math.inf):
            make_dump(run, tables, folder, factor, shard)


def dumps_are_done(run: Run) -> bool:
    """Whether all features are there, of these recordings and settings; says so in the log."""
    tables = read_tables(run.tables)
    folders = {
        factor: stretched_folder(run.features, factor)
        for factor in (1.0, *run.config.features.stretches)
    }
    stamps = [dump_stamp(run, tables, folder, factor) for factor, folder in folders.items()]
    done = all(stamp.matches() for stamp in stamps) and all(map(all_there, folders.values()))
    for stamp in stamps if done else ():
        stamp.say_done()
    return done


def dump_stamp(run: Run, tables: Tables, folder: Path, factor: float) -> Stamp:
    """The mark that a dump was made of these recordings, known by size and time of change."""
    sources = [source_path(run.datadir, path) for path in tables.recordings["path"]]
    files = [
        (os.stat(path).st_size, os.stat(path).st_mtime_ns) if path.is_file() else None
        for path in sources
    ]
    needs = STAGES["preprocess"]
    settings = stage_settings(needs, run.config)
    settings |= {"stretch": factor, "recordings": fingerprint(files)}
    inputs = {name: run.dumpdir / name for name in needs.read_files(run.config)}
    return Stamp(folder / "preprocess.done.json", needs.version, settings, inputs)


def make_dump(run: Run, tables: Tables, folder: Path, factor: float, shard: Shard | None) -> None:
    """Make the dump of the recordings played `factor` times as long, unless it is there."""
    stamp = dump_stamp(run, tables, folder, factor)
    if all_there(folder) and stamp.is_done(run.force):
        return
    if shard is not None and run.force:
        raise CanopyError("--shard goes with no --force: remove the dump to make it anew")
    stamp.clear()
    note_work(run, "preprocess")
    check_corpus(tables.recordings, folder, run.config)
    if run.force:
        # Without their journal all of these recordings are made anew, each in place of the one
        # before; what other tables had made stays.
        for path in [folder / JOURNAL_NAME, *journals_of_shards(folder)]:
            path.unlink(missing_ok=True)
    manifest, stats, n_made = make_features(
        tables.recordings, run.datadir, folder, run.config, run.device, run.nj, factor, shard
    )
    if shard is not None:
        log.info("preprocess: share %s, %d of %d made", shard.name, n_made, len(manifest))
        return
    n_usable = int((manifest["status"] == "ok").sum())
    write_csv(folder / "manifest.csv", manifest)
    write_json(folder / "statistics.json", {"recordings": n_usable, **stats.to_dict()})
    check_invalid_share(manifest, run.config.audio.max_invalid_share)
    stamp.write([folder / "manifest.csv"])
    for path in journals_of_shards(folder):
        path.unlink()
    seconds = manifest["duration"].sum()
    log.info("preprocess: %d of %d recordings made", n_made, len(manifest))
    log.info("preprocess: %.1f h of sound in %s", seconds / 3600, folder)
