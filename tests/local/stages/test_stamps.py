"""What counts as done, and what is done again."""

import json
import os

import pytest

from local.io.errors import CanopyError
from local.stages.stamps import Stamp


@pytest.fixture
def stage(tmp_path):
    """Function: settings -> the stamp of a stage with one input and one output, both there."""
    source, result = tmp_path / "in.csv", tmp_path / "out" / "out.csv"
    source.write_text("in\n")
    result.parent.mkdir()
    result.write_text("out\n")

    def make(settings=None):
        return Stamp(tmp_path / "out" / "x.done.json", settings or {"lr": 0.1}, [source])

    return make


def test_a_stage_that_did_not_run_is_not_done(stage):
    assert not stage().is_done()


def test_a_stamp_that_matches_is_skipped_and_says_so(stage, tmp_path, caplog):
    caplog.set_level("INFO")
    stage().write([tmp_path / "out" / "out.csv"], note="kept")
    assert stage().is_done()
    assert "x.done.json: done before with the same inputs and settings, skipped" in caplog.text
    assert json.loads((tmp_path / "out" / "x.done.json").read_text())["notes"] == {"note": "kept"}


def test_the_order_of_settings_does_not_matter(stage, tmp_path):
    stage({"a": 1, "b": 2}).write([tmp_path / "out" / "out.csv"])
    assert stage({"b": 2, "a": 1}).is_done()


def test_force_runs_again(stage, tmp_path):
    stage().write([tmp_path / "out" / "out.csv"])
    assert not stage().is_done(force=True)
    assert stage().is_done()


def test_a_cleared_stamp_is_gone(stage, tmp_path):
    stage().write([tmp_path / "out" / "out.csv"])
    stage().clear()
    stage().clear()
    assert not stage().is_done()


@pytest.mark.parametrize(
    "change",
    [
        lambda tmp_path: (tmp_path / "in.csv").write_text("other\n"),
        lambda tmp_path: (tmp_path / "out" / "out.csv").write_text("changed\n"),
        lambda tmp_path: (tmp_path / "out" / "out.csv").write_text("ou"),
        lambda tmp_path: (tmp_path / "out" / "out.csv").unlink(),
    ],
    ids=["input", "output", "cut", "lost"],
)
def test_changed_files_are_not_trusted(stage, tmp_path, change):
    stage().write([tmp_path / "out" / "out.csv"])
    change(tmp_path)
    assert not stage().is_done()


@pytest.mark.parametrize("settings", [{"lr": 0.2}, {"lr": 0.1, "more": None}, {"lr": "0.1"}])
def test_changed_settings_are_not_trusted(stage, tmp_path, settings):
    stage().write([tmp_path / "out" / "out.csv"])
    assert not stage(settings).is_done()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '{"fingerprint": 1}', '{"outputs": [], "fingerprint": 0}']
)
def test_a_damaged_stamp_is_not_trusted(stage, tmp_path, text):
    stage().write([tmp_path / "out" / "out.csv"])
    (tmp_path / "out" / "x.done.json").write_text(text)
    assert not stage().is_done()


def test_a_damaged_list_of_outputs_is_not_trusted(stage, tmp_path):
    stage().write([tmp_path / "out" / "out.csv"])
    path = tmp_path / "out" / "x.done.json"
    stamp = json.loads(path.read_text())
    for outputs in (["out.csv"], None, {"out.csv": None}, {"../..": "0"}):
        path.write_text(json.dumps({**stamp, "outputs": outputs}))
        assert not stage().is_done()


def test_a_run_that_was_moved_is_still_done(stage, tmp_path):
    stage().write([tmp_path / "out" / "out.csv"])
    moved = tmp_path / "elsewhere"
    (tmp_path / "out").rename(moved)
    os.renames(tmp_path / "in.csv", tmp_path / "deep" / "in.csv")
    stamp = Stamp(moved / "x.done.json", {"lr": 0.1}, [tmp_path / "deep" / "in.csv"])
    assert stamp.is_done()


def test_a_missing_input_names_itself(tmp_path):
    with pytest.raises(CanopyError, match=r"gone\.csv is missing; run the stage that writes it"):
        Stamp(tmp_path / "x.done.json", {}, [tmp_path / "gone.csv"])
