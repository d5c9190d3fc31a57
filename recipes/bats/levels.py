"""Event F1 by the level of calls, of runs and of the energy detector."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from local.baselines.energy import EnergyDetector, EnergyParams
from local.config import AudioConfig
from local.data.folds import read_folds
from local.features.audio import load_audio
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.seeds import generator
from local.scoring.event_rules.tuning import (
    count_matches,
    pooled_f1,
)
from local.scoring.metrics.bootstrap import interval, of_rows
from local.scoring.metrics.matching import EventList
from recipes.bats.simulate import RATE

# Bats call from 9 kHz on; the wind is below.
_BAND = {"f_min_hz": 6_000.0, "f_max_hz": 120_000.0}
# The gate that silences clicks silences faint calls too.
ENERGY = {
    "energy": EnergyParams(**_BAND),
    "energy, no gate": EnergyParams(**_BAND, max_flatness_db=0.0),
}
EDGES_DB = (-np.inf, 5.0, 10.0, 15.0, np.inf)
IOUS = (0.0, 0.5)


def folds_of(runs: list[Path], recordings: pd.DataFrame) -> pd.Series:
    """Fold of each recording, the same in all runs."""
    first, *others = (
        read_folds(run / "folds.csv", recordings).set_index("recording_id")["fold"] for run in runs
    )
    for run, other in zip(runs[1:], others, strict=True):
        if not other.loc[first.index].equals(first):
            raise CanopyError(f"{run}: its folds are not those of {runs[0]}; split both alike")
    return first


def energy_of(datadir: Path, recordings: pd.DataFrame, label: str, params: EnergyParams) -> Scores:
    """Scores of the energy detector as a model's."""
    detector = EnergyDetector(params, RATE)
    config = AudioConfig(sample_rate=RATE)
    frames = [
        detector.logits(detector.scores(load_audio(datadir / path, config)))[None]
        for path in recordings["path"]
    ]
    highest = np.array([track.max() for track in frames], dtype=np.float32)[:, None]
    names = recordings["recording_id"].tolist()
    return Scores(names, [label], frames, highest, detector.hop_s, 0.0)


def by_level(
    systems: dict[str, pd.DataFrame],
    events: pd.DataFrame,
    labels: list[str],
    level: dict[str, float],
    n_resamples: int,
) -> pd.DataFrame:
    """Event F1 of each system at each level of calls, and how far it is from the first's."""
    rows = []
    present = events[events["polarity"] > 0]
    bands = [*pairwise(EDGES_DB), (-np.inf, np.inf)]
    known = set(present["recording_id"])
    for low, high in bands:
        names = [name for name, db in level.items() if low <= db < high and name in known]
        true = EventList.of(present, names, labels)
        counts = {
            system: count_matches(true, EventList.of(found, names, labels), len(names), IOUS)
            for system, found in systems.items()
        }
        first = next(iter(counts.values()))
        for system, own in counts.items():
            row = {"level": f"{low:g} to {high:g} dB", "system": system}
            row |= {"files": len(names), "calls": len(true)}
            for place, iou in enumerate(IOUS):
                row |= _measured(own, first, place, f"f1_{iou:g}", n_resamples)
            rows.append(row)
    return pd.DataFrame(rows)


def _measured(
    own: np.ndarray, first: np.ndarray, place: int, name: str, n_resamples: int
) -> dict[str, float]:
    """F1 at one limit of overlap from counts by file, less that of the first, and intervals."""

    def value(rows: np.ndarray) -> float:
        return float(pooled_f1(own[rows])[place])

    def difference(rows: np.ndarray) -> float:
        return value(rows) - float(pooled_f1(first[rows])[place])

    everything = np.arange(len(own))
    measured = {}
    for what, statistic in ((name, value), (f"{name}_difference", difference)):
        rng = generator(0, "levels", name)
        low, high = interval(of_rows(statistic), len(own), rng, n_resamples)
        found = {what: statistic(everything), f"{what}_low": low, f"{what}_high": high}
        measured |= {key: round(number, 3) for key, number in found.items()}
    return measured
