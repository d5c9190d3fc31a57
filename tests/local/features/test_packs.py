"""Packs of feature files and their copies near by: the same bytes, whatever they are read from."""

import hashlib
import logging
import multiprocessing
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from local.config import Config
from local.features import cache as cache_room
from local.features import pack_files as pack_room
from local.features.cache import copy_here
from local.features.npz import FeatureReader, write_features
from local.features.pack_files import (
    forget,
    pack_files,
    packed_files,
    remove_originals,
    verify,
)
from local.features.store import FeatureStore
from local.io.errors import CanopyError
from local.jobs.interruption import Interrupted

N = 9


@pytest.fixture
def dump(tmp_path, toy_dump, toy_config):
    """Nine recordings of 50 to 90 frames; a waveform lies beside the features of the last."""
    rng = np.random.default_rng(3)
    arrays = {
        f"r{i}": rng.normal(size=(8, 50 + 5 * i)).astype(np.float32, order="F") for i in range(N)
    }
    made = toy_dump(arrays, toy_config())
    write_features(
        made.folder / "r8.npz",
        arrays["r8"],
        sample_rate=1000,
        hop_length=100,
        duration=8.9,
        wave=np.arange(9000, dtype=np.int16),
    )
    return made


def names_of(dump):
    return [f"r{i}.npz" for i in range(N)]


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.npz"))
    }


def everything(dump):
    """All that a stage could read."""
    crops = [dump.crop(f"r{i}", start, 20) for i in range(N) for start in (0, 7, 25 + 5 * i)]
    return [*crops, dump.wave_behind("r8", 3, 20)]


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def test_packed_features_read_as_the_files_did(dump):
    before, content = everything(dump), digests(dump.folder)
    assert pack_files(dump.folder, names_of(dump), 6000) == N
    packed = packed_files(dump.folder)
    assert len({place.path for place in packed.values()}) > 2
    assert {name: place.sha256 for name, place in packed.items()} == content
    assert remove_originals(dump.folder)[0] == N
    assert not list(dump.folder.glob("*.npz"))
    assert_same(before, everything(FeatureStore(dump.folder, dump.config)))


def test_any_tar_takes_the_files_out_again(dump):
    content = digests(dump.folder)
    pack_files(dump.folder, names_of(dump), 6000)
    remove_originals(dump.folder)
    for pack in sorted((dump.folder / "packs").glob("*.tar")):
        subprocess.run(["tar", "-xf", pack, "-C", dump.folder], check=True)
    assert digests(dump.folder) == content


def test_packs_are_the_same_bytes_again(dump):
    pack_files(dump.folder, names_of(dump), 6000)
    first = {path.name: path.read_bytes() for path in (dump.folder / "packs").glob("pack-*")}
    shutil.rmtree(dump.folder / "packs")
    for path in dump.folder.glob("*.npz"):
        os.utime(path, (1, 1))
    pack_files(dump.folder, names_of(dump), 6000)
    assert first == {p.name: p.read_bytes() for p in (dump.folder / "packs").glob("pack-*")}


def test_what_was_stopped_goes_on(dump, monkeypatch):
    calls = []

    def stop(place):
        calls.append(place)
        if len(calls) == 3:
            raise Interrupted("SIGTERM", place)

    monkeypatch.setattr(pack_room, "stop_if_asked", stop)
    with pytest.raises(Interrupted):
        pack_files(dump.folder, names_of(dump), 6000)
    done = packed_files(dump.folder)
    assert 0 < len(done) < N
    monkeypatch.undo()
    # A pack whose index was not reached is written anew.
    (dump.folder / "packs" / "pack-00002.tar").write_bytes(b"torn")
    assert pack_files(dump.folder, names_of(dump), 6000) == N - len(done)
    assert packed_files(dump.folder).items() >= done.items()
    verify(packed_files(dump.folder).values())


def test_nothing_is_removed_that_is_not_whole_in_a_pack(dump):
    pack_files(dump.folder, names_of(dump), 6000)
    place = packed_files(dump.folder)["r4.npz"]
    with open(place.path, "r+b") as stream:
        stream.seek(place.offset + place.size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CanopyError, match=r"r4\.npz is not what was packed"):
        remove_originals(dump.folder)
    assert (dump.folder / "r4.npz").is_file()


def test_a_file_that_changed_since_is_not_removed(dump):
    pack_files(dump.folder, names_of(dump), 6000)
    with open(dump.folder / "r0.npz", "ab") as stream:
        stream.write(b"more")
    with pytest.raises(CanopyError, match="not what was packed"):
        remove_originals(dump.folder)
    assert (dump.folder / "r0.npz").is_file()


def test_files_made_anew_leave_their_packs(dump):
    pack_files(dump.folder, names_of(dump), 6000)
    remove_originals(dump.folder)
    forget(dump.folder, ["r3.npz"])
    assert "r3.npz" not in packed_files(dump.folder)
    fresh = np.zeros((8, 65), dtype=np.float32, order="F")
    path = dump.folder / "r3.npz"
    write_features(path, fresh, sample_rate=1000, hop_length=100, duration=6.4)
    again = FeatureStore(dump.folder, dump.config)
    np.testing.assert_array_equal(again.crop("r3", 0, 20), np.zeros((8, 20)))
    assert pack_files(dump.folder, names_of(dump), 6000) == 1
    assert not FeatureStore(dump.folder, dump.config).crop("r3", 0, 20).any()


def test_packs_that_nothing_is_read_from_go(dump):
    pack_files(dump.folder, names_of(dump), 6000)
    first = packed_files(dump.folder)["r0.npz"].path
    forget(
        dump.folder, [n for n, place in packed_files(dump.folder).items() if place.path == first]
    )
    pack_files(dump.folder, names_of(dump), 6000)
    assert not first.exists()
    assert set(packed_files(dump.folder)) == set(names_of(dump))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda place: replace(place, offset=place.offset + 512), "not readable as an npz"),
        (lambda place: replace(place, size=place.size - 1), "r5.npz"),
        (lambda place: replace(place, size=10**9), "truncated"),
        (lambda place: replace(place, path=place.path.with_name("no.tar")), "cannot be opened"),
    ],
)
def test_a_wrong_index_is_told(dump, change, words):
    pack_files(dump.folder, names_of(dump), 6000)
    place = change(packed_files(dump.folder)["r5.npz"])
    with pytest.raises(CanopyError, match=words):
        FeatureReader().read_crop(place, 0, 10)


@pytest.mark.parametrize("cell", ["-1", "1e3", "", "9" * 30])
def test_an_index_of_no_numbers_is_told(dump, cell):
    pack_files(dump.folder, names_of(dump), 10**9)
    index = dump.folder / "packs" / "pack-00000.csv"
    table = pd.read_csv(index, dtype=str)
    table.loc[0, "first_byte"] = cell
    table.to_csv(index, index=False)
    with pytest.raises(CanopyError, match="first_byte and bytes must be whole numbers"):
        FeatureStore(dump.folder, dump.config)


def test_names_of_members_stay_inside_the_pack(dump):
    """Reading a pack writes nothing, and what tar would unpack are plain names."""
    pack_files(dump.folder, names_of(dump), 10**9)
    with tarfile.open(dump.folder / "packs" / "pack-00000.tar") as tar:
        assert tar.getnames() == names_of(dump)
        assert all(member.isreg() and member.uid == 0 for member in tar)


# ------------------------------------------------------------------------------------------ cache


@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_near_by_reads_the_same(dump, tmp_path, packed, monkeypatch):
    before = everything(dump)
    if packed:
        pack_files(dump.folder, names_of(dump), 6000)
        remove_originals(dump.folder)
    near = FeatureStore(dump.folder, dump.config, tmp_path / "node")
    near.bring([f"r{i}" for i in range(N)])
    for name in ("r0", "r8"):
        place = near.place(name)
        path = place.path if packed else place
        assert (tmp_path / "node") in path.parents
    originals = dump.folder / "packs" if packed else dump.folder
    for path in [*originals.glob("*.npz"), *originals.glob("*.tar")]:
        path.rename(path.with_suffix(".away"))
    assert_same(before, everything(near))


def test_only_what_is_asked_for_is_copied(dump, tmp_path):
    near = FeatureStore(dump.folder, dump.config, tmp_path / "node")
    near.bring(["r1", "r2", "unknown"])
    assert sorted(path.name for path in (tmp_path / "node").rglob("*.npz")) == ["r1.npz", "r2.npz"]
    assert near.place("r3") == dump.folder / "r3.npz"


def test_stretched_recordings_are_copied_when_they_are_asked_for(sound_dump, tmp_path):
    features = {"n_fft": 128, "hop_length": 100, "n_mels": 8, "f_min_hz": 0.0, "stretches": [1.25]}
    config = Config.model_validate(
        {"audio": {"sample_rate": 1000}, "features": features, "window": {"length_s": 1.0}}
    )
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 3000))
    plain = sound_dump({"a": noise[0], "b": noise[1]}, config)
    near = FeatureStore(plain.folder, config, tmp_path / "node")
    near.bring(["a"])
    assert (tmp_path / "node") in near.at(1.25).place("a").parents
    near.bring(["b"])
    assert (tmp_path / "node") in near.at(1.25).place("b").parents
    np.testing.assert_array_equal(near.at(1.25).crop("b", 0, 9), plain.at(1.25).crop("b", 0, 9))


def test_copies_are_made_once(dump, tmp_path, monkeypatch):
    files = {dump.folder / name: None for name in names_of(dump)}
    first = copy_here(dump.folder, files, tmp_path / "node")
    monkeypatch.setattr(cache_room, "_copy", None)
    assert copy_here(dump.folder, files, tmp_path / "node") == first


@pytest.mark.parametrize("side", ["original", "copy"])
def test_a_copy_of_another_state_is_made_anew(dump, tmp_path, side):
    files = {dump.folder / "r0.npz": None}
    copy = copy_here(dump.folder, files, tmp_path / "node")[dump.folder / "r0.npz"]
    changed = copy if side == "copy" else dump.folder / "r0.npz"
    changed.write_bytes(b"other")
    copy_here(dump.folder, files, tmp_path / "node")
    assert copy.read_bytes() == (dump.folder / "r0.npz").read_bytes()


def test_a_half_made_cache_is_gone_on_with(dump, tmp_path, monkeypatch):
    files = {dump.folder / name: None for name in names_of(dump)}
    made = []

    def stop(place):
        made.append(place)
        if len(made) == 4:
            raise Interrupted("SIGTERM", place)

    monkeypatch.setattr(cache_room, "stop_if_asked", stop)
    with pytest.raises(Interrupted):
        copy_here(dump.folder, files, tmp_path / "node")
    made.clear()
    monkeypatch.setattr(cache_room, "stop_if_asked", made.append)
    assert len(copy_here(dump.folder, files, tmp_path / "node")) == N
    assert len(made) == N - 3


def test_what_does_not_fit_is_read_in_place(dump, tmp_path, monkeypatch, caplog):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: usage._replace(free=cache_room.RESERVE_BYTES + 10)
    )
    near = FeatureStore(dump.folder, dump.config, tmp_path / "node")
    with caplog.at_level(logging.WARNING):
        near.bring(["r0", "r1"])
    assert "it is read where it lies" in caplog.text
    assert near.place("r0") == dump.folder / "r0.npz"
    assert_same(everything(dump), everything(near))


def test_a_place_that_cannot_be_written_is_no_reason_to_stop(dump, tmp_path, caplog):
    (tmp_path / "node").write_text("a file")
    near = FeatureStore(dump.folder, dump.config, tmp_path / "node")
    near.bring(["r0"])
    assert "the dump is read where it lies" in caplog.text
    assert near.place("r0") == dump.folder / "r0.npz"


def test_a_folder_that_is_a_link_to_elsewhere_is_not_used(dump, tmp_path, caplog):
    (tmp_path / "node").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "node" / f"canopy-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    FeatureStore(dump.folder, dump.config, tmp_path / "node").bring(["r0"])
    assert "another user's, or no folder" in caplog.text
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("packed", [False, True])
def test_a_disk_that_alters_what_is_written_is_told(dump, tmp_path, monkeypatch, packed):
    if packed:
        pack_files(dump.folder, names_of(dump), 6000)
        place = packed_files(dump.folder)["r0.npz"]
        content = bytearray(place.path.read_bytes())
        content[place.offset + 400] ^= 1
        place.path.write_bytes(content)
    else:
        monkeypatch.setattr(cache_room, "file_digest", lambda _: "other")
    with pytest.raises(CanopyError, match="is not what"):
        FeatureStore(dump.folder, dump.config, tmp_path / "node").bring(["r0"])


def test_several_processes_copy_once(dump, tmp_path):
    """One makes the copies, the others wait and find them."""
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        inodes = pool.starmap(_inodes, [(dump.folder, dump.config, tmp_path / "node")] * 3)
    assert inodes[0] == inodes[1] == inodes[2]
    assert len(set(inodes[0])) == N


def _inodes(folder, config, cache):
    near = FeatureStore(folder, config, cache)
    near.bring([f"r{i}" for i in range(N)])
    return [near.place(f"r{i}").stat().st_ino for i in range(N)]
