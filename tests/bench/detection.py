"""Speed of detection on a CPU, as ratios measured in one run.

    python tests/bench/detection.py

Published models detect in noise on one thread, taking turns: ONNX Runtime against eager PyTorch at
equal scores, and all around the model (decoding, windows, stitching, spans) against the model's own
time, which is that from samples to scores: log-mel and networks. Decoding has a thread beside the
model's, so what it costs where every core is busy is told too, in processor time.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits

from local.config import Config
from local.detect.detectors import Detector, Request, load
from local.detect.publish.folder import MODEL, SCHEMA, SECTIONS, write_sums
from local.detect.publish.onnx_graph import export_onnx
from local.detect.streaming import find_events
from local.features.front_ends import logmel_numpy
from local.features.front_ends.front_end_registry import front_end_of
from local.io.files import write_json
from local.labels.spans import SpanRule
from local.models import create_model

RATE, SECONDS, N_CLASSES = 32_000, 120, 24
WINDOW = 256
CONFIG = {
    "audio": {"sample_rate": RATE},
    "features": {"n_fft": 1024, "hop_length": 640, "n_mels": 64, "f_min_hz": 50.0},
    "inference": {"window_frames": WINDOW, "overlap_frames": WINDOW // 2, "batch_size": 4},
}
# Family, parameters, networks: a run of the small network detects with all its folds.
MODELS = {
    "crnn, 4 folds": ("crnn", {}, 4),
    "resnet18": ("timm", {"backbone": "resnet18"}, 1),
    "efficientnet_b0": ("timm", {"backbone": "efficientnet_b0"}, 1),
}
TOLERANCE = 1e-4


def main() -> int:
    """Measure, print the table, and return 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="repeats a median is taken of")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[str, float, str, bool | None]] = []
    with threadpool_limits(1), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        sound = (0.05 * rng.standard_normal(RATE * SECONDS)).astype(np.float32)
        soundfile.write(folder / "x.flac", sound, RATE)
        config = Config.model_validate(CONFIG)
        for title, (family, params, n) in MODELS.items():
            publish(folder / title, config, WINDOW, family, params, n)
            rows += measure(title, folder / title, folder / "x.flac", options.repeats)
    print(f"{'what':<58} {'measured':>9} {'target':>8}  met")
    for what, value, target, met in rows:
        word = "-" if met is None else "yes" if met else "no"
        print(f"{what:<58} {value:>9.2f} {target:>8}  {word}")
    return int(any(met is False for *_, met in rows))


def publish(
    folder: Path,
    config: Config,
    window: int,
    family: str,
    params: dict,
    n: int = 1,
    with_onnx: bool = True,
) -> None:
    """A published folder of `n` untrained networks that see `window` frames at once."""
    n_bands = front_end_of(config).n_bands
    folder.mkdir()
    networks, any_length, step = [], True, 1
    for fold in range(n):
        torch.manual_seed(fold)
        model = create_model(family, params, N_CLASSES, n_bands).eval()
        weights, graph = f"fold{fold}.safetensors", f"fold{fold}.onnx"
        save_file(model.state_dict(), folder / weights)
        if with_onnx:
            any_length &= export_onnx(model, config, window, folder / graph)
        step = model.step
        networks.append({"weights": weights, "onnx": graph if with_onnx else None})
    plain = config.model_dump(mode="json")
    labels = [f"s{index}" for index in range(N_CLASSES)]
    told = {
        "schema": SCHEMA,
        "classes": [[label, label, None, None] for label in labels],
        "config": {key: plain[key] for key in SECTIONS if key != "model"},
        "recipe": {
            "name": family,
            "params": params,
            "n_classes": N_CLASSES,
            "n_bands": n_bands,
            "labels": labels,
        },
        "step": step,
        "window": window,
        "any_length": any_length,
        "networks": networks,
        "evidence": None,
        "prior_shift": None,
    }
    write_json(folder / MODEL, told)
    write_sums(folder, [MODEL, *(name for one in networks for name in one.values() if name)])


class Timed:
    """A function that adds up the seconds spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds = function, 0.0

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        start = time.perf_counter()
        result = self._function(*args)
        self.seconds += time.perf_counter() - start
        return result


def detect(detector: Detector, path: Path) -> tuple[np.ndarray, float]:
    """(C, n) logits of the file, and the seconds that it took."""
    pieces: list[np.ndarray] = []
    rules = [SpanRule(0.0, None, 0.2, 0.2)] * N_CLASSES
    start = time.perf_counter()
    find_events(detector, path, rules, None, lambda _, logits: pieces.append(logits))
    return np.concatenate(pieces, axis=1), time.perf_counter() - start


def measure(
    title: str, folder: Path, path: Path, repeats: int
) -> list[tuple[str, float, str, bool | None]]:
    """Rows of one network."""
    detectors = {name: load(Request([folder], engine=name)) for name in ("onnx", "torch")}
    fast = detectors["onnx"].engine
    fast.scorers = [Timed(scorer) for scorer in fast.scorers]
    logmel_numpy.log_mel = Timed(logmel_numpy.log_mel)
    parts = [*fast.scorers, logmel_numpy.log_mel]
    scores = {name: detect(one, path)[0] for name, one in detectors.items()}
    difference = float(np.abs(scores["onnx"] - scores["torch"]).max())
    totals: dict[str, list[float]] = {name: [] for name in detectors}
    inside: list[float] = []
    busy: list[float] = []
    for _ in range(repeats):
        for name, one in detectors.items():
            before, at_work = sum(part.seconds for part in parts), time.process_time()
            totals[name].append(detect(one, path)[1])
            if name == "onnx":
                inside.append(sum(part.seconds for part in parts) - before)
                busy.append(time.process_time() - at_work)
    onnx, plain = (float(np.median(totals[name])) for name in ("onnx", "torch"))
    around, in_cpu = (
        float(np.median([(t - i) / i for t, i in zip(times, inside, strict=True)]))
        for times in (totals["onnx"], busy)
    )
    return [
        (
            f"{title}: ONNX Runtime, times eager PyTorch",
            plain / onnx,
            ">= 1.5",
            plain / onnx >= 1.5,
        ),
        (
            f"{title}: largest difference of logits, in 1e-4",
            difference / TOLERANCE,
            "<= 1",
            difference <= TOLERANCE,
        ),
        (f"{title}: all around the model, share of its time", around, "<= 0.2", around <= 0.2),
        (f"{title}: the same in processor time", in_cpu, "-", None),
        (f"{title}: ONNX Runtime, times real time, one thread", SECONDS / onnx, "-", None),
    ]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
