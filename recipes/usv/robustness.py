#!/usr/bin/env python3
"""Fainter and noisier versions of every recording, scored by the model that never saw it.

    recipes/usv/robustness.py --datadir FOLDER --run exp/usv/default --tables dump/usv/tables \
        --rule exp/usv/default/rule.json --out exp/usv/default/fainter

Each version is the recording times a gain plus white noise, in 16 bits; noise is told in decibels
above the recording's own level (its median absolute sample, as a normal deviation). Every recording
is detected in by its own fold's model, with the rule fitted on the other folds, untouched. The
energy detector with its defaults stands beside. Writes fainter.csv.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from local.event_rules.tuning import COLUMNS, count_matches, event_list, pooled_f1
from local.files import atomic_path, write_csv
from local.folds import read_folds
from local.runs import run_script
from local.seeds import generator
from local.tables import read_table, read_tables
from recipes.usv.compare import energy_events

ROOT = Path(__file__).resolve().parents[2]
# Gain in dB, noise in dB above the recording's own level.
VERSIONS = {"as it is": (0.0, None), "gain -30 dB": (-30.0, None), "noise +0 dB": (0.0, 0.0),
            "noise +6 dB": (0.0, 6.0), "noise +10 dB": (0.0, 10.0)}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Make the versions, detect in them, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("datadir", "run", "tables", "rule", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--versions", nargs="+", choices=list(VERSIONS), default=list(VERSIONS))
    args = parser.parse_args(argv)
    tables = read_tables(args.tables)
    recordings = tables.subset("train")
    folds = read_folds(args.run / "folds.csv", tables.recordings).set_index("recording_id")["fold"]
    rules = json.loads(args.rule.read_text())["rules_of_folds"]
    rows = []
    for version in args.versions:
        folder = args.out / version.replace(" ", "_")
        for row in recordings.itertuples():
            gain_db, noise_db = VERSIONS[version]
            make_version(args.datadir / row.path, folder / row.path, gain_db, noise_db)
        found = pd.concat(
            detect(args.run, int(folds[row.recording_id]), folder / row.path, rules, folder)
            for row in recordings.itertuples()
        )
        for system, events in (("model", found), ("energy", energy_events(folder, recordings))):
            names = recordings["recording_id"].tolist()
            true, own = (event_list(one, names, tables.labels) for one in (tables.events, events))
            f1 = pooled_f1(count_matches(true, own, len(names), (0.0, 0.5)))
            rows.append((version, system, len(own), *f1.round(4)))
    table = pd.DataFrame(rows, columns=["version", "system", "found", "f1_any", "f1_iou_0.5"])
    write_csv(args.out / "fainter.csv", table)
    print(table.to_string(index=False))
    return 0


def make_version(path: Path, target: Path, gain_db: float, noise_db: float | None) -> None:
    """One recording, changed; the noise follows from the name alone."""
    wave, rate = soundfile.read(path)
    out = wave * 10 ** (gain_db / 20)
    if noise_db is not None:
        level = np.median(np.abs(wave)) / 0.6745 * 10 ** (noise_db / 20)
        out = out + level * generator(0, "fainter", path.name).standard_normal(len(wave))
    with atomic_path(target) as temporary:
        soundfile.write(temporary, np.clip(out, -1, 1 - 2**-15), rate, "PCM_16", format="WAV")


def detect(run: Path, fold: int, path: Path, rules: dict, folder: Path) -> pd.DataFrame:
    """Events of one sound by one fold's model, as bin/detect.py gives them."""
    out = folder / f"detections{fold}"
    options = [f"--{key.replace('_', '-')}={value}" for key, value in rules[str(fold)].items()]
    model = run / "cycle0" / f"fold{fold}" / "best.pt"
    command = [sys.executable, "bin/detect.py", model, path, "--out", out, "--conf"]
    command += [run / "config.yaml", "--format", "csv", "--force", *options]
    absolute = [part.resolve() if isinstance(part, Path) else part for part in command]
    subprocess.run([str(part) for part in absolute], check=True, cwd=ROOT, capture_output=True)
    columns = ("recording_id", "label", "onset", "offset")
    found = read_table(out / "detections.csv", columns)
    return found.assign(recording_id=path.stem)[list(COLUMNS[:4])]


if __name__ == "__main__":
    sys.exit(run_script(main))
