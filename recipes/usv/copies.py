"""Changed copies of train recordings, and simulations over their noise, for training.

They are train recordings of their original's group, so that no fold learns from a copy of what it
is judged on. `events.copies` keeps them out of figures.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile

from local.data.tables import EVENT_COLUMNS
from local.io.seeds import generator
from recipes.usv.changes import Sound, any_of_them, write_sound
from recipes.usv.settings import CopyConfig
from recipes.usv.simulate import simulated

# Beginning of the ids of all that is made here.
PREFIX = "copy-"
# Levels of simulated calls, decibels.
_LEVEL_DB = (0.0, 20.0)


class Copies(NamedTuple):
    """Rows of recordings and of events of what was made."""

    recordings: pd.DataFrame
    events: pd.DataFrame


def make_copies(
    settings: CopyConfig,
    datadir: Path,
    folder: Path,
    recordings: pd.DataFrame,
    events: pd.DataFrame,
) -> Copies | None:
    """Write them into `folder`, in place of what is there; None where none are asked for."""
    shutil.rmtree(folder, ignore_errors=True)
    rows: list[dict[str, Any]] = []
    calls = []
    for row in recordings[recordings["subset"] == "train"].itertuples(index=False):
        own = events[events["recording_id"] == row.recording_id]
        wave, rate = soundfile.read(datadir / row.path, always_2d=True)
        sound = Sound(wave.mean(axis=1), rate, own[["onset", "offset"]].to_numpy(np.float64))
        for name, copy in _copies_of(sound, str(row.recording_id), settings):
            write_sound(folder / f"{name}.wav", copy)
            seconds = len(copy.wave) / rate
            place = {"recording_id": name, "path": str(folder / f"{name}.wav")}
            rows.append({**row._asdict(), **place, "duration": seconds, "channels": 1})
            calls += [(name, *span) for span in copy.calls.clip(0, seconds).tolist()]
    if not rows:
        return None
    made = pd.DataFrame(calls, columns=["recording_id", "onset", "offset"])
    made = made.assign(label=events["label"].iloc[0], low_freq=np.nan, high_freq=np.nan)
    made = made.assign(polarity=1, weight=1.0, source="copy")
    return Copies(pd.DataFrame(rows)[list(recordings.columns)], made[list(EVENT_COLUMNS)])


def _copies_of(sound: Sound, name: str, settings: CopyConfig) -> list[tuple[str, Sound]]:
    """Names and sounds; what is drawn follows from seed and name alone."""
    made = []
    for number in range(settings.copies):
        rng = generator(settings.seed, "usv copy", name, number)
        made.append((f"{PREFIX}changed{number}-{name}", any_of_them(sound, rng)))
    seconds = len(sound.wave) / sound.rate
    for number in range(settings.simulated):
        rng = generator(settings.seed, "usv simulation", name, number)
        made.append(
            (f"{PREFIX}simulated{number}-{name}", simulated(sound, rng, seconds, _LEVEL_DB))
        )
    return made
