"""Work that is kept: what changes no result trains nothing anew, and nothing trained is deleted."""

import json

import pytest

from local.io.files import read_json, write_json
from local.stages.experiment import Experiment
from local.stages.infer import infer_fold, merge
from local.stages.split import split
from local.stages.submit import submit
from local.stages.train import train_fold

pytestmark = pytest.mark.slow

QUICK = {"train__n_epochs": 1, "train__windows_per_epoch": 16, "report__n_recordings": 0}
# Keys of which each emptied a fold once, half trained or finished.
HARMLESS = {
    "train__n_workers": 1,
    "train__max_bad_steps": 3,
    "train__validate_every": 1,
    "train__save_minutes": 1.0,
    "audio__max_invalid_share": 0.5,
    "audio__other_rates": "refuse",
    "inference__batch_size": 2,
    "inference__pool": {"method": "topk"},
    "score__metric": "map",
    "relabel__n_cycles": 3,
}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def log_of(folder):
    return (folder.parents[1] / "logs" / "test.log").read_text()


@pytest.fixture
def trained(toy):
    """Function: changes -> the folder of fold 0, trained."""

    def make(**changes):
        made = toy(**QUICK, **changes)
        train_fold(made.run, 0, 0)
        return made.run.fold(0, 0)

    return make


@pytest.mark.parametrize("half", [False, True], ids=["finished", "half trained"])
def test_keys_that_change_no_result_train_nothing_anew(trained, half):
    folder = trained()
    kept = files(folder)
    if half:
        # Killed before the fold was marked as done: no epoch is trained again.
        (folder / "train.done.json").unlink()
        before = (folder / "last.pt").stat().st_ino
    assert trained(**HARMLESS) == folder
    assert (folder / "best.pt").read_bytes() == kept["best.pt"]
    assert (folder / "train.done.json").read_bytes() == kept["train.done.json"]
    assert [path.name for path in folder.parent.glob("fold0*")] == ["fold0"]
    if half:
        assert (folder / "last.pt").stat().st_ino == before
    else:
        assert files(folder) == kept


@pytest.mark.parametrize("half", [False, True], ids=["finished", "half trained"])
def test_a_fold_of_other_settings_is_moved_aside_and_the_log_says_why(trained, half):
    folder = trained()
    if half:
        (folder / "train.done.json").unlink()
    kept = files(folder)
    trained(train__lr=0.02, train__n_workers=0)
    aside = folder.with_name("fold0.old-1")
    assert {**files(aside), ".lock": b""} == {**kept, ".lock": b""}
    assert (aside / "tensorboard").is_dir()
    assert f"{folder}: trained before, moved to fold0.old-1: train.lr 0.01 -> 0.02" in log_of(
        folder
    )
    assert files(folder)["best.pt"] != kept["best.pt"]
    # Counting up, and a way back gives what there was.
    trained()
    assert files(folder)["best.pt"] == kept["best.pt"]
    other = folder.with_name("fold0.old-2")
    assert (other / "best.pt").is_file()
    assert {**files(aside), ".lock": b""} == {**kept, ".lock": b""}
    # What was moved aside is done where it stood, with the settings it had.
    folder.rename(folder.with_name("away"))
    other.rename(folder)
    before = files(folder)
    trained(train__lr=0.02)
    assert {**files(folder), ".lock": b""} == {**before, ".lock": b""}


def test_other_tables_move_a_fold_aside(toy):
    made = toy(**QUICK)
    folder = made.run.fold(0, 0)
    train_fold(made.run, 0, 0)
    events = made.run.tables / "events.csv"
    events.write_text(events.read_text().replace("0.3,1.5", "0.3,1.4"))
    train_fold(made.run, 0, 0)
    assert "moved to fold0.old-1: tables/events.csv has other content" in log_of(folder)


def test_a_fold_of_an_earlier_version_is_moved_aside(trained):
    folder = trained()
    stamp = {"fingerprint": "0", "outputs": {}, "notes": {}}
    for name, content in (("train.done.json", stamp), ("training.json", {"fingerprint": "0"})):
        write_json(folder / name, content)
    trained()
    assert (folder.with_name("fold0.old-1") / "best.pt").is_file()
    assert "which did not note its settings" in log_of(folder)


def test_what_learned_nothing_is_not_kept(trained):
    folder = trained()
    for path in folder.glob("*.pt"):
        path.unlink()
    trained(train__lr=0.02)
    assert [path.name for path in folder.parent.glob("fold0*")] == ["fold0"]


def test_what_was_moved_aside_takes_part_in_nothing(toy):
    made = toy(**QUICK, train__lr=0.02)
    for fold in range(3):
        train_fold(made.run, 0, fold)
    made = toy(**QUICK)
    run = made.run
    for fold in range(3):
        train_fold(run, 0, fold)
        infer_fold(run, 0, fold)
    merge(Experiment(run), 0, [0, 1, 2])
    submit(run, lambda *_: [])
    assert (run.cycle(0) / "fold2.old-1").is_dir()
    whole = {name: (run.exp / name).read_bytes() for name in ("submission.csv", "results.json")}
    for fold in range(3):
        (run.cycle(0) / f"fold{fold}.old-1").rename(run.exp.parent / f"away{fold}")
    assert Experiment(run).stamp("submit", 0, cycles=[0]).matches()
    (run.exp / "submit.done.json").unlink()
    submit(run, lambda *_: [])
    assert (run.exp / "submission.csv").read_bytes() == whole["submission.csv"]


def test_run_json_keeps_one_record_a_stage_of_the_run_that_did_the_work(toy, script):
    made = toy(**QUICK)
    path = made.run.exp / "run.json"
    assert not path.exists()
    split(made.run)
    assert set(read_json(path)) == {"split"}
    for fold in range(3):
        train_fold(made.run, 0, fold)
        infer_fold(made.run, 0, fold)
    merge(Experiment(made.run), 0, [0, 1, 2])
    record = read_json(path)
    assert list(record) == ["split", "train", "infer"]
    keys = {"commit", "torch", "device", "seed", "command", "recipe", "datadir", "dumpdir"}
    assert all(keys <= set(one) for one in record.values())
    # Marked, to see that it is left alone; the scripts say what they were called with.
    marked = {stage: one | {"command": ["first"]} for stage, one in record.items()}
    path.write_text(json.dumps(marked))
    before = path.read_bytes()
    assert script("split").main(made.options) == 0
    assert script("sed_train").main(made.options) == 0
    assert script("sed_infer").main(made.options) == 0
    assert path.read_bytes() == before
    assert script("split").main([*made.options, "--force"]) == 0
    assert {stage: one["command"] == ["first"] for stage, one in read_json(path).items()} == {
        "train": True,
        "infer": True,
        "split": False,
    }
