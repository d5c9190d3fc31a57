"""What all stages share: options, places, the record of a run."""

import json
import sys

import pytest

from local.io.errors import CanopyError
from local.stages.run_record import environment_record
from local.stages.stage_options import chosen_folds, stage_parser
from local.stages.starting import start


def options(tmp_path, *more):
    conf = tmp_path / "v1.yaml"
    conf.write_text("seed: 3\n")
    places = [("datadir", "data"), ("dumpdir", "dump"), ("expdir", "exp")]
    given = ["--recipe", "mice", "--conf", str(conf), "--device", "cpu"]
    for name, folder in places:
        given += [f"--{name}", str(tmp_path / folder)]
    return stage_parser("words").parse_args([*given, *more])


def test_start_places_and_records(tmp_path):
    run = start(options(tmp_path, "--set", "train.lr=0.5"), "train")
    assert run.exp == tmp_path / "exp" / "v1"
    assert run.fold(2, 1) == tmp_path / "exp" / "v1" / "cycle2" / "fold1"
    assert run.config.train.lr == 0.5
    assert (run.exp / "logs" / "train.log").exists()
    from local.config import load_config

    assert load_config(run.exp / "config.yaml") == run.config
    tagged = start(options(tmp_path, "--tag", "night"), "train")
    assert tagged.exp == tmp_path / "exp" / "night"


def test_defaults_are_named_after_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "mice").mkdir(parents=True)
    (tmp_path / "conf" / "mice" / "default.yaml").write_text("")
    run = start(stage_parser("").parse_args(["--recipe", "mice", "--device", "cpu"]), "x")
    assert [str(p) for p in (run.datadir, run.dumpdir, run.exp)] == [
        "data/mice",
        "dump/mice",
        "exp/mice/default",
    ]


def test_the_dump_of_other_data_is_refused(tmp_path):
    (tmp_path / "dump" / "tables").mkdir(parents=True)
    source = tmp_path / "dump" / "tables" / "source.json"
    source.write_text(json.dumps({"datadir": str(tmp_path / "others")}))
    for stage, more in (("train", ()), ("check", ()), ("train", ("--force",))):
        with pytest.raises(
            CanopyError,
            match=r"was made from .*others, not from .*data; give another --dumpdir, or --force",
        ):
            start(options(tmp_path, *more), stage)
    # As the message says; the preparation that follows writes the tables anew.
    start(options(tmp_path, "--force"), "check")
    source.write_text(json.dumps({"datadir": str(tmp_path / "data")}))
    start(options(tmp_path), "train")


def test_number_of_processes_must_be_one_or_more(tmp_path):
    with pytest.raises(CanopyError, match="--nj is 0"):
        start(options(tmp_path, "--nj", "0"), "x")


@pytest.mark.parametrize(
    ("text", "folds"), [("", [0, 1, 2]), ("0 2", [0, 2]), ("2,0", [0, 2]), ("1 1", [1])]
)
def test_folds_asked_for(text, folds):
    assert chosen_folds(text, 3) == folds


@pytest.mark.parametrize(
    ("text", "words"), [("3", "names fold 3"), ("-1", "fold -1"), ("a", "'a'")]
)
def test_folds_that_are_none(text, words):
    with pytest.raises(CanopyError, match=words):
        chosen_folds(text, 3)


def test_the_record_of_a_run(toy_config, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bin/x.py", "--tag", "t"])
    record = environment_record(toy_config(seed=7), "cpu")
    assert (record["seed"], record["device"]) == (7, "cpu")
    assert record["command"] == ["bin/x.py", "--tag", "t"]
    assert {"canopy", "commit", "python", "torch", "numpy", "platform", "cpu_count"} <= set(record)
