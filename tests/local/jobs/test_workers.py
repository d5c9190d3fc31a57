"""A process that is killed costs no more than its own item."""

import inspect
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from local.io.errors import CanopyError
from local.jobs.workers import Killed, run_all


def square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number * number


def deadly(number: int, folder: Path, always: tuple[int, ...], once: tuple[int, ...]) -> int:
    mark = folder / f"{number}"
    if number in always or (number in once and not mark.exists()):
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def faulty(number: int) -> int:
    if number == 5:
        raise CanopyError("5 is wrong")
    return number


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("n", [1, 3])
def test_results_come_in_the_order_of_the_items(method, n):
    found = list(run_all(square, range(23), n, method))
    assert found == [(k, k * k) for k in range(23)]
    assert list(run_all(square, [], n, method)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("always", "once"),
    [((), (7,)), ((7,), ()), ((0, 22), (7, 8)), (tuple(range(5)), tuple(range(5, 10)))],
)
def test_only_what_kills_its_process_each_time_is_given_up(tmp_path, always, once, caplog):
    work = partial(deadly, folder=tmp_path, always=always, once=once)
    found = list(run_all(work, range(23), 3, "fork"))
    assert [k for k, _ in found] == list(range(23))
    given_up = {k for k, result in found if isinstance(result, Killed)}
    assert given_up == set(always)
    assert all(result == k * k for k, result in found if k not in given_up)
    assert "a process was killed, most likely for want of memory" in caplog.text


def test_what_the_work_raises_is_raised():
    results = run_all(faulty, range(40), 2, "fork")
    assert [next(results)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(CanopyError, match="5 is wrong"):
        next(results)


def test_one_who_stops_early_leaves_no_process(tmp_path):
    results = run_all(partial(note, folder=tmp_path), range(1000), 2, "fork")
    next(results)
    results.close()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert workers
    assert not any(alive(pid) for pid in workers)


def note(number: int, folder: Path) -> int:
    (folder / str(os.getpid())).write_text("")
    time.sleep(0.01)
    return number


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_end_when_the_main_process_is_killed(tmp_path, method):
    script = tmp_path / "main.py"
    script.write_text(
        "import os, sys, time\n"
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from local.jobs.workers import run_all\n"
        f"{inspect.getsource(note)}"
        "if __name__ == '__main__':\n"
        "    work = partial(note, folder=Path(sys.argv[1]))\n"
        f"    for item in run_all(work, range(10**6), 2, {method!r}):\n"
        "        print(item, flush=True)\n"
    )
    folder = tmp_path / "pids"
    folder.mkdir()
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, str(script), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=root)
    for _ in range(10):
        assert process.stdout.readline()
    workers = [int(path.name) for path in folder.iterdir()]
    # A signal to the group is the main process's to answer.
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    for _ in range(10):
        assert process.stdout.readline()
    assert all(map(alive, workers))
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, workers))
