"""Full, read-only and failing disks: one sentence, and what was written before is whole."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from local.io import files
from local.io.errors import CanopyError
from local.io.files import (
    DISK_FAULTS,
    atomic_path,
    remove_leftovers,
    write_csv,
    write_json,
    write_npz,
    write_text,
)
from local.jobs.journal import Journal
from local.jobs.locks import lock_folder
from local.models.checkpoint import save_checkpoint


def mount(*options: str) -> None:
    """Mount, or skip the test where that is not allowed."""
    try:
        ran = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if ran.returncode:
        pytest.skip(f"mounting is not allowed here ({ran.stderr.strip()})")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=256k", "none", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def fixed_disk(tmp_path):
    """A folder on a disk that was made read-only after something was written."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    write_text(folder / "a.txt", "before")
    mount("--bind", str(folder), str(folder))
    mount("-o", "remount,bind,ro", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def wave(path):
    import soundfile

    with atomic_path(path) as temporary:
        soundfile.write(temporary, np.zeros(300_000), 8000, "PCM_16", format="WAV")


def picture(path):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    rows = np.random.default_rng(0).random((500, 500, 3))
    figure = Figure(figsize=(5, 5))
    figure.figimage(rows)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def state(path):
    import torch

    save_checkpoint(path, {"x": torch.zeros(100_000)})


NUMBERS = np.random.default_rng(0).integers(0, 255, 400_000, dtype=np.uint8)
WRITERS = {
    "text.txt": lambda path: write_text(path, "x" * 400_000),
    "values.json": lambda path: write_json(path, {"x": ["y" * 400_000]}),
    "table.csv": lambda path: write_csv(path, pd.DataFrame({"x": ["y" * 400_000]})),
    "arrays.npz": lambda path: write_npz(path, x=NUMBERS),
    "state.pt": state,
    "sound.wav": wave,
    "picture.png": picture,
}


def refuse(path, write, words):
    with pytest.raises(CanopyError, match=words) as caught:
        write(path)
    text = str(caught.value)
    assert str(path) in text
    assert "what was written before is whole" in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_and_the_earlier_file_is_whole(small_disk, name):
    path = small_disk / name
    path.write_bytes(b"before")
    text = refuse(path, WRITERS[name], "not written, the disk is full, it needs .* are free")
    needed, free = (int(word) for word in text.replace(":", " ").split() if word.isdigit())
    assert needed > 100_000
    assert free <= 256 * 1024
    assert path.read_bytes() == b"before"
    assert [p.name for p in small_disk.iterdir()] == [name]
    write_text(small_disk / "room.txt", "there is room again")


@pytest.mark.parametrize("name", WRITERS)
def test_a_limit_on_files_is_told_where_nothing_can_be_mounted(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes with it, as a process may.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        refuse(path, WRITERS[name], "a file may not be that large here, it needs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_disk_is_told(fixed_disk, name):
    refuse(fixed_disk / name, WRITERS[name], "the disk is read-only")
    with pytest.raises(CanopyError, match="fixed/new: the disk is read-only"):
        WRITERS[name](fixed_disk / "new" / name)
    assert (fixed_disk / "a.txt").read_text() == "before"


def test_locks_and_journals_on_such_disks_are_told(small_disk, fixed_disk):
    with (
        pytest.raises(CanopyError, match=r"\.lock: the disk is read-only"),
        lock_folder(fixed_disk, "x"),
    ):
        pass
    with pytest.raises(CanopyError, match="the disk is read-only"):
        Journal(fixed_disk / "x.journal", "f")
    journal = Journal(small_disk / "x.journal", "f")
    for number in range(5):
        journal.add(f"r{number}", text="x" * 50_000)
    with pytest.raises(
        CanopyError, match=r"disk is full, it needs 50\d+ bytes, \d+ bytes are free"
    ):
        journal.add("r5", text="x" * 50_000)
    with Journal(small_disk / "x.journal", "f") as journal:
        assert [len(entry["text"]) for _, entry in journal.items()] == [50_000] * 5


@pytest.mark.parametrize("number", sorted(DISK_FAULTS))
@pytest.mark.parametrize("call", ["open", "fsync", "replace", "write"])
def test_every_fault_at_every_step_is_one_sentence(tmp_path, monkeypatch, number, call):
    path = tmp_path / "a.csv"
    path.write_text("before")

    def fail(*given, **more):
        raise OSError(number, os.strerror(number))

    def write(target):
        with atomic_path(target) as temporary:
            if call == "write":
                fail()
            temporary.write_text("half")

    if call != "write":
        monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(CanopyError, match=r"a\.csv: .*what was written before is whole"):
        write(path)
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("number", [errno.EINTR, errno.ENXIO, None])
def test_other_faults_are_not_taken_for_the_disks(tmp_path, number):
    fault = OSError(number, "odd") if number else OSError("odd")
    with pytest.raises(OSError, match="odd"), atomic_path(tmp_path / "a"):
        raise fault


def test_a_fault_of_another_file_is_not_told_of_this_one(tmp_path):
    with pytest.raises(PermissionError), atomic_path(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "denied", "/other/file")


def test_a_folder_that_cannot_be_synced_is_no_fault(tmp_path, monkeypatch):
    sync = files._sync

    def only_files(path):
        if Path(path).is_dir():
            raise OSError(errno.EINVAL, "invalid")
        sync(path)

    monkeypatch.setattr(files, "_sync", only_files)
    write_text(tmp_path / "new" / "a", "x")
    assert (tmp_path / "new" / "a").read_text() == "x"


# -------------------------------------------------------------------------------- killed writers

WRITE = """
import sys, time
import numpy as np
from local.io.files import atomic_path
n = 0
while True:
    with atomic_path(sys.argv[1]) as temporary:
        n += 1
        with open(temporary, "wb") as stream:
            for _ in range(200):
                stream.write(bytes([n % 256]) * 5000)
    print(n, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.003, 0.011, 0.017, 0.023])
def test_a_killed_writer_leaves_the_file_whole_and_its_leftovers_go(tmp_path, delay_s):
    path = tmp_path / "a.npz"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    removed = 0
    for _ in range(20):
        # What is being written is never taken for a leftover.
        removed += remove_leftovers(tmp_path)
        assert len(set(path.read_bytes())) == 1
    assert removed == 0
    time.sleep(delay_s)
    process.kill()
    process.communicate()
    content = path.read_bytes()
    assert len(content) == 10**6
    assert len(set(content)) == 1
    left = [p.name for p in tmp_path.iterdir() if p.name != "a.npz"]
    assert remove_leftovers(tmp_path) == len(left) <= 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.slow
def test_equal_arrays_written_at_other_times_are_equal_bytes(tmp_path):
    arrays = {"x": np.arange(5), "y": np.array(["a", "b"])}
    write_npz(tmp_path / "a.npz", **arrays)
    os.utime(tmp_path / "a.npz", (0, 0))
    time.sleep(2.1)  # what zip files keep of time has steps of two seconds
    write_npz(tmp_path / "b.npz", **arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
