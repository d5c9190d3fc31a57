"""Who trains on what and who scores whom: no label comes from a model that saw the group."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from local.data.tables import EVENT_COLUMNS
from local.inference.score_files import load_scores
from local.inference.scores import Scores, mean_logit
from local.io.errors import CanopyError
from local.io.files import file_digest, write_csv
from local.models.checkpoint import load_checkpoint, save_checkpoint
from local.relabel.pseudo_labels import check_provenance
from local.stages import train as stage_train
from local.stages.experiment import Experiment
from local.stages.infer import infer_fold, merge
from local.stages.train import train_fold
from local.training.epoch_plan import make_training_set

QUICK = {
    "train__n_epochs": 1,
    "train__windows_per_epoch": 16,
    "relabel__threshold": 0.05,
    "relabel__min_duration_s": 0.1,
    # Models of one epoch: what their evidence says ends no cycle.
    "relabel__max_fall": None,
}


def pseudo_rows(*names):
    rows = [(name, "a", 1.0, 2.0, np.nan, np.nan, 1, 0.5, "pseudo:cycle1") for name in names]
    return pd.DataFrame(rows, columns=list(EVENT_COLUMNS))


def groups_trained_on(experiment, cycle, fold):
    """Straight from what training draws windows from, not from what the run noted."""
    events, names = experiment.events(cycle), experiment.training_ids(cycle, fold)
    background_ids = experiment.background_ids(fold)
    training_set = make_training_set(
        experiment.tables, events, names, experiment.dump, background_ids
    )
    group = experiment.tables.recordings.set_index("recording_id")["group"]
    return set(group[training_set.recording_ids])


def run_cycle(script, toy, cycle):
    """Stages 2 and 3 of a cycle, and 4 before them, in this process."""
    if cycle > 0:
        assert script("relabel").main([*toy.options, "--cycle", str(cycle)]) == 0
    for fold in range(3):
        train_fold(toy.run, cycle, fold)
        infer_fold(toy.run, cycle, fold)
    merge(Experiment(toy.run), cycle, [0, 1, 2])


@pytest.fixture
def finished(toy, script):
    """Function: changes -> the toy after cycles 0 to 2."""

    def make(**changes):
        made = toy(**QUICK, **changes)
        for cycle in range(3):
            run_cycle(script, made, cycle)
        return made

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"relabel__subsets": ["train", "test", "unlabelled"]},
        {"relabel__subsets": ["train", "test"], "relabel__start": "cycle0"},
        {
            "augment__background_p": 1.0,
            "augment__background_from": "unlabelled",
            "relabel__subsets": ["train", "unlabelled"],
        },
    ],
    ids=["train", "all", "cycle0", "backgrounds"],
)
def test_no_score_that_makes_labels_comes_from_a_model_that_saw_the_group(finished, changes):
    """Pins defect 38 of earlier systems: pseudo labels came from models that saw the group."""
    # For every cycle: what each fold's model was trained on is worked out anew from the
    # pool of windows; the merged score must be the mean of exactly the models without the group.
    made = finished(**changes)
    experiment = Experiment(made.run)
    group = experiment.groups
    recordings = experiment.tables.recordings.set_index("recording_id")
    seen = {}
    for cycle in range(3):
        for fold in range(3):
            seen[cycle, fold] = groups_trained_on(experiment, cycle, fold)
            if cycle > 0 and "relabel__start" in changes:
                seen[cycle, fold] |= seen[0, fold]
        parts = {k: load_scores(made.run.fold(cycle, k) / "scores.npz")[0] for k in range(3)}
        oof, members = load_scores(made.run.cycle(cycle) / "oof.npz")
        assert set(oof.recording_ids) >= set(recordings.index[recordings["subset"] == "train"])
        for row, name in enumerate(oof.recording_ids):
            innocent = [k for k in range(3) if group[name] not in seen[cycle, k]]
            assert np.flatnonzero(members["used"][row]).tolist() == innocent
            assert innocent
            frames = [
                parts[k].frames[parts[k].recording_ids.index(name)].astype(np.float64)
                for k in innocent
            ]
            np.testing.assert_allclose(oof.frames[row], mean_logit(np.stack(frames)), atol=1e-5)
        check_provenance(
            oof.recording_ids, group, members["used"], [seen[cycle, k] for k in range(3)]
        )
    # And the labels of cycle c are of recordings whose scores of cycle c - 1 stood in that file.
    for cycle in (1, 2):
        labelled = pd.read_csv(made.run.cycle(cycle) / "pseudo_events.csv")["recording_id"]
        assert len(labelled)
        assert set(labelled) <= set(
            load_scores(made.run.cycle(cycle - 1) / "oof.npz")[0].recording_ids
        )
        subsets = set(recordings.loc[labelled.unique(), "subset"])
        assert subsets <= set(changes.get("relabel__subsets", ["train"]))


@pytest.mark.slow
def test_test_recordings_get_the_fold_mean_until_they_are_labelled(finished):
    made = finished(relabel__subsets=["train", "test"])
    experiment = Experiment(made.run)
    fold_of = experiment.fold_of
    for cycle in range(3):
        oof, members = load_scores(made.run.cycle(cycle) / "oof.npz")
        used = dict(zip(oof.recording_ids, members["used"].sum(axis=1), strict=True))
        labelled = set(experiment.events(cycle)["recording_id"])
        assert bool(cycle) == bool(labelled & {"t2", "t3", "t4", "t5"})
        for name in ("t2", "t3", "t4", "t5"):  # groups of their own
            others = {
                n
                for n in ("t2", "t3", "t4", "t5")
                if experiment.groups[n] == experiment.groups[name]
            }
            assert used[name] == (1 if cycle and others & labelled else 3)
        for name in ("t0", "t1"):  # of a group that train holds: only its own fold has not seen it
            row = oof.recording_ids.index(name)
            assert np.flatnonzero(members["used"][row]).tolist() == [fold_of[name]]
        # What is submitted is the mean of all folds, in every cycle.
        test, _ = load_scores(made.run.cycle(cycle) / "test.npz")
        parts = [load_scores(made.run.fold(cycle, k) / "scores.npz")[0] for k in range(3)]
        for row, name in enumerate(test.recording_ids):
            frames = [p.frames[p.recording_ids.index(name)].astype(np.float64) for p in parts]
            np.testing.assert_allclose(test.frames[row], mean_logit(np.stack(frames)), atol=1e-5)


def test_a_model_of_other_settings_scores_nothing(toy, script):
    made = toy(**QUICK)
    for fold in range(3):
        train_fold(made.run, 0, fold)
    experiment = Experiment(made.run)
    experiment.require_trained(0, 1)
    with pytest.raises(CanopyError, match=r"fold0: no model that was trained with these settings"):
        script("sed_infer").main([*made.options, "--set", "train.lr=0.5"])
    (made.run.fold(0, 1) / "best.pt").write_bytes(b"")
    with pytest.raises(CanopyError, match=r"fold1: no model .*run stage 2 first"):
        script("sed_infer").main(made.options)


def test_a_fold_that_lost_its_model_is_trained_anew(toy):
    made = toy(**QUICK)
    train_fold(made.run, 0, 0)
    best = made.run.fold(0, 0) / "best.pt"
    whole = best.read_bytes()
    for spoil in (lambda: best.unlink(), lambda: best.write_bytes(whole[:200])):
        spoil()
        train_fold(made.run, 0, 0)
        assert best.read_bytes() == whole
    seconds = best.stat().st_mtime_ns
    train_fold(made.run, 0, 0)
    assert best.stat().st_mtime_ns == seconds


def test_folds_keep_groups_together_and_out_of_their_own_training(toy):
    experiment = Experiment(toy().run)
    held_out = [set(experiment.held_out_ids(fold)) for fold in experiment.folds]
    assert set.union(*held_out) == set(experiment.ids("train"))
    assert sum(map(len, held_out)) == 18
    for fold in experiment.folds:
        trained = set(experiment.training_ids(0, fold))
        assert trained == set(experiment.ids("train")) - held_out[fold]
        assert not groups_trained_on(experiment, 0, fold) & {
            experiment.groups[name] for name in held_out[fold]
        }


def test_rejected_rows_are_split_as_confirmed_ones_are(toy):
    """No rejected row serves training and the validation of the same fold.

    Pins defect 15 of earlier systems: a fold trained on rejected rows that it was judged by.
    """
    experiment = Experiment(toy().run)
    events = experiment.tables.events
    rejected = events[events["polarity"] < 0]
    seen: list[int] = []
    for fold in experiment.folds:
        names = experiment.training_ids(0, fold)
        training_set = make_training_set(experiment.tables, events, names, experiment.dump)
        drawn = {
            training_set.recording_ids[row]
            for row in training_set.event_recording[training_set.event_kind == 1]
        }
        held_out = set(rejected["recording_id"]) & set(experiment.held_out_ids(fold))
        assert held_out
        assert not drawn & held_out
        assert drawn | held_out == set(rejected["recording_id"])
        seen.append(len(held_out))
    assert sum(seen) == rejected["recording_id"].nunique()


def test_what_a_model_started_from_counts_as_seen(toy):
    made = toy(relabel__start="cycle0")
    experiment = Experiment(made.run)
    path = made.run.cycle(1) / "pseudo_events.csv"
    write_csv(path, pseudo_rows("t2"))
    for fold in experiment.folds:
        experiment.write_seen(0, fold)
        seen = experiment.write_seen(1, fold)
        table = pd.read_csv(seen)
        write_csv(seen, table[table["recording_id"] == "t2"])
    for fold in experiment.folds:
        assert experiment.seen_groups(1, fold) >= experiment.seen_groups(0, fold) != set()


@pytest.mark.slow
@pytest.mark.parametrize(("start", "fresh"), [("scratch", True), ("cycle0", False)])
def test_where_a_cycle_starts(toy, script, monkeypatch, start, fresh):
    """Pins defect 42 of earlier systems: a cycle went on from the model of its labels."""
    # Never from the model that made the labels.
    made = toy(**QUICK, relabel__start=start)
    run_cycle(script, made, 0)
    run_cycle(script, made, 1)
    assert script("relabel").main([*made.options, "--cycle", "2"]) == 0
    began = []
    module = stage_train
    monkeypatch.setattr(
        module,
        "Trainer",
        lambda task, config, initial, _ranks: (
            began.append(initial) or SimpleNamespace(run=lambda: None)
        ),
    )
    monkeypatch.setattr(module.Stamp, "write", lambda *a, **k: None)
    module.train_fold(made.run, 2, 1)
    if fresh:
        assert began == [None]
    else:
        kept = load_checkpoint(made.run.fold(0, 1) / "best.pt")["model"]
        made_labels = load_checkpoint(made.run.fold(1, 1) / "best.pt")["model"]
        assert all(value.equal(kept[key]) for key, value in began[0].items())
        assert not all(value.equal(made_labels[key]) for key, value in began[0].items())


# ------------------------------------------------------------------------------------- provenance


@pytest.mark.slow
def test_a_doctored_note_of_who_scored_is_refused(finished, script, capsys):
    made = finished()
    path = made.run.cycle(1) / "oof.npz"
    with np.load(path) as stored:
        members = {name: stored[name] for name in stored.files}
    row = members["recording_id"].tolist().index("r04")
    members["used"][row] = ~members["used"][row]
    np.savez(path, **members)
    with pytest.raises(CanopyError, match=r"recording r04.*trained on its group g1"):
        script("relabel").main([*made.options, "--cycle", "2"])
    members["used"][row] = False
    np.savez(path, **members)
    with pytest.raises(CanopyError, match=r"recording r04 has a score of no model"):
        script("relabel").main([*made.options, "--cycle", "2"])


def test_provenance_in_a_nutshell():
    groups = {"x": "g", "y": "h"}
    seen = [{"h"}, {"g"}]
    check_provenance(["x", "y"], groups, np.array([[True, False], [False, True]]), seen)
    with pytest.raises(CanopyError, match="recording y: its score comes from fold 0"):
        check_provenance(["x", "y"], groups, np.array([[True, False], [True, True]]), seen)


# ------------------------------------------------------------------------------------------ merge


def part(names, value):
    frames = [np.full((3, 4), value + i) for i in range(len(names))]
    return Scores(list(names), ["a", "b", "c"], frames, np.full((len(names), 3), value), 0.2, 0.0)


def test_merging_goes_by_name_not_by_position(toy):
    """Pins defect 30 of earlier systems: folds that were not trained were scored as zeros."""
    # Parts differ in length and order, and only some folds are there.
    made = toy()
    experiment = Experiment(made.run)
    for fold in experiment.folds:
        experiment.write_seen(0, fold)
    parts = {fold: part(experiment.scored_ids(0, fold)[::-1], 10.0 * fold) for fold in (2, 0)}
    merged, used = experiment.merge_unseen(0, parts)
    assert not used[:, 1].any()
    assert set(merged.recording_ids) == {
        name
        for name in experiment.dump_ids
        if experiment.groups[name] not in experiment.seen_groups(0, 0)
        or experiment.groups[name] not in experiment.seen_groups(0, 2)
    }
    for row, name in enumerate(merged.recording_ids):
        folds = np.flatnonzero(used[row])
        expected = [parts[k].frames[parts[k].recording_ids.index(name)] for k in folds]
        np.testing.assert_allclose(merged.frames[row], mean_logit(np.stack(expected)))


def test_without_test_recordings_there_are_scores_of_none(toy):
    experiment = Experiment(toy().run)
    frames = [np.zeros((3, 4), np.float32) for _ in range(24)]
    ids = experiment.tables.recordings["recording_id"].tolist()
    part = Scores(ids, ["a", "b", "c"], frames[: len(ids)], np.zeros((len(ids), 3)), 0.1, 0.0)
    assert experiment.merge_test({0: part, 1: part}).recording_ids == experiment.ids("test")
    object.__setattr__(experiment.tables, "recordings", experiment.tables.recordings[:18])
    merged = experiment.merge_test({0: part, 1: part})
    assert (merged.recording_ids, merged.frames, merged.window.shape) == ([], [], (0, 3))


def test_unreadable_recordings_take_part_in_nothing(toy):
    made = toy()
    manifest = made.run.features / "manifest.csv"
    table = pd.read_csv(manifest)
    table.loc[table["recording_id"].isin(["r00", "t2"]), "status"] = "invalid"
    table.to_csv(manifest, index=False)
    experiment = Experiment(made.run)
    assert not {"r00", "t2"} & {*experiment.ids("train", "test"), *experiment.dump_ids}
    for fold in experiment.folds:
        assert "r00" not in experiment.training_ids(0, fold) + experiment.held_out_ids(fold)


def test_first_weights_are_known_by_their_content(toy, tmp_path):
    """A file in `model.params.weights` that changes makes the model stale, wherever it lies.

    Pins defect 38 of earlier systems: pseudo labels came from models that saw the group.
    """
    first = toy(**QUICK)
    train_fold(first.run, 0, 0)
    start = tmp_path / "start.pt"
    start.write_bytes((first.run.fold(0, 0) / "best.pt").read_bytes())
    params = {**first.run.config.model.params, "weights": str(start)}
    made = toy(**QUICK, model__params=params)
    train_fold(made.run, 0, 1)
    experiment = Experiment(made.run)
    experiment.require_trained(0, 1)
    checkpoint = load_checkpoint(start)
    checkpoint["model"] = {key: value * 1.5 for key, value in checkpoint["model"].items()}
    save_checkpoint(start, checkpoint)
    with pytest.raises(CanopyError, match="no model that was trained with these settings"):
        experiment.require_trained(0, 1)
    # What a `seen.csv` beside the file lists is seen.
    held_out = {experiment.groups[name] for name in experiment.held_out_ids(1)}
    assert not experiment.seen_groups(0, 1) & held_out
    (tmp_path / "seen.csv").write_bytes((first.run.fold(0, 0) / "seen.csv").read_bytes())
    assert experiment.seen_groups(0, 1) >= groups_trained_on(experiment, 0, 0)
    start.unlink()
    with pytest.raises(CanopyError, match=r"model\.params\.weights: .*start\.pt is missing"):
        experiment.stamp("train", 0, 1)


@pytest.mark.slow
def test_what_the_first_weights_saw_counts_as_seen(toy, tmp_path):
    """By way of `model.init`: a fold that starts from another fold's model.

    Pins defect 38 of earlier systems: pseudo labels came from models that saw the group.
    """
    first = toy(**QUICK)
    for fold in range(3):
        train_fold(first.run, 0, fold)
    exp = first.run.exp.parent
    first.run.exp.rename(exp / "first")
    own = toy(**QUICK, model__init=str(exp / "first/cycle0/fold{fold}/best.pt"))
    for fold in range(3):
        train_fold(own.run, 0, fold)
        experiment = Experiment(own.run)
        read = experiment.stamp("train", 0, fold).made_of["inputs"]
        assert read["model.init"] == file_digest(exp / f"first/cycle0/fold{fold}/best.pt")
        assert experiment.seen_groups(0, fold) == groups_trained_on(experiment, 0, fold)
        assert set(experiment.held_out_ids(fold)) <= set(experiment.scored_ids(0, fold))
    other = toy(**QUICK, model__init=str(exp / "first/cycle0/fold0/best.pt"))
    experiment = Experiment(other.run)
    train_fold(other.run, 0, 1)
    saw = groups_trained_on(experiment, 0, 0) | groups_trained_on(experiment, 0, 1)
    assert experiment.seen_groups(0, 1) == saw
    assert not set(experiment.held_out_ids(1)) & set(experiment.scored_ids(0, 1))
