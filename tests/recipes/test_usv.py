"""Recordings with tables of onset and offset become tables; other detectors' files are read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.config import DataConfig, WindowConfig, load_config
from local.data.tables import read_tables
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError
from local.labels.grid import grid_of
from local.labels.spans import frames_to_events
from local.labels.targets import events_by_recording, window_targets
from local.stages.checks import check_config
from recipes.usv.detectors import others
from recipes.usv.prepare import VERSION, main
from tests import golden

ROOT = Path(__file__).resolve().parents[2]
USV = ROOT.parent / "shared" / "data" / "usv"
CONF = ROOT / "conf" / "usv" / "default.yaml"
RATE = 250_000


@pytest.fixture
def data(tmp_path):
    """Three recordings of 0.1 s: two with calls, at the very first and last sample among them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in (1, 2, 3):
        soundfile.write(folder / f"rec_{number}.wav", np.zeros(RATE // 10), RATE)
    (folder / "gt_1.csv").write_text("0.0,0.020000000000003\n0.08,0.1\n")
    (folder / "gt_2.csv").write_text("onset,offset\n0.05,0.06\n")
    return folder


def prepare(data: Path, *options: str):
    out = data.parent / "tables"
    assert main([*map(str, ("--datadir", data, "--out", out, "--conf", CONF)), *options]) == 0
    return read_tables(out)


def test_tables(data):
    tables = prepare(data)
    assert tables.recordings["recording_id"].tolist() == ["rec_1", "rec_2", "rec_3"]
    assert tables.recordings["subset"].tolist() == ["train", "train", "test"]
    assert tables.recordings["group"].is_unique
    assert tables.labels == ["call"]
    spans = tables.events[["recording_id", "onset", "offset"]].to_numpy().tolist()
    assert spans[0] == ["rec_1", 0.0, pytest.approx(0.02)]
    assert spans[1][2] == pytest.approx(0.1)
    assert spans[2] == ["rec_2", 0.05, 0.06]


def test_other_tables_are_another_version(data):
    prepare(data, "--set", "prepare.test=[rec_2]")
    golden.check("prepare usv", VERSION, golden.tables(data.parent / "tables"))


def test_a_recording_held_out_teaches_nothing(data):
    tables = prepare(data, "--set", "prepare.test=[rec_2]")
    assert tables.recordings["subset"].tolist() == ["train", "test", "test"]
    assert set(tables.events["recording_id"]) == {"rec_1"}
    held = pd.read_csv(data.parent / "tables" / "test_events.csv")
    assert held["recording_id"].tolist() == ["rec_2"]
    with pytest.raises(CanopyError, match="'rec_9'"):
        prepare(data, "--set", "prepare.test=[rec_9]")


def test_a_table_without_rows_says_that_nobody_calls(data):
    (data / "gt_3.csv").write_text("")
    tables = prepare(data)
    assert tables.recordings["subset"].tolist() == ["train"] * 3
    assert "rec_3" not in set(tables.events["recording_id"])


@pytest.mark.parametrize("text", ["0.05,0.3\n", "0.06,0.05\n", "a,b\n1,x\n", "0.01;0.02;0.03;1\n"])
def test_a_bad_row_is_an_error_that_names_the_file(data, text):
    (data / "gt_2.csv").write_text(text)
    with pytest.raises(CanopyError, match=r"gt_2\.csv"):
        prepare(data)


def test_another_rate_is_an_error_that_says_both(data):
    soundfile.write(data / "rec_2.wav", np.zeros(800), 8000)
    with pytest.raises(CanopyError, match=r"rec_2\.wav.*8000 Hz, expected 250000"):
        prepare(data)


def test_faults_of_the_folder(data):
    (data / "gt_7.csv").write_text("0,1\n")
    with pytest.raises(CanopyError, match=r"gt_7\.csv: belongs to no"):
        prepare(data)
    (data / "gt_7.csv").unlink()
    with pytest.raises(CanopyError, match="give one"):
        prepare(data, "--set", "prepare.recordings=rec.wav")
    for name in ("gt_1.csv", "gt_2.csv"):
        (data / name).unlink()
    with pytest.raises(CanopyError, match="nothing to learn"):
        prepare(data)


def test_a_window_around_a_whole_call_is_positive_and_time_has_no_direction(data):
    """Calls at both ends of a recording, of 8 ms and less, come back from exact frame targets."""
    config = load_config(CONF, [])
    tables = prepare(data)
    events = events_by_recording(tables.events, tables.labels)
    rule, complete = config.window, DataConfig(annotation="complete")
    grid = grid_of(100, front_end_of(config).hop_s, -0.5, step=2)
    whole = window_targets(events["rec_2"], 1, grid, rule, complete)
    assert whole.clip_target.tolist() == [1.0]
    assert whole.frame_mask.min() == 1.0
    assert whole.frame_target.sum() * grid.hop_s == pytest.approx(0.01)
    (span,) = frames_to_events(whole.frame_target[0], grid, 0.5)
    assert (span.onset, span.offset) == pytest.approx((0.05, 0.06), abs=0.001)
    ends = window_targets(events["rec_1"], 1, grid, rule, complete)
    first, last = frames_to_events(ends.frame_target[0], grid, 0.5)
    assert first.onset == 0.0
    assert last.offset == pytest.approx(0.1, abs=0.001)
    silent = grid_of(20, front_end_of(config).hop_s, 0.0, first=25, step=2)
    assert window_targets(events["rec_1"], 1, silent, rule, complete).clip_target.tolist() == [0.0]
    centred = WindowConfig(**(rule.model_dump() | {"length_s": 0.1}))
    plain = grid_of(50, 0.002, 0.0)
    forward = window_targets(events["rec_1"], 1, plain, centred, complete).frame_target
    assert np.allclose(forward, forward[:, ::-1], atol=1e-6)


def test_copies_are_of_the_group_of_their_original_and_of_train_recordings_alone(data):
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        wave = 0.01 * rng.standard_normal(RATE // 10)
        soundfile.write(data / f"rec_{number}.wav", wave, RATE)
    options = ["--set", "prepare.copies=2", "--set", "prepare.simulated=1"]
    tables = prepare(data, *options)
    made = tables.recordings[tables.recordings["recording_id"].str.startswith("copy-")]
    assert made["group"].tolist() == ["rec_1"] * 3 + ["rec_2"] * 3
    assert set(made["subset"]) == {"train"}
    assert all(Path(path).is_file() for path in made["path"])
    calls = tables.events.groupby("recording_id").size()
    assert calls["copy-changed0-rec_1"] == calls["copy-changed1-rec_1"] == calls["rec_1"] == 2
    before = [Path(path).read_bytes() for path in made["path"]]
    prepare(data, *options, "--force")
    assert [Path(path).read_bytes() for path in made["path"]] == before


def test_other_detectors_are_read(data):
    for name in ("a_1", "a_2", "a_3"):
        (data / f"{name}.csv").write_text("0.01,0.02\n")
    tables = prepare(data)
    assert others(data, tables.recordings)["a"]["recording_id"].tolist() == [
        "rec_1",
        "rec_2",
        "rec_3",
    ]
    (data / "a_3.csv").unlink()
    with pytest.raises(CanopyError, match=r"a_3\.csv: no such file"):
        others(data, tables.recordings)


def test_real_recordings(tmp_path):
    if not USV.is_dir():
        pytest.skip("no real recordings at ../shared/data/usv")
    options = ["--datadir", str(USV), "--out", str(tmp_path), "--conf", str(CONF)]
    assert main(options) == 0
    tables = read_tables(tmp_path)
    assert tables.events.groupby("recording_id").size().tolist() == [16, 44, 36, 21]
    check_config(load_config(CONF, []))
