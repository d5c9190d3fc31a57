"""What was done survives any end of the run, and damage costs no more than the damaged line."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from local.io.errors import CanopyError
from local.jobs import journal as journals
from local.jobs.journal import Journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "x.journal"


def fill(path, n=5, fingerprint="f"):
    with Journal(path, fingerprint) as journal:
        for number in range(n):
            journal.add(f"r{number}", status="ok", value=number + 0.1)


def kept(path, fingerprint="f"):
    with Journal(path, fingerprint) as journal:
        return {key: entry["value"] for key, entry in journal.items()}


def test_entries_come_back_exactly(path):
    values = [0.1, 1e-320, float("nan"), 2**53 + 1, "é\n", None, True, [1, {"a": []}]]
    with Journal(path, "f") as journal:
        journal.add("r", status="ok", values=values)
        assert journal.get("r")["values"] == values
    with Journal(path, "f") as journal:
        assert str(journal.get("r")) == str({"status": "ok", "values": values})
        assert journal.get("s") is None


def test_the_last_entry_of_a_key_counts(path):
    fill(path)
    with Journal(path, "f") as journal:
        journal.add("r1", status="invalid", value=-1)
    assert list(kept(path).items())[:2] == [("r0", 0.1), ("r1", -1)]


def test_other_settings_begin_anew(path):
    fill(path)
    assert kept(path, "other") == {}
    assert kept(path) == {}


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
def test_a_torn_last_line_is_dropped_and_the_next_is_whole(path, cut):
    fill(path)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    fill_one = {"r4": 9}
    with Journal(path, "f") as journal:
        assert list(dict(journal.items())) == ["r0", "r1", "r2", "r3"]
        journal.add("r4", value=9)
    assert kept(path) == {f"r{n}": n + 0.1 for n in range(4)} | fill_one


def test_every_cut_and_every_flipped_bit_leaves_true_entries_only(path):
    fill(path, 3)
    content = path.read_bytes()
    whole = {f"r{n}": n + 0.1 for n in range(3)}
    rng = np.random.default_rng(0)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        found = kept(path)
        assert found.items() <= whole.items()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        found = kept(path)
        assert found.items() <= whole.items()
        assert len(found) in (0, 1, 2)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0" * 100, b"{}\n", bytes(range(256))])
def test_a_foreign_file_is_begun_anew(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert kept(path) == {}
    fill(path)
    assert len(kept(path)) == 5


def test_a_compacted_journal_depends_on_its_entries_alone(path):
    fill(path)
    with Journal(path, "f") as journal:
        journal.add("r0", value=0.1, status="ok")
        journal.compact(["r2", "r0"])
        journal.add("r7", value=7)
    assert kept(path) == {"r2": 2.1, "r0": 0.1, "r7": 7}
    other = path.with_name("y.journal")
    with Journal(other, "f") as journal:
        for key in ("r2", "r0"):
            journal.add(key, status="ok", value={"r2": 2.1, "r0": 0.1}[key])
        journal.compact(["r2", "r0"])
    first = path.read_bytes().splitlines()[:2]
    assert other.read_bytes().splitlines()[:2] == first


def test_a_removed_journal_is_gone(path):
    fill(path)
    Journal(path, "f").remove()
    assert not path.exists()


def test_lines_are_on_the_disk_within_a_second(path, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr(journals.os, "fsync", lambda descriptor: synced.append(now[0]))
    monkeypatch.setattr(journals.time, "monotonic", lambda: now[0])
    with Journal(path, "f") as journal:
        synced.clear()
        for step in range(30):
            now[0] = step / 10
            journal.add(f"r{step}")
        assert len(synced) == 2
        assert synced == [1.0, 2.0]
    assert len(synced) == 3


def test_a_killed_process_loses_no_line(path):
    code = (
        "import sys, time\n"
        "from local.jobs.journal import Journal\n"
        f"journal = Journal({str(path)!r}, 'f')\n"
        "for n in range(1000):\n"
        "    journal.add(f'r{n}', value=n)\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    told = [process.stdout.readline() for _ in range(50)]
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().splitlines()
    process.wait()
    told = int(([line.strip() for line in told] + rest)[-1])
    found = kept(path)
    assert list(found.values()) == list(range(len(found)))
    assert len(found) >= told


def test_a_full_disk_is_told_and_what_was_written_stays(path, monkeypatch):
    fill(path)
    journal = Journal(path, "f")
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(journal, "_stream", full)
        with pytest.raises(CanopyError, match=r"not written, the disk is full.* bytes are free"):
            journal.add("r9", value=9)
    assert len(kept(path)) == 5
