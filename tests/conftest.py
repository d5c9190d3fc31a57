"""What tests of whole runs share."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def make_environment(folder: Path) -> Path:
    """What run.sh takes for a finished environment: the Python of this test with the right stamp.

    A test installs nothing, whatever environment it runs in.
    """
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    text = (ROOT / "bin/setup_env.sh").read_text()
    (hook,) = re.findall(r"<<'PYTHON'\n(.*?)PYTHON\n", text, re.S)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    requirements = (ROOT / "requirements.txt").read_text()
    (folder / "canopy.stamp").write_text(f"python {version}\n{hook}{requirements}")
    return folder


@pytest.fixture(scope="session")
def ready_environment() -> Callable[[Path], Path]:
    """Function: folder -> that folder, made what run.sh takes for a finished environment."""
    return make_environment
