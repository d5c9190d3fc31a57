"""The short form of `make faults`, and that it would see what is lost."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.demo import contents, differences

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}


def outcomes(*command, **more):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        env=ENVIRONMENT | more,
        check=False,
    )
    assert done.stdout, done.stderr
    return list(map(json.loads, done.stdout.splitlines())), done.returncode


def test_every_stage_goes_on_to_the_same_bytes(tmp_path, ready_environment):
    venv = str(ready_environment(tmp_path / "venv"))
    command = ("-m", "tests.faults.harness", "--short", "--json", "--jobs", "1")
    found, code = outcomes(*command, VENV=venv)
    assert [one for one in found if one["fault"]] == []
    assert code == 0
    tried = Counter(one["kind"] for one in found if one["n"])
    assert tried["kill"] == 12
    # Of run.sh and all it had started, in the middle of training.
    assert tried["clock set back"] == tried["two runs"] == tried["kill of all"] == 1
    assert {one["stage"] for one in found} == {
        *("preprocess", "split", "train", "infer", "relabel", "submit"),
        *("export", "detect", "run.sh"),
    }


FORGETFUL = """
import sys
from local.training import fold_loop as fold
from tests.faults import harness

load = fold.load_training_state
def forget(trainer, state):
    load(trainer, state)
    trainer.optimizer.state.clear()
fold.load_training_state = forget
def one(reference, form, seed):
    fate = harness._point(reference.ends["train"], 0.4, harness.signal.SIGKILL)
    return [harness.Trial("train", "kill", (fate,))]
harness.trials = one
harness.STAGES = ("preprocess", "split", "train")
sys.exit(harness.main(["--short", "--json", "--jobs", "1"]))
"""


def test_training_that_forgets_a_part_of_its_state_is_found():
    (found,), code = outcomes("-c", FORGETFUL)
    assert code == 1
    assert "cycle0/fold0/best.pt differs" in found["fault"]


def test_what_is_other_too_much_or_missing_is_told(tmp_path):
    def files(**content):
        home = tmp_path / "x"
        for name, text in content.items():
            path = home / "exp" / "tiny" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        found = contents(home)
        shutil.rmtree(home)
        return found

    one = files(**{"a.csv": "1", "b.csv": "2", "logs/train.log": "1", "run.json": "1"})
    assert sorted(one) == ["exp/tiny/a.csv", "exp/tiny/b.csv"]
    other = files(**{"a.csv": "9", ".b.tmp": "", "logs/train.log": "2", ".lock": "3"})
    assert differences(one, one) == []
    assert differences(other, one) == [
        "exp/tiny/b.csv is missing",
        "exp/tiny/.b.tmp is too much",
        "exp/tiny/a.csv differs",
    ]
