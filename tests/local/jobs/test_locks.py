"""One run at a time on a folder, and no lock that outlives its holder."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from local.io.errors import CanopyError
from local.jobs import locks
from local.jobs.locks import LOCK_NAME, clear_folder, inherited, lock_folder

HOLD = (
    "import sys\n"
    "from local.jobs.locks import lock_folder\n"
    "with lock_folder(sys.argv[1], 'x', shared='shared' in sys.argv):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def hold():
    """Function: folder, more -> a process that holds its lock, or what it said instead."""
    started = []

    def begin(folder, *more, environment=None, **options):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
            **options,
        )
        started.append(process)
        if process.stdout.readline() == "held\n":
            return process
        return process.stderr.read().splitlines()[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_is_refused_and_told_who_is_first(tmp_path, hold):
    first = hold(tmp_path / "e", "--tag", "t")
    with (
        pytest.raises(CanopyError) as caught,
        lock_folder(tmp_path / "e", "this experiment"),
    ):
        pass
    text = str(caught.value)
    assert f"e: this experiment is being worked on by process {first.pid} on " in text
    assert os.uname().nodename in text
    assert "--tag t) since 20" in text
    assert "wait until that has ended" in text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_lock_goes_with_its_holder_whatever_ends_it(tmp_path, hold, number):
    first = hold(tmp_path)
    os.kill(first.pid, number)
    first.wait()
    with lock_folder(tmp_path, "x"):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    with lock_folder(tmp_path, "x"):
        pass


def test_waiting_ends_when_the_first_ends(tmp_path, hold, caplog):
    caplog.set_level("INFO")
    first = hold(tmp_path)
    began = time.monotonic()
    with pytest.raises(CanopyError), lock_folder(tmp_path, "x", wait_s=0.3):
        pass
    assert 0.3 <= time.monotonic() - began < 5
    assert f"waiting for x, process {first.pid}" in caplog.text
    first.terminate()
    with lock_folder(tmp_path, "x", wait_s=60):
        first.wait()


def test_those_who_share_keep_out_only_those_who_do_not(tmp_path, hold):
    hold(tmp_path, "shared")
    with lock_folder(tmp_path, "x", shared=True):
        pass
    assert not isinstance(hold(tmp_path, "shared"), str)
    with pytest.raises(CanopyError), lock_folder(tmp_path, "x"):
        pass


def test_a_process_that_holds_it_holds_it_still(tmp_path):
    with lock_folder(tmp_path, "x"):
        with lock_folder(tmp_path, "x"):
            pass
        with lock_folder(tmp_path / "fold0", "y"):
            assert len(inherited()[1]) == 2
    assert inherited()[1] == ()


def test_what_a_holder_starts_goes_on_under_its_lock_and_outlives_it(tmp_path, hold):
    with lock_folder(tmp_path, "x"):
        environment, descriptors = inherited()
        assert "worked on" in hold(tmp_path)
        child = hold(tmp_path, environment=environment, pass_fds=descriptors)
        assert not isinstance(child, str)
    assert "worked on" in hold(tmp_path)
    child.kill()
    child.wait()
    assert not isinstance(hold(tmp_path), str)


def test_a_forked_worker_keeps_no_lock(tmp_path, hold):
    with lock_folder(tmp_path, "x"):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        assert not isinstance(hold(tmp_path), str)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_number_that_is_another_file_is_no_lock(tmp_path, hold):
    first = hold(tmp_path)
    with open(tmp_path / "other", "w") as other:
        environment = {"CANOPY_LOCKS": f"{other.fileno()} x 999"}
        told = hold(tmp_path, environment=environment, pass_fds=(other.fileno(),))
    assert f"process {first.pid}" in told


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff\xfe"])
def test_a_note_that_cannot_be_read_is_no_reason_to_go_on(tmp_path, hold, content):
    hold(tmp_path)
    (tmp_path / LOCK_NAME).write_bytes(content)
    with pytest.raises(CanopyError, match="another process"), lock_folder(tmp_path, "x"):
        pass


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "try_lock", lambda *given: None)
    with lock_folder(tmp_path, "x"):
        pass
    assert "knows no locks; start no second run" in caplog.text


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CanopyError, match="a part of its path is a file"):
        lock_folder(tmp_path / "file" / "e", "x").__enter__()


def test_leftovers_go_and_what_is_locked_or_no_leftover_stays(tmp_path):
    for name in (".a.abcdefgh.tmp.npz", ".b.zz_zz_12.tmp.csv"):
        (tmp_path / name).write_text("half")
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0" / ".a.abcdefgh.tmp").write_text("half")
    for name in (".c.tmp.csv", "d.abcdefgh.tmp.npz", ".e.abcdefgh.npz"):
        (tmp_path / name).write_text("kept")
    with lock_folder(tmp_path, "x"):
        left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".c.tmp.csv", ".e.abcdefgh.npz", LOCK_NAME, "d.abcdefgh.tmp.npz", "fold0"]
    assert list((tmp_path / "fold0").iterdir()) == []


def test_a_cleared_folder_keeps_its_lock(tmp_path, hold):
    first = hold(tmp_path / "e")
    (tmp_path / "e" / "x" / "y").mkdir(parents=True)
    (tmp_path / "e" / "z").write_text("")
    clear_folder(tmp_path / "e")
    assert [path.name for path in (tmp_path / "e").iterdir()] == [LOCK_NAME]
    assert f"process {first.pid}" in hold(tmp_path / "e")
    clear_folder(tmp_path / "none")


def test_a_folder_that_is_given_away_keeps_no_lock_file(tmp_path, hold):
    with lock_folder(tmp_path / "a", "x", keep=False):
        assert (tmp_path / "a" / LOCK_NAME).is_file()
        (tmp_path / "a" / "result").touch()
        with pytest.raises(CanopyError, match="is being worked on"):
            raise CanopyError(hold(tmp_path / "a"))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]
    # Where nothing was made there is no folder, however the work ended.
    with pytest.raises(ValueError, match="no"), lock_folder(tmp_path / "b", "x", keep=False):
        raise ValueError("no")
    assert not (tmp_path / "b").exists()
    first = hold(tmp_path / "a", "shared")
    with lock_folder(tmp_path / "a", "x", shared=True, keep=False):
        pass
    # Of those who share, the last takes it away.
    assert (tmp_path / "a" / LOCK_NAME).is_file()
    assert "is being worked on" in hold(tmp_path / "a")
    first.kill()
    first.wait()
    with lock_folder(tmp_path / "a", "x", shared=True, keep=False):
        pass
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_a_lock_file_that_was_taken_away_while_waiting_is_no_lock(tmp_path, monkeypatch):
    """The waiting one holds a file that nobody finds any more: it takes the one that is there."""
    take, taken = locks._take, []

    def take_after_the_first_went(descriptor, folder, *rest):
        if not taken:
            (folder / LOCK_NAME).unlink()
        taken.append(descriptor)
        take(descriptor, folder, *rest)

    monkeypatch.setattr(locks, "_take", take_after_the_first_went)
    with lock_folder(tmp_path, "x"):
        status = os.stat(tmp_path / LOCK_NAME)
        assert (status.st_dev, status.st_ino) in locks._held
    assert len(taken) == 2
