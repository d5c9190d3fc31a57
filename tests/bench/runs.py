"""Wall time and memory of whole runs, held against the time and memory they may take.

    python tests/bench/runs.py

Runs `./run.sh` as a new user would (the demo, from simulation to report), and, where real
recordings lie in ../shared/data/soundscapes, the rainforest recipe on them. Everything is written
to a temporary folder. Set-up must be done before.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOUNDSCAPES = ROOT.parent / "shared" / "data" / "soundscapes"
MAX_DEMO_S, MAX_REAL_S, MAX_MEMORY_GB = 6 * 60, 15 * 60, 3.0


def main() -> int:
    """Measure, print the table, and return 1 when a budget was passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip-real", action="store_true", help="leave the real recordings out")
    options = parser.parse_args()
    runs: list[tuple[str, list[str], float]] = [("./run.sh", [], MAX_DEMO_S)]
    real = ["--recipe", "rfcx", "--datadir", str(SOUNDSCAPES), "--conf", "conf/rfcx/laptop.yaml"]
    if SOUNDSCAPES.is_dir() and not options.skip_real:
        runs.append(("./run.sh --recipe rfcx, real recordings", real, MAX_REAL_S))
    else:
        print(f"{SOUNDSCAPES}: skipped or not there, so only the demo is measured")
    rows = []
    for name, arguments, budget_s in runs:
        seconds, peak_gb = measure(arguments)
        rows.append((f"{name}: wall time, share of {budget_s / 60:.0f} min", seconds / budget_s))
        rows.append((f"{name}: memory, share of {MAX_MEMORY_GB:.0f} GB", peak_gb / MAX_MEMORY_GB))
    print(f"{'what':<72} {'measured':>8}  met")
    for what, share in rows:
        print(f"{what:<72} {share:>8.2f}  {'yes' if share <= 1 else 'no'}")
    return int(any(share > 1 for _, share in rows))


def measure(arguments: list[str]) -> tuple[float, float]:
    """Seconds that a run takes, and the peak of the memory of all its processes in GB."""
    with tempfile.TemporaryDirectory() as folder:
        places = [("--dumpdir", "dump"), ("--expdir", "exp")]
        if "--datadir" not in arguments:
            places.append(("--datadir", "data"))
        options = [text for key, name in places for text in (key, str(Path(folder) / name))]
        environment = dict(os.environ, VENV=os.environ.get("VENV", sys.prefix))
        begun = time.monotonic()
        process = subprocess.Popen(
            [str(ROOT / "run.sh"), *arguments, *options], env=environment, cwd=ROOT
        )
        watch = MemoryWatch(process.pid)
        watch.start()
        code = process.wait()
        seconds = time.monotonic() - begun
        watch.stop()
        if code:
            raise SystemExit(f"run.sh ended with code {code}")
    return seconds, watch.peak_bytes / 1e9


class MemoryWatch(threading.Thread):
    """Samples the proportional memory of a process and all below it, twice a second."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._root = root
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while not self._done.wait(0.5):
            total = sum(map(proportional_bytes, family(self._root)))
            self.peak_bytes = max(self.peak_bytes, total)

    def stop(self) -> None:
        """End the sampling."""
        self._done.set()
        self.join()


def family(root: int) -> list[int]:
    """The process and all its descendants (Linux)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold anything, so the fields are counted from its end.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def proportional_bytes(pid: int) -> int:
    """Memory of a process; pages that several share count in parts, so that sums are true."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
