"""Checks of a configuration against itself and against the prepared data, before any work."""

from local.config import Config
from local.data.folds import check_enough
from local.data.reviewed import read_reviewed
from local.data.tables import read_tables
from local.features.front_ends.front_end_registry import front_end_of
from local.stages.run import Run
from local.tasks.task_registry import create_task


def check_config(config: Config) -> None:
    """Everything that needs no data: the front end, and what the task says of its settings."""
    front_end_of(config)
    create_task(config).check_config()


def check_data(run: Run) -> None:
    """What the tables say against the settings; nothing when they are not there yet."""
    if not (run.tables / "recordings.csv").exists():
        return
    tables = read_tables(run.tables)
    recordings = tables.recordings
    check_enough(recordings, tables.events, tables.labels, run.config.split.n_folds)
    reviewed = [run.datadir / name for name in run.config.data.reviewed]
    durations = recordings.set_index("recording_id")["duration"]
    read_reviewed(reviewed, durations, tables.labels)
    create_task(run.config).check_tables(tables, run.datadir)
