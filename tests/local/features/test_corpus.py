"""Stage 0 over a corpus: made once, made anew when needed, the same however many processes."""

import logging
import os
import shutil
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.config import Config
from local.data.tables import RECORDING_COLUMNS
from local.features import corpus
from local.features.corpus import (
    all_there,
    check_corpus,
    check_invalid_share,
    estimate_bytes,
    journals_of_shards,
    make_features,
    source_path,
)
from local.features.pack_files import pack_files, packed_files, remove_originals
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.jobs.interruption import Interrupted
from local.jobs.shards import Shard
from local.jobs.workers import Killed

RATE = 8000


def make_config(**sections):
    return Config.model_validate(
        {
            "audio": {"sample_rate": RATE, **sections.pop("audio", {})},
            "features": {"n_fft": 256, "hop_length": 80, "n_mels": 16, "dtype": "float32"},
            "window": {"length_s": 0.5, "min_visible_s": 0.2},
            **sections,
        }
    )


@pytest.fixture
def scene(tmp_path):
    """Four recordings of different lengths and their table."""
    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for i in range(4):
        wave = 0.1 * np.random.default_rng(i).standard_normal(RATE * (i + 2) // 2)
        soundfile.write(data / f"r{i}.wav", wave, RATE)
        rows.append((f"r{i}", f"r{i}.wav", "train", len(wave) / RATE, float(RATE), 1.0, f"r{i}"))
    return data, tmp_path / "dump", pd.DataFrame(rows, columns=list(RECORDING_COLUMNS))


def make(scene, config=None, nj=1):
    data, dump, recordings = scene
    return make_features(recordings, data, dump, config or make_config(), "cpu", nj)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


def test_made_once(scene):
    manifest, stats, n_made = make(scene)
    assert n_made == 4
    assert manifest["recording_id"].tolist() == ["r0", "r1", "r2", "r3"]
    assert manifest["status"].tolist() == ["ok"] * 4
    assert manifest["n_frames"].tolist() == [101, 151, 201, 251]
    assert manifest["duration"].tolist() == [1.0, 1.5, 2.0, 2.5]
    before = contents(scene[1])
    again, stats_again, n_again = make(scene)
    assert n_again == 0
    assert stats_again.to_dict() == stats.to_dict()
    pd.testing.assert_frame_equal(again, manifest)
    assert contents(scene[1]) == before


def test_statistics_are_those_of_all_frames(scene):
    """Pins defect 20 of earlier systems: recordings had to last 60 s at 48 kHz, all in memory."""
    _, stats, _ = make(scene)
    frames = np.concatenate(
        [np.load(scene[1] / f"r{i}.npz")["feats"].astype(np.float64) for i in range(4)], axis=1
    )
    assert stats.count == frames.shape[1]
    np.testing.assert_allclose(stats.mean, frames.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(stats.std, frames.std(axis=1), rtol=1e-5)


def test_made_anew_when_the_file_is_damaged_or_gone(scene):
    make(scene)
    _, dump, _ = scene
    whole = contents(dump)
    (dump / "r1.npz").write_bytes(whole["r1.npz"][:300])
    (dump / "r2.npz").unlink()
    manifest, _, n_made = make(scene)
    assert n_made == 2
    assert manifest["status"].tolist() == ["ok"] * 4
    assert contents(dump) == whole


def touch(scene):
    os.utime(scene[0] / "r0.wav", (5, 5))
    return scene


def move(scene):
    """All sounds in another folder, as a copy of the corpus has them."""
    data, dump, recordings = scene
    shutil.copytree(data, data.parent / "copy")
    shutil.move(data.parent / "copy" / "r2.wav", data.parent / "copy" / "other.wav")
    return data.parent / "copy", dump, recordings.replace({"path": {"r2.wav": "other.wav"}})


def regroup(scene):
    """Another subset, another group, another order of rows, one recording less."""
    data, dump, recordings = scene
    changed = recordings.assign(subset="test", group="all", start="2024-05-01T05:00:00Z")
    return data, dump, changed.iloc[[2, 0, 3]]


@pytest.mark.parametrize("change", [touch, move, regroup])
def test_what_is_the_same_sound_is_not_made_anew(scene, change):
    before, _, _ = make(scene)
    content = contents(scene[1])
    scene = change(scene)
    for _ in range(2):
        manifest, _, n_made = make(scene)
        assert n_made == 0
        kept = before.set_index("recording_id").loc[manifest["recording_id"]].reset_index()
        pd.testing.assert_frame_equal(manifest, kept)
        assert contents(scene[1]) == content
    assert make(scene, nj=2)[2] == 0


def test_another_sound_of_the_same_size_and_time_at_another_path_is_another(scene):
    data, dump, recordings = scene
    make(scene)
    wave, rate = soundfile.read(data / "r0.wav")
    soundfile.write(data / "new.wav", wave[::-1], rate)
    status = os.stat(data / "r0.wav")
    os.utime(data / "new.wav", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(data / "new.wav").st_size == status.st_size
    assert make((data, dump, recordings.replace({"path": {"r0.wav": "new.wav"}})))[2] == 1


def test_a_recording_more_is_made_alone_and_one_less_is_told(scene, caplog):
    data, dump, recordings = scene
    assert make((data, dump, recordings.iloc[:2]))[2] == 2
    assert make(scene)[2] == 2
    with caplog.at_level(logging.INFO, "canopy"):
        manifest, stats, n_made = make((data, dump, recordings.iloc[1:]))
    assert n_made == 0
    assert "1 recordings are not in the tables any more, such as r0; their features stay" in (
        caplog.text
    )
    assert stats.count == manifest["n_frames"].sum()
    assert (dump / "r0.npz").is_file()
    assert make(scene)[2] == 0


@pytest.mark.slow
def test_many_processes_write_what_one_writes(scene):
    """Pins defect 46 of earlier systems: preparation ran in one process."""
    data, dump, recordings = scene
    one = make(scene)
    config = make_config()
    two = make_features(recordings, data, dump.parent / "other", config, "cpu", 2)
    assert contents(dump) == contents(dump.parent / "other")
    pd.testing.assert_frame_equal(one[0], two[0])
    np.testing.assert_allclose(one[1].mean, two[1].mean, rtol=1e-12)
    np.testing.assert_allclose(one[1].m2, two[1].m2, rtol=1e-12)
    assert two[2] == 4


@pytest.mark.parametrize("content", [None, b"", b"no sound at all"])
def test_an_unusable_recording_is_listed_and_the_others_are_made(scene, content, caplog):
    data, _, _ = scene
    (data / "r1.wav").unlink()
    if content is not None:
        (data / "r1.wav").write_bytes(content)
    with caplog.at_level(logging.WARNING, "canopy"):
        manifest, _, _ = make(scene)
    assert manifest["status"].tolist() == ["ok", "invalid", "ok", "ok"]
    assert "r1.wav" in manifest["reason"].iloc[1]
    assert "r1.wav" in caplog.text
    with pytest.raises(
        CanopyError, match=r"1 of 4 recordings cannot be used.*max_invalid_share 0; .*r1\.wav"
    ):
        check_invalid_share(manifest, 0.0)
    with pytest.raises(CanopyError, match=r"max_invalid_share 0\.24"):
        check_invalid_share(manifest, 0.24)
    check_invalid_share(manifest, 0.25)


def test_a_recording_that_was_mended_is_made(scene):
    data, _, _ = scene
    good = (data / "r1.wav").read_bytes()
    (data / "r1.wav").write_bytes(b"")
    make(scene)
    (data / "r1.wav").write_bytes(good)
    manifest, _, n_made = make(scene)
    assert n_made == 1
    assert manifest["status"].tolist() == ["ok"] * 4


def statistics(made):
    return made[1].to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("nj", [1, 2])
@pytest.mark.parametrize("n_done", [0, 1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(scene, monkeypatch, nj, n_done):
    data, dump, recordings = scene
    whole = make_features(recordings, data, dump.parent / "a" / "dump", make_config(), "cpu", 1)
    places = []

    def stop(place):
        places.append(place)
        if len(places) > n_done:
            raise Interrupted("SIGTERM", place)

    monkeypatch.setattr(corpus, "stop_if_asked", stop)
    with pytest.raises(Interrupted, match=f"recording r{n_done}"):
        make(scene, nj=nj)
    monkeypatch.setattr(corpus, "stop_if_asked", lambda place: None)
    manifest, stats, n_made = make(scene, nj=nj)
    assert n_made == 4 - n_done - 1
    pd.testing.assert_frame_equal(manifest, whole[0])
    assert stats.to_dict() == statistics(whole)
    assert contents(dump) == contents(dump.parent / "a" / "dump")
    journals = [folder / corpus.JOURNAL_NAME for folder in (dump, dump.parent / "a" / "dump")]
    assert journals[0].read_bytes() == journals[1].read_bytes()


def test_the_clock_may_be_set_back(scene):
    data, dump, _ = scene
    whole = statistics(make(scene))
    # Features that seem older than their sounds are still theirs.
    for path in dump.glob("*.npz"):
        os.utime(path, (0, 0))
    assert make(scene)[2] == 0
    # A sound that was changed is another, though it seems older than its features.
    wave, rate = soundfile.read(data / "r0.wav")
    soundfile.write(data / "r0.wav", wave[::-1], rate)
    os.utime(data / "r0.wav", (5, 5))
    _, stats, n_made = make(scene)
    assert n_made == 1
    assert stats.to_dict() != whole
    soundfile.write(data / "r0.wav", wave, rate)
    assert statistics(make(scene)) == whole


def test_settings_that_change_the_numbers_make_all_anew(scene):
    make(scene)
    config = make_config()
    features = config.features.model_copy(update={"n_mels": 8})
    assert make(scene, config.model_copy(update={"features": features}))[2] == 4


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 5000])
def test_a_lost_journal_costs_time_only(scene, damage):
    whole = make(scene)
    path = scene[1] / corpus.JOURNAL_NAME
    before = path.read_bytes()
    path.write_bytes(damage)
    manifest, stats, n_made = make(scene)
    assert n_made == 4
    pd.testing.assert_frame_equal(manifest, whole[0])
    assert stats.to_dict() == statistics(whole)
    path.write_bytes(before[:-10])
    assert make(scene)[2] == 1
    assert path.read_bytes() == before


def test_a_recording_that_kills_its_process_is_listed_and_not_tried_again(scene, monkeypatch):
    data, _, _ = scene
    calls = []

    def run_all(work, jobs, n_processes, method, begin):
        for job in jobs:
            calls.append(job.recording_id)
            yield job, Killed() if job.recording_id == "r2" else work(job)

    monkeypatch.setattr(corpus, "run_all", run_all)
    manifest, _, _ = make(scene, nj=2)
    assert manifest["status"].tolist() == ["ok", "ok", "invalid", "ok"]
    assert "r2.wav: the process that worked on it was killed 2 times" in manifest["reason"][2]
    calls.clear()
    assert make(scene, nj=2)[0]["status"].tolist() == ["ok", "ok", "invalid", "ok"]
    assert calls == []
    os.utime(data / "r2.wav", (5, 5))
    make(scene, nj=2)
    assert make(scene)[2] == 0


def test_all_there(scene):
    _, dump, _ = scene
    assert not all_there(dump)
    manifest, _, _ = make(scene)
    write_csv(dump / "manifest.csv", manifest)
    assert all_there(dump)
    (dump / "r2.npz").write_bytes(b"")
    assert not all_there(dump)


# ----------------------------------------------------------------------------------------- checks


def test_another_rate_is_refused_when_asked_for(scene):
    data, _, recordings = scene
    recordings.loc[2, "sample_rate"] = 44100.0
    check_corpus(recordings, data, make_config())
    config = make_config(audio={"other_rates": "refuse"})
    with pytest.raises(
        CanopyError, match=r"r2\.wav: sample rate is 44100 Hz, audio\.sample_rate is 8000 \(1 such"
    ):
        check_corpus(recordings, data, config)


def test_a_full_disk_is_told_before_the_work(scene, monkeypatch):
    data, _, recordings = scene
    usage = namedtuple("usage", "total used free")
    config = make_config()
    needed = estimate_bytes(float(recordings["duration"].sum()), config)
    for free, fits in ((needed + 200 * 2**20, True), (needed + 200 * 2**20 - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: usage(0, 0, free))
        if fits:
            check_corpus(recordings, data, config)
        else:
            with pytest.raises(
                CanopyError,
                match=r"need about \d+ bytes, and \d+ for .*, \d+ bytes are free; .*--dumpdir",
            ):
                check_corpus(recordings, data, config)


def test_the_estimate_is_near_the_truth(scene):
    make(scene)
    estimate = estimate_bytes(7.0, make_config())
    written = sum(len(content) for content in contents(scene[1]).values())
    assert estimate == pytest.approx(written, rel=0.15)
    wave = make_config(features={"kind": "wave"})
    assert estimate_bytes(10.0, wave) == 10 * RATE * 2


def test_the_estimate_counts_waveforms_and_stretched_dumps(scene):
    data, dump, recordings = scene
    features = {**make_config().features.model_dump(), "keep_wave": True, "stretches": [0.8, 1.2]}
    config = make_config().model_copy(update={"features": type(make_config().features)(**features)})
    written = 0
    for factor in (1.0, 0.8, 1.2):
        folder = dump / f"{factor:g}"
        make_features(recordings, data, folder, config, "cpu", 1, factor)
        written += sum(len(content) for content in contents(folder).values())
    assert estimate_bytes(7.0, config) == pytest.approx(written, rel=0.15)


def test_impossible_filters_are_told_before_the_work(scene):
    data, _, recordings = scene
    config = make_config()
    features = config.features.model_copy(update={"n_mels": 200})
    with pytest.raises(CanopyError, match="of the 200 mel filters are empty"):
        check_corpus(recordings, data, config.model_copy(update={"features": features}))


def test_paths_are_absolute_or_below_the_data(tmp_path):
    assert source_path(tmp_path, "a/b.wav") == tmp_path / "a" / "b.wav"
    assert source_path(tmp_path, "/a/b.wav") == corpus.Path("/a/b.wav")


def test_shares_make_together_what_one_process_makes(scene, tmp_path):
    data, dump, recordings = scene
    manifest, stats, _ = make(scene)
    expected = contents(dump)
    shared = tmp_path / "shared" / dump.name
    for k in range(3):
        share = Shard(k, 3)
        part, _, n_made = make_features(
            recordings, data, shared, make_config(), "cpu", 1, shard=share
        )
        assert n_made == len(part) == len(share.of(recordings["duration"]))
    again, of_all, n_made = make_features(recordings, data, shared, make_config(), "cpu", 1)
    assert n_made == 0
    pd.testing.assert_frame_equal(again, manifest)
    assert of_all.to_dict() == stats.to_dict()
    made = contents(shared)
    assert {name: made[name] for name in expected} == expected
    for path in journals_of_shards(shared):
        path.unlink()
    assert contents(shared).keys() == expected.keys()


def pack_all(scene):
    """Manifest and packs of a made dump, without its files."""
    folder = scene[1]
    manifest, _, _ = make(scene)
    write_csv(folder / "manifest.csv", manifest)
    pack_files(folder, manifest["file"].tolist(), 10**9)
    remove_originals(folder)
    return folder


def test_packed_features_are_not_made_anew(scene):
    before = make(scene)
    folder = pack_all(scene)
    assert all_there(folder)
    manifest, stats, n_made = make(scene)
    assert n_made == 0
    pd.testing.assert_frame_equal(manifest, before[0])
    assert stats.to_dict() == before[1].to_dict()
    assert not contents(folder)


@pytest.mark.parametrize("how", ["another recording", "damaged pack"])
def test_what_is_made_anew_leaves_its_pack(scene, how):
    folder = pack_all(scene)
    place = packed_files(folder)["r1.npz"]
    if how == "damaged pack":
        with open(place.path, "r+b") as stream:
            stream.seek(place.offset + place.size - 22)  # the end of its directory
            stream.write(bytes(22))
        assert not all_there(folder)
    else:
        soundfile.write(scene[0] / "r1.wav", np.zeros(RATE * 3), RATE)
    assert make(scene)[2] == 1
    assert list(contents(folder)) == ["r1.npz"]
    assert set(packed_files(folder)) == {"r0.npz", "r2.npz", "r3.npz"}
    assert make(scene)[2] == 0
