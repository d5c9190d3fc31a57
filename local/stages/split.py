"""Stage 1: every recording into a fold, by label and group."""

import logging

from local.data.folds import assign_folds, write_folds
from local.data.tables import read_tables
from local.stages.places import Run
from local.stages.stamps import Stamp

log = logging.getLogger("canopy")


def split(run: Run) -> None:
    """Write folds.csv, unless it is there of these tables and settings."""
    tables = read_tables(run.tables)
    names = ("recordings", "events", "classes")
    settings = {"n_folds": run.config.split.n_folds, "seed": run.config.seed}
    stamp = Stamp(
        run.exp / "split.done.json", settings, [run.tables / f"{name}.csv" for name in names]
    )
    if stamp.is_done(run.force):
        return
    stamp.clear()
    folds = assign_folds(tables.recordings, tables.events, tables.labels, **settings)
    write_folds(run.exp / "folds.csv", folds)
    stamp.write([run.exp / "folds.csv"])
    sizes = ", ".join(str(n) for n in folds["fold"].value_counts().sort_index())
    log.info("split: %d recordings in folds of %s", len(folds), sizes)
