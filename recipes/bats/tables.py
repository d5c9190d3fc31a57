"""The three tables of FileInfo.csv, Annotations.csv and their recordings."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from local.data.tables import EVENT_COLUMNS, Tables, write_tables
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.io.limits import spreadsheet_safe
from recipes.bats.choose_files import (
    Labelled,
    choose_files,
    find_files,
    label_files,
    noise_recordings,
    spans_of,
)
from recipes.bats.match_annotations import DISAGREEMENT_COLUMNS, attach
from recipes.bats.reading import (
    ANNOTATIONS,
    FILE_INFO,
    Faults,
    read_bat_annotations,
    read_file_info,
)
from recipes.bats.settings import PrepareConfig

log = logging.getLogger("canopy")


def convert(datadir: Path, out: Path, settings: PrepareConfig) -> None:
    """Write the tables, what was wrong with rows, and where the two files disagree."""
    faults = Faults()
    files = read_file_info(datadir / FILE_INFO, faults)
    known = {one.file_id for one in files}
    rows = read_bat_annotations(datadir / ANNOTATIONS, known, faults)
    by_file = dict(iter(rows.groupby("file_id")))
    notes: list[tuple] = []
    labelled: list[Labelled] = []
    for one in files:
        voices, own = attach(one, by_file.get(one.file_id, rows[:0]), settings.uncovered)
        notes += own
        labelled.append(Labelled(one, voices))
    chosen = choose_files(label_files(labelled, settings), settings)
    found = find_files(chosen, datadir, settings, faults)
    labels = sorted({label for _, one in found for *_, label in one.spans})
    if not labels:
        raise CanopyError(
            f"{datadir}: no file with a label for prepare.task {settings.task} is left"
        )
    recordings = pd.DataFrame([row for row, _ in found])
    events = spans_of(found, settings)
    if settings.noise:
        noise, absent = noise_recordings(datadir, settings, labels)
        recordings = pd.concat([recordings, noise], ignore_index=True)
        events = pd.concat([events, absent], ignore_index=True)
    classes = pd.DataFrame(
        {"label": labels, "name": labels, "low_freq": np.nan, "high_freq": np.nan}
    )
    write_csv(out / "bad_rows.csv", spreadsheet_safe(faults.frame()))
    notes_table = pd.DataFrame(notes, columns=list(DISAGREEMENT_COLUMNS))
    write_csv(out / "disagreements.csv", spreadsheet_safe(notes_table))
    write_csv(out / "voices.csv", _voice_table(labelled))
    write_tables(out, Tables(recordings, events[list(EVENT_COLUMNS)], classes), datadir)
    tell(faults, notes, recordings, events)


def _voice_table(labelled: list[Labelled]) -> pd.DataFrame:
    rows = [
        {"file_id": one.file.file_id, "start": voice.start, "end": voice.end, **voice.values}
        for one in labelled
        for voice in one.voices
    ]
    return pd.DataFrame(rows).astype("Int64")


def tell(
    faults: Faults, notes: list[tuple], recordings: pd.DataFrame, events: pd.DataFrame
) -> None:
    """Log how many of what."""
    for (table, fault, decision), n in (
        faults.frame().groupby(["table", "fault", "decision"]).size().items()
    ):
        log.warning("%s: %d x %s: %s", table, n, fault, decision)
    kinds = pd.Series([note[3] for note in notes], dtype=str).value_counts()
    for kind, n in kinds.items():
        log.info("disagreement: %d x %s", n, kind)
    log.info("%d recordings in %d groups", len(recordings), recordings["group"].nunique())
    for label, n in events[events["polarity"] > 0].groupby("label").size().items():
        log.info("class %s: %d calls", label, n)
