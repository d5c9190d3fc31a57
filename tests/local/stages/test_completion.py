"""What run.sh takes for done: by the stamps that the scripts leave, and only then."""

from local.jobs.exit_codes import run_script
from local.stages.completion import Completion
from local.stages.split import split
from local.stages.stage_graph import PARTS, STAGES, Work
from local.stages.train import train_fold

SPLIT, TRAIN = Work(STAGES[1], PARTS["split"]), Work(STAGES[2], PARTS["train"])
QUICK = {"train__n_epochs": 1, "train__windows_per_epoch": 16}


def test_a_stage_is_done_when_its_stamps_say_so(toy, capsys):
    made = toy(**QUICK)
    given = dict(zip(made.options[::2], made.options[1::2], strict=True))
    values = {name.removeprefix("--"): value for name, value in given.items()}
    values |= {"set": [], "force": False, "folds": ""}

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
    (made.run.fold(0, 1) / "log.csv").write_text("changed\n")
    assert not done(TRAIN, folds="1")
