"""Files are whole or absent; what was there before survives a fault."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.io.errors import CanopyError
from local.io.files import (
    atomic_path,
    file_digest,
    fingerprint,
    read_json,
    write_csv,
    write_json,
    write_npz,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(target, fault):
    with atomic_path(target) as temporary:
        temporary.write_text("half of")
        raise fault


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_fault_while_writing_leaves_the_earlier_file_alone(tmp_path, fault):
    target = tmp_path / "a.csv"
    target.write_text("before")
    with pytest.raises(fault):
        write_half(target, fault)
    assert target.read_text() == "before"
    assert names(tmp_path) == ["a.csv"]


def test_the_target_is_not_seen_before_the_end(tmp_path):
    target = tmp_path / "new" / "folder" / "a.npz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".npz"
        temporary.write_text("x")
        assert not target.exists()
    assert names(target.parent) == ["a.npz"]


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_others_may_read_what_was_written(tmp_path, umask):
    write_text(tmp_path / "a", "x")
    write_text(tmp_path / "a", "y")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_writing_leaves_the_umask_of_the_process_alone(tmp_path, umask, monkeypatch):
    """Other threads open files meanwhile: with a umask of 0 anybody could write to theirs."""

    def refuse(mask):
        raise AssertionError(f"the umask of all threads is set to {mask}")

    monkeypatch.setattr(os, "umask", refuse)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: write_text(tmp_path / f"{n % 5}", "x"), range(40)))
    monkeypatch.undo()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}
    assert names(tmp_path) == ["0", "1", "2", "3", "4"]


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    class Unwritable:
        def __str__(self):
            raise OSError("no space left")

    write_csv(tmp_path / "a.csv", pd.DataFrame({"x": [1]}))
    with pytest.raises(OSError, match="no space"):
        write_csv(tmp_path / "a.csv", pd.DataFrame({"x": [2, Unwritable()]}))
    assert (tmp_path / "a.csv").read_text() == "x\n1\n"
    assert names(tmp_path) == ["a.csv"]


def test_json_round_trip_of_numpy_paths_and_no_numbers(tmp_path):
    value = {
        "a": np.float32(0.5),
        "b": np.array([[1, 2]]),
        "c": tmp_path,
        "d": {"nan": float("nan"), "inf": np.inf},
        "e": (True, None),
        "f": {"y", "x"},
    }
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == {
        "a": 0.5,
        "b": [[1, 2]],
        "c": str(tmp_path),
        "d": {"nan": None, "inf": None},
        "e": [True, None],
        "f": ["x", "y"],
    }


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(CanopyError, match=r"a\.json: not readable as JSON .* run its stage again"):
        read_json(path)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(CanopyError, match=r"a\.json: no such file; run the stage"):
        read_json(tmp_path / "a.json")


def test_npz_needs_no_pickle_and_takes_none(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, x=np.arange(3), y=np.array(["a", "bc"]))
    with np.load(path, allow_pickle=False) as archive:
        assert archive["x"].tolist() == [0, 1, 2]
        assert archive["y"].tolist() == ["a", "bc"]
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"'x'.*object array"):
        write_npz(path, x=np.array([{}], dtype=object))
    assert path.read_bytes() == before


def test_digest_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "a") == known
    (tmp_path / "b").write_bytes(b"a" * (2**20 + 1))
    assert file_digest(tmp_path / "b") != file_digest(tmp_path / "a")


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.text(max_size=4),
        st.one_of(st.integers(), st.text(max_size=4), st.booleans()),
        min_size=2,
    )
)
def test_fingerprint_does_not_see_the_order_of_keys_but_all_else(values):
    digest = fingerprint(values)
    assert fingerprint(dict(reversed(values.items()))) == digest
    assert fingerprint({"inner": values}) != digest
    key = next(iter(values))
    assert fingerprint({**values, key: [values[key]]}) != digest
    assert fingerprint(json.loads(json.dumps(values))) == digest


def test_fingerprint_of_like_values():
    assert fingerprint({"a": (1, 2)}) == fingerprint({"a": [1, 2]})
    assert fingerprint({"a": np.int64(1)}) == fingerprint({"a": 1})
    assert fingerprint({"a": {"x", "y", "z"}}) == fingerprint({"a": {"z", "y", "x"}})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
