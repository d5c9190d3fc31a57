"""A toy experiment: three classes in bands of a made-up log-mel, groups of several recordings."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from local.config import Config
from local.data.folds import assign_folds, write_folds
from local.data.tables import EVENT_COLUMNS, RECORDING_COLUMNS, Tables, write_tables
from local.features.corpus import make_features
from local.features.front_ends.front_end_registry import front_end_of
from local.features.npz import stretched_folder, write_features
from local.features.store import FeatureStore
from local.io.files import write_csv
from local.stages.run import Run
from local.stages.stage_options import stage_parser
from local.stages.starting import start
from tests.scripts import load_script

LABELS = ["a", "b", "c"]
# Frames of 0.1 s, eight bands, a model of two blocks that trains in a blink.
SETTINGS = {
    "audio": {"sample_rate": 1000},
    "features": {"n_fft": 128, "hop_length": 100, "n_mels": 8, "dtype": "float32"},
    "split": {"n_folds": 3},
    "window": {"length_s": 2.0},
    "model": {
        "name": "crnn",
        "params": {"channels": [8, 8], "pool": [[2, 2], [1, 1]], "depth": 1, "gru": 0},
    },
    "train": {
        "n_epochs": 4,
        "windows_per_epoch": 64,
        "batch_size": 16,
        "lr": 0.01,
        "ema_decay": 0.8,
        "validate_every": 2,
        "amp": False,
    },
    # Of pseudo labels as events, which can be told one by one.
    "relabel": {"kind": "events", "start": "scratch"},
    "score": {"n_bootstrap": 0},
}


def merged(settings: dict, changes: dict) -> dict:
    """`changes` as {"section.key": value} over `settings`."""
    result = {
        key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()
    }
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if name:
            result.setdefault(section, {})[name] = value
        else:
            result[section] = value
    return result


@pytest.fixture
def toy_config():
    """Function: changes as {"section.key": value} -> Config."""
    return lambda **changes: Config.model_validate(
        merged(SETTINGS, {key.replace("__", "."): value for key, value in changes.items()})
    )


def write_dump(folder: Path, arrays: dict[str, np.ndarray], config: Config) -> FeatureStore:
    """Feature files and manifest as stage 0 leaves them."""
    rows = []
    for name, array in arrays.items():
        duration = (array.shape[-1] - 1) * front_end_of(config).hop_s
        write_features(
            folder / f"{name}.npz",
            array,
            sample_rate=config.audio.sample_rate,
            hop_length=config.features.hop_length,
            duration=duration,
        )
        rows.append((name, f"{name}.npz", array.shape[-1], duration, "ok", ""))
    columns = ["recording_id", "file", "n_frames", "duration", "status", "reason"]
    write_csv(folder / "manifest.csv", pd.DataFrame(rows, columns=columns))
    return FeatureStore(folder, config)


@pytest.fixture
def toy_dump(tmp_path):
    """Function: {recording_id: (n_mels, T)}, config -> Dump."""
    return lambda arrays, config: write_dump(tmp_path / "dump", arrays, config)


def planted(rng: np.random.Generator, n_frames: int, calls: list[tuple[int, float, float]]):
    """Noise with calls: class k lights bands 2k and 2k + 1 from onset to offset (seconds)."""
    array = rng.normal(-4, 0.5, (8, n_frames)).astype(np.float32)
    for label, onset, offset in calls:
        array[2 * label : 2 * label + 2, round(onset * 10) : round(offset * 10)] += 5
    return array


def played(array: np.ndarray, factor: float) -> np.ndarray:
    """The same so many times as long."""
    n_frames = 1 + round((array.shape[-1] - 1) * factor)
    return array[
        :, np.round(np.arange(n_frames) / factor).astype(int).clip(max=array.shape[-1] - 1)
    ]


@pytest.fixture
def toy(tmp_path):
    """Function: changes -> an experiment with tables, dump and folds, as stages 0 and 1 leave it.

    18 train recordings of 6 s in 6 groups of three; 6 test recordings: two of a group that is in
    train, four of two groups of their own; 2 unlabelled ones. Every recording has a call of each
    class, of which one is annotated in train, and a rejected span where nothing calls.
    """

    def make(**changes) -> SimpleNamespace:
        changes = {key.replace("__", "."): value for key, value in changes.items()}
        conf = tmp_path / "toy.yaml"
        conf.write_text(yaml.safe_dump(merged(SETTINGS, changes)))
        rng = np.random.default_rng(5)
        names = [(f"r{i:02d}", "train", f"g{i // 3}") for i in range(18)]
        names += [("t0", "test", "g0"), ("t1", "test", "g0")]
        names += [(f"t{i}", "test", f"h{i // 2}") for i in range(2, 6)]
        names += [("u0", "unlabelled", "g1"), ("u1", "unlabelled", "v")]
        arrays, calls_of, events = {}, {}, []
        for position, (name, subset, _) in enumerate(names):
            starts = rng.permutation([0.3, 2.3, 4.3])
            calls = [(k, float(starts[k]), float(starts[k]) + 1.2) for k in range(3)]
            arrays[name], calls_of[name] = planted(rng, 61, calls), calls
            if subset == "train":
                k, onset, offset = calls[position % 3]
                events.append((name, LABELS[k], onset, offset, 1, "tp"))
                _, onset, offset = calls[(position + 1) % 3]
                events.append((name, LABELS[k], onset, offset, -1, "fp"))
        recordings = pd.DataFrame(names, columns=["recording_id", "subset", "group"])
        recordings["path"] = recordings["recording_id"] + ".wav"
        recordings = recordings.assign(duration=6.0, sample_rate=1000.0, channels=1.0)
        columns = ["recording_id", "label", "onset", "offset", "polarity", "source"]
        table = pd.DataFrame(events, columns=columns)
        table = table.assign(low_freq=np.nan, high_freq=np.nan, weight=1.0)
        classes = pd.DataFrame({"label": LABELS, "name": LABELS})
        classes = classes.assign(low_freq=np.nan, high_freq=np.nan)
        tables = Tables(recordings[list(RECORDING_COLUMNS)], table[list(EVENT_COLUMNS)], classes)
        (tmp_path / "data").mkdir(exist_ok=True)
        write_tables(tmp_path / "dump" / "tables", tables, tmp_path / "data")
        options = ["--recipe", "toy", "--conf", str(conf), "--device", "cpu", "--nj", "1"]
        for name, folder in (("datadir", "data"), ("dumpdir", "dump"), ("expdir", "exp")):
            options += [f"--{name}", str(tmp_path / folder)]
        run: Run = start(stage_parser(None).parse_args(options), "test")
        for factor in (1.0, *run.config.features.stretches):
            slow = {name: played(array, factor) for name, array in arrays.items()}
            write_dump(stretched_folder(run.features, factor), slow, run.config)
        folds = assign_folds(recordings, table, LABELS, run.config.split.n_folds, run.config.seed)
        write_folds(run.exp / "folds.csv", folds)
        return SimpleNamespace(run=run, options=options, calls=calls_of, tables=tables)

    return make


@pytest.fixture(scope="session")
def script():
    """Function: name -> that script of bin/ as a module."""
    return load_script


@pytest.fixture
def sound_dump(tmp_path):
    """Function: {recording_id: samples}, config -> the Dump that stage 0 makes of them.

    With its stretched ones beside it. Samples are written as 16-bit files of the configured rate.
    """

    def make(waves: dict[str, np.ndarray], config: Config) -> FeatureStore:
        data, folder, rate = tmp_path / "sound", tmp_path / "features", config.audio.sample_rate
        data.mkdir(exist_ok=True)
        for name, wave in waves.items():
            soundfile.write(data / f"{name}.wav", wave, rate, subtype="PCM_16")
        recordings = pd.DataFrame({"recording_id": list(waves)})
        recordings["path"] = recordings["recording_id"] + ".wav"
        for factor in (1.0, *config.features.stretches):
            to = stretched_folder(folder, factor)
            manifest, _, _ = make_features(recordings, data, to, config, "cpu", 1, factor)
            write_csv(to / "manifest.csv", manifest)
        return FeatureStore(folder, config)

    return make
