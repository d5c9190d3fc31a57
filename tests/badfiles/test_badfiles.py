"""Each kind of bad file gives its one sentence or its right value, in bounded time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.badfiles.corpus import KINDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def outcomes():
    """All outcomes, from one fresh process: the test's own may have threads, which forks lose."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.badfiles.corpus", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.stdout, done.stderr
    return {row["kind"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_there_are_enough_kinds_and_none_twice():
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names))
    assert len(names) >= 200


@pytest.mark.parametrize("name", [kind.name for kind in KINDS])
def test_kind(outcomes, name):
    assert outcomes[name]["fault"] == ""


def test_the_harness_sees_what_goes_wrong():
    """A reader that crashes, hangs, eats memory, runs code or takes the wrong value is told."""
    program = """
import time
from pathlib import Path
from tests.badfiles import corpus
from tests.badfiles.kinds import Kind, canary, put
make = put("a", "x")
def eat(path): return b"x" * (200 * 2**20)
def run(path): canary(path.parent).mkdir()
def crash(path): raise ValueError("oops")
corpus.TIME_LIMIT_S = 10
corpus.KINDS = [
    Kind("crash", make, crash, "x"), Kind("hang", make, lambda path: time.sleep(99), "x"),
    Kind("eat", make, eat), Kind("run", make, run), Kind("taken", make, str, "x"),
    Kind("wrong", make, str, check=lambda got: False), Kind("fine", make, str),
]
for one in corpus.run_kinds(): print(one.fault.splitlines()[0][:20] if one.fault else "-")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    expected = ["crashes: Traceback (", "hangs", "took 200 MiB, allowe", "ran code"]
    expected += ["is taken, expected t", "the value is not rig", "-"]
    assert done.stdout.splitlines() == expected
