"""What run.sh takes for done: by the stamps that the scripts leave, and only then."""

import pytest

from local.io.errors import CanopyError
from local.jobs.exit_codes import run_script
from local.stages.completion import Completion
from local.stages.experiment import Experiment
from local.stages.infer import infer_fold, merge
from local.stages.split import split
from local.stages.stage_graph import PARTS, STAGES, Work
from local.stages.stage_options import check_folds_for
from local.stages.train import train_fold

SPLIT, TRAIN = Work(STAGES[1], PARTS["split"]), Work(STAGES[2], PARTS["train"])
INFER = Work(STAGES[3], PARTS["infer"])
QUICK = {"train__n_epochs": 1, "train__windows_per_epoch": 16}


def test_a_stage_is_done_when_its_stamps_say_so(toy, capsys):
    made = toy(**QUICK)
    given = dict(zip(made.options[::2], made.options[1::2], strict=True))
    values = {name.removeprefix("--"): value for name, value in given.items()}
    values |= {"set": [], "force": False, "folds": "", "stage": 0, "stop-stage": 3}

    def done(work, **more):
        return Completion(values | more).is_done(work)

    (made.run.exp / "folds.csv").unlink()
    assert not done(SPLIT)
    assert run_script(lambda: split(made.run) or 0) == 0
    assert done(SPLIT)
    assert "split.done.json: done before with the same inputs" in capsys.readouterr().err
    assert not done(SPLIT, force=True)
    assert not done(SPLIT, set=["seed=99"])
    assert not done(TRAIN)
    train_fold(made.run, 0, 1)
    assert not done(TRAIN)
    assert "fold1/train.done.json: done" not in capsys.readouterr().err
    assert done(TRAIN, folds="1")
    infer_fold(made.run, 0, 1)
    merge(Experiment(made.run), 0, [1])
    assert done(INFER, folds="1")
    # Scores are there, but not of a model of these settings: the script refuses, so it must start.
    assert not done(INFER, folds="1", set=["train.lr=0.77"])
    (made.run.fold(0, 1) / "log.csv").write_text("changed\n")
    assert not done(TRAIN, folds="1")


def test_relabelling_by_some_of_the_folds_is_refused_beforehand():
    check_folds_for(range(6), [0, 1], 2, [1])
    check_folds_for(range(4), [0], 2, [1])
    check_folds_for(range(6), [0], 2, [])
    with pytest.raises(CanopyError, match="1 of 2 folds, but relabelling"):
        check_folds_for(range(6), [0], 2, [1, 2])
