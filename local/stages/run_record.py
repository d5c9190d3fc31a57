"""Who made a result, and how: the commit of the code, the machine, the command."""

import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from local import __version__
from local.config import Config
from local.io.files import read_json, write_json
from local.jobs.locks import lock_folder
from local.stages.run import Run

# Seconds to wait for another fold that notes its work in the same run.json.
_WAIT_S = 60.0


def environment_record(config: Config, device: str) -> dict[str, Any]:
    """What a result depends on beside its inputs: code, versions, device, seed, command."""
    record = {
        "canopy": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "device": device,
        "cpu_count": os.cpu_count(),
        "seed": config.seed,
        "command": sys.argv,
    }
    if device == "cuda":
        import torch

        record["gpu"] = torch.cuda.get_device_name(0)
    return record


@lru_cache
def commit() -> str | None:
    """Commit of the code, with `+changes` when the tree differs; None outside a checkout."""
    root = Path(__file__).resolve().parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def note_work(run: Run, stage: str) -> None:
    """Note in run.json who works on a stage, and how; for a stage that has something to do.

    run.json keeps one such record a stage, of the run that last worked on it.
    """
    places = {name: str(getattr(run, name).resolve()) for name in ("datadir", "dumpdir")}
    record = environment_record(run.config, run.device) | {"recipe": run.recipe} | places
    # Folds of one run may be worked on by several processes, on several machines.
    with lock_folder(run.exp / "logs", "run.json", wait_s=_WAIT_S, keep=False):
        others = {name: one for name, one in read_work(run.exp).items() if name != stage}
        write_json(run.exp / "run.json", {**others, stage: record})


def read_work(exp: Path) -> dict[str, dict[str, Any]]:
    """The records in a run's run.json by stage, the last one last; empty where there are none.

    Earlier versions kept one record, of the last command whatever that did.
    """
    path = exp / "run.json"
    found = read_json(path) if path.is_file() else {}
    return {"of an earlier version": found} if "command" in found else found
