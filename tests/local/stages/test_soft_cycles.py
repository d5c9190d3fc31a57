"""Cycles of soft labels: what stage 4 writes, who may learn from whom, when cycles end, and which
one is handed in."""

import json
import random
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from local.inference.score_files import load_scores, save_scores
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.files import read_json, write_json
from local.labels.soft_labels import load_soft_labels
from local.models import SedOutput
from local.models.checkpoint import load_checkpoint
from local.slurm.job_graph import Job, Task
from local.slurm.sent_jobs import Home, is_done, left_of, task_print
from local.stages.completion import Completion
from local.stages.experiment import Experiment
from local.stages.infer import infer_fold, merge
from local.stages.relabel import relabel
from local.stages.stage_graph import PARTS, STAGES, Work
from local.stages.submit import submit
from local.stages.train import train_fold
from local.tasks.detection_relabel import write_labels
from local.tasks.detection_results import corrected_test
from local.training.augment.batch import Batch
from tests.local.stages.test_resuming import begin_anew, contents, processes, same  # noqa: F401

LABELS = ["a", "b", "c"]
QUICK = {"train__n_epochs": 1, "train__windows_per_epoch": 16}


def write_cycle(made, cycle, height=3.0, seed=0):
    """Scores of a cycle as stage 3 leaves them: higher where something calls, by `height`."""
    run, experiment = made.run, Experiment(made.run)
    rng = np.random.default_rng([seed, cycle])
    names = experiment.dump_ids
    frames = []
    for name in names:
        logit = rng.normal(-1, 1, (3, 30))
        for label, onset, offset in made.calls[name]:
            logit[label, round(onset / 0.2) : round(offset / 0.2)] += height
        frames.append(logit.astype(np.float32))
    scores = Scores(names, LABELS, frames, np.stack([f.mean(axis=1) for f in frames]), 0.2, -0.05)
    used = np.eye(3, dtype=bool)[[experiment.fold_of[name] for name in names]]
    run.cycle(cycle).mkdir(parents=True, exist_ok=True)
    for kind, part, extra in (
        ("oof", scores, {"used": used}),
        ("test", scores.take(experiment.ids("test")), {}),
    ):
        clip = np.stack([one.max(axis=1) for one in part.frames])
        save_scores(run.cycle(cycle) / f"{kind}.npz", part, clip, True, **extra)
    write_json(run.cycle(cycle) / "merge.done.json", {})
    for fold in experiment.folds:
        experiment.write_seen(cycle, fold)
    return scores


def soft_toy(toy, **changes):
    other = {key: changes.pop(key) for key in list(changes) if "__" in key}
    return toy(**QUICK, **other, **{"relabel": {"kind": "soft", **changes}})


# ------------------------------------------------------------------------------- what is written


def test_labels_are_probabilities_raised_to_the_power(toy):
    made = soft_toy(toy, power=[1.5], weight=0.4, subsets=["train", "unlabelled"])
    scores = write_cycle(made, 0)
    (made.run.cycle(1)).mkdir()
    stale = made.run.cycle(1) / "pseudo_events.csv"
    stale.write_text("of the other kind\n")
    relabel(made.run, 1)
    assert not stale.exists()
    soft = load_soft_labels(made.run.cycle(1) / "soft_labels.npz")
    names = Experiment(made.run).ids("train", "unlabelled")
    assert soft.recording_ids == names
    assert soft.weight == 0.4
    expected = {label: [0.0, 0.0] for label in LABELS}
    for name in names:
        row = scores.recording_ids.index(name)
        for column, label in enumerate(LABELS):
            plain = [1 / (1 + np.exp(-float(z))) for z in scores.frames[row][column]]
            powered = [p * np.sqrt(p) for p in plain]
            np.testing.assert_allclose(soft.of(name)[column], powered, atol=1e-3)
            expected[label][0] += sum(powered)
            expected[label][1] += max(powered)
    summary = pd.read_csv(made.run.cycle(1) / "pseudo_summary.csv").set_index("label")
    for label, (cells, recordings) in expected.items():
        assert summary.loc[label, "cells"] == pytest.approx(cells, rel=2e-3)
        assert summary.loc[label, "recordings"] == pytest.approx(recordings, rel=2e-3)
        assert summary.loc[label, "seconds"] == pytest.approx(cells * 0.2, rel=2e-3)
    table = pd.read_csv(made.run.cycle(1) / "soft_recordings.csv")
    assert table["recording_id"].tolist() == names


def test_the_prior_comes_before_the_power(toy, tmp_path):
    made = toy(
        **QUICK,
        relabel={"kind": "soft", "use_prior": True, "power": 2.0},
        prior={"method": "given", "given": "prior.csv"},
    )
    table = pd.DataFrame({"label": LABELS, "prevalence": [0.1, 0.5, 0.9]})
    table.to_csv(made.run.datadir / "prior.csv", index=False)
    scores = write_cycle(made, 0)
    relabel(made.run, 1)
    soft = load_soft_labels(made.run.cycle(1) / "soft_labels.npz")
    shift = corrected_test(Experiment(made.run), 0)[2].shift
    assert np.abs(shift).max() > 0.1
    row = scores.recording_ids.index("r04")
    expected = expit(scores.frames[row] + shift[:, None]) ** 2
    np.testing.assert_allclose(soft.of("r04"), expected, atol=1e-3)


def test_a_score_of_a_model_that_saw_the_group_makes_no_label(toy):
    made = soft_toy(toy)
    write_cycle(made, 0)
    path = made.run.cycle(0) / "oof.npz"
    with np.load(path) as stored:
        members = {name: stored[name] for name in stored.files}
    row = members["recording_id"].tolist().index("r04")
    members["used"][row] = ~members["used"][row]
    np.savez(path, **members)
    with pytest.raises(CanopyError, match=r"recording r04.*trained on its group g1"):
        relabel(made.run, 1)
    assert not (made.run.cycle(1) / "soft_labels.npz").exists()


def test_scores_that_are_no_numbers_make_no_label(toy):
    made = soft_toy(toy)
    scores = write_cycle(made, 0)
    scores.frames[3][1, 5] = np.nan
    with pytest.raises(CanopyError, match=r"recording r03 has a score for b that is no number"):
        write_labels(Experiment(made.run), 1, scores)


def test_who_learns_from_soft_labels(toy):
    """Recordings that have them, never the fold's own; test and unlabelled ones where asked."""
    made = soft_toy(toy, subsets=["train", "test", "unlabelled"])
    write_cycle(made, 0)
    relabel(made.run, 1)
    experiment = Experiment(made.run)
    for fold in experiment.folds:
        names = set(experiment.training_ids(1, fold))
        assert names == {n for n in experiment.dump_ids if experiment.fold_of[n] != fold}
        data = experiment.task.fold_data(experiment, 1, fold)
        assert set(data.training_set.recording_ids) == names
        assert not set(data.held_out) & names
        unlabelled = np.array(data.training_set.recording_ids)[data.training_set.unlabelled]
        assert {name[0] for name in unlabelled} == {"t", "u"}
        assert data.training_set.pseudo is not None
        assert experiment.task.fold_data(experiment, 0, fold).training_set.soft is None


@pytest.mark.parametrize("annotation", ["partial", "complete"])
def test_edges_of_calls_are_not_pulled_to_absence(toy, annotation):
    """All else is known by soft labels, or by complete annotation: they alone would be pulled."""
    made = soft_toy(toy, loss__unknown_weight=0.3, data__annotation=annotation)
    write_cycle(made, 0)
    relabel(made.run, 1)
    experiment = Experiment(made.run)
    for cycle, pulled in ((0, annotation == "partial"), (1, False)):
        data = experiment.task.fold_data(experiment, cycle, 0)
        objective = data.create_objective(data.create_model())
        output = SedOutput(
            torch.zeros(1, 3, 10, requires_grad=True), torch.zeros(1, 3), None, torch.zeros(1, 4)
        )
        mask = torch.ones(1, 3, 10)
        mask[0, 1, 4] = 0
        batch = Batch(
            torch.zeros(1), *(torch.zeros(1, 3), mask[..., 0]), torch.zeros_like(mask), mask
        )
        objective(output, batch)["total"].backward()
        assert (output.frame_logit.grad[0, 1, 4] != 0) == pulled
        assert output.frame_logit.grad[0, 1, 3] != 0


@pytest.mark.slow
def test_cycles_of_soft_labels_leak_nothing(toy):
    """What scores a recording never learned from its group, nor from labels of its group."""
    made = toy(**QUICK, relabel={"kind": "soft", "subsets": ["train", "test"], "n_cycles": 2})
    experiment = Experiment(made.run)
    for cycle in range(3):
        if cycle > 0:
            relabel(made.run, cycle)
        seen = {}
        for fold in experiment.folds:
            train_fold(made.run, cycle, fold)
            infer_fold(made.run, cycle, fold)
            learned = experiment.task.fold_data(experiment, cycle, fold).training_set
            seen[fold] = {experiment.groups[name] for name in learned.recording_ids}
        merge(experiment, cycle, experiment.folds)
        oof, members = load_scores(made.run.cycle(cycle) / "oof.npz")
        for row, name in enumerate(oof.recording_ids):
            innocent = [k for k in experiment.folds if experiment.groups[name] not in seen[k]]
            assert np.flatnonzero(members["used"][row]).tolist() == innocent
    submit(made.run, lambda *_: [])


# --------------------------------------------------------------------------- when they are over


def values_of(made, **more):
    given = dict(zip(made.options[::2], made.options[1::2], strict=True))
    values = {name.removeprefix("--"): value for name, value in given.items()}
    return values | {"set": [], "force": False, "folds": "", "stage": 0, "stop-stage": 5} | more


def three_cycles(toy, heights, **changes):
    """The toy with made-up scores of cycles whose calls stand out so much, asked for four."""
    made = soft_toy(toy, n_cycles=3, **changes)
    for cycle, height in enumerate(heights):
        if cycle > 0:
            relabel(made.run, cycle)
        write_cycle(made, cycle, height)
    return made


def test_cycles_end_when_evidence_falls_and_the_best_is_handed_in(toy, script, capsys):
    made = three_cycles(toy, [2.0, 0.1])
    experiment = Experiment(made.run)
    relabel(made.run, 2)
    why = read_json(made.run.cycle(2) / "ended.json")["reason"]
    assert why.startswith("out-of-fold span AUC fell from ")
    assert "in cycle 0 to" in why
    assert not (made.run.cycle(2) / "soft_labels.npz").exists()
    assert experiment.ended(1) == ""
    assert experiment.ended(2) == experiment.ended(3) == why
    # Whatever follows has nothing to do, alone or in a run, and ends well.
    relabel(made.run, 3)
    assert not made.run.cycle(3).exists()
    for name in ("sed_train", "sed_infer"):
        for more in ([], ["--worker", "--folds", "0"]):
            for cycle in ("2", "3"):
                assert script(name).main([*made.options, "--cycle", cycle, *more]) == 0
    assert not list(made.run.exp.glob("cycle[23]/fold*"))
    completion = Completion(values_of(made))
    for part in ("relabel", "train", "infer"):
        for cycle in (2, 3):
            assert completion.is_done(Work(STAGES[4], PARTS[part], cycle))
    assert f"no cycle 2: {why}" in capsys.readouterr().err
    # Stage 5 goes by the evidence.
    assert experiment.cycles_done() == [0, 1]
    submit(made.run, lambda *_: [])
    results = read_json(made.run.exp / "results.json")["submitted"]
    assert (results["cycle"], results["evidence"]) == (0, "span AUC")
    assert results["by_cycle"][0] > results["by_cycle"][1] + 0.01
    line = results["words"]
    assert line in capsys.readouterr().out
    assert line.startswith("submitted: cycle 0, the best by out-of-fold span AUC: ")
    assert line.endswith(f"; no further cycle, as {why}")
    _, members = load_scores(made.run.cycle(0) / "test.npz")
    handed_in = pd.read_csv(made.run.exp / "submission.csv").set_index("recording_id")
    order = handed_in.loc[members["recording_id"], LABELS].to_numpy()
    np.testing.assert_allclose(order, expit(members["clip_logit"].astype(float)), atol=1e-6)


def test_jobs_that_had_nothing_to_do_are_done(tmp_path):
    """A task of a cycle that was not made leaves none of its files, and is not handed in again."""
    home = Home(tmp_path / "cluster")
    task = Task("fold0", [["bin/sed_train.py", "--cycle", "2"]], [str(tmp_path / "best.pt")])
    job, context = Job("train-cycle2", "train", [task], []), {"dump": "", "conf": "x"}
    assert not is_done(home, job, task, context)
    state = {"print": task_print(task, context), "left": left_of(task, context)}
    write_json(home.task_file(job.name, task.name), {"status": "done", **state})
    assert is_done(home, job, task, context)


def test_a_later_cycle_that_is_better_is_handed_in(toy):
    made = three_cycles(toy, [0.5, 2.5, 2.4], max_fall=0.2)
    relabel(made.run, 3)
    assert (made.run.cycle(3) / "soft_labels.npz").exists()
    submit(made.run, lambda *_: [])
    results = read_json(made.run.exp / "results.json")["submitted"]
    values = results["by_cycle"]
    assert results["cycle"] == int(np.argmax(values))
    assert results["cycle"] > 0
    assert results["ended"] is None


def test_another_limit_is_another_decision(toy):
    """What was ended goes on when the setting allows it; what was made is left when it does not."""
    made = three_cycles(toy, [2.0, 0.1])
    relabel(made.run, 2)
    stamp = (made.run.cycle(2) / "relabel.done.json").read_bytes()
    relabel(made.run, 2)
    assert (made.run.cycle(2) / "relabel.done.json").read_bytes() == stamp
    free = toy(**QUICK, relabel={"kind": "soft", "n_cycles": 3, "max_fall": None})
    relabel(free.run, 2)
    assert not (free.run.cycle(2) / "ended.json").exists()
    assert (free.run.cycle(2) / "soft_labels.npz").exists()
    write_cycle(free, 2, 2.0)
    assert Experiment(free.run).cycles_done() == [0, 1, 2]
    again = soft_toy(toy, n_cycles=3)
    relabel(again.run, 2)
    assert Experiment(again.run).cycles_done() == [0, 1]


def test_where_nothing_was_rejected_the_metric_decides(toy):
    made = three_cycles(toy, [2.0, 0.1])
    path = made.run.tables / "events.csv"
    events = pd.read_csv(path)
    events[events["polarity"] > 0].to_csv(path, index=False)
    submit(made.run, lambda *_: [])
    assert read_json(made.run.exp / "results.json")["submitted"]["evidence"] == (
        "LWLRAP on known labels"
    )


# ----------------------------------------------------------------------------------- resuming


@pytest.mark.slow
def test_a_soft_cycle_that_was_killed_ends_as_one_that_was_not(toy, tmp_path, processes):  # noqa: F811
    made = toy(
        train__n_epochs=3,
        train__validate_every=2,
        train__windows_per_epoch=80,
        train__save_minutes=0.0,
        features__stretches=[0.9],
        window__p_stretched=0.4,
        augment={"mixup_alpha": 0.5, "shift_s": 0.4, "gain_db": 6.0},
        relabel={
            **{"kind": "soft", "start": "scratch", "pseudo_mixup": 0.5},
            "subsets": ["train", "unlabelled"],
        },
        augment__mixup_target="soft",
    )
    write_cycle(made, 0)
    relabel(made.run, 1)
    log = tmp_path / "log"

    def run(**death):
        options = [*made.options, "--worker", "--folds", "0", "--cycle", "1"]
        return processes(options=options, log=str(log), **death)

    run.folder, run.log = made.run.fold(1, 0), log
    assert run() == 0, log.read_text()
    kept = contents(run.folder)
    begin_anew(run.folder)
    rng = random.Random(1)
    for at in (rng.randint(2, 5), rng.randint(2, 5)):
        assert run(signal=int(signal.SIGKILL), place="step", at=at) == -signal.SIGKILL
    place = load_checkpoint(run.folder / "step.pt")["progress"]
    assert place["step"] > 0
    assert run() == 0, log.read_text()
    same(run, kept)
    assert json.loads((run.folder / "train.done.json").read_text())["inputs"].keys() >= {
        "cycle/soft_labels.npz"
    }
