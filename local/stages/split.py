"""Stage 1: every recording into a fold, by label and group."""

import logging

from local.data.folds import assign_folds, write_folds
from local.data.tables import read_tables
from local.stages.experiment import Experiment
from local.stages.run import Run
from local.stages.run_record import note_work

log = logging.getLogger("canopy")


def split(run: Run) -> None:
    """Write folds.csv, unless it is there of these tables and settings."""
    tables = read_tables(run.tables)
    stamp = Experiment(run).stamp("split")
    if stamp.is_done(run.force):
        return
    stamp.clear()
    note_work(run, "split")
    n_folds, seed = run.config.split.n_folds, run.config.seed
    folds = assign_folds(tables.recordings, tables.events, tables.labels, n_folds, seed)
    write_folds(run.exp / "folds.csv", folds)
    stamp.write([run.exp / "folds.csv"])
    sizes = ", ".join(str(n) for n in folds["fold"].value_counts().sort_index())
    log.info("split: %d recordings in folds of %s", len(folds), sizes)
