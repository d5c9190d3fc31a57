#!/usr/bin/env python3
"""A run on the simulated set against the energy detector at every level, and GMMs for who and why.

    recipes/bats/baselines.py --datadir data/bats --tables dump/bats/tables --run exp/bats/default \
        --features dump/bats/FEATURE-ID --out exp/bats/default/baselines

Event F1 of simulated files by the level of their calls: the run's out-of-fold events (of
`bin/tune_events.py`) and the energy detector's, its threshold fitted by the same rule on the other
folds. Context and emitter of each voice by cepstra and mixtures of Gaussians, by the same folds.
Writes levels.csv and voices.csv.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score

from local.audio import load_audio
from local.classical import (
    EnergyDetector,
    EnergyParams,
    GmmClassifier,
    GmmParams,
    mfcc,
    segment_frames,
)
from local.config import AudioConfig, load_config, parse_section
from local.dataset import Dump
from local.errors import CanopyError
from local.files import read_json, write_csv
from local.folds import read_folds
from local.inference import Scores
from local.runs import run_script
from local.seeds import generator
from local.tables import read_table, read_tables
from local.tuning import RuleGrid, count_matches, event_list, pooled_f1, tune
from recipes.bats.settings import SimulateConfig
from recipes.bats.simulate import MARKER, RATE, plan

# Bats call from 9 kHz on; the wind is below.
ENERGY = EnergyParams(f_min_hz=6_000.0, f_max_hz=120_000.0)
EDGES_DB = (-np.inf, 5.0, 10.0, 15.0, np.inf)
IOUS = (0.0, 0.5)


def main(argv: list[str] | None = None) -> int:
    """Write and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("datadir", "tables", "run", "features", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    if not (args.datadir / MARKER).is_file():
        raise CanopyError(f"{args.datadir}: was not simulated, so the level of calls is not known")
    settings = parse_section(SimulateConfig, read_json(args.datadir / MARKER), "simulate")
    level = {f"f{one.file_id}": one.snr_db for one in plan(settings)}
    tables = read_tables(args.tables)
    folds = read_folds(args.run / "folds.csv", tables.recordings).set_index("recording_id")["fold"]
    columns = ("recording_id", "label", "onset", "offset")
    model = read_table(args.run / "events" / "oof_events.csv", columns)
    mine = tables.recordings[tables.recordings["recording_id"].isin(level)]
    scores = energy_of(args.datadir, mine, tables.labels[0])
    energy = tune(scores, tables.events, folds, RuleGrid(), IOUS).events
    levels = by_level({"run": model, "energy": energy}, tables.events, tables.labels, level)
    write_csv(args.out / "levels.csv", levels)
    print(levels.to_string(index=False))
    dump = Dump(args.features, load_config(args.run / "config.yaml", []))
    voices = who_and_why(args.tables / "voices.csv", dump, folds)
    write_csv(args.out / "voices.csv", voices)
    print(voices.to_string(index=False))
    return 0


def energy_of(datadir: Path, recordings: pd.DataFrame, label: str) -> Scores:
    """Scores of the energy detector as a model's."""
    detector = EnergyDetector(ENERGY, RATE)
    config = AudioConfig(sample_rate=RATE)
    frames = [
        detector.logits(detector.scores(load_audio(datadir / path, config)))[None]
        for path in recordings["path"]
    ]
    highest = np.array([track.max() for track in frames], dtype=np.float32)[:, None]
    names = recordings["recording_id"].tolist()
    return Scores(names, [label], frames, highest, detector.hop_s, 0.0)


def by_level(
    systems: dict[str, pd.DataFrame], events: pd.DataFrame, labels: list[str], level: dict
) -> pd.DataFrame:
    """Event F1 of each system at each level of calls."""
    rows = []
    present = events[events["polarity"] > 0]
    bands = [*pairwise(EDGES_DB), (-np.inf, np.inf)]
    known = set(present["recording_id"])
    for low, high in bands:
        names = [name for name, db in level.items() if low <= db < high and name in known]
        true = event_list(present, names, labels)
        for system, found in systems.items():
            own = event_list(found, names, labels)
            f1 = pooled_f1(count_matches(true, own, len(names), IOUS)).round(3)
            rows.append((f"{low:g} to {high:g} dB", system, len(names), len(true), *f1))
    return pd.DataFrame(rows, columns=["level", "system", "files", "calls", "f1_any", "f1_iou_0.5"])


def who_and_why(path: Path, dump: Dump, folds: pd.Series) -> pd.DataFrame:
    """Balanced accuracy of mixtures over cepstra of voices, and what chance gives."""
    voices = pd.read_csv(path)
    voices = voices.assign(recording_id="f" + voices["file_id"].astype(str))
    voices = voices[voices["recording_id"].isin(folds.index)]
    segments = [
        mfcc(segment_frames(dump, row.recording_id, row.start / RATE, row.end / RATE))
        for row in voices.itertuples()
    ]
    fold = folds.loc[voices["recording_id"]].to_numpy()
    rows = []
    for task in ("context", "emitter"):
        value = voices[task].to_numpy(dtype=np.float64)
        known = np.flatnonzero(value > 0)
        guessed = np.full(len(voices), "", dtype=object)
        truth = np.array([f"{number:g}" for number in value], dtype=object)
        for number in np.unique(fold):
            train = [place for place in known if fold[place] != number]
            test = [place for place in known if fold[place] == number]
            gmm = GmmClassifier(GmmParams(n_components=4)).fit(
                [segments[place] for place in train],
                [str(truth[place]) for place in train],
                generator(0, "gmm", task, int(number)),
            )
            guessed[test] = gmm.predict([segments[place] for place in test])
        score = balanced_accuracy_score(truth[known].astype(str), guessed[known].astype(str))
        chance = 1 / len(set(truth[known]))
        rows.append((task, len(known), len(set(truth[known])), round(score, 3), round(chance, 3)))
    return pd.DataFrame(rows, columns=["task", "voices", "classes", "mfcc_gmm", "chance"])


if __name__ == "__main__":
    sys.exit(run_script(main))
