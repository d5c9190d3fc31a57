#!/usr/bin/env python3
"""Stage 0: recordings -> one npz of features each, and a manifest.

    bin/preprocess.py --recipe demo --nj 2

Reads the tables in DUMPDIR/tables and the recordings they name below DATADIR; writes
DUMPDIR/<feature-id>/<recording_id>.npz, manifest.csv and statistics.json, and for each factor of
features.stretches the same of the stretched recordings in DUMPDIR/<feature-id>_x<factor>/.
Recordings that cannot be read are listed in the manifest; above audio.max_invalid_share they stop
the run.
"""

import os
import sys
from pathlib import Path

from local.checks import check_data
from local.corpus import all_there, check_corpus, check_invalid_share, make_features, source_path
from local.features import stretched_folder
from local.files import write_csv, write_json
from local.runs import Run, Stamp, log, run_script, set_threads, stage_parser, start
from local.tables import Tables, read_tables


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    run = start(stage_parser(__doc__).parse_args(argv), "preprocess")
    set_threads()
    tables = read_tables(run.tables)
    for factor in (1.0, *run.config.features.stretches):
        make_dump(run, tables, stretched_folder(run.features, factor), factor)
    return 0


def make_dump(run: Run, tables: Tables, folder: Path, factor: float) -> None:
    """Make the dump of the recordings played `factor` times as long, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [source_path(run.datadir, path) for path in tables.recordings["path"]]
    files = [
        (str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) if path.is_file() else None
        for path in sources
    ]
    settings = {"id": folder.name, "files": files, "limit": run.config.audio.max_invalid_share}
    stamp = Stamp(folder / "preprocess.done.json", settings, [run.tables / "recordings.csv"])
    if all_there(folder) and stamp.is_done(run.force):
        return
    check_data(run)
    stamp.clear()
    check_corpus(tables.recordings, folder, run.config)
    if run.force:
        for path in folder.glob("*.npz"):
            path.unlink()
    manifest, stats, n_made = make_features(
        tables.recordings, run.datadir, folder, run.config, run.device, run.nj, factor
    )
    write_csv(folder / "manifest.csv", manifest)
    write_json(folder / "statistics.json", {"recordings": n_made, **stats.to_dict()})
    check_invalid_share(manifest, run.config.audio.max_invalid_share)
    stamp.write([folder / "manifest.csv"])
    seconds = manifest["duration"].sum()
    log.info("preprocess: %d of %d recordings made", n_made, len(manifest))
    log.info("preprocess: %.1f h of sound in %s", seconds / 3600, folder)


if __name__ == "__main__":
    sys.exit(run_script(main))
