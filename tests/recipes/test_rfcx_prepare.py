"""Preparation of data in the competition's layout, and every fault of it in one sentence."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.data.tables import read_tables
from local.io.errors import CanopyError
from recipes.rfcx.prepare import VERSION, main
from recipes.rfcx.tables import convert
from tests import golden

HEADER = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
TP = HEADER + "aa,0,1,0.5,100,1.5,900\nbb,1,1,0.0,200,2.0,800\nbb,1,4,1.0,100,2.0,950\n"
FP = HEADER + "aa,2,1,0.25,50,0.75,400\ncc,0,1,1.0,150,1.25,1000\n"
SAMPLE = "recording_id,s0,s1,s2\nyy,0.5,0.5,0.5\nxx,0.5,0.5,0.5\n"


def sound(path, seconds=2.0, rate=2000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, wave, rate)


@pytest.fixture
def data(tmp_path):
    """Three train and two test recordings of odd rates, lengths and formats; three classes."""
    folder = tmp_path / "data"
    sound(folder / "train" / "aa.flac", 2.5, 11025)
    sound(folder / "train" / "bb.wav", 2.0, 2000, channels=2)
    sound(folder / "train" / "cc.ogg", 3.0, 44100)
    sound(folder / "test" / "xx.flac", 1.25, 7919)
    sound(folder / "test" / "yy.flac", 61.0, 1000)
    (folder / "train" / ".hidden.flac").write_text("")
    (folder / "train" / "notes.txt").write_text("")
    (folder / "train_tp.csv").write_text(TP)
    (folder / "train_fp.csv").write_text(FP)
    (folder / "sample_submission.csv").write_text(SAMPLE)
    return folder


def prepare(data, tmp_path, *settings):
    conf = tmp_path / "v.yaml"
    conf.write_text("")
    options = ["--datadir", str(data), "--out", str(tmp_path / "tables"), "--conf", str(conf)]
    for setting in settings:
        options += ["--set", setting]
    return main(options)


def test_tables_of_the_layout(data, tmp_path):
    """Pins defect 20 of earlier systems: recordings had to last 60 s at 48 kHz, all in memory."""
    assert prepare(data, tmp_path) == 0
    tables = read_tables(tmp_path / "tables")
    recordings = tables.recordings.set_index("recording_id")
    assert recordings["subset"].to_dict() == {
        **dict.fromkeys(["aa", "bb", "cc"], "train"),
        **dict.fromkeys(["xx", "yy"], "test"),
    }
    assert recordings["sample_rate"].to_dict() == {
        "aa": 11025, "bb": 2000, "cc": 44100, "xx": 7919, "yy": 1000
    }  # fmt: skip
    np.testing.assert_allclose(
        recordings.loc[["aa", "bb", "cc", "xx", "yy"], "duration"], [2.5, 2, 3, 1.25, 61], atol=1e-3
    )
    assert recordings.loc["bb", "channels"] == 2
    assert recordings.loc["cc", "path"] == "train/cc.ogg"
    assert (recordings["group"] == recordings.index).all()
    assert tables.labels == ["s0", "s1", "s2"]
    events = tables.events
    assert events["polarity"].tolist() == [1, 1, 1, -1, -1]
    assert events["source"].tolist() == ["tp"] * 3 + ["fp"] * 2
    first = events.iloc[0]
    assert (first["recording_id"], first["label"]) == ("aa", "s0")
    assert first[["onset", "offset", "low_freq", "high_freq", "weight"]].tolist() == [
        0.5, 1.5, 100, 900, 1
    ]  # fmt: skip
    bands = tables.classes.set_index("label")[["low_freq", "high_freq"]]
    assert bands.loc["s1"].tolist() == [100, 950]  # over rows of both tables
    sample = pd.read_csv(tmp_path / "tables" / "sample_submission.csv")
    assert sample["recording_id"].tolist() == ["yy", "xx"]


def test_song_types_become_classes_that_merge_back(data, tmp_path):
    """Pins defect 21 of earlier systems: song types were wired into the classes."""
    assert prepare(data, tmp_path, "prepare.song_types=true") == 0
    tables = read_tables(tmp_path / "tables")
    assert tables.labels == ["s0", "s1", "s2", "s1_song4"]
    assert tables.events["label"].tolist() == ["s0", "s1", "s1_song4", "s2", "s0"]
    columns = pd.read_csv(tmp_path / "tables" / "submission_columns.csv")
    assert columns.to_numpy().tolist() == [
        ["s0", "s0"], ["s1", "s1"], ["s2", "s2"], ["s1_song4", "s1"]
    ]  # fmt: skip


def test_other_tables_are_another_version(data, tmp_path):
    assert prepare(data, tmp_path, "prepare.song_types=true") == 0
    golden.check("prepare rfcx", VERSION, golden.tables(tmp_path / "tables"))


def test_the_competitions_26_outputs_merge_to_24(data, tmp_path):
    """Pins defect 21 of earlier systems: song types were wired into the classes."""
    # Species 16 has song 4 only and stays one class; 17 and 23 have both.
    pairs = [(s, 1) for s in range(24) if s != 16] + [(16, 4), (17, 4), (23, 4)]
    lines = [f"aa,{s},{t},0.5,100,1.5,900" for s, t in pairs]
    (data / "train_tp.csv").write_text(HEADER + "\n".join(lines) + "\n")
    (data / "train_fp.csv").write_text(HEADER)
    names = ",".join(f"s{i}" for i in range(24))
    (data / "sample_submission.csv").write_text(f"recording_id,{names}\nxx" + ",0.5" * 24 + "\n")
    assert prepare(data, tmp_path, "prepare.song_types=true") == 0
    tables = read_tables(tmp_path / "tables")
    assert tables.labels == [f"s{i}" for i in range(24)] + ["s17_song4", "s23_song4"]
    columns = pd.read_csv(tmp_path / "tables" / "submission_columns.csv")["column"]
    assert columns.nunique() == 24
    assert prepare(data, tmp_path) == 0  # and back: other settings are another preparation
    assert len(read_tables(tmp_path / "tables").labels) == 24


def test_groups_from_a_csv(data, tmp_path):
    rows = "recording_id,site\naa,forest\nbb,forest\ncc,river\nxx,forest\nyy,hill\nzz,absent\n"
    (data / "sites.csv").write_text(rows)
    assert prepare(data, tmp_path, "prepare.groups=sites.csv") == 0
    groups = read_tables(tmp_path / "tables").recordings.set_index("recording_id")["group"]
    assert groups.loc[["aa", "bb", "cc", "yy"]].tolist() == ["forest", "forest", "river", "hill"]


def test_a_second_preparation_does_nothing(data, tmp_path):
    prepare(data, tmp_path)
    before = (tmp_path / "tables" / "events.csv").stat().st_mtime_ns
    prepare(data, tmp_path)
    assert (tmp_path / "tables" / "events.csv").stat().st_mtime_ns == before


def test_unreadable_recordings_may_be_put_up_with(data, tmp_path):
    (data / "train" / "bb.wav").write_bytes(b"")
    (data / "test" / "yy.flac").write_text("this is no sound")
    assert prepare(data, tmp_path, "prepare.max_invalid_share=0.5") == 0
    tables = read_tables(tmp_path / "tables")
    assert set(tables.recordings["recording_id"]) == {"aa", "cc", "xx"}
    assert set(tables.events["recording_id"]) == {"aa", "cc"}
    invalid = pd.read_csv(tmp_path / "tables" / "invalid.csv")
    assert invalid["recording_id"].tolist() == ["bb", "yy"]
    assert invalid["reason"].str.contains("bb.wav|yy.flac").all()


def edit(name, old, new):
    def change(data):
        path = data / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def cut(data):
    path = data / "train" / "aa.flac"
    path.write_bytes(path.read_bytes()[:30])


FAULTS = {
    "no tp table": (lambda d: (d / "train_tp.csv").unlink(), r"train_tp\.csv: no such file"),
    "no sample": (
        lambda d: (d / "sample_submission.csv").unlink(),
        r"sample_submission\.csv: no such",
    ),
    "no folder": (lambda d: (d / "test").rename(d / "tests"), r"data/test: no such folder"),
    "no sounds": (
        lambda d: [p.unlink() for p in (d / "test").iterdir()],
        r"data/test: no audio files",
    ),
    "empty file": (
        lambda d: (d / "train" / "bb.wav").write_bytes(b""),
        r"1 of 5 recordings cannot be read, the first: .*bb\.wav.*prepare\.max_invalid_share",
    ),
    "no audio": (
        lambda d: (d / "test" / "xx.flac").write_text("recording_id,a\n" * 50),
        r"1 of 5 recordings cannot be read, the first: .*xx\.flac",
    ),
    "cut header": (cut, r"1 of 5 recordings cannot be read, the first: .*aa\.flac"),
    "empty table": (lambda d: (d / "train_fp.csv").write_text(""), r"train_fp\.csv: not readable"),
    "no column": (
        edit("train_tp.csv", "t_max", "tmax"),
        r"train_tp\.csv: column t_max is missing; found recording_id",
    ),
    "no number": (
        edit("train_tp.csv", "bb,1,1,0.0", "bb,1,1,zero"),
        r"train_tp\.csv line 3: t_min is 'zero', expected a number",
    ),
    "empty time": (
        edit("train_tp.csv", "bb,1,1,0.0", "bb,1,1,"),
        r"train_tp\.csv line 3: onset nan",
    ),
    "empty species": (
        edit("train_fp.csv", "aa,2,1", "aa,,1"),
        r"train_fp\.csv line 2: species_id is nan, expected a whole number",
    ),
    "half a species": (
        edit("train_fp.csv", "aa,2,1", "aa,1.5,1"),
        r"train_fp\.csv line 2: species_id is 1\.5, expected a whole number",
    ),
    "empty song type": (
        edit("train_fp.csv", "aa,2,1", "aa,2,"),
        r"train_fp\.csv line 2: songtype_id is nan",
    ),
    "unknown class": (
        edit("train_fp.csv", "aa,2,1", "aa,7,1"),
        r"train_fp\.csv line 2: label 's7' is not among the 3 classes",
    ),
    "unknown recording": (
        edit("train_tp.csv", "bb,1,4", "qq,1,4"),
        r"train_tp\.csv line 4: recording_id 'qq' is not among the 5 recordings",
    ),
    "after the end": (
        edit("train_tp.csv", "bb,1,4,1.0,100,2.0", "bb,1,4,1.0,100,20.0"),
        r"train_tp\.csv line 4: offset 20\.0 lies after the end of bb \(2\.000 s\)",
    ),
    "backwards": (
        edit("train_fp.csv", "0.25,50,0.75", "0.75,50,0.25"),
        r"train_fp\.csv line 2: onset 0\.75 and offset 0\.25 of aa",
    ),
    "upside down": (
        edit("train_fp.csv", "0.25,50,0.75,400", "0.25,500,0.75,400"),
        r"train_fp\.csv line 2: low_freq 500\.0 is not below high_freq 400",
    ),
    "duplicate id": (
        lambda d: sound(d / "test" / "aa.flac"),
        r"train/aa\.flac and test/aa\.flac are both recording 'aa'; rename",
    ),
    "no classes": (
        lambda d: (d / "sample_submission.csv").write_text("recording_id\nxx\n"),
        r"sample_submission\.csv: no class columns",
    ),
    "a test recording twice": (
        edit("sample_submission.csv", "xx,", "yy,"),
        r"sample_submission\.csv line 3: recording_id 'yy' stands a second time; keep one row",
    ),
    "absent test file": (
        edit("sample_submission.csv", "xx,", "x9,"),
        r"sample_submission\.csv: recording 'x9' \(1 in all\) has no file",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_sentence_and_leave_what_was_there(data, tmp_path, fault):
    prepare(data, tmp_path)
    out = tmp_path / "tables"
    before = {path.name: path.read_bytes() for path in out.glob("*.csv")}
    spoil, words = FAULTS[fault]
    spoil(data)
    with pytest.raises(CanopyError, match=words) as told:
        prepare(data, tmp_path)
    assert "\n" not in str(told.value)
    for name in ("recordings.csv", "events.csv", "classes.csv"):
        assert (out / name).read_bytes() == before[name]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, r"sites\.csv: no such"),
        ("recording_id,place\naa,x\n", r"sites\.csv: column site is missing"),
        ("recording_id,site\naa,x\n", r"sites\.csv: no row for recording"),
        (
            "recording_id,site\naa,x\naa,y\nbb,x\ncc,x\nxx,x\nyy,x\n",
            r"sites\.csv: recording 'aa' stands at two sites",
        ),
    ],
)
def test_faults_of_the_groups(data, tmp_path, rows, words):
    if rows is not None:
        (data / "sites.csv").write_text(rows)
    with pytest.raises(CanopyError, match=words):
        prepare(data, tmp_path, "prepare.groups=sites.csv")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("prepare.song_type=true", r"prepare\.song_type.*song_types"),
        ("prepare.max_invalid_share=2", r"prepare\.max_invalid_share"),
    ],
)
def test_unknown_settings_name_the_nearest(data, tmp_path, setting, words):
    with pytest.raises(CanopyError, match=words):
        prepare(data, tmp_path, setting)


def test_nothing_else_of_the_folder_is_opened(data, tmp_path):
    truth = data / "truth"
    truth.mkdir()
    (truth / "test_clips.csv").write_text("recording_id\n")
    convert(data, tmp_path / "with")
    (truth / "test_clips.csv").unlink()
    truth.rmdir()
    convert(data, tmp_path / "without")
    for path in (tmp_path / "with").glob("*.csv"):
        assert path.read_bytes() == (tmp_path / "without" / path.name).read_bytes()
