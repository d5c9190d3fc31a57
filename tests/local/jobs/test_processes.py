"""Several processes of one script: so many at a time, stopped together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.io.errors import CanopyError
from local.jobs.interruption import Interrupted, forget, listen
from local.jobs.processes import KEEP_MEMORY, run_each

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def worker(tmp_path):
    """A script: `NAME SECONDS CODE` notes when it began and ended."""
    path = tmp_path / "worker.py"
    path.write_text(
        "import os, sys, time\n"
        "name, seconds, code = sys.argv[1:4]\n"
        "def note(what):\n"
        f"    with open({str(tmp_path / 'notes')!r}, 'a') as notes:\n"
        "        notes.write(f'{what} {name} {os.environ[\"OMP_NUM_THREADS\"]}\\n')\n"
        "note('begin')\n"
        "time.sleep(float(seconds))\n"
        "note('end')\n"
        "sys.exit(int(code))\n"
    )
    return path, tmp_path / "notes"


def test_each_task_runs_once(worker, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path, notes = worker
    run_each(path, [["a", "0", "0"], ["b", "0", "0"], ["c", "0", "0"]], 2, "cpu")
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert sorted(line[1] for line in lines if line[0] == "end") == ["a", "b", "c"]
    share = str(max(1, (os.cpu_count() or 1) // 2))
    assert {line[2] for line in lines} == {share}


@pytest.mark.parametrize("given", [None, "glibc.malloc.check=0"])
def test_memory_is_kept_unless_the_user_says_otherwise(tmp_path, monkeypatch, given):
    if given is None:
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    else:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    path = tmp_path / "tell.py"
    path.write_text(
        "import os, pathlib, sys\n"
        "pathlib.Path(sys.argv[1]).write_text(os.environ['GLIBC_TUNABLES'])\n"
    )
    run_each(path, [[str(tmp_path / "told")]], 1, "cpu")
    assert (tmp_path / "told").read_text() == (given or KEEP_MEMORY)


@pytest.mark.parametrize(("limit", "share"), [("6", "3"), ("1", "1"), ("4,2", "2")])
def test_the_users_limit_of_threads_is_shared_out(worker, monkeypatch, limit, share):
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    path, notes = worker
    run_each(path, [["a", "0", "0"], ["b", "0", "0"]], 2, "cpu")
    assert {line.split()[2] for line in notes.read_text().splitlines()} == {share}


def test_no_tasks_are_no_fault(worker):
    run_each(worker[0], [], 2, "cpu")


def test_the_first_failure_stops_the_rest(worker):
    path, notes = worker
    began = time.monotonic()
    with pytest.raises(CanopyError, match=r"worker\.py b 0\.5 3 ended with code 3"):
        run_each(path, [["a", "60", "0"], ["b", "0.5", "3"], ["c", "0", "0"]], 2, "cpu")
    assert time.monotonic() - began < 20
    text = notes.read_text()
    assert "end a" not in text
    assert "begin c" not in text


# ----------------------------------------------------------------------------------------- signals

POLITE = """
import sys, time
from local.jobs.interruption import stop_if_asked
from local.jobs.exit_codes import run_script
def main():
    note, seconds, save = sys.argv[1:4]
    open(note, "w").close()
    end = time.monotonic() + float(seconds)
    try:
        while time.monotonic() < end:
            time.sleep(0.02)
            stop_if_asked("its work")
    finally:
        time.sleep(float(save))
        open(note + ".saved", "w").close()
    return 0
sys.exit(run_script(main))
"""


@pytest.fixture
def polite(tmp_path, monkeypatch):
    """A script that saves when it is asked to stop: `NOTE SECONDS SECONDS_TO_SAVE`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "polite.py"
    path.write_text(POLITE)
    return path


def wait_for(path):
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert path.exists()


def test_a_signal_is_passed_on_and_what_runs_is_waited_for(polite, tmp_path):
    import threading

    names = [tmp_path / name for name in "abc"]
    tasks = [[str(name), "60", "0.3"] for name in names]

    def ask():
        for name in names[:2]:
            wait_for(name)
        os.kill(os.getpid(), signal.SIGINT)

    listen()
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        with pytest.raises(Interrupted, match=r"stopped by SIGINT at polite\.py"):
            run_each(polite, tasks, 2, "cpu")
    finally:
        thread.join()
        forget()
    saved = [Path(f"{name}.saved").exists() for name in names]
    assert saved == [True, True, False]
    assert not names[2].exists()


def test_a_process_that_was_asked_by_others_is_no_failure(worker):
    path, _ = worker
    with pytest.raises(Interrupted, match=r"a signal to one of its processes at worker\.py a"):
        run_each(path, [["a", "0", "75"]], 1, "cpu")


PARENT = """
import sys
from pathlib import Path
from local.jobs.processes import KEEP_MEMORY, run_each
from local.jobs.exit_codes import run_script
run = lambda: run_each(Path(sys.argv[1]), [sys.argv[2:]], 1, "cpu") or 0
sys.exit(run_script(run))
"""


@pytest.fixture
def parent(polite, tmp_path):
    """A process that runs one polite one, and the note of that."""
    note = tmp_path / "note"
    command = [sys.executable, "-c", PARENT, str(polite), str(note), "60", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(note)
    yield process, note
    process.kill()
    process.communicate()


def test_a_killed_parent_takes_its_processes_with_it(parent):
    process, note = parent
    process.kill()
    wait_for(Path(f"{note}.saved"))


def test_ctrl_c_of_a_terminal_reaches_all_and_aborts_none(parent):
    process, note = parent
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75, err
    assert Path(f"{note}.saved").exists()
    assert err.count("stopped by SIGINT") == 2


def test_a_second_ctrl_c_aborts_at_once(polite, tmp_path):
    note = tmp_path / "note"
    command = [sys.executable, "-c", PARENT, str(polite), str(note), "60", "50"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(note)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None  # its process saves
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert not Path(f"{note}.saved").exists() or "aborted" in err


@pytest.mark.slow
def test_each_has_gpus_of_its_own(tmp_path, monkeypatch):
    """Of those that this process sees, in the place of one that has ended."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    path = tmp_path / "seen.py"
    path.write_text(
        "import os, sys, time\n"
        "time.sleep(float(sys.argv[2]))\n"
        f"with open({str(tmp_path)!r} + '/' + sys.argv[1], 'w') as note:\n"
        "    note.write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    )
    run_each(path, [["a", "2"], ["b", "0"], ["c", "0"]], 2, "cuda", 2)
    seen = {name: (tmp_path / name).read_text() for name in "abc"}
    assert seen == {"a": "4,5", "b": "6,7", "c": "6,7"}
