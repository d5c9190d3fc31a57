"""bin/detect.py: outputs of every format, resume, ensembles, bad input."""

import os
import re
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
from scipy.special import expit

from local.data.annotations.audacity import read_audacity
from local.data.annotations.raven import read_raven
from local.detect import outputs as detect_outputs
from local.detect import streaming
from local.detect.sound import printable
from local.inference.sliding import Chunk
from local.io.errors import CanopyError
from local.io.files import disk_fault
from local.jobs import locks
from local.jobs.locks import lock_folder
from tests.scripts import ROOT, load_script
from tests.toy_detector import LABELS, RATE, make_published, put_ffmpeg, sound

detect = load_script("detect")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_published(tmp_path_factory.mktemp("model") / "toy", n_networks=1)


@pytest.fixture
def recordings(tmp_path):
    """Five formats, four rates, odd names, folders in folders."""
    folder = tmp_path / "rec"
    (folder / "night 2").mkdir(parents=True)
    soundfile.write(folder / "a.wav", sound(12), RATE)
    soundfile.write(folder / "=b, ü.flac", sound(9.4, 1, 2000), 2000)
    soundfile.write(folder / "night 2" / "a.ogg", sound(15.5, 2, 8000), 8000)
    soundfile.write(folder / "night 2" / "c.aiff", np.stack([sound(8, 3)] * 2, axis=1), RATE)
    soundfile.write(folder / "d.mp3", sound(7, 4, 16000), 16000)
    with open(os.fsencode(folder) + b"/\xff\xe9.wav", "wb") as stream:
        stream.write((folder / "a.wav").read_bytes())
    (folder / "notes.txt").write_text("no sound")
    return folder


def run(*options):
    return detect.main([str(option) for option in options])


def table(out):
    return pd.read_csv(out / "detections.csv", float_precision="round_trip")


@pytest.mark.slow
def test_every_format_reads_back_alike(model, recordings, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--format", "raven", "audacity", "csv", "parquet", "--threshold", 0.6)
    assert run(model, recordings, "--out", out, *options, "--scores", "parquet") == 0
    whole = table(out)
    assert list(whole.columns[:6]) == ["recording_id", "path", "onset", "offset", "label", "score"]
    assert len(whole) > 10
    assert whole["score"].min() >= 0.6
    assert set(whole["label"]) <= set(LABELS)
    parquet = pd.read_parquet(out / "detections.parquet")
    # A spreadsheet shows the csv's cells and computes none; Parquet keeps them as they are.
    guarded = whole["recording_id"].str.removeprefix("'")
    assert guarded.tolist() == parquet["recording_id"].tolist()
    np.testing.assert_array_equal(whole["onset"], parquet["onset"])
    assert "'=b, ü" in set(whole["recording_id"])
    for path in (out / "raven").rglob("*.txt"):
        place = path.relative_to(out / "raven")
        stem = place.name.removesuffix(".Table.1.selections.txt")
        rows = whole[guarded == printable(str(place.parent / stem))]
        raven = read_raven(path)
        audacity = read_audacity(out / "audacity" / place.parent / f"{stem}.txt")
        np.testing.assert_allclose(raven["onset"], rows["onset"], atol=1e-9)
        np.testing.assert_allclose(audacity["offset"], rows["offset"], atol=1e-6)
        assert raven["label"].tolist() == audacity["label"].tolist() == rows["label"].tolist()
        assert raven[["low_freq", "high_freq"]].notna().all(axis=None)
    assert len(list((out / "raven").rglob("*.txt"))) == 6
    summary = pd.read_csv(out / "summary.csv")
    assert len(summary) == 6 * 3
    assert summary["detections"].sum() == len(whole)
    per_class = whole.groupby("label").size()
    assert summary.groupby("label")["detections"].sum()[per_class.index].equals(per_class)
    assert "6 recordings" in capsys.readouterr().out
    scores = pd.read_parquet(out / "scores" / "night 2" / "a.parquet")
    assert scores["time_s"].diff().dropna().to_numpy() == pytest.approx(0.1)
    row = summary[(summary["recording_id"] == "night 2/a") & (summary["label"] == "b")].iloc[0]
    assert scores["b"].max() == pytest.approx(row["max_score"], abs=1e-6)
    assert not (out / ".work").exists()


@pytest.mark.parametrize("rate", [RATE, 1378])
@pytest.mark.parametrize("level", [0.0, 0.3, -0.99])
def test_a_file_of_equal_samples_has_no_detection(model, tmp_path, capsys, level, rate):
    folder = tmp_path / "rec"
    folder.mkdir()
    soundfile.write(folder / "still.flac", np.full(6 * rate, level), rate, subtype="PCM_24")
    soundfile.write(folder / "loud.flac", sound(6), RATE)
    # Whatever the model says anywhere is a detection.
    assert run(model, folder, "--out", tmp_path / "out", "--threshold", 1e-6) == 0
    assert set(table(tmp_path / "out")["recording_id"]) == {"loud"}
    assert re.search(r"still\.flac: 6\.\d s of digital silence", capsys.readouterr().err)


def test_scores_that_are_no_numbers_end_the_job_whatever_is_borne(model, tmp_path, monkeypatch):
    """They are no fault of one file, as a NaN among its samples is, that may be left out."""
    folder = tmp_path / "rec"
    folder.mkdir()
    wave = sound(6)
    soundfile.write(folder / "a.wav", wave, RATE, subtype="FLOAT")
    wave[100] = np.nan
    soundfile.write(folder / "b.wav", wave, RATE, subtype="FLOAT")
    options = ("--max-invalid-share", 1, "--format", "csv")
    assert run(model, folder, "--out", tmp_path / "one", *options) == 0
    reasons = pd.read_csv(tmp_path / "one" / "summary.csv").set_index("recording_id")["reason"]
    assert "sample 100" in reasons["b"]
    broken = Chunk(0, np.full((3, 7), np.nan), np.zeros(3))
    monkeypatch.setattr(streaming, "score_stream", lambda *_: iter([broken]))
    with pytest.raises(CanopyError, match=r"a\.wav: its scores are NaN"):
        run(model, folder, "--out", tmp_path / "two", *options)
    assert not (tmp_path / "two" / "detections.csv").exists()


@pytest.mark.slow
def test_processes_and_npz_scores_change_nothing(model, recordings, tmp_path):
    run(model, recordings, "--out", tmp_path / "one", "--format", "csv", "--scores", "npz")
    run(
        model,
        recordings,
        "--out",
        tmp_path / "two",
        "--format",
        "csv",
        "--scores",
        "npz",
        "--jobs",
        2,
    )
    pd.testing.assert_frame_equal(table(tmp_path / "one"), table(tmp_path / "two"))
    with np.load(tmp_path / "two" / "scores" / "a.npz", allow_pickle=False) as stored:
        assert stored["frame_logit"].shape == (3, 121)
        assert stored["label"].tolist() == LABELS
        highest = expit(stored["frame_logit"][0].max())
    summary = pd.read_csv(tmp_path / "two" / "summary.csv")
    assert summary["max_score"][summary["recording_id"] == "a"].iloc[0] == pytest.approx(highest)


@pytest.mark.slow
def test_an_ensemble_is_the_mean_in_probability(model, recordings, tmp_path):
    other = make_published(tmp_path / "other", n_networks=2)
    path = recordings / "a.wav"

    def scores(name, *models):
        run(models[0], path, "--out", tmp_path / name, "--scores", "npz", *models[1:])
        with np.load(tmp_path / name / "scores" / "a.npz", allow_pickle=False) as stored:
            return expit(stored["frame_logit"].astype(np.float64))

    first, pair = scores("x", model), scores("y", other)
    both = scores("z", model, "--with", other)
    # `other` holds the network of `model` and one more.
    np.testing.assert_allclose(both, (first + 2 * pair) / 3, atol=1e-6)
    assert abs(first - pair).max() > 0.1


def test_prior_shift_is_added_to_logits(model, recordings, tmp_path):
    options = ("--scores", "npz", "--format", "csv")
    run(model, recordings / "a.wav", "--out", tmp_path / "x", *options)
    run(model, recordings / "a.wav", "--out", tmp_path / "y", *options, "--prior", "run")
    parts = []
    for name in "xy":
        with np.load(tmp_path / name / "scores" / "a.npz", allow_pickle=False) as stored:
            parts.append(stored["frame_logit"])
    np.testing.assert_allclose((parts[1] - parts[0])[:, 5], [1.0, 0.0, -1.0], atol=1e-5)


def test_durations_and_low_threshold(model, recordings, tmp_path):
    path = recordings / "a.wav"
    options = ("--format", "csv", "--threshold", 0.55, "--max-gap", 0)
    bounds = ("--min-duration", 0.15, "--max-duration", 0.55)
    run(model, path, "--out", tmp_path / "x", *options, "--min-duration", 0)
    run(model, path, "--out", tmp_path / "y", *options, *bounds)
    run(model, path, "--out", tmp_path / "z", *options, "--min-duration", 0, "--low-threshold", 0.3)
    plain, bounded, wide = (table(tmp_path / name) for name in "xyz")
    lengths = plain["offset"] - plain["onset"]
    kept = plain[(lengths >= 0.15 - 1e-6) & (lengths <= 0.55 + 1e-6)]
    assert 0 < len(kept) < len(plain)
    assert bounded["onset"].tolist() == kept["onset"].tolist()
    assert (wide["offset"] - wide["onset"]).sum() > lengths.sum()


def test_unreadable_files_are_listed_and_counted(model, recordings, tmp_path, caplog):
    (recordings / "bad.wav").write_bytes(b"RIFFnothing")
    (recordings / "empty.flac").write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(CanopyError, match=r"2 of 8 recordings could not be read.*bad\.wav"):
        run(model, recordings, "--out", out)
    summary = pd.read_csv(out / "summary.csv")
    bad = summary[summary["status"] == "invalid"]
    assert sorted(bad["recording_id"]) == ["bad", "empty"]
    assert bad["reason"].notna().all()
    assert len(table(out))
    assert run(model, recordings, "--out", out, "--max-invalid-share", 0.25) == 0


def test_what_is_there_is_not_overwritten(model, recordings, tmp_path, caplog):
    out = tmp_path / "out"
    path = recordings / "a.wav"
    run(model, path, "--out", out, "--threshold", 0.5)
    before = (out / "detections.csv").stat().st_mtime_ns
    assert run(model, path, "--out", out, "--threshold", 0.5) == 0  # the same: nothing to do
    assert (out / "detections.csv").stat().st_mtime_ns == before
    with pytest.raises(CanopyError, match="holds other results"):
        run(model, path, "--out", out, "--threshold", 0.9)
    assert run(model, path, "--out", out, "--threshold", 0.9, "--force") == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.docx").write_text("years of work")
    with pytest.raises(CanopyError, match="or other files"):
        run(model, path, "--out", tmp_path / "mine")


@pytest.mark.parametrize("how", ["changed", "missing", "unlisted"])
def test_an_altered_model_is_refused(model, recordings, tmp_path, how):
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    if how == "changed":
        data = bytearray((folder / "fold0.onnx").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "fold0.onnx").write_bytes(bytes(data))
    elif how == "missing":
        (folder / "fold0.safetensors").unlink()
    else:
        (folder / "SHA256SUMS").unlink()
    with pytest.raises(CanopyError, match="copy the folder again"):
        run(folder, recordings, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--threshold", "1.5"], "none of"),
        (["--threshold", "best-f1"], "needs out-of-fold scores"),
        (["--min-duration", "-1"], "--min-duration"),
        (["--min-duration", "2", "--max-duration", "1"], "--max-duration 1 is less"),
        (["--low-threshold", "3"], "--low-threshold"),
        (["--jobs", "0"], "--jobs"),
        (["--with", "nowhere"], "no such model"),
    ],
)
def test_options_that_cannot_be_met(model, recordings, tmp_path, options, match):
    with pytest.raises(CanopyError, match=match):
        run(model, recordings, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_no_recordings(model, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(CanopyError, match="no sound file"):
        run(model, tmp_path / "none", "--out", tmp_path / "out")
    with pytest.raises(CanopyError, match="no such file"):
        run(model, tmp_path / "nowhere.wav", "--out", tmp_path / "out")


def test_other_containers_go_through_ffmpeg(model, recordings, tmp_path, monkeypatch):
    (recordings / "e.m4a").write_bytes(b"not read by anyone")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(CanopyError, match="need ffprobe, which is not installed"):
        run(model, recordings / "e.m4a", "--out", tmp_path / "x")
    put_ffmpeg(tmp_path / "bin", soundfile.read(recordings / "a.wav", dtype="float32")[0])
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    run(model, recordings / "e.m4a", "--out", tmp_path / "y", "--format", "csv")
    run(model, recordings / "a.wav", "--out", tmp_path / "z", "--format", "csv")
    names = ["onset", "offset", "label", "score"]
    assert len(table(tmp_path / "y"))
    pd.testing.assert_frame_equal(table(tmp_path / "y")[names], table(tmp_path / "z")[names])


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("channel", ["mix", 0, 1])
def test_what_a_decoder_cannot_read_is_listed_and_the_job_goes_on(
    tmp_path, monkeypatch, channel, jobs
):
    """Decoded by ffmpeg with megabytes of complaints, or without the channel that is asked for."""
    settings = {"audio": {"sample_rate": RATE, "channel": channel}}
    model = make_published(tmp_path / "toy", n_networks=1, **settings)
    folder = tmp_path / "rec"
    folder.mkdir()
    for name in ("a", "z"):
        soundfile.write(folder / f"{name}.wav", np.stack([sound(8, 3)] * 2, axis=1), RATE)
    soundfile.write(folder / "mono.wav", sound(8), RATE)
    (folder / "damaged.m4a").write_bytes(b"x")
    (folder / "mono.mp4").write_bytes(b"x")
    noise = "case $* in *damaged*) head -c 5000000 /dev/zero | tr '\\0' x >&2;; esac"
    put_ffmpeg(tmp_path / "bin", sound(8), before=noise)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    out = tmp_path / "out"
    options = ("--jobs", jobs, "--scores", "npz", "--format", "csv", "--max-invalid-share", 1)
    assert run(model, folder, "--out", out, *options) == 0
    summary = pd.read_csv(out / "summary.csv")
    reasons = summary[summary["status"] == "invalid"].set_index("path")["reason"]
    expected = {"damaged.m4a"} | ({"mono.mp4", "mono.wav"} if channel == 1 else set())
    assert {Path(path).name for path in reasons.index} == expected
    fault = "audio.channel is 1 but" if channel == 1 else "damaged or truncated"
    assert reasons.str.contains(fault, regex=False).all()
    assert {"a", "z"} <= set(table(out)["recording_id"])


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_was_stopped_goes_on(model, tmp_path, jobs):
    folder = tmp_path / "rec"
    folder.mkdir()
    for index in range(12):
        soundfile.write(folder / f"{index:02d}.wav", np.tile(sound(60, index), 20), RATE)
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "bin" / "detect.py"), str(model), str(folder)]
    command += ["--format", "csv", "--jobs", str(jobs), "--out"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    process = subprocess.Popen(
        [*command, str(out)], env=environment, stderr=subprocess.PIPE, text=True
    )
    parts = out / ".work" / "parts"
    limit = time.monotonic() + 120
    while len(list(parts.glob("*.npz"))) < 2 and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "stopped by SIGTERM" in errors
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.npz")}
    assert 0 < len(before) < 12
    again = subprocess.run(
        [*command, str(out)], env=environment, capture_output=True, text=True, check=True
    )
    assert "were done before" in again.stderr
    assert run(model, folder, "--out", tmp_path / "whole", "--format", "csv") == 0
    assert (out / "detections.csv").read_bytes() == (
        tmp_path / "whole" / "detections.csv"
    ).read_bytes()


def test_shares_find_together_what_one_process_finds(model, recordings, tmp_path, capsys):
    options = (model, recordings, "--format", "csv", "raven", "--scores", "npz", "--out")
    run(*options, tmp_path / "one")
    told = capsys.readouterr().out
    for k in (1, 0, 2):
        assert run(*options, tmp_path / "two", "--shard", f"{k}/3") == 0
        assert not (tmp_path / "two/detections.csv").exists()
    assert run(*options, tmp_path / "two") == 0
    assert capsys.readouterr().out.endswith(told)
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")}
    assert files == {p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*.*")}
    for name in files - {Path("detect.json")}:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert run(*options, tmp_path / "two", "--shard", "0/3") == 0  # done before
    with pytest.raises(CanopyError, match="--shard goes with no --force"):
        run(*options, tmp_path / "two", "--shard", "0/3", "--force")


def test_two_at_once_on_one_folder_the_second_names_the_first(model, recordings, tmp_path):
    with lock_folder(tmp_path / "out", "x"):
        locks._held.clear()  # as if another process had it
        with pytest.raises(CanopyError, match="this folder of detections is being worked on by"):
            run(model, recordings, "--out", tmp_path / "out")
    assert run(model, recordings, "--out", tmp_path / "out") == 0
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_full_disk_makes_no_recording_unreadable(model, recordings, tmp_path, monkeypatch):
    """It ends the job; with room again every recording is there."""
    write, out = detect_outputs.write_npz, tmp_path / "out"

    def full(path, **arrays):
        if path.name == "d.npz":
            raise disk_fault(path, OSError(28, "No space left on device"), 9)
        write(path, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(detect_outputs, "write_npz", full)
        with pytest.raises(CanopyError, match=r"d\.npz: not written, the disk is full, it needs 9"):
            run(model, recordings, "--out", out, "--scores", "npz")
    assert run(model, recordings, "--out", out, "--scores", "npz") == 0
    assert set(pd.read_csv(out / "summary.csv")["status"]) == {"ok"}


def test_what_a_killed_job_left_is_gone_on_from_or_cleared(model, recordings, tmp_path):
    out = tmp_path / "out"
    (out / ".work" / "parts").mkdir(parents=True)  # killed as it began
    assert run(model, recordings, "--out", out) == 0
    (out / ".work" / "parts").mkdir(parents=True)  # killed when all was done
    assert run(model, recordings, "--out", out) == 0
    assert not (out / ".work").exists()


def test_long_names_are_cut_and_kept_apart(model, tmp_path):
    folder, out = tmp_path / "rec", tmp_path / "out"
    folder.mkdir()
    for ending in "ab":
        soundfile.write(folder / f"{'x' * 240}{ending}.wav", sound(3), RATE)
    assert run(model, folder, "--out", out, "--scores", "npz", "--format", "raven", "csv") == 0
    assert len(list((out / "scores").iterdir())) == len(list((out / "raven").iterdir())) == 2
