"""Stages that are killed, and two runs at once: the same bytes, or one sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from local.data.tables import EVENT_COLUMNS, RECORDING_COLUMNS, Tables, write_tables
from local.jobs.locks import LOCK_NAME, lock_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RATE, N = 8000, 60
SETTINGS = {
    "audio": {"sample_rate": RATE, "max_invalid_share": 0.1},
    "features": {"n_fft": 256, "hop_length": 80, "n_mels": 16},
    "window": {"length_s": 0.5, "min_visible_s": 0.2},
    "split": {"n_folds": 2},
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Sixty recordings of which one is no sound, their tables, and a configuration."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "data").mkdir()
    rows, events = [], []
    for i in range(N):
        wave = 0.1 * np.random.default_rng(i).standard_normal(RATE * (5 + i % 7))
        soundfile.write(folder / "data" / f"r{i}.wav", wave, RATE)
        subset = "train" if i % 3 else "test"
        rows.append((f"r{i}", f"r{i}.wav", subset, len(wave) / RATE, float(RATE), 1.0, f"r{i}"))
        if subset == "train":
            events.append((f"r{i}", "ab"[i % 2], 0.5, 1.0, np.nan, np.nan, 1.0, 1.0, "tp"))
    (folder / "data" / "r7.wav").write_bytes(b"no sound")
    classes = pd.DataFrame({"label": ["a", "b"], "name": ["a", "b"]})
    tables = Tables(
        pd.DataFrame(rows, columns=list(RECORDING_COLUMNS)),
        pd.DataFrame(events, columns=list(EVENT_COLUMNS)),
        classes.assign(low_freq=np.nan, high_freq=np.nan),
    )
    write_tables(folder / "dump" / "tables", tables, folder / "data")
    (folder / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


def command(scene, dump, script="preprocess", *more):
    places = {"datadir": scene / "data", "dumpdir": dump, "expdir": dump / "exp"}
    options = [f"--{name}={folder}" for name, folder in places.items()]
    options += ["--conf", str(scene / "toy.yaml"), "--device", "cpu", "--recipe", "toy", *more]
    return [sys.executable, str(ROOT / "bin" / f"{script}.py"), *options]


def begin(*given):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*given), env=environment, start_new_session=True, **pipes)


def finish(*given):
    process = begin(*given)
    _, told = process.communicate(timeout=300)
    return process.returncode, told


def new_dump(scene, tmp_path):
    shutil.copytree(scene / "dump" / "tables", tmp_path / "dump" / "tables")
    return tmp_path / "dump"


def outputs(dump):
    """Names and bytes of a finished dump; what holds process numbers is left out."""
    (manifest,) = dump.glob("*/manifest.csv")
    files = {path.name: path.read_bytes() for path in manifest.parent.iterdir()}
    return {name: content for name, content in files.items() if name != LOCK_NAME}


@pytest.fixture(scope="module")
def unbroken(scene, tmp_path_factory):
    dump = new_dump(scene, tmp_path_factory.mktemp("unbroken"))
    code, told = finish(scene, dump, "preprocess", "--nj", "1")
    assert code == 0, told
    return outputs(dump)


def journal_of(dump):
    return next(iter(dump.glob("*/preprocess.journal")), None)


def wait_for_lines(process, dump, n_lines):
    while process.poll() is None:
        path = journal_of(dump)
        if path is not None and path.read_bytes().count(b"\n") > n_lines:
            return
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_pool_of_processes_ends_with_the_same_bytes(scene, unbroken, tmp_path, number):
    dump = new_dump(scene, tmp_path)
    rng = np.random.default_rng(int(number))
    for n_lines in (1, 33):
        process = begin(scene, dump, "preprocess", "--nj", "2")
        wait_for_lines(process, dump, n_lines)
        time.sleep(rng.uniform(0, 0.02))
        send = os.killpg if number == signal.SIGKILL else os.kill
        if process.poll() is None:
            send(process.pid, number)
        _, told = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 75, 0), told
        assert "Traceback" not in told
        if process.returncode == 75:
            assert "stopped by SIGTERM at recording r" in told
    code, told = finish(scene, dump, "preprocess", "--nj", "2")
    assert code == 0, told
    assert outputs(dump) == unbroken
    assert b"r7.wav" in unbroken["manifest.csv"]
    assert json.loads(unbroken["statistics.json"])["recordings"] == N - 1


def test_a_worker_that_is_killed_is_borne(scene, unbroken, tmp_path):
    dump = new_dump(scene, tmp_path)
    process = begin(scene, dump, "preprocess", "--nj", "2")
    wait_for_lines(process, dump, 5)
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"],
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in found.stdout.split()[:1]:
        os.kill(int(pid), signal.SIGKILL)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert outputs(dump) == unbroken


def test_the_second_run_of_a_tag_is_refused_and_one_of_another_waits(scene, unbroken, tmp_path):
    dump = new_dump(scene, tmp_path)
    first = begin(scene, dump, "preprocess", "--nj", "1")
    wait_for_lines(first, dump, 0)
    os.kill(first.pid, signal.SIGSTOP)
    for script in ("preprocess", "split", "check_config"):
        code, told = finish(scene, dump, script)
        assert code == 1
        (line,) = told.splitlines()
        assert f"toy: this experiment is being worked on by process {first.pid} on " in line
    other = begin(scene, dump, "preprocess", "--nj", "1", "--tag", "other")
    told = ""
    while "waiting for this dump" not in told:
        told = other.stderr.readline()
        assert told, "it did not wait"
    os.kill(first.pid, signal.SIGCONT)
    _, told = first.communicate(timeout=300)
    assert first.returncode == 0, told
    _, told = other.communicate(timeout=300)
    assert other.returncode == 0, told
    assert "done before with the same inputs and settings, skipped" in told
    assert outputs(dump) == unbroken


def test_folds_go_on_beside_each_other_but_not_beside_a_whole_stage(scene, tmp_path):
    dump = new_dump(scene, tmp_path)
    with lock_folder(dump / "exp" / "toy", "x", shared=True):
        code, told = finish(scene, dump, "sed_train", "--worker", "--folds", "0")
        assert "worked on" not in told
        code, told = finish(scene, dump, "split")
        assert code == 1
        assert "toy: this experiment is being worked on by one beside process" in told
    with lock_folder(dump / "exp" / "toy" / "cycle0" / "fold0", "x"):
        code, told = finish(scene, dump, "sed_train", "--worker", "--folds", "0")
        assert code == 1
        assert "fold 0 is being worked on by process" in told


def test_of_two_run_sh_at_once_the_second_names_the_first(tmp_path, ready_environment):
    venv = ready_environment(tmp_path / "venv")
    hidden = ("PYTHONPATH", "SLURM_CPUS_PER_TASK", "SLURM_SUBMIT_DIR")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"VENV": str(venv)}
    call = [str(ROOT / "run.sh"), "--conf", str(ROOT / "conf/demo/tiny.yaml"), "--device", "cpu"]
    call += [f"--{name}dir={tmp_path / name}" for name in ("data", "dump", "exp")]
    first = subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True)
    told = ""
    while "stage 0 (preprocess)" not in told:
        told = first.stderr.readline()
        assert told, "it did not begin"
    second = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    first.terminate()
    _, told = first.communicate(timeout=120)
    assert first.returncode == 75, told
    assert second.returncode == 1
    assert "error: " in second.stderr, second.stderr
    (line,) = [line for line in second.stderr.splitlines() if line.startswith("error: ")]
    assert f"tiny: this experiment is being worked on by process {first.pid} on " in line
    assert str(ROOT / "run.sh") in line
    assert "the check of the configuration failed with exit code 1" in second.stderr
    with lock_folder(tmp_path / "exp" / "tiny", "x"):
        pass
