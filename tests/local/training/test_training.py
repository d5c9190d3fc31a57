"""The training loop of a fold, on the toy experiment."""

import copy
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import local.tasks.detection_fold
from local.inference.score_recordings import score_recordings
from local.inference.scores import clip_logits
from local.io.errors import CanopyError
from local.models import SedModel
from local.models.checkpoint import load_checkpoint, load_model
from local.stages.experiment import Experiment
from local.tasks.detection_fold import DetectionFold
from local.training.epoch_plan import make_training_set
from local.training.fold_loop import Trainer
from local.training.progress import Progress


def task_of(toy, folder, fold=0):
    """The task of a fold as stage 2 makes it."""
    experiment = Experiment(toy.run)
    names = experiment.training_ids(0, fold)
    folder.mkdir(parents=True, exist_ok=True)
    return DetectionFold(
        name=f"cycle0/fold{fold}",
        training_set=make_training_set(
            experiment.tables, experiment.tables.events, names, experiment.dump
        ),
        held_out=experiment.held_out_ids(fold),
        events=experiment.tables.events,
        labels=experiment.tables.labels,
        dump=experiment.dump,
        folder=folder,
        device="cpu",
    )


def train(toy, folder, fold=0, initial=None):
    trainer = Trainer(task_of(toy, folder, fold), toy.run.config, initial)
    trainer.run()
    return trainer


def batches_of(trainer, epoch=0):
    """The batches of an epoch, each with what its examples are."""
    for tensors, described in trainer._batches(epoch):
        yield trainer.fold_data.make_batch(tensors, trainer.random.augment), described


class PlugPulledError(Exception):
    """Somebody pulls the plug."""


def stop_after(monkeypatch, epoch):
    """Training dies in the middle of the epoch after `epoch`."""
    step, before = Trainer._step, {"n": 0}

    def dying(self, batch, rows):
        if self.progress.epoch == epoch:
            before["n"] += 1
            if before["n"] == 3:
                raise PlugPulledError
        return step(self, batch, rows)

    monkeypatch.setattr(Trainer, "_step", dying)


def poison(monkeypatch, which, what):
    """Let `what` spoil the batches of the steps `which` (counted from 0)."""
    step, count = Trainer._step, {"n": -1}

    def poisoned(self, batch, rows):
        count["n"] += 1
        if count["n"] in which:
            what(batch)
        return step(self, batch, rows)

    monkeypatch.setattr(Trainer, "_step", poisoned)


def test_a_fold_learns_planted_calls(toy, tmp_path):
    toy = toy(train__n_epochs=8, loss__frame_weight=1.0, train__validate_every=8)
    trainer = train(toy, tmp_path / "fold")
    log = pd.read_csv(tmp_path / "fold" / "log.csv")
    assert log["epoch"].tolist() == list(range(1, 9))
    assert log["loss_total"].iloc[-1] < 0.7 * log["loss_total"].iloc[0]
    np.testing.assert_allclose(log["loss_total"], log["loss_clip"] + log["loss_frame"], rtol=1e-5)
    assert log["valid_span_auc"].iloc[-1] > 0.9
    assert log["valid"].isna().sum() == 7
    model = load_model(tmp_path / "fold" / "best.pt", ["a", "b", "c"])
    assert not model.training
    # The average weights are what is kept and used.
    averaged = trainer.ema.module.state_dict()
    assert all(torch.equal(value, averaged[key]) for key, value in model.state_dict().items())
    assert any(
        not torch.equal(value, averaged[key]) for key, value in trainer.model.state_dict().items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("select", ["none", "best"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stopped_run_goes_on_as_if_it_had_not(toy, tmp_path, monkeypatch, select, epoch):
    toy = toy(
        train__select=select,
        augment={"gain_db": 6, "freq_masks": 1, "mixup_alpha": 0.5, "noise_std": 0.1},
    )
    train(toy, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        stop_after(patch, epoch)
        with pytest.raises(PlugPulledError):
            train(toy, tmp_path / "broken")
    assert load_checkpoint(tmp_path / "broken" / "last.pt")["progress"]["epoch"] == epoch
    torch.rand(7)  # whatever else happened to the generators
    train(toy, tmp_path / "broken")
    whole, resumed = (tmp_path / name / "best.pt" for name in ("unbroken", "broken"))
    assert whole.read_bytes() == resumed.read_bytes()
    whole, resumed = (tmp_path / name / "log.csv" for name in ("unbroken", "broken"))
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.slow
def test_a_damaged_last_checkpoint_costs_an_epoch_not_the_run(toy, tmp_path, monkeypatch):
    toy = toy()
    train(toy, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(PlugPulledError):
            train(toy, tmp_path / "broken")
    last = tmp_path / "broken" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    train(toy, tmp_path / "broken")
    whole, resumed = (tmp_path / name / "best.pt" for name in ("unbroken", "broken"))
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.slow
def test_folds_do_not_touch_each_other(toy, tmp_path):
    """Pins defect 1 of earlier systems: one fold changed the settings of those after it."""
    # What fold 1 becomes does not depend on whether fold 0 was trained before it.
    toy = toy(augment={"mixup_alpha": 0.5})
    before = copy.deepcopy(toy.run.config.model_dump())
    train(toy, tmp_path / "alone", fold=1)
    train(toy, tmp_path / "first", fold=0)
    train(toy, tmp_path / "after", fold=1)
    assert toy.run.config.model_dump() == before
    alone, after = (tmp_path / name / "best.pt" for name in ("alone", "after"))
    assert alone.read_bytes() == after.read_bytes()
    assert alone.read_bytes() != (tmp_path / "first" / "best.pt").read_bytes()


@pytest.mark.parametrize("params", [{}, {"gru": 4, "activity": True, "level_norm": True}])
def test_every_parameter_is_optimised_once(toy, tmp_path, params):
    model = {"channels": [4], "pool": [[2, 2]], "gru": 0, **params}
    toy = toy(model={"name": "crnn", "params": model})
    trainer = Trainer(task_of(toy, tmp_path), toy.run.config)
    grouped = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in trainer.model.parameters()}
    assert all(group["params"] for group in trainer.optimizer.param_groups)
    plain = next(g for g in trainer.optimizer.param_groups if g["weight_decay"] == 0)
    assert all(p.ndim <= 1 for p in plain["params"])


def test_warm_up_and_cosine(toy, tmp_path):
    toy = toy(train__warmup_share=0.25)
    trainer = Trainer(task_of(toy, tmp_path), toy.run.config)
    factors = [trainer._lr_factor(step) for step in range(17)]  # 4 epochs of 4 steps
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    expected = [0.5 * (1 + math.cos(math.pi * k / 12)) for k in range(13)]
    np.testing.assert_allclose(factors[4:], expected)
    assert factors[16] == pytest.approx(0, abs=1e-12)


# ----------------------------------------------------------------------------- non-finite losses


def nan_input(batch):
    batch.x[0, 0, 0, 0] = float("nan")


def nan_target(batch):
    batch.clip_mask[:] = 1
    batch.clip_target[:] = float("nan")


@pytest.mark.parametrize("what", [nan_input, nan_target])
def test_a_bad_step_is_skipped_and_leaves_no_trace(toy, tmp_path, monkeypatch, what):
    """Pins defect 10 of earlier systems: a loss that was NaN was skipped without a word."""
    # The first step as well: then nothing has been averaged yet.
    toy = toy()
    poison(monkeypatch, {0, 5}, what)
    trainer = train(toy, tmp_path)
    assert trainer.progress.bad_steps == 2
    for value in (*trainer.model.state_dict().values(), *trainer.ema.state_dict().values()):
        assert torch.isfinite(value).all()
    log = pd.read_csv(tmp_path / "log.csv")
    assert np.isfinite(log["loss_total"]).all()
    assert np.isfinite(log["valid"].iloc[-1])


def test_a_gradient_that_is_not_finite_is_a_bad_step_too(toy, tmp_path, monkeypatch):
    toy = toy()
    trainer = Trainer(task_of(toy, tmp_path), toy.run.config)
    next(trainer.model.parameters()).register_hook(lambda grad: grad * float("inf"))
    before = copy.deepcopy([p.detach() for p in trainer.model.parameters()])
    batch, rows = next(batches_of(trainer))
    assert trainer._step(batch, rows) is None
    after = trainer.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_too_many_bad_steps_stop_with_the_recordings(toy, tmp_path, monkeypatch):
    """Pins defect 10 of earlier systems: a loss that was NaN was skipped without a word."""
    toy = toy(train__max_bad_steps=2, train__batch_size=4)
    poison(monkeypatch, range(3, 99), nan_input)
    with pytest.raises(CanopyError, match=r"3 steps were not finite.*max_bad_steps 2") as fault:
        train(toy, tmp_path)
    trained = set(Experiment(toy.run).training_ids(0, 0))
    named = {name for name in trained if name in str(fault.value)}
    assert 1 <= len(named) <= 4
    assert not (tmp_path / "best.pt").exists()


@pytest.mark.slow
def test_the_step_that_stops_a_run_is_written_down(toy, tmp_path, monkeypatch):
    toy = toy(train__max_bad_steps=1, train__accumulate=2, train__batch_size=4)
    poison(monkeypatch, {3, 21}, nan_input)  # the sixth batch of the second epoch, of 16
    with pytest.raises(CanopyError, match=r"listed in .*bad_batch\.json.*bad_state\.pt beside it"):
        train(toy, tmp_path)
    record = json.loads((tmp_path / "bad_batch.json").read_text())
    found = {key: record[key] for key in ("epoch", "optimizer_step", "bad_steps")}
    assert found == {"epoch": 2, "optimizer_step": 10, "bad_steps": 2}
    assert "total" in record["not_finite"]
    assert record["loss"]["total"] is None
    # The windows are those of the plan, in its order.
    trainer = Trainer(task_of(toy, tmp_path / "other"), toy.run.config)
    examples = trainer.fold_data.examples(trainer.model, 1)
    expected = [{"batch": 5, **examples.describe(item)} for item in range(20, 24)]
    assert record["windows"] == expected
    state = load_checkpoint(tmp_path / "bad_state.pt")
    assert all(torch.isfinite(value).all() for value in state["weights"].values())
    # The same command comes to the same end, as long as nothing is mended; then the files go.
    with monkeypatch.context() as patch:
        poison(patch, range(99), nan_input)
        with pytest.raises(CanopyError, match="bad_batch"):
            train(toy, tmp_path)
    monkeypatch.undo()
    train(toy, tmp_path)
    assert not list(tmp_path.glob("bad_*"))
    assert pd.read_csv(tmp_path / "log.csv")["skipped_steps"].tolist() == [1, 0, 0, 0]


def test_a_gradient_that_no_scale_mends_is_a_bad_step(toy, tmp_path):
    """The scaler of half precision skips steps for its own sake; not for ever."""
    toy = toy(train__max_bad_steps=1)
    trainer = Trainer(task_of(toy, tmp_path), toy.run.config)
    trainer.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=4.0)
    next(trainer.model.parameters()).register_hook(lambda grad: grad * float("inf"))
    batches = list(batches_of(trainer))
    made = [trainer._step(*pair) is not None for pair in batches[:3]]
    assert made == [True, True, False]  # at scales of 4, 2 and 1
    assert trainer.progress.skipped == 3
    with pytest.raises(CanopyError, match="2 steps were not finite"):
        trainer._step(*batches[3])


# ------------------------------------------------------------------------------------- selection


@pytest.mark.slow
@pytest.mark.parametrize(("select", "epoch"), [("none", 4), ("best", 2)])
def test_the_score_that_selects_is_the_sliding_inference(toy, tmp_path, monkeypatch, select, epoch):
    """Pins defect 25 of earlier systems: the true mask was used to choose the checkpoint.
    Pins defect 29 of earlier systems: crops that differed every epoch chose the checkpoint.
    """
    # Whole held-out recordings, by the function of stage 3, every time the same.
    calls = []

    def scored(model, dump, names, labels, device, shard):
        calls.append((names, model.training))
        return score_recordings(model, dump, names, labels, device, shard=shard)

    values = iter([0.9, 0.4])  # after epochs 2 and 4
    place = local.tasks.detection_fold
    known = place.score_known
    monkeypatch.setattr(place, "score_recordings", scored)
    monkeypatch.setattr(place, "score_known", lambda *a: {**known(*a), "value": next(values)})
    toy = toy(train__select=select)
    train(toy, tmp_path)
    held_out = Experiment(toy.run).held_out_ids(0)
    assert calls == [(held_out, False)] * 2
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == epoch
    assert pd.read_csv(tmp_path / "log.csv")["valid"].dropna().tolist() == [0.9, 0.4]


def test_the_logged_score_is_that_of_the_kept_model(toy, tmp_path):
    from local.scoring.known_labels import score_known

    toy = toy()
    train(toy, tmp_path)
    experiment = Experiment(toy.run)
    model = load_model(tmp_path / "best.pt", ["a", "b", "c"])
    names = experiment.held_out_ids(0)
    scores = score_recordings(model, experiment.dump, names, ["a", "b", "c"], "cpu")
    clip = clip_logits(scores, toy.run.config.inference.pool)
    known = score_known(scores, clip, experiment.tables.events, toy.run.config)
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["valid"].iloc[-1] == pytest.approx(known["value"])
    assert log["valid_span_auc"].iloc[-1] == pytest.approx(known["span_auc"])


def test_events_are_measured_at_validation_where_annotation_is_complete(toy, tmp_path):
    toy = toy(
        data__annotation="complete", events__tune=True, train__n_epochs=4, train__validate_every=2
    )
    train(toy, tmp_path)
    log = pd.read_csv(tmp_path / "log.csv")
    for name in ("event_f1", "collar_f1", "segment_f1", "ap", "false_alarms_per_hour"):
        assert log[f"valid_{name}"].notna().tolist() == [False, True, False, True]


def test_selection_without_a_score_is_told(toy, tmp_path, monkeypatch):
    toy = toy(train__select="best")
    fold_data = task_of(toy, tmp_path)
    object.__setattr__(fold_data, "events", fold_data.events.iloc[:0])
    with pytest.raises(CanopyError, match=r"train\.select is best.*set train\.select to none"):
        Trainer(fold_data, toy.run.config).run()


# -------------------------------------------------------------------------------- where it starts


def test_given_weights_are_where_training_starts(toy, tmp_path):
    toy = toy()
    first = train(toy, tmp_path / "one")
    initial = load_checkpoint(tmp_path / "one" / "best.pt")["model"]
    second = Trainer(task_of(toy, tmp_path / "two"), toy.run.config, initial)
    averaged = first.ema.module.state_dict()
    for state in (second.model.state_dict(), second.ema.module.state_dict()):
        assert all(torch.equal(value, averaged[key]) for key, value in state.items())


@pytest.mark.slow
def test_a_start_stays_as_it_is_and_epochs_count_anew(toy, tmp_path):
    """A second phase trains its own epochs, in a folder of its own.

    Pins defect 8 of earlier systems: a second phase overwrote the best of the first one.
    """
    toy = toy()
    train(toy, tmp_path / "one")
    start = (tmp_path / "one" / "best.pt").read_bytes()
    initial = load_checkpoint(tmp_path / "one" / "best.pt")["model"]
    trainer = train(toy, tmp_path / "two", initial=initial)
    assert (tmp_path / "one" / "best.pt").read_bytes() == start
    for folder in ("one", "two"):
        assert pd.read_csv(tmp_path / folder / "log.csv")["epoch"].tolist() == [1, 2, 3, 4]
    assert trainer.scheduler.last_epoch == 4 * trainer.steps_per_epoch


def test_no_graph_outlives_its_step(toy, tmp_path, monkeypatch):
    """An epoch keeps numbers, and whole recordings are scored without a graph.

    Pins defect 9 of earlier systems: the predictions of an epoch were kept with their graph.
    """
    graphs, forward = [], SedModel.forward

    def spied(self, x, mix=None):
        graphs.append((self.training, torch.is_inference_mode_enabled()))
        return forward(self, x, mix)

    monkeypatch.setattr(SedModel, "forward", spied)
    kept, add = [], Progress.add

    def noted(self, parts):
        add(self, parts)
        kept.extend(self.sums.values())

    monkeypatch.setattr(Progress, "add", noted)
    train(toy(train__n_epochs=2), tmp_path / "fold")
    assert {(True, False), (False, True)} == set(graphs)
    assert kept
    assert all(type(value) is float for value in kept)


@pytest.mark.slow
def test_weights_of_another_model_are_one_sentence(toy, tmp_path):
    toy = toy()
    train(toy, tmp_path / "one")
    initial = load_checkpoint(tmp_path / "one" / "best.pt")["model"]
    key = next(name for name in initial if name.endswith("weight"))
    with pytest.raises(CanopyError, match="weights of cycle 0"):
        Trainer(task_of(toy, tmp_path), toy.run.config, {**initial, key: torch.zeros(99)})
    del initial[key]
    with pytest.raises(CanopyError, match=f"has no weights for {key}"):
        Trainer(task_of(toy, tmp_path), toy.run.config, initial)


# ------------------------------------------------------------------- what is learned, and how

CENTRES = {"loss": {"centre_weight": 1e-3, "activity_weight": 0.5, "activity_unknown": "absent"}}
WITH_ACTIVITY = {
    "name": "crnn",
    "params": {"channels": [4], "pool": [[2, 2]], "depth": 1, "gru": 0, "activity": True},
}


def test_centres_are_optimised_move_and_are_kept(toy, tmp_path):
    """Pins defect 4 of earlier systems: the centres of the centre loss were never trained."""
    toy = toy(model=WITH_ACTIVITY, train__n_epochs=2, **CENTRES)
    trainer = Trainer(task_of(toy, tmp_path), toy.run.config)
    grouped = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    own = [*trainer.model.parameters(), *trainer.objective.parameters()]
    assert len(list(trainer.objective.parameters())) == 1
    assert len(grouped) == len(own)
    assert {id(p) for p in grouped} == {id(p) for p in own}
    before = trainer.objective.centres.detach().clone()
    trainer.run()
    after = trainer.objective.centres.detach()
    assert (before != after).any(dim=1).all()
    kept = load_checkpoint(tmp_path / "last.pt")["objective"]["centres"]
    assert torch.equal(kept, after)
    assert not any("centres" in key for key in load_checkpoint(tmp_path / "best.pt")["model"])
    log = pd.read_csv(tmp_path / "log.csv")
    parts = ["loss_clip", "loss_frame", "loss_activity", "loss_centre"]
    assert (log[parts] > 0).all(axis=None)
    np.testing.assert_allclose(log["loss_total"], log[parts].sum(axis=1), rtol=1e-5)


def test_every_part_goes_to_tensorboard(toy, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loss = {**CENTRES["loss"], "lsep_weight": 0.1, "unknown_weight": 0.3}
    toy = toy(model=WITH_ACTIVITY, loss=loss, train__n_epochs=2)
    train(toy, tmp_path)
    log = pd.read_csv(tmp_path / "log.csv")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    parts = [
        "clip",
        "clip_unknown",
        "frame",
        "frame_unknown",
        "lsep",
        "activity",
        "centre",
        "total",
    ]
    assert [column for column in log if column.startswith("loss_")] == [f"loss_{p}" for p in parts]
    for part in parts:
        values = [event.value for event in events.Scalars(f"loss_{part}")]
        np.testing.assert_allclose(values, log[f"loss_{part}"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "train_options",
    [
        {"accumulate": 3},
        {"optimizer": "sgd", "schedule": "noam", "lr_head": 0.05},
        {"optimizer": "adam", "schedule": "step", "step_epochs": 0.5, "accumulate": 2},
    ],
)
def test_a_stopped_run_with_centres_and_other_optimisers_goes_on(
    toy, tmp_path, monkeypatch, train_options
):
    """Pins defect 4 of earlier systems: the centres of the centre loss were never trained."""
    options = {f"train__{key}": value for key, value in train_options.items()}
    toy = toy(model=WITH_ACTIVITY, **CENTRES, **options)
    whole = train(toy, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(PlugPulledError):
            train(toy, tmp_path / "broken")
    resumed = train(toy, tmp_path / "broken")
    assert torch.equal(whole.objective.centres, resumed.objective.centres)
    first, second = (tmp_path / name / "best.pt" for name in ("unbroken", "broken"))
    assert first.read_bytes() == second.read_bytes()
    whole, resumed = (tmp_path / name / "log.csv" for name in ("unbroken", "broken"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_what_a_loss_needs_is_told_before_training(toy, tmp_path):
    made = toy(loss={"activity_weight": 0.5})
    with pytest.raises(CanopyError, match=r"loss\.activity_weight.*model\.params\.activity"):
        Trainer(task_of(made, tmp_path), made.run.config)
    made = toy(loss={"positive_weight": {"d": 2.0}})
    with pytest.raises(CanopyError, match=r"loss\.positive_weight names the class 'd'"):
        Trainer(task_of(made, tmp_path), made.run.config)
    assert not (tmp_path / "last.pt").exists()


def test_the_probe_leaves_no_trace(toy, tmp_path):
    """A model that was asked for its outputs trains as one that was not."""
    states = []
    for weight in (0.0, 1e-3):
        made = toy(model__params={"channels": [4], "pool": [[2, 2]]}, loss__centre_weight=weight)
        trainer = Trainer(task_of(made, tmp_path), made.run.config)
        assert trainer.model.training
        states.append((trainer.model.state_dict(), torch.get_rng_state()))
    (first, random), (second, other_random) = states
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert torch.equal(random, other_random)


# -------------------------------------------------------------------------------- accumulation


def count_updates(trainer):
    """Let every optimiser step note the gradients it was made with."""
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.append([p.grad.clone() for p in trainer.model.parameters()])
    )
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 4), (2, 2), (3, 2), (4, 1), (9, 1)])
def test_steps_are_made_every_k_batches_and_for_the_rest(toy, tmp_path, accumulate, steps):
    """Pins defect 6 of earlier systems: accumulation dropped the last batches of an epoch."""
    # 64 windows in batches of 16.
    toy = toy(train__accumulate=accumulate)
    trainer = Trainer(task_of(toy, tmp_path), toy.run.config)
    assert trainer.steps_per_epoch == steps
    updates = count_updates(trainer)
    trainer._train_epoch(0)
    assert len(updates) == steps
    assert trainer.scheduler.last_epoch == steps


@pytest.mark.parametrize("spoiled", [None, 1])
def test_the_gradient_is_the_mean_over_the_batches_that_there_were(toy, tmp_path, spoiled):
    """Three and a rest of one; then with a batch that is not finite among the three.

    Pins defect 6 of earlier systems: accumulation dropped the last batches of an epoch.
    """
    made = toy(train__accumulate=3, train__grad_clip=1e9, train__lr=1e-30, loss__frame_weight=0.0)
    trainer = Trainer(task_of(made, tmp_path), made.run.config)
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
    plain = copy.deepcopy(trainer.model)
    updates = count_updates(trainer)
    alone = []
    trainer.model.train()
    for number, (batch, rows) in enumerate(batches_of(trainer)):
        plain.train().zero_grad()
        state = torch.get_rng_state()
        trainer.objective(plain(batch.x), batch)["total"].backward()
        alone.append([p.grad.clone() for p in plain.parameters()])
        torch.set_rng_state(state)  # the same dropout
        if number == spoiled:
            nan_input(batch)
        assert (trainer._step(batch, rows) is None) == (number == spoiled)
    trainer._update()
    first = [number for number in range(3) if number != spoiled]
    for update, numbers in zip(updates, (first, [3]), strict=True):
        expected = [
            sum(grads) / len(numbers) for grads in zip(*(alone[n] for n in numbers), strict=True)
        ]
        for gradient, mean in zip(update, expected, strict=True):
            torch.testing.assert_close(gradient, mean, rtol=1e-4, atol=1e-7)


def test_one_bad_batch_of_several_is_one_bad_step(toy, tmp_path, monkeypatch):
    toy = toy(train__accumulate=2, train__n_epochs=2)
    poison(monkeypatch, {0, 5}, nan_input)
    trainer = train(toy, tmp_path)
    assert trainer.progress.bad_steps == 2
    assert trainer.scheduler.last_epoch == 4
    for value in (*trainer.model.state_dict().values(), *trainer.ema.state_dict().values()):
        assert torch.isfinite(value).all()


def test_a_bad_gradient_of_several_batches_names_the_recordings_of_all(toy, tmp_path, capsys):
    toy = toy(train__accumulate=2, train__batch_size=4)
    trainer = Trainer(task_of(toy, tmp_path), toy.run.config)
    first = next(trainer.model.parameters())
    handle = first.register_hook(lambda grad: grad * float("inf"))
    batches = batches_of(trainer)
    names = []
    for _ in range(2):
        batch, own = next(batches)
        names += [example["recording_id"] for example in own]
        trainer._step(batch, own)
    assert trainer.progress.bad_steps == 1
    assert ", ".join(names) in capsys.readouterr().err
    # The next batches are learned from as if nothing had been.
    handle.remove()
    for _ in range(2):
        assert trainer._step(*next(batches)) is not None
    assert trainer.scheduler.last_epoch == 1


def test_batches_that_are_all_bad_make_no_step(toy, tmp_path):
    toy = toy(train__accumulate=2)
    trainer = Trainer(task_of(toy, tmp_path), toy.run.config)
    updates = count_updates(trainer)
    for batch, rows in batches_of(trainer):
        nan_input(batch)
        assert trainer._step(batch, rows) is None
    assert not trainer._update()
    assert updates == []
