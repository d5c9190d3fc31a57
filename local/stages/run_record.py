"""The record of a run: what its results depend on beside its inputs."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from local import __version__
from local.config import Config


def environment_record(config: Config, device: str) -> dict[str, Any]:
    """What a result depends on beside its inputs: code, versions, device, seed, command."""
    import torch

    record = {
        "canopy": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": device,
        "cpu_count": os.cpu_count(),
        "seed": config.seed,
        "command": sys.argv,
    }
    if device == "cuda":
        record["gpu"] = torch.cuda.get_device_name(0)
    return record


def _commit() -> str | None:
    """Commit of the code, with `+changes` when the tree differs; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
