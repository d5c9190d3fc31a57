"""What all stages share: stamps, places, exit codes, processes."""

import json
import os
import sys
import time

import pytest

from local.errors import CanopyError
from local.runs import (
    Stamp,
    choose_device,
    chosen_folds,
    environment_record,
    prepare_tables,
    run_each,
    run_script,
    stage_parser,
    start,
)

# ----------------------------------------------------------------------------------------- stamps


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


# -------------------------------------------------------------------------------- options, places


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


def test_preparation_refuses_another_folder_unless_forced(tmp_path):
    args = options(tmp_path)
    args.out = tmp_path / "tables"
    args.out.mkdir()
    (args.out / "source.json").write_text(json.dumps({"datadir": "/somewhere"}))
    made = []

    def convert():
        made.append(1)
        for name in ("recordings", "events", "classes"):
            (args.out / f"{name}.csv").write_text("x\n")

    given = {"settings": {}, "inputs": [], "folders": [], "convert": convert}
    with pytest.raises(CanopyError, match="give another --dumpdir"):
        prepare_tables(args, **given)
    args.force = True
    assert prepare_tables(args, **given) == 0
    assert made == [1]


def test_preparation_runs_when_a_recording_changes(tmp_path):
    args = options(tmp_path)
    args.out = tmp_path / "tables"
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

    def prepare(settings=0):
        prepare_tables(
            args, settings={"s": settings}, inputs=[note], folders=[sounds], convert=convert
        )
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


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(CanopyError, match="finds no GPU"):
        choose_device("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == "cuda"


# ------------------------------------------------------------------------ exit codes and processes


def test_exit_codes(capsys):
    def fail(error):
        raise error

    assert run_script(lambda: 0) == 0
    assert run_script(lambda: fail(CanopyError("x.csv: no column y; add it"))) == 1
    assert capsys.readouterr().err == "error: x.csv: no column y; add it\n"
    assert run_script(lambda: fail(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):  # a fault of ours shows where it is
        run_script(lambda: 1 // 0)


@pytest.fixture
def worker(tmp_path):
    """A script: `NAME SECONDS CODE` notes when it began and ended."""
    path = tmp_path / "worker.py"
    path.write_text(
        "import os, sys, time\n"
        "name, seconds, code = sys.argv[1:4]\n"
        "def note(what):\n"
        f"    with open({str(tmp_path / 'notes')!r}, 'a') as notes:\n"
        "        notes.write(f'{what} {name} {os.environ[\"OMP_NUM_THREADS\"]}\\n')\n"
        "note('begin')\n"
        "time.sleep(float(seconds))\n"
        "note('end')\n"
        "sys.exit(int(code))\n"
    )
    return path, tmp_path / "notes"


def test_each_task_runs_once(worker):
    path, notes = worker
    run_each(path, [["a", "0", "0"], ["b", "0", "0"], ["c", "0", "0"]], 2, "cpu")
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert sorted(line[1] for line in lines if line[0] == "end") == ["a", "b", "c"]
    share = str(max(1, (os.cpu_count() or 1) // 2))
    assert {line[2] for line in lines} == {share}


def test_no_tasks_are_no_fault(worker):
    run_each(worker[0], [], 2, "cpu")


def test_the_first_failure_stops_the_rest(worker):
    path, notes = worker
    began = time.monotonic()
    with pytest.raises(CanopyError, match=r"worker\.py b 0\.5 3 ended with code 3"):
        run_each(path, [["a", "60", "0"], ["b", "0.5", "3"], ["c", "0", "0"]], 2, "cpu")
    assert time.monotonic() - began < 20
    text = notes.read_text()
    assert "end a" not in text
    assert "begin c" not in text


def test_the_record_of_a_run(toy_config, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bin/x.py", "--tag", "t"])
    record = environment_record(toy_config(seed=7), "cpu")
    assert (record["seed"], record["device"]) == (7, "cpu")
    assert record["command"] == ["bin/x.py", "--tag", "t"]
    assert {"canopy", "commit", "python", "torch", "numpy", "platform", "cpu_count"} <= set(record)
