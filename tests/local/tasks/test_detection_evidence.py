"""Evidence for the estimate of prevalence: whose calls, in whose recordings, by whose model."""

import numpy as np
import pytest

import local.relabel.insertion
from local.io.errors import CanopyError
from local.stages.experiment import Experiment
from local.stages.infer import infer_fold
from local.stages.train import train_fold
from local.tasks.detection_evidence import fold_evidence

ESTIMATED = {"prior": {"method": "estimated", "n_insertions": 5}}


@pytest.fixture
def trained(toy):
    """Function: changes -> a toy experiment with its folds trained and inferred."""

    def make(**changes):
        made = toy(split={"n_folds": 2}, **changes)
        for fold in range(2):
            train_fold(made.run, 0, fold)
            infer_fold(made.run, 0, fold)
        return made, Experiment(made.run)

    return make


@pytest.mark.slow
def test_each_fold_inserts_its_own_held_out_calls_only(trained, monkeypatch):
    _, experiment = trained(**ESTIMATED)
    evidence = fold_evidence(experiment, 0)
    assert [fold.inserted.shape for fold in evidence] == [(5, 3), (5, 3)]
    assert all(np.isfinite(fold.inserted).all() for fold in evidence)

    drawn = []

    def watch(model, dump, calls, targets, *rest):
        drawn.append((set(calls["recording_id"]), set(targets.recording_ids)))
        assert (calls["polarity"] > 0).all()
        return np.zeros((5, 3), np.float32)

    monkeypatch.setattr(local.relabel.insertion, "insert_calls", watch)
    for fold in experiment.folds:
        experiment.task.write_further(experiment, 0, fold, None)
    for fold, (sources, targets) in zip(experiment.folds, drawn, strict=True):
        seen = experiment.seen_groups(0, fold)
        assert sources
        assert targets
        assert sources <= set(experiment.held_out_ids(fold))
        assert targets <= set(experiment.ids("test"))
        assert not {experiment.groups[name] for name in sources | targets} & seen


@pytest.mark.slow
def test_a_fold_that_saw_the_sites_of_all_test_recordings_does_not_count(trained, monkeypatch):
    _, experiment = trained(**ESTIMATED)
    seen = Experiment.seen_groups
    tested = {experiment.groups[name] for name in experiment.ids("test")}
    both = fold_evidence(experiment, 0)

    def with_all_tested(self, cycle, fold):
        return seen(self, cycle, fold) | (tested if fold == 0 else set())

    monkeypatch.setattr(Experiment, "seen_groups", with_all_tested)
    (left,) = fold_evidence(experiment, 0)
    np.testing.assert_array_equal(left.target, both[1].target)


@pytest.mark.slow
def test_what_was_inserted_is_skipped_and_what_is_damaged_is_told(trained):
    made, experiment = trained(**ESTIMATED)
    path = made.run.fold(0, 1) / "inserted.npz"
    before = path.read_bytes()
    infer_fold(made.run, 0, 1)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(CanopyError, match=r"inserted\.npz: missing .* run stage 3 again"):
        fold_evidence(experiment, 0)
    # Only the insertions are made again, and come out the same.
    scores = (made.run.fold(0, 1) / "scores.npz").stat().st_mtime_ns
    infer_fold(made.run, 0, 1)
    assert path.read_bytes() == before
    assert (made.run.fold(0, 1) / "scores.npz").stat().st_mtime_ns == scores


@pytest.mark.slow
@pytest.mark.parametrize(
    "prior",
    [
        {"method": "none"},
        {"method": "estimated", "n_insertions": 0},
    ],
)
def test_nothing_is_inserted_where_nobody_asks(trained, prior):
    made, experiment = trained(prior=prior)
    assert not list(made.run.exp.rglob("inserted.npz"))
    assert all(fold.inserted is None for fold in fold_evidence(experiment, 0))
