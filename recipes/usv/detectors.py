"""Events of other detectors, and of the energy detector."""

from pathlib import Path

import numpy as np
import pandas as pd

from local.baselines.energy import EnergyDetector, EnergyParams
from local.config import AudioConfig
from local.features.audio import load_audio
from local.io.errors import CanopyError
from local.scoring.event_rules.span_rules import COLUMNS
from recipes.usv.tables import LABEL, read_calls


def others(datadir: Path, recordings: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Detections of every system whose tables lie beside the recordings, but for the truth."""
    numbers = [str(name).rpartition("_")[2] for name in recordings["recording_id"]]
    names = {path.stem.rpartition("_")[0] for path in datadir.glob("*_*.csv")} - {"gt", ""}
    found = {}
    for name in sorted(names):
        parts = []
        for number, row in zip(numbers, recordings.itertuples(), strict=True):
            path = datadir / f"{name}_{number}.csv"
            if not path.is_file():
                raise CanopyError(f"{path}: no such file, but other recordings have one; add it")
            parts.append(read_calls(path, str(row.recording_id), np.inf))
        parts = [one for one in parts if len(one)] or parts[:1]
        found[name] = pd.concat(parts, ignore_index=True)[list(COLUMNS[:4])]
    return found


def energy_events(datadir: Path, recordings: pd.DataFrame) -> pd.DataFrame:
    """Events of the energy detector; their scores are decibels brought between 0 and 1."""
    params = EnergyParams(f_min_hz=30_000.0, f_max_hz=120_000.0)
    rows = []
    for row in recordings.itertuples():
        detector = EnergyDetector(params, int(row.sample_rate))
        config = AudioConfig(sample_rate=int(row.sample_rate))
        spans = detector.events(detector.scores(load_audio(datadir / row.path, config)))
        rows += [
            (row.recording_id, LABEL, one.onset, one.offset, 1 - 10 ** (-one.score / 10))
            for one in spans
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
