"""Speed of detection on a CPU against OpenSoundscape's `predict`, measured in one run.

    python tests/bench/rivals.py

Both classify windows of one length and overlap of one file with the same backbone, untrained, on
one thread, taking turns, each from the file to its scores. OpenSoundscape runs in a process and an
environment of its own, which is made where there is none (`--environment`): this one's packages,
and on top what OpenSoundscape needs further. Where it cannot be installed, the reason is told and
the exit code is 1.

Seconds are those of the processor: with one thread they are the clock's on a machine that does
nothing else, and stay so on one that does. OpenSoundscape is measured as it comes (its spectrogram
in full size), which the target is for, and with pictures as large as the log-mel windows here, so
that both backbones have the same to compute: what is left then is the runtime and all around it.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
from threadpoolctl import threadpool_limits

from local.config import Config
from local.detect.detectors import Request, load
from tests.bench.detection import CONFIG, N_CLASSES, RATE, WINDOW, detect, publish

VERSION = "0.13.2"
BACKBONE = "resnet18"
TARGET = 3.0
WINDOW_S = WINDOW * CONFIG["features"]["hop_length"] / RATE
OVERLAP = CONFIG["inference"]["overlap_frames"] / WINDOW
BATCH = CONFIG["inference"]["batch_size"]
# How it comes, which the target is for, and with windows as large as here.
SIZES: dict[str, dict[str, int]] = {
    "as it comes": {},
    "input as large": {"height": CONFIG["features"]["n_mels"], "width": WINDOW},
}
INSTALL_S = 600
# Runs in the other environment; told what to do by arguments, it answers a number for each line.
RIVAL = """
import json, sys, time
import torch
torch.set_num_threads(1)
from opensoundscape import CNN
path, backbone, n_classes, window_s, rate, overlap, batch, sizes = json.loads(sys.argv[1])
models = {}
for name, size in sizes.items():
    torch.manual_seed(0)
    models[name] = CNN(
        backbone, [str(i) for i in range(n_classes)], window_s, rate,
        arch_weights=None, device="cpu", **size,
    )
print("ready", flush=True)
for line in sys.stdin:
    start = time.process_time()
    scores = models[line.strip()].predict(
        [path], batch_size=batch, overlap_fraction=overlap, progress_bar=False
    )
    print(json.dumps([len(scores), time.process_time() - start]), flush=True)
"""


class Rival:
    """OpenSoundscape in its own process, asked by lines."""

    def __init__(self, python: Path, path: Path) -> None:
        told = [str(path), BACKBONE, N_CLASSES, WINDOW_S, RATE, OVERLAP, BATCH, SIZES]
        environment = dict(os.environ, OMP_NUM_THREADS="1", WANDB_MODE="disabled")
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", "-c", RIVAL, json.dumps(told)],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        while self._answer() != "ready":
            pass

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"OpenSoundscape ended with code {self._process.wait()}")
        return line.strip()

    def seconds(self, name: str) -> tuple[int, float]:
        """Windows scored and seconds of one prediction."""
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        while not (line := self._answer()).startswith("["):
            pass
        n, seconds = json.loads(line)
        return n, seconds

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def make_environment(folder: Path) -> Path:
    """Python of an environment with OpenSoundscape, made where it is not there yet."""
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        places = {"base": str(folder), "platbase": str(folder)}
        site = Path(sysconfig.get_path("purelib", "posix_prefix", places))
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wanted = [str(python), "-m", "pip", "install", "--quiet"]
    try:
        subprocess.run(
            [*wanted, f"opensoundscape=={VERSION}"], check=True, timeout=INSTALL_S, stdout=2
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"OpenSoundscape {VERSION} could not be installed: {error}") from None
    return python


def main() -> int:
    """Measure, print the table, and return 1 when the target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="repeats a median is taken of")
    parser.add_argument("--seconds", type=int, default=120, help="length of the file")
    parser.add_argument(
        "--environment", type=Path, default=Path(".venv-rivals"), help="%(default)s"
    )
    options = parser.parse_args()
    python = make_environment(options.environment.resolve())
    with threadpool_limits(1), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        sound = (0.05 * rng.standard_normal(RATE * options.seconds)).astype(np.float32)
        soundfile.write(folder / "x.flac", sound, RATE)
        config = Config.model_validate(CONFIG)
        publish(folder / "model", config, WINDOW, "timm", {"backbone": BACKBONE})
        ours = load(Request([folder / "model"], engine="onnx"))
        rival = Rival(python, folder / "x.flac")
        rows = measure(ours, rival, folder / "x.flac", options.repeats)
        rival.close()
    report(rows, options.seconds)
    return int(rows[0]["times"] < TARGET)


def measure(ours: Any, rival: Rival, path: Path, repeats: int) -> list[dict[str, Any]]:
    """Medians of seconds; every round runs all, so that a slow moment hits all."""
    detect(ours, path)
    windows = {name: rival.seconds(name)[0] for name in SIZES}
    here: list[float] = []
    there: dict[str, list[float]] = {name: [] for name in SIZES}
    for _ in range(repeats):
        start = time.process_time()
        detect(ours, path)
        here.append(time.process_time() - start)
        for name in SIZES:
            there[name].append(rival.seconds(name)[1])
    return [
        {
            "what": f"OpenSoundscape {VERSION}, {BACKBONE}, {name}",
            "windows": windows[name],
            "theirs": median(seconds),
            "ours": median(here),
            "times": median([b / a for a, b in zip(here, seconds, strict=True)]),
        }
        for name, seconds in there.items()
    ]


def report(rows: list[dict[str, Any]], seconds: int) -> None:
    """Print the table."""
    print(f"{seconds} s of sound, windows of {WINDOW_S:g} s, overlap {OVERLAP:g}, one thread each")
    print(
        f"{'against':<50} {'windows':>7} {'theirs':>8} {'ours':>8} {'faster':>7} {'target':>7}  met"
    )
    for index, row in enumerate(rows):
        met = "yes" if row["times"] >= TARGET else "no"
        target, met = (f">= {TARGET:g}", met) if index == 0 else ("-", "-")
        print(
            f"{row['what']:<50} {row['windows']:>7} {row['theirs']:>6.2f} s {row['ours']:>6.2f} s "
            f"{row['times']:>7.2f} {target:>7}  {met}"
        )


if __name__ == "__main__":
    sys.exit(main())
