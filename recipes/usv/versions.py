"""Changed versions of recordings, what is detected in them, and how well."""

import argparse
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from local.data.folds import read_folds
from local.data.tables import Tables, read_table
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.io.seeds import generator
from local.jobs.interruption import stop_if_asked
from local.scoring.event_rules.span_rules import COLUMNS
from local.scoring.event_rules.tuning import count_matches, pooled_f1
from local.scoring.metrics.bootstrap import interval, of_rows
from local.scoring.metrics.matching import EventList
from recipes.usv.changes import TRIED, Change, Sound, write_sound
from recipes.usv.simulate import simulated

ROOT = Path(__file__).resolve().parents[2]
IOUS = (0.0, 0.5)
SIMULATED: dict[str, Change] = {
    "other shapes, 5 to 20 dB": partial(simulated, seconds=6.0, level_db=(5, 20)),
    "other shapes, 0 to 10 dB": partial(simulated, seconds=6.0, level_db=(0, 10)),
}
VERSIONS = TRIED | SIMULATED
RECORDINGS = ("recording_id", "version", "original", "path", "sample_rate", "duration")


def run_name(run: Path, runs: list[Path]) -> str:
    """What a run is called in the tables: its folder's name, or its path where that says nothing"""
    return run.name if len({one.name for one in runs}) == len(runs) else str(run)


def originals(tables: Tables) -> pd.DataFrame:
    """Train recordings that are no copies: each is a group of its own."""
    train = tables.subset("train")
    return train[train["recording_id"] == train["group"]]


def make_versions(args: argparse.Namespace, tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the sounds; what they are (`RECORDINGS`) and the calls in them, as rows of events.

    What is drawn follows from seed, version, recording and number of the draw alone.
    """
    shutil.rmtree(args.out / "sounds", ignore_errors=True)
    rows, calls = [], []
    for row in originals(tables).itertuples():
        wave, rate = soundfile.read(args.datadir / row.path)
        own = tables.events[tables.events["recording_id"] == row.recording_id]
        sound = Sound(wave, rate, own[["onset", "offset"]].to_numpy(np.float64))
        for number, version in enumerate(args.versions):
            stop_if_asked(f"{version} of {row.recording_id}; begin anew")
            for draw in range(args.draws):
                rng = generator(args.seed, "versions", version, row.recording_id, draw)
                changed = VERSIONS[version](sound, rng)
                name = f"{row.recording_id}-{number:02d}-{draw}"
                path = Path("sounds", str(row.recording_id), f"{name}.wav")
                write_sound(args.out / path, changed)
                seconds = len(changed.wave) / rate
                rows.append((name, version, row.recording_id, str(path), rate, seconds))
                calls += [(name, tables.labels[0], *span) for span in changed.calls.tolist()]
    sounds = pd.DataFrame(rows, columns=list(RECORDINGS))
    truth = pd.DataFrame(calls, columns=["recording_id", "label", "onset", "offset"])
    write_csv(args.out / "recordings.csv", sounds)
    write_csv(args.out / "truth.csv", truth)
    return sounds, truth


def detect_run(run: Path, tables: Tables, sounds: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Events of all versions, each by the model and the rule that know nothing of its original."""
    folds = read_folds(run / "folds.csv", tables.recordings).set_index("recording_id")["fold"]
    path = run / "rule.json"
    if not path.is_file():
        raise CanopyError(f"{path}: no such file; run stage 5 with events.tune: true")
    rules = json.loads(path.read_text())["rules_of_folds"]
    found = []
    for original in sounds["original"].unique():
        fold = str(folds[original])
        found.append(detect(run, fold, out / "sounds" / original, rules[fold], out / "detections"))
    return pd.concat(found, ignore_index=True)


def detect(run: Path, fold: str, folder: Path, rule: dict, out: Path) -> pd.DataFrame:
    """Events of a folder of sounds by one fold's model, as bin/detect.py gives them."""
    options = [f"--{key.replace('_', '-')}={value}" for key, value in rule.items()]
    model = run / "cycle0" / f"fold{fold}" / "best.pt"
    command = [sys.executable, "bin/detect.py", model, folder, "--out", out, "--conf"]
    command += [run / "config.yaml", "--format", "csv", "--force", *options]
    absolute = [str(part.resolve() if isinstance(part, Path) else part) for part in command]
    done = subprocess.run(absolute, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise CanopyError(f"{model}: bin/detect.py failed: {done.stderr.strip()[-300:]}")
    return read_table(out / "detections.csv", COLUMNS)[list(COLUMNS)]


# --------------------------------------------------------------------------------------- measures


def measure(
    systems: dict[str, pd.DataFrame],
    truth: pd.DataFrame,
    sounds: pd.DataFrame,
    labels: list[str],
    n_resamples: int,
) -> pd.DataFrame:
    """A row a version and system, then one of all versions but the first, each counting the same.

    Intervals draw originals, so all versions and draws of a recording come and go together.
    """
    counts = {
        name: np.stack([_counts(one, truth, own, labels) for _, own in _by_version(sounds)])
        for name, one in systems.items()
    }
    first = next(iter(counts.values()))
    rows = []
    names = [version for version, _ in _by_version(sounds)]
    groups = {name: [number] for number, name in enumerate(names)}
    if len(names) > 1:
        groups["mean of all others"] = list(range(1, len(names)))
    for version, numbers in groups.items():
        for system, own in counts.items():
            row: dict[str, object] = {"version": version, "system": system}
            row |= {"calls": own[numbers, :, 0].sum(), "found": own[numbers, :, 1].sum()}
            for place, what in enumerate(("f1_any", "f1_iou_0.5")):
                row |= _measured(own[numbers], first[numbers], place, what, n_resamples)
            rows.append(row)
    return pd.DataFrame(rows)


def _by_version(sounds: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return list(sounds.groupby("version", sort=False))


def _counts(
    found: pd.DataFrame, truth: pd.DataFrame, sounds: pd.DataFrame, labels: list[str]
) -> np.ndarray:
    """(originals, 2 + I) of `count_matches`, summed over the draws of each original."""
    names = sounds["recording_id"].tolist()
    true, own = (EventList.of(one, names, labels) for one in (truth, found))
    counts = count_matches(true, own, len(names), IOUS)
    places = pd.factorize(sounds["original"])[0]
    return np.stack([counts[places == place].sum(axis=0) for place in range(places.max() + 1)])


def _measured(
    own: np.ndarray, first: np.ndarray, place: int, name: str, n_resamples: int
) -> dict[str, float]:
    """Mean F1 over versions of counts (versions, originals, 2 + I), less the first's."""

    def value(rows: np.ndarray, of: np.ndarray = own) -> float:
        return float(pooled_f1(of[:, rows])[:, place].mean())

    def difference(rows: np.ndarray) -> float:
        return value(rows) - value(rows, first)

    everything = np.arange(own.shape[1])
    measured = {}
    for what, statistic in ((name, value), (f"{name}_less_first", difference)):
        rng = generator(0, "versions", name)
        low, high = interval(of_rows(statistic), own.shape[1], rng, n_resamples)
        parts = {what: statistic(everything), f"{what}_low": low, f"{what}_high": high}
        measured |= {key: round(number, 3) for key, number in parts.items()}
    return measured
