"""Options of run.sh: what is taken, what is refused, and what stands where nothing is said."""

import re
from pathlib import Path

import pytest

from local.stages.run_options import UsageError, complete, help_text, parse


@pytest.fixture
def project(tmp_path):
    """A folder with two recipes and three configurations."""
    for recipe in ("demo", "mice"):
        (tmp_path / "recipes" / recipe).mkdir(parents=True)
        (tmp_path / "recipes" / recipe / "prepare.py").touch()
        (tmp_path / "conf" / recipe).mkdir(parents=True)
        (tmp_path / "conf" / recipe / "default.yaml").touch()
    (tmp_path / "conf/mice/loud.yaml").touch()
    return tmp_path


def options(project: Path, *words: str) -> dict:
    return complete(parse(list(words)), project, project)


def test_what_stands_where_nothing_is_said(project, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    given = {name: value for name, value in options(project).items() if value or value == 0}
    assert {name: value for name, value in given.items() if value is not False} == {
        "recipe": "demo",
        "conf": "conf/demo/default.yaml",
        "tag": "default",
        "datadir": "data/demo",
        "dumpdir": "dump/demo",
        "expdir": "exp/demo",
        "stage": 0,
        "stop-stage": 5,
        "nj": "3",
        "device": "auto",
        "launcher": "local",
    }


def test_an_option_may_be_given_in_two_ways_and_settings_in_their_order(project):
    words = ["--recipe", "mice", "--conf=conf/mice/loud.yaml", "--set", "a.b=two  words $HOME"]
    values = options(project, *words, "--set=a.b=c=d", "--n-cycles", "1", "--stop-stage=train")
    assert values["tag"] == "loud"
    assert values["set"] == ["a.b=two  words $HOME", "a.b=c=d", "relabel.n_cycles=1"]
    assert values["stop-stage"] == 2


def test_paths_are_seen_from_the_callers_folder(project, tmp_path):
    caller = tmp_path / "elsewhere"
    caller.mkdir()
    (caller / "mine.yaml").touch()
    given = parse(["--conf", "mine.yaml", "--datadir=sounds", "--dumpdir", "/a/dump"])
    values = complete(given, project, caller)
    places = ("conf", "datadir", "dumpdir", "expdir", "tag")
    assert [values[name] for name in places] == [
        *(str(caller / "mine.yaml"), str(caller / "sounds"), "/a/dump", "exp/demo", "mine"),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--stagee", "2"], "unknown option '--stagee'; known: --recipe --conf"),
        (["--stagee=2"], "unknown option '--stagee'"),
        # No part of the list of options is one, nor are two of them.
        (["--conf --tag", "x"], "unknown option '--conf --tag'"),
        (["--stage --stop-stage=2"], "unknown option '--stage --stop-stage'"),
        (["--s", "2"], "unknown option '--s'"),
        (["--", "2"], "unknown option '--'"),
        (["demo"], "'demo' is no option"),
        ([""], "'' is no option"),
        (["-x"], "'-x' is no option"),
        (["--tag"], "--tag needs a value"),
        (["--tag", "--force"], "--tag needs a value"),
        (["--tag="], "--tag needs a value"),
        (["--tag", "../x"], "--tag is '../x'"),
        (["--tag", "x\n"], "--tag is 'x\n'"),
        (["--stage", "6"], "--stage is '6', which is no stage: give 0 to 5 or one of preprocess"),
        (["--stop-stage", "tain"], "--stop-stage is 'tain'"),
        (["--stage", "3", "--stop-stage", "train"], "comes after"),
        (["--nj", "0"], "--nj is '0'"),
        (["--n-gpus", "two"], "--n-gpus is 'two': give a number of GPUs"),
        (["--n-cycles", "-1"], "--n-cycles is '-1'"),
        (["--folds", "0;1"], "--folds is '0;1'"),
        (["--recipe", "mice/"], "--recipe is 'mice/'"),
        (["--device", "tpu"], "--device is 'tpu'"),
        (["--seeds", "0 1"], "go with --launcher slurm"),
        (["--launcher", "pbs"], "--launcher is 'pbs'"),
        (["--launcher", "slurm", "--nj", "4"], "--slurm-conf says cpus-per-task"),
        (["--launcher", "slurm", "--n-gpus", "2"], "--slurm-conf says cpus-per-task, gres"),
        (["--recipe", "rats"], "give one of demo mice"),
        (["--conf", "conf/none.yaml"], "--conf is 'conf/none.yaml'"),
        (["--force=yes"], "unknown option '--force=yes'"),
    ],
)
def test_wrong_usage_is_one_sentence(project, words, told):
    with pytest.raises(UsageError) as caught:
        options(project, *words)
    assert told in str(caught.value)


def test_help_names_every_option():
    with pytest.raises(UsageError) as caught:
        parse(["--nope"])
    known = str(caught.value).split("known: ")[1].rstrip(".").split()
    assert len(known) == 23
    assert re.findall(r"^  (--[a-z-]+) ", help_text(), re.M) == known
