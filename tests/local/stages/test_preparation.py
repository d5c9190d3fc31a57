"""Preparations of recipes: done again when the data or the settings change, and only then."""

import json
from types import SimpleNamespace

import pytest

from local.io.errors import CanopyError
from local.stages.preparation import Preparation, prepare_tables


def arguments(tmp_path):
    return SimpleNamespace(datadir=tmp_path / "data", out=tmp_path / "tables", force=False)


def test_preparation_refuses_another_folder_unless_forced(tmp_path):
    args = arguments(tmp_path)
    args.out.mkdir()
    (args.out / "source.json").write_text(json.dumps({"datadir": "/somewhere"}))
    made = []

    def convert():
        made.append(1)
        for name in ("recordings", "events", "classes"):
            (args.out / f"{name}.csv").write_text("x\n")

    given = Preparation(1, {}, [], [], convert)
    with pytest.raises(CanopyError, match="give another --dumpdir"):
        prepare_tables(args, given)
    args.force = True
    assert prepare_tables(args, given) == 0
    assert made == [1]


def test_preparation_runs_when_a_recording_changes(tmp_path):
    args = arguments(tmp_path)
    sounds = tmp_path / "data" / "train"
    sounds.mkdir(parents=True)
    (sounds / "a.wav").write_bytes(b"123")
    note = tmp_path / "data" / "notes.csv"
    note.write_text("x\n")
    made = []

    def convert():
        made.append(1)
        args.out.mkdir(exist_ok=True)
        for name in ("recordings", "events", "classes"):
            (args.out / f"{name}.csv").write_text("x\n")

    def prepare(settings=0, version=1):
        prepare_tables(args, Preparation(version, {"s": settings}, [note], [sounds], convert))
        return len(made)

    assert prepare() == prepare() == 1
    (sounds / "b.wav").write_bytes(b"123")
    assert prepare() == 2
    note.write_text("y\n")
    assert prepare() == 3
    assert prepare(settings=1) == 4
    (args.out / "events.csv").unlink()
    assert prepare(settings=1) == 5
    note.unlink()
    with pytest.raises(CanopyError, match=r"notes\.csv: no such file; .*--datadir"):
        prepare(settings=1)
    (sounds / "a.wav").unlink()
    (sounds / "b.wav").unlink()
    sounds.rmdir()
    note.write_text("y\n")
    with pytest.raises(CanopyError, match=r"train: no such folder; check --datadir"):
        prepare(settings=1)
