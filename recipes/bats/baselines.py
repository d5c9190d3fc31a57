#!/usr/bin/env python3
"""Runs on the simulated set and the energy detector at every level of calls.

    recipes/bats/baselines.py --datadir data/bats --tables dump/bats/tables --out exp/bats/levels \
        --run exp/bats/default --run exp/bats/denet

Event F1 of simulated files by the level of their calls: each run's out-of-fold events (its
oof_events.csv of stage 5) and the energy detector's, its threshold fitted by the same rule on the
other folds; intervals over files, those of differences to the first run paired. All runs have the
folds of the first. With --features (a dump of log-mel), context and emitter of each voice by
cepstra and mixtures of Gaussians, by the same folds. Writes levels.csv and voices.csv.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from local.baselines.energy import EnergyDetector, EnergyParams
from local.config import AudioConfig, parse_section
from local.data.folds import read_folds
from local.data.tables import read_table, read_tables
from local.features.audio import load_audio
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.files import read_json, write_csv
from local.io.seeds import generator
from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script
from local.scoring.event_rules.tuning import (
    OOF_EVENTS,
    RuleGrid,
    count_matches,
    pooled_f1,
    tune,
)
from local.scoring.metrics.bootstrap import interval, of_rows
from local.scoring.metrics.matching import EventList
from recipes.bats.settings import SimulateConfig
from recipes.bats.simulate import MARKER, RATE, plan

# Bats call from 9 kHz on; the wind is below.
_BAND = {"f_min_hz": 6_000.0, "f_max_hz": 120_000.0}
# The gate that silences clicks silences faint calls too.
ENERGY = {
    "energy": EnergyParams(**_BAND),
    "energy, no gate": EnergyParams(**_BAND, max_flatness_db=0.0),
}
EDGES_DB = (-np.inf, 5.0, 10.0, 15.0, np.inf)
IOUS = (0.0, 0.5)


def main(argv: list[str] | None = None) -> int:
    """Write and print the table."""
    parser = ScriptParser(__doc__)
    for name in ("datadir", "tables", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, action="append", help="EXPDIR/TAG")
    parser.add_argument("--n-bootstrap", type=int, default=1000, help="resamples (%(default)s)")
    args = parser.parse_args(argv)
    if not (args.datadir / MARKER).is_file():
        raise CanopyError(f"{args.datadir}: was not simulated, so the level of calls is not known")
    settings = parse_section(SimulateConfig, read_json(args.datadir / MARKER), "simulate")
    level = {f"f{one.file_id}": one.snr_db for one in plan(settings)}
    tables = read_tables(args.tables)
    folds = folds_of(args.run, tables.recordings)
    columns = ("recording_id", "label", "onset", "offset")
    systems = {run.name: read_table(run / OOF_EVENTS, columns) for run in args.run}
    mine = tables.recordings[tables.recordings["recording_id"].isin(level)]
    for name, params in ENERGY.items():
        scores = energy_of(args.datadir, mine, tables.labels[0], params)
        systems[name] = tune(scores, tables.events, folds, RuleGrid(), IOUS).events
    levels = by_level(systems, tables.events, tables.labels, level, args.n_bootstrap)
    write_csv(args.out / "levels.csv", levels)
    print(levels.to_string(index=False))
    return 0


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


if __name__ == "__main__":
    sys.exit(run_script(main))
