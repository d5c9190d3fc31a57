"""The scripts of bin/ and recipes/ as tests call them: in this process, or in one of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from local.jobs.exit_codes import run_script

ROOT = Path(__file__).resolve().parents[1]


class Ran(NamedTuple):
    """What came of a script."""

    code: int
    out: str
    err: str


@cache
def load_script(path: str) -> ModuleType:
    """A script as a module; one of bin/ by its name alone."""
    place = ROOT / (path if "/" in path else f"bin/{path}.py")
    spec = spec_from_file_location("script_" + path.replace("/", "_"), place)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def caller(path: str, capsys: pytest.CaptureFixture) -> Callable[..., Ran]:
    """Function: options -> what comes of a script in this process, as a shell would see it."""

    def call(*options: Any) -> Ran:
        capsys.readouterr()
        try:
            code = run_script(lambda: load_script(path).main([str(option) for option in options]))
        except SystemExit as usage:
            code = usage.code
        return Ran(code, *capsys.readouterr())

    return call


def fault_of(ran: Ran) -> str:
    """The one line of a script that ended with a fault of its input and printed nothing else."""
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith("error: ")
    return ran.err


def in_a_shell(path: str, *options: Any, **more: Any) -> Ran:
    """What comes of a script in a process of its own."""
    command = [sys.executable, str(ROOT / "bin" / f"{path}.py"), *map(str, options)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, **more
    )
    return Ran(done.returncode, done.stdout, done.stderr)
