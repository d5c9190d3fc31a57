"""What tests of whole runs share."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def make_environment(folder: Path, clone: Path = ROOT, python: str = "") -> Path:
    """What run.sh takes for a finished environment: a Python with the right stamp beside it.

    `python` is the text of the executable [one that calls the Python of this test]. A test installs
    nothing, whatever environment it runs in.
    """
    (folder / "bin").mkdir(parents=True)
    executable = folder / "bin" / "python"
    executable.write_text(python or f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    executable.chmod(0o755)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    lists = [clone / f"requirements{end}" for end in (".lock", ".txt", "-dev.txt")]
    installed = "".join(path.read_text() for path in lists)
    (folder / "canopy.stamp").write_text(f"python {version} linked to {clone}\n{installed}")
    return folder


@pytest.fixture(scope="session")
def ready_environment() -> Callable[..., Path]:
    """Function: folder -> that folder, made what run.sh takes for a finished environment."""
    return make_environment
