"""Rates that a cluster is planned by, stage by stage and by configuration: docs/cluster.md.

    python tests/bench/sizing.py                  of one core, by processor time
    python tests/bench/sizing.py --device cuda    of a GPU, by the clock
    python tests/bench/sizing.py --conf conf/mine/default.yaml --rate 96000

Each configuration runs on made-up recordings of noise, with networks that have learned nothing, as
its stages run: sound file to feature file, batches of an epoch with all their augmentation, sound
file to detections. On a GPU, features are made with one core that decodes for it; stage 0 runs on
cores where there are more of them than GPUs.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from threadpoolctl import threadpool_limits

from local.config import Config, load_config
from local.data.tables import EVENT_COLUMNS, RECORDING_COLUMNS, Tables
from local.detect.detectors import Request, load
from local.features.front_ends.front_end import SPECTROGRAM
from local.features.front_ends.front_end_registry import front_end_of
from local.features.recording import process_recording
from local.features.store import FeatureStore
from local.inference.views import inference_window
from local.io.files import write_csv
from local.models import create_model
from local.tasks.detection_fold import DetectionFold
from local.training.epoch_plan import make_training_set
from local.training.fold_loop import Trainer
from tests.bench.detection import N_CLASSES, detect, publish

# What the recordings of each are like, in hertz, and how long, in seconds.
CONFIGS = {
    "conf/rfcx/default.yaml": 48_000,
    "conf/rfcx/laptop.yaml": 48_000,
    "conf/usv/default.yaml": 250_000,
    "conf/usv/denet.yaml": 250_000,
}
N_RECORDINGS = 8
SAMPLES_EACH = 60 * 48_000


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--conf", nargs="+", help=f"(default: {' '.join(CONFIGS)})")
    parser.add_argument("--rate", type=int, help="sample rate of recordings, in hertz")
    parser.add_argument("--batches", type=int, help="to learn from (3, on a GPU 100)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: --device is cuda, but PyTorch finds no GPU here", file=sys.stderr)
        return 1
    print("hours of sound an hour, of one " + ("GPU" if options.device == "cuda" else "core"))
    print("  stage 0: sound to features; MB: features of an hour; detect: sound to detections")
    print("training: windows a second, hours for 1000 windows an epoch and all epochs of one fold")
    columns = ("stage 0", "MB", "detect", "windows/s", "hours")
    print(f"{'configuration':<26}" + "".join(f"{name:>11}" for name in columns))
    threads = None if options.device == "cuda" else 1
    torch.set_num_threads(threads or os.cpu_count() or 1)
    with threadpool_limits(threads):
        for conf in options.conf or CONFIGS:
            with tempfile.TemporaryDirectory() as folder:
                rate = options.rate or CONFIGS.get(conf, 48_000)
                batches = options.batches or (3 if options.device == "cpu" else 100)
                row = measure(conf, rate, Path(folder), options.device, batches)
            print(f"{conf:<26}" + "".join(f"{number:>11.3g}" for number in row), flush=True)
    return 0


def seconds(work: Callable[[], object], device: str) -> float:
    """Of one core, or, on a GPU, of the clock until it has done all."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def measure(conf: str, rate: int, folder: Path, device: str, n_batches: int) -> list[float]:
    """Columns of one configuration."""
    config = load_config(conf, [f"train.n_workers={0 if device == 'cpu' else 4}"])
    sounds = make_sounds(folder, rate)
    dump = folder / "dump"
    dump.mkdir()
    # The first warms the front end.
    make_features(sounds[:1], dump, config, device)
    featured = seconds(lambda: make_features(sounds, dump, config, device), device)
    hours = len(sounds) * SAMPLES_EACH / rate / 3600
    n_bytes = sum(path.stat().st_size for path in dump.glob("*.npz"))
    trainer = learner(config, dump, folder, device, n_batches)
    trainer._train_epoch(0)
    trainer.progress.end_epoch()
    windows = trainer.n_windows / seconds(lambda: trainer._train_epoch(1), device)
    return [
        hours / featured * 3600,
        n_bytes / hours / 1e6,
        SAMPLES_EACH / rate / seconds_to_detect(config, folder, sounds[0], device),
        windows,
        1000 * config.train.n_epochs / windows / 3600,
    ]


def make_sounds(folder: Path, rate: int) -> list[Path]:
    """Recordings of noise, which FLAC packs worst and takes longest to unpack."""
    rng = np.random.default_rng(0)
    paths = [folder / f"r{number}.flac" for number in range(N_RECORDINGS)]
    for path in paths:
        soundfile.write(path, 0.05 * rng.standard_normal(SAMPLES_EACH), rate)
    return paths


def make_features(sounds: list[Path], dump: Path, config: Config, device: str) -> None:
    """As stage 0 leaves them."""
    rows = []
    for path in sounds:
        name = path.stem
        out = dump / f"{name}.npz"
        made = process_recording(path, out, front_end_of(config), device)
        rows.append((name, out.name, made["n_frames"], made["duration"], "ok", ""))
    columns = ["recording_id", "file", "n_frames", "duration", "status", "reason"]
    write_csv(dump / "manifest.csv", pd.DataFrame(rows, columns=columns))


def learner(config: Config, dump: Path, folder: Path, device: str, n_batches: int) -> Trainer:
    """A fold that learns from a call of every class in every recording."""
    config = config.model_copy(
        update={
            "train": config.train.model_copy(
                update={"windows_per_epoch": n_batches * config.train.batch_size}
            )
        }
    )
    features = FeatureStore(dump, config)
    labels = [f"s{number}" for number in range(N_CLASSES)]
    rows = []
    for name in (f"r{number}" for number in range(N_RECORDINGS)):
        length = features.n_frames(name) * features.hop_s
        for number, label in enumerate(labels):
            onset = length * (0.1 + 0.8 * number / N_CLASSES)
            rows.append((name, label, onset, onset + length / 50, 1 - 2 * (number % 2), "made"))
    columns = ["recording_id", "label", "onset", "offset", "polarity", "source"]
    events = pd.DataFrame(rows, columns=columns)
    events = events.assign(low_freq=np.nan, high_freq=np.nan, weight=1.0)[list(EVENT_COLUMNS)]
    recordings = pd.DataFrame({"recording_id": sorted(set(events["recording_id"]))})
    recordings = recordings.reindex(columns=list(RECORDING_COLUMNS))
    classes = pd.DataFrame({"label": labels, "name": labels}).assign(
        low_freq=np.nan, high_freq=np.nan
    )
    tables = Tables(recordings, events, classes)
    names = list(recordings["recording_id"])
    training_set = make_training_set(tables, events, names, features)
    fold = DetectionFold(
        "sizing", training_set, names, events, labels, features, folder / "fold", device
    )
    return Trainer(fold, config)


def seconds_to_detect(config: Config, folder: Path, sound: Path, device: str) -> float:
    """From a recording to scores of all classes, by the published network."""
    step = create_model(config.model.name, config.model.params, N_CLASSES, 1).step
    window = inference_window(config, step)
    name, params = config.model.name, config.model.params
    published = folder / "published"
    # Networks of raw waveforms are detected with by PyTorch; so is all on a GPU.
    has_graph = device == "cpu" and front_end_of(config).input == SPECTROGRAM
    publish(published, config, window, name, params, with_onnx=has_graph)
    batch = 4 if device == "cpu" else None
    detector = load(Request([published], device=device, batch_size=batch))
    detect(detector, sound)
    return seconds(lambda: detect(detector, sound), device)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
