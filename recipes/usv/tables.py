"""The three tables of recordings of ultrasonic calls beside tables of onset and offset."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from local.config import Config
from local.data.annotations.plain import read_plain
from local.data.annotations.shared import ReadOptions
from local.data.tables import EVENT_COLUMNS, Tables, write_tables
from local.features.audio import probe
from local.io.errors import CanopyError
from local.io.files import write_csv
from recipes.mine.folder import find_files
from recipes.usv.copies import make_copies
from recipes.usv.settings import PrepareConfig

log = logging.getLogger("canopy")


LABEL = "call"
# Rounding of an annotation program: so far may a call end after its file.
_END_SLACK_S = 0.01


def find_pairs(datadir: Path, settings: PrepareConfig) -> list[tuple[Path, Path]]:
    """Every recording with the place of its table, which need not be there.

    Raises
    ------
    CanopyError
        No recordings; a pattern without its place; a table without its recording.
    """
    before, star, after = settings.recordings.partition("*")
    if not star or "*" in after or settings.truth.count("{}") != 1:
        raise CanopyError(
            f"prepare.recordings is {settings.recordings!r} and prepare.truth {settings.truth!r}; "
            "give one * in the one and one {} in the other, as rec_*.wav and gt_{}.csv"
        )
    sounds = find_files(datadir, [settings.recordings])
    if not sounds:
        raise CanopyError(f"{datadir}: no recordings {settings.recordings}; check --datadir")
    pairs = [
        (path, datadir / settings.truth.format(path.name[len(before) : -len(after) or None]))
        for path in sounds
    ]
    lonely = set(find_files(datadir, [settings.truth.format("*")])) - {table for _, table in pairs}
    if lonely:
        raise CanopyError(f"{min(lonely)}: belongs to no {settings.recordings}; add the recording")
    return pairs


def convert(datadir: Path, out: Path, settings: PrepareConfig, config: Config) -> None:
    """Write the tables; calls of recordings held out go to test_events.csv, for scoring alone."""
    pairs = find_pairs(datadir, settings)
    unknown = set(settings.test) - {path.stem for path, _ in pairs}
    if unknown:
        raise CanopyError(f"prepare.test names {min(unknown)!r}, which is no recording")
    recordings = pd.DataFrame([_recording(path, table, settings, config) for path, table in pairs])
    rows = [
        read_calls(table, path.stem, float(duration))
        for (path, table), duration in zip(pairs, recordings["duration"], strict=True)
        if table.is_file()
    ]
    if not rows:
        raise CanopyError(f"{datadir}: no table {settings.truth}; there is nothing to learn from")
    events = pd.concat([one for one in rows if len(one)] or rows[:1], ignore_index=True)
    n_train, n_copies = int((recordings["subset"] == "train").sum()), 0
    made = make_copies(settings, datadir, out.resolve() / "copies", recordings, events)
    if made is not None:
        n_copies = len(made.recordings)
        recordings = pd.concat([recordings, made.recordings], ignore_index=True)
        events = pd.concat([events, made.events], ignore_index=True)
    held_out = events["recording_id"].isin(settings.test)
    write_csv(out / "test_events.csv", events[held_out])
    write_csv(out / "train_events.csv", events[~held_out])
    events = events[~held_out].reset_index(drop=True)
    classes = pd.DataFrame(
        {"label": [LABEL], "name": [LABEL], "low_freq": [np.nan], "high_freq": [np.nan]}
    )
    write_tables(out, Tables(recordings, events, classes), datadir)
    log.info(
        "%d train recordings, %d copies and simulations of them, with %d calls; %d test recordings",
        *(n_train, n_copies, len(events), len(pairs) - n_train),
    )
    if n_train != config.split.n_folds:
        log.warning(
            "%d train recordings in %d folds: to leave out one at a time, set split.n_folds to %d",
            *(n_train, config.split.n_folds, n_train),
        )


def _recording(
    path: Path, table: Path, settings: PrepareConfig, config: Config
) -> dict[str, object]:
    info = probe(path)
    if info.sample_rate != config.audio.sample_rate:
        raise CanopyError(
            f"{path}: sample rate is {info.sample_rate} Hz, expected {config.audio.sample_rate}; "
            "mend the file's header, or set audio.sample_rate and the frequencies of features"
        )
    known = table.is_file() and path.stem not in settings.test
    return {
        "recording_id": path.stem,
        "path": path.name,
        "subset": "train" if known else "test",
        "duration": info.duration,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "group": path.stem,
    }


def read_calls(table: Path, recording_id: str, duration_s: float) -> pd.DataFrame:
    """Rows of events of one table of onset and offset, with or without a header.

    An empty table says that nobody calls. A call may end up to 10 ms after its file and is cut
    there.
    """
    if table.stat().st_size == 0:
        return pd.DataFrame(columns=list(EVENT_COLUMNS))
    calls = read_plain(table, ReadOptions(label=LABEL))
    late = calls["offset"] > duration_s + _END_SLACK_S
    if late.any():
        raise CanopyError(
            f"{table}: a call ends at {calls.loc[late, 'offset'].iloc[0]:g} s, but its recording "
            f"at {duration_s:g}; times must be seconds from its start"
        )
    calls = calls.assign(
        recording_id=recording_id, source="gt", offset=calls["offset"].clip(upper=duration_s)
    )
    return calls[list(EVENT_COLUMNS)]
