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

    def make(settings=None, version=1):
        path = tmp_path / "out" / "x.done.json"
        return Stamp(path, version, settings or {"lr": 0.1}, {"tables/in.csv": source, "b": None})

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
    "text", ["", "{", "[]", "null", "7", '{"fingerprint": 1}', '{"outputs": [], "settings": 0}']
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
    path.write_text(json.dumps({**stamp, "code": None}))
    assert not stage().is_done()


def test_a_run_that_was_moved_is_still_done(stage, tmp_path):
    stage().write([tmp_path / "out" / "out.csv"])
    moved = tmp_path / "elsewhere"
    (tmp_path / "out").rename(moved)
    os.renames(tmp_path / "in.csv", tmp_path / "deep" / "in.csv")
    inputs = {"tables/in.csv": tmp_path / "deep" / "in.csv", "b": None}
    assert Stamp(moved / "x.done.json", 1, {"lr": 0.1}, inputs).is_done()


def test_a_missing_input_names_itself(tmp_path):
    with pytest.raises(CanopyError, match=r"gone\.csv is missing; run the stage that writes it"):
        Stamp(tmp_path / "x.done.json", 1, {}, {"gone": tmp_path / "gone.csv"})


def test_a_commit_alone_changes_nothing_and_is_told(stage, tmp_path, caplog):
    caplog.set_level("INFO")
    stage().write([tmp_path / "out" / "out.csv"])
    path = tmp_path / "out" / "x.done.json"
    stamp = json.loads(path.read_text())
    path.write_text(
        json.dumps({**stamp, "code": {"canopy": "0.0.1", "commit": "0123456789abcdef"}})
    )
    assert stage().is_done()
    assert "done before by commit 0123456789ab with the same inputs and settings" in caplog.text
    assert not stage(version=2).is_done()
    assert "version 1 -> 2" in caplog.text


def test_what_changed_is_told(stage, tmp_path, caplog):
    caplog.set_level("INFO")
    stage({"lr": 0.1, "kind": "a", "gone": 1}).write([tmp_path / "out" / "out.csv"])
    (tmp_path / "in.csv").write_text("other\n")
    now = stage({"lr": 0.25, "kind": "a", "new": [1, 2]})
    assert not now.is_done()
    told = "lr 0.1 -> 0.25, gone is no more, new is new, tables/in.csv has other content"
    assert f"x.done.json: to be done again: {told}" in caplog.text
    many = stage({f"k{n}": n for n in range(9)})
    assert many.changes().endswith(", and 8 more")


def test_the_stamp_of_an_earlier_version_is_not_trusted(stage, tmp_path):
    (tmp_path / "out" / "x.done.json").write_text(
        '{"fingerprint": "0", "outputs": {}, "notes": {}}'
    )
    assert not stage().matches()
    assert "an earlier version of Canopy" in stage().changes()
