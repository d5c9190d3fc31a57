"""The CUDA paths, run and held against the CPU: one row of a table each.

    python -m tests.gpu.check [--device cpu] [--quick] [--out FILE]

With `--device cpu` the same steps run where there is no GPU, to see that the script itself works;
`--quick` leaves out the larger demo. The exit code is 1 when a row failed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TINY = "conf/demo/tiny.yaml"
SMALL = "conf/demo/default.yaml"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1")
# Largest difference of a logit between a GPU and a CPU that is taken for rounding: matrix products
# of a GPU use another order, and TF32 where convolutions allow it.
LOGIT_TOLERANCE = 0.05


class FailedError(Exception):
    """What a row found wrong, in a sentence."""


@dataclass
class Check:
    """Where the rows work, and what they share."""

    device: str
    quick: bool
    folder: Path
    limit_s: float = 480.0
    rows: list[tuple[str, str, float, str]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def row(self, title: str, work: Callable[[], str]) -> None:
        """Run one row; a fault is noted and the next row runs."""
        start = time.monotonic()
        left = self.limit_s - (start - self.begun)
        if left < 20:
            outcome, note = "not run", "no time was left"
        else:
            try:
                outcome, note = "ok", work()
            except (FailedError, subprocess.TimeoutExpired, AssertionError) as fault:
                outcome, note = "FAILED", " ".join(str(fault).split())[-600:]
        self.rows.append((title, outcome, time.monotonic() - start, note))
        print(f"{title}: {outcome}, {self.rows[-1][2]:.0f} s; {note}", flush=True)

    def call(self, *command: str, **environment: str) -> str:
        """Run a Python script of the project to its end; its output."""
        left = self.limit_s - (time.monotonic() - self.begun)
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=max(10.0, left),
        )
        if ended.returncode:
            told = (ended.stdout + ended.stderr)[-1500:]
            raise FailedError(f"{' '.join(command[:2])} ended with {ended.returncode}: {told}")
        return ended.stdout + ended.stderr

    def stage(
        self,
        script: str,
        conf: str,
        tag: str,
        *options: str,
        device: str = "",
        launcher: tuple[str, ...] = (),
    ) -> str:
        """One script of bin/ on the demo's data."""
        places = ("--datadir", "data", "--dumpdir", "dump", "--expdir", "exp")
        name = Path(conf).stem
        given = [
            str(self.folder / name / part) if part in ("data", "dump", "exp") else part
            for part in places
        ]
        common = ["--recipe", "demo", "--conf", conf, "--tag", tag, *given]
        common += ["--device", device or self.device]
        return self.call(*launcher, f"bin/{script}.py", *common, *options)

    def prepare(self, conf: str, tag: str) -> None:
        """Data, tables, features and folds of a demo."""
        data = self.folder / Path(conf).stem
        tables = ("--out", str(data / "dump" / "tables"))
        self.call(
            "recipes/demo/prepare.py", "--datadir", str(data / "data"), *tables, "--conf", conf
        )
        self.stage("preprocess", conf, tag)
        self.stage("split", conf, tag)

    def fold(self, conf: str, tag: str) -> Path:
        """Folder of the first fold of cycle 0."""
        return self.folder / Path(conf).stem / "exp" / tag / "cycle0" / "fold0"


def main(argv: list[str] | None = None) -> int:
    """Run all rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="leave out the larger demo")
    parser.add_argument("--out", type=Path, help="write the table to this file as well")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args.device, args.quick, Path(folder))
        check.row("machine", lambda: machine(check))
        if check.rows[0][1] == "ok":
            check.row("tests marked gpu", lambda: marked_tests(check))
            check.row("front end", lambda: front_end(check))
            check.row("tiny demo, one fold", lambda: tiny(check))
            check.row("the same network's scores", lambda: same_scores(check))
            check.row("torchrun, one process", lambda: ranks(check))
            check.row("detection", lambda: detection(check))
            check.row("training steps", lambda: steps(check))
            if not check.quick:
                check.row("demo, one fold", lambda: small(check))
        table = table_of(check)
    print(table)
    if args.out is not None:
        args.out.write_text(table, encoding="utf-8")
    return int(any(outcome != "ok" for _, outcome, _, _ in check.rows))


def table_of(check: Check) -> str:
    """The rows as Markdown."""
    lines = ["| row | outcome | seconds | what was found |", "| --- | --- | --- | --- |"]
    lines += [f"| {title} | {what} | {s:.0f} | {note} |" for title, what, s, note in check.rows]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------ rows


def machine(check: Check) -> str:
    """Which device, driver and PyTorch."""
    import torch

    found = f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}, numpy {np.__version__}"
    if check.device == "cpu":
        return f"{found}, CPU, {os.cpu_count()} cores"
    if not torch.cuda.is_available():
        raise FailedError(f"{found}: PyTorch finds no CUDA device")
    return f"{found}, {torch.cuda.get_device_name(0)}, {os.cpu_count()} cores"


def marked_tests(check: Check) -> str:
    """The tests marked gpu; on a CPU they skip."""
    files = [path for path in (ROOT / "tests/local").rglob("test_*.py") if _is_marked(path)]
    names = [str(path.relative_to(ROOT)) for path in sorted(files)]
    words = check.call("-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-m", "gpu", *names)
    return words.strip().splitlines()[-1].strip("= ")


def _is_marked(path: Path) -> bool:
    return "mark.gpu" in path.read_text(encoding="utf-8")


def front_end(check: Check) -> str:
    """Features of a minute of noise on the device against the CPU, and their speed."""
    from local.config import Config
    from local.features.front_ends.front_end_registry import front_end_of

    front = front_end_of(Config())
    rng = np.random.default_rng(0)
    blocks = [0.1 * rng.standard_normal(2**20).astype(np.float32) for _ in range(8)]

    def features(device: str) -> tuple[np.ndarray, float]:
        list(front.stream(blocks[:1], device))  # what the first call loads is not counted
        begun = time.perf_counter()
        found = np.concatenate(list(front.stream(blocks, device)), axis=-1)
        return found, time.perf_counter() - begun

    expected, seconds = features("cpu")
    found, seconds_there = features(check.device)
    worst = float(np.abs(expected - found).max())
    if not worst <= 1e-3:
        raise FailedError(f"log-mel differs by {worst:.2g} from the CPU's")
    speed = sum(map(len, blocks)) / front.audio.sample_rate / seconds_there
    return (
        f"within {worst:.1g}; {speed:,.0f} times real time with copies to and fro, "
        f"{seconds / seconds_there:.1f} times all CPU cores"
    )


def tiny(check: Check) -> str:
    """Stages 0 to 3 of the smallest demo on the device, with half precision."""
    check.prepare(TINY, "tiny")
    check.stage("sed_train", TINY, "tiny", "--folds", "0")
    check.stage("sed_infer", TINY, "tiny", "--folds", "0")
    check.stage("split", TINY, "cpu", device="cpu")
    check.stage("sed_train", TINY, "cpu", "--folds", "0", device="cpu")
    return f"{progress(check, TINY, 'tiny')}; on the CPU {progress(check, TINY, 'cpu')}"


def progress(check: Check, conf: str, tag: str) -> str:
    """Loss, validation score and speed of the last epoch of a fold."""
    import pandas as pd

    log = pd.read_csv(check.fold(conf, tag) / "log.csv").iloc[-1]
    timing = pd.read_csv(check.fold(conf, tag) / "timing.csv")["windows_per_s"]
    if not np.isfinite(log["loss_total"]):
        raise FailedError(f"the loss of the last epoch is {log['loss_total']}")
    skipped = int(log["skipped_steps"])
    return (
        f"loss {log['loss_total']:.3f}, LWLRAP {log['valid']:.3f}, {skipped} steps skipped, "
        f"{timing.median():,.0f} windows/s"
    )


def same_scores(check: Check) -> str:
    """The network that the device trained, on the device and on the CPU."""
    from local.inference.score_files import load_scores

    path = check.fold(TINY, "tiny") / "scores.npz"
    there, _ = load_scores(path)
    check.stage("sed_infer", TINY, "tiny", "--folds", "0", "--force", device="cpu")
    here, _ = load_scores(path)
    worst = float(np.abs(there.window - here.window).max())
    worst_frame = max(
        float(np.abs(a - b).max()) for a, b in zip(there.frames, here.frames, strict=True)
    )
    if max(worst, worst_frame) > LOGIT_TOLERANCE:
        raise FailedError(f"logits differ by {worst:.2g} (windows), {worst_frame:.2g} (frames)")
    return f"{len(here.recording_ids)} recordings: logits within {max(worst, worst_frame):.1g}"


def ranks(check: Check) -> str:
    """The fold again through torchrun, with NCCL on a GPU, from the same seed."""
    import torch

    check.stage("split", TINY, "ranks")
    check.stage("sed_train", TINY, "ranks", "--folds", "0", "--worker", launcher=TORCHRUN)
    alone = torch.load(check.fold(TINY, "tiny") / "best.pt", weights_only=True)
    shared = torch.load(check.fold(TINY, "ranks") / "best.pt", weights_only=True)
    worst = max(
        float((alone["model"][name].double() - shared["model"][name].double()).abs().max())
        for name in alone["model"]
    )
    return f"{progress(check, TINY, 'ranks')}; weights within {worst:.1g} of the fold alone"


def detection(check: Check) -> str:
    """`bin/detect.py` with the trained network on the device and on the CPU."""
    import pandas as pd

    sounds = sorted((check.folder / "tiny" / "data").rglob("*.flac"))[:6]
    found = {}
    for device in dict.fromkeys((check.device, "cpu")):
        out = check.folder / f"found-{device}"
        check.call(
            *("bin/detect.py", str(check.fold(TINY, "tiny") / "best.pt"), *map(str, sounds)),
            *("--out", str(out), "--format", "csv", "--device", device, "--threshold", "0.2"),
        )
        parts = [pd.read_csv(path) for path in sorted(out.rglob("*.csv"))]
        found[device] = sum(len(part) for part in parts)
    if abs(found[check.device] - found["cpu"]) > 0.05 * found["cpu"] + 1:
        raise FailedError(f"{found[check.device]} rows on the device, {found['cpu']} on the CPU")
    return f"{len(sounds)} recordings: {found[check.device]} rows, {found['cpu']} on the CPU"


def steps(check: Check) -> str:
    """Seconds of a training step of two networks, by `bin/profile_step.py`."""
    notes = []
    for conf in ("conf/demo/default.yaml", "conf/rfcx/eff_v020.yaml"):
        n = 4 if check.device == "cpu" else 32
        told = check.call(
            *("bin/profile_step.py", "--conf", conf, "--device", check.device),
            *("--batch-size", str(n)),
        )
        parts = re.findall(r"^ *(forward|backward|optimiser) +([0-9.]+) s", told, re.M)
        seconds = sum(float(value) for _, value in parts)
        if not seconds:
            raise FailedError(f"no times in {told}")
        peak = re.findall(r"peak memory +([0-9]+) MB", told)[0]
        notes.append(f"{Path(conf).stem} {n / seconds:,.0f} windows/s, {peak} MB for {n} windows")
    return "; ".join(notes)


def small(check: Check) -> str:
    """Stages 0 to 3 of the demo that `./run.sh` makes, one fold."""
    check.prepare(SMALL, "small")
    check.stage("sed_train", SMALL, "small", "--folds", "0")
    check.stage("sed_infer", SMALL, "small", "--folds", "0")
    return progress(check, SMALL, "small")


if __name__ == "__main__":
    sys.exit(main())
