"""Optimiser groups, and the rate over the steps."""

import math

import numpy as np
import pytest
import torch

from local.config import LossConfig, TrainConfig
from local.io.errors import CanopyError
from local.models import SedModel, create_model
from local.training.losses.objective import Objective
from local.training.optimisation import lr_factor, make_optimizer

PARAMS = {"channels": [4, 4], "pool": [[2, 2], [1, 1]], "gru": 4, "activity": True}


def made(loss=None, **train):
    model = create_model("crnn", PARAMS, 3, 8)
    objective = Objective(
        LossConfig(**(loss or {})), ["a", "b", "c"], lambda: model.eval()(torch.zeros(1, 1, 8, 4))
    )
    train, loss = TrainConfig(**train), objective.config
    return model, objective, make_optimizer(model, objective, train, loss)


@pytest.mark.parametrize("loss", [{}, {"centre_weight": 1e-4}])
@pytest.mark.parametrize("lr_head", [None, 0.1])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_every_parameter_is_in_one_group(loss, lr_head, name, kind):
    """Pins defect 4 of earlier systems: the centres of the centre loss were never trained."""
    # What the loss learns is optimised too, and no group is empty.
    model, objective, optimizer = made(loss, optimizer=name, lr_head=lr_head, lr=0.02)
    assert type(optimizer) is kind
    own = {id(p): name for name, p in [*model.named_parameters(), *objective.named_parameters()]}
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(own)
    for group in optimizer.param_groups:
        assert group["params"]
        for parameter in group["params"]:
            name_of = own[id(parameter)]
            in_head = lr_head is not None and name_of.startswith("head.")
            assert group["lr"] == (lr_head if in_head else 0.02), name_of
            decays = parameter.ndim > 1 and name_of != "centres"
            assert group["weight_decay"] == (0.01 if decays else 0.0), name_of


def test_centres_have_a_rate_of_their_own():
    loss = {"centre_weight": 1e-4, "centre_lr": 0.5}
    model, objective, optimizer = made(loss, lr=0.02)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(objective.centres)] == 0.5
    assert {rates[id(p)] for p in model.parameters()} == {0.02}
    with pytest.raises(ValueError, match=r"centre_lr is 0\.5, but centre_weight is 0"):
        LossConfig(centre_lr=0.5)


def test_sgd_has_its_momentum():
    *_, optimizer = made(optimizer="sgd", momentum=0.7)
    assert all(group["momentum"] == 0.7 for group in optimizer.param_groups)


def test_a_rate_for_a_head_that_is_not_there_is_one_sentence():
    model = SedModel()
    model.trunk = torch.nn.Linear(2, 2)
    with pytest.raises(CanopyError, match=r"train\.lr_head is 0\.1, but .*set it to null"):
        make_optimizer(model, torch.nn.Module(), TrainConfig(lr_head=0.1))


def factors(n, **train):
    """Factors of the first n steps with 10 steps an epoch and 4 epochs, so 40 steps."""
    return [lr_factor(step, 10, TrainConfig(n_epochs=4, **train)) for step in range(n)]


@pytest.mark.parametrize("schedule", ["cosine", "step", "noam", "constant"])
def test_warm_up_is_linear_and_ends_at_the_rate(schedule):
    warm = factors(8, schedule=schedule, warmup_share=0.2, step_epochs=4)
    np.testing.assert_allclose(warm, np.arange(1, 9) / 8)


def test_schedules():
    assert factors(41, schedule="constant", warmup_share=0.0) == [1.0] * 41
    cosine = factors(41, warmup_share=0.1)
    expected = [0.5 * (1 + math.cos(math.pi * k / 36)) for k in range(37)]
    np.testing.assert_allclose(cosine[4:], expected)
    noam = factors(40, schedule="noam", warmup_share=0.1)
    # Vaswani et al.: min(s^-1/2, s w^-3/2), here with its greatest value 1.
    s = np.arange(1, 41)
    shape = np.minimum(s**-0.5, s * 4**-1.5)
    np.testing.assert_allclose(noam, shape / shape.max())


@pytest.mark.parametrize(("epochs", "every"), [(1, 10), (0.5, 5), (2.0, 20), (0.3, 3)])
def test_steps_down(epochs, every):
    found = factors(40, schedule="step", step_epochs=epochs, step_factor=0.5, warmup_share=0.0)
    np.testing.assert_allclose(found, [0.5 ** (step // every) for step in range(40)])


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_each_optimiser_learns(name):
    torch.manual_seed(0)
    model, _, optimizer = made(optimizer=name, lr=0.05 if name == "sgd" else 0.01)
    x = torch.randn(8, 1, 8, 4)
    target = (x[:, 0, :3].mean(dim=2) > 0).float()
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(model(x).clip_logit, target)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]
