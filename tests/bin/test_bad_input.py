"""Faulty input at the command line: one sentence, exit code 1, before the long work.

A competition of noise with three classes at 4 kHz is prepared by recipes/rfcx; each test spoils it
in one way and runs the scripts as run.sh would, in this process.
"""

import re

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.scripts import caller, in_a_shell

CONF = """
audio: {sample_rate: 4000}
features: {n_fft: 256, hop_length: 100, n_mels: 16}
split: {n_folds: 2}
window: {length_s: 1.0}
model: {name: crnn, params: {channels: [4], pool: [[2, 2]], gru: 0}}
train: {n_epochs: 1, windows_per_epoch: 8, batch_size: 4}
"""
HEADER = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"


PATHS = {"prepare": "recipes/rfcx/prepare.py"}


@pytest.fixture
def cli(tmp_path, capsys):
    """Function: script, options -> (exit code, what stands after `error: `)."""
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    for name in [f"train/r{i}" for i in range(6)] + ["test/t0", "test/t1"]:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(data / f"{name}.flac", rng.normal(0, 0.1, 8000), 4000)
    rows = [f"r{i},{i % 3},1,0.5,300,1.0,900\n" for i in range(6)]
    (data / "train_tp.csv").write_text(HEADER + "".join(rows))
    (data / "train_fp.csv").write_text(HEADER + "r0,1,1,0.0,300,0.5,900\n")
    (data / "sample_submission.csv").write_text(
        "recording_id,s0,s1,s2\nt0,0.5,0.5,0.5\nt1,0.5,0.5,0.5\n"
    )
    conf = tmp_path / "v.yaml"
    conf.write_text(CONF)

    def call(script, *more):
        options = ["--conf", str(conf), "--datadir", str(data), "--nj", "1"]
        if script == "prepare":
            options += ["--out", str(tmp_path / "dump" / "tables")]
        else:
            options += ["--recipe", "rfcx", "--device", "cpu"]
            options += ["--dumpdir", str(tmp_path / "dump"), "--expdir", str(tmp_path / "exp")]
        ran = caller(PATHS.get(script, script), capsys)(*options, *more)
        faults = re.findall(r"^error: (.*)$", ran.err, re.M)
        assert len(faults) == (ran.code == 1)
        return ran.code, "".join(faults)

    call.data, call.dump, call.conf = data, tmp_path / "dump", conf
    return call


def features(cli):
    return list(cli.dump.glob("*/*.npz"))


def test_the_unspoiled_competition_passes(cli):
    for script in ("check_config", "prepare", "check_config", "preprocess", "split"):
        assert cli(script) == (0, "")
    assert len(features(cli)) == 8


# --------------------------------------------------------------------------- recordings of stage 0


def spoil_after_preparation(cli, name, what):
    assert cli("prepare") == (0, "")
    path = cli.data / name
    whole = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_text("recording_id,s0\n" * 40)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["missing", "empty", "truncated", "text"])
def test_a_recording_that_cannot_be_read(cli, what):
    spoil_after_preparation(cli, "train/r3.flac", what)
    code, fault = cli("preprocess")
    assert code == 1
    assert "1 of 8 recordings cannot be used" in fault
    assert "audio.max_invalid_share" in fault
    assert "r3.flac" in fault
    # What could be read is kept, and the manifest says which could not.
    (manifest,) = cli.dump.glob("*/manifest.csv")
    status = pd.read_csv(manifest).set_index("recording_id")["status"]
    assert status[status != "ok"].index.tolist() == ["r3"]
    assert len(features(cli)) == 7
    # Below the share it is borne, and the next stages leave it out.
    assert cli("preprocess", "--set", "audio.max_invalid_share=0.2") == (0, "")


def test_other_rates_refused_before_any_feature(cli):
    soundfile.write(cli.data / "train" / "r4.flac", np.zeros(4000), 2000)
    assert cli("prepare") == (0, "")
    code, fault = cli("preprocess", "--set", "audio.other_rates=refuse")
    assert code == 1
    assert re.search(r"r4\.flac: sample rate is 2000 Hz, audio\.sample_rate is 4000", fault)
    assert features(cli) == []
    assert cli("preprocess") == (0, "")  # resampled by default


def test_a_recording_shorter_than_the_window_before_any_feature(cli):
    soundfile.write(cli.data / "test" / "t1.flac", np.ones(2000) * 0.1, 4000)
    assert cli("prepare") == (0, "")
    code, fault = cli("preprocess")
    assert code == 1
    assert "recording t1 lasts 0.500 s, less than window.length_s 1" in fault
    assert "window.short" in fault
    assert features(cli) == []
    assert cli("preprocess", "--set", "window.short=repeat") == (0, "")


def test_a_class_with_fewer_recordings_than_folds_before_any_feature(cli):
    path = cli.data / "train_tp.csv"
    path.write_text(path.read_text().replace("r4,1,", "r4,0,"))
    assert cli("prepare") == (0, "")
    code, fault = cli("preprocess")
    assert code == 1
    assert "s1: 1" in fault
    assert "folds (2)" in fault
    assert features(cli) == []


def test_another_version_is_held_against_tables_whose_features_are_there(cli):
    """Not after training: a second version may ask for what these tables lack."""
    for script in ("prepare", "preprocess"):
        assert cli(script) == (0, "")
    code, fault = cli("preprocess", "--set", "split.n_folds=3")
    assert (code, "positives must lie in at least as many groups" in fault) == (1, True)


def test_training_by_itself_is_held_against_the_calls(cli):
    """Whatever stage 0 was checked with: settings of the model make no other features."""
    for script in ("prepare", "preprocess", "split"):
        assert cli(script) == (0, "")
    given = "--set", "model.params.pool=[[2, 24]]", "--set", "data.short_calls=refuse"
    code, fault = cli("sed_train", *given)
    assert code == 1
    assert "6 of 6 labelled calls (100%)" in fault
    assert "features.hop_length" in fault
    assert not list(cli.dump.parent.glob("exp/*/cycle0/fold*/*.pt"))


def test_empty_filters_before_any_feature(cli):
    assert cli("prepare") == (0, "")
    code, fault = cli("preprocess", "--set", "features.n_mels=400")
    assert code == 1
    assert "features.n_mels" in fault
    assert features(cli) == []


# --------------------------------------------------------------------------------------- the tables


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda t: t.replace("r2,2,1", "r0,2,1").replace("t_min", "start"),
            "column t_min is missing",
        ),
        (lambda t: t.replace("r2,2", "zz,2"), r"line 4: recording_id 'zz' is not among"),
        (lambda t: t.replace("r2,2", "r2,9"), r"line 4: label 's9' is not among the 3 classes"),
        (
            lambda t: t.replace("1.0,900", "5.0,900"),
            r"line 2: offset 5\.0 lies after the end of r0",
        ),
    ],
)
def test_annotations_with_faults(cli, spoil, words):
    path = cli.data / "train_tp.csv"
    path.write_text(spoil(path.read_text()))
    code, fault = cli("prepare")
    assert code == 1
    assert re.search(r"train_tp\.csv.*" + words, fault)


def test_one_id_for_two_files(cli):
    soundfile.write(cli.data / "train" / "t0.wav", np.zeros(4000), 4000)
    code, fault = cli("prepare")
    assert (code, "train/t0.wav and test/t0.flac" in fault) == (1, True)


def test_tables_edited_by_hand(cli):
    assert cli("prepare") == (0, "")
    path = cli.dump / "tables" / "recordings.csv"
    path.write_text(path.read_text().replace(",train,", ",trian,", 1))
    code, fault = cli("preprocess")
    assert code == 1
    assert re.search(r"recordings\.csv line 2: subset is 'trian', expected one of train", fault)


def test_another_data_folder_for_the_same_dump(cli, tmp_path):
    assert cli("prepare") == (0, "")
    other = str(tmp_path / "other")
    for script in ("check_config", "preprocess", "split", "prepare"):
        code, fault = cli(script, "--datadir", other)
        assert code == 1
        assert "give another --dumpdir, or --force" in fault


# ------------------------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.n_epoch=3", "unknown key train.n_epoch; the nearest known one is n_epochs"),
        ("trian.n_epochs=3", "unknown key trian; the nearest known one is train"),
        ("model.params.chanels=[4]", "model.params.chanels; the nearest known one is channels"),
        ("model.params.channels=[4,4]", "channels has 2 blocks, pool 1"),
        ("train.lr=fast", "train.lr"),
        ("train.lr", "expected section.key=value"),
        ("features.f_max_hz=2001", "above the Nyquist frequency 2000"),
        ("inference.overlap_frames=40", "inference.overlap is 40 frames"),
        ("score.metric=f1", "score.metric is 'f1'"),
    ],
)
def test_faults_of_the_configuration_stop_the_check(cli, setting, words):
    code, fault = cli("check_config", "--set", setting)
    assert code == 1
    assert words in fault


def test_a_version_that_is_not_there(cli):
    code, fault = cli("check_config", "--conf", "nowhere.yaml")
    assert (code, fault) == (1, "nowhere.yaml: no such configuration file")


# ------------------------------------------------------------------------------ stages out of order


def test_stages_out_of_order_say_what_to_run(cli):
    late = ["sed_train", "sed_infer", "relabel", "submit"]
    early = ["preprocess", "split", *late]
    for stages, then in ((early, "prepare"), (late, "preprocess"), (late, "split"), (late[1:], "")):
        for script in stages:
            code, fault = cli(script)
            assert code == 1, script
            assert "run stage" in fault or "first" in fault, fault
        assert not then or cli(then) == (0, "")


def test_a_cycle_that_cannot_be_relabelled_is_wrong_usage(cli):
    assert cli("relabel", "--cycle", "-1")[0] == 2


def test_the_process_ends_with_one_line_and_code_1(cli):
    ran = in_a_shell("check_config", "--conf", cli.conf, "--set", "seeds=1", cwd=cli.data)
    fault = f"error: {cli.conf}: unknown key seeds; the nearest known one is seed\n"
    assert ran == (1, "", fault)
