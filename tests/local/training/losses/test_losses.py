"""The cross-entropy of known cells: what is unknown does not speak, numbers do not shout."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local.config import LossConfig
from local.models import SedOutput
from local.training.augment.batch import Batch
from local.training.losses.objective import Objective
from local.training.losses.per_cell import masked_bce


def plain_bce(logit, target, mask, weight=1.0):
    """sum(w (log(1 + e^z) - z y)) / sum(w) in float64, cell by cell."""
    logit, target, mask = (np.asarray(a, dtype=np.float64) for a in (logit, target, mask))
    weights = mask * weight
    cells = np.logaddexp(0, logit) - logit * target
    return (cells * weights).sum() / weights.sum() if weights.sum() else 0.0


def random_cells(seed, shape=(4, 3, 7)):
    g = torch.Generator().manual_seed(seed)
    logit = 6 * torch.randn(shape, generator=g)
    target = torch.rand(shape, generator=g)
    mask = torch.tensor([0.0, 0.2, 1.0])[torch.randint(3, shape, generator=g)]
    return logit, target, mask


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_against_a_plain_statement(seed):
    cells = random_cells(seed)
    assert float(masked_bce(*cells)) == pytest.approx(plain_bce(*cells), rel=1e-5)
    weight = torch.rand(4, 1, 1, generator=torch.Generator().manual_seed(seed))
    expected = plain_bce(*cells, weight.numpy())
    assert float(masked_bce(*cells, weight)) == pytest.approx(expected, rel=1e-5)


def test_extreme_logits_are_exact():
    logit = torch.tensor([100.0, -100.0, 100.0])
    loss = masked_bce(logit, torch.tensor([1.0, 0.0, 0.0]), torch.ones(3))
    assert float(loss) == pytest.approx(100 / 3, rel=1e-6)


@pytest.mark.parametrize("times", [2, 50])
def test_it_does_not_grow_with_the_number_of_labels(times):
    """Pins defect 7 of earlier systems: the loss grew with the number of labels."""
    logit, target, mask = random_cells(0)
    more = [tensor.repeat(times, 1, 1) for tensor in (logit, target, mask)]
    assert float(masked_bce(*more)) == pytest.approx(
        float(masked_bce(logit, target, mask)), rel=1e-5
    )


def test_unknown_cells_do_not_speak():
    """Neither value nor gradient, whatever stands in them.

    Pins defect 16 of earlier systems: unknown cells counted as absent.
    """
    logit, target, mask = random_cells(1)
    loss = masked_bce(logit, target, mask)
    other = torch.where(mask > 0, logit, logit + 50).requires_grad_()
    changed = masked_bce(other, torch.where(mask > 0, target, 1 - target), mask)
    assert float(changed.detach()) == pytest.approx(float(loss), rel=1e-6)
    changed.backward()
    assert (other.grad[mask == 0] == 0).all()
    assert (other.grad[mask > 0] != 0).any()


def make_output(requires_grad=False, seed=2):
    g = torch.Generator().manual_seed(seed)
    frame = (3 * torch.randn(2, 3, 5, generator=g)).requires_grad_(requires_grad)
    clip = (3 * torch.randn(2, 3, generator=g)).requires_grad_(requires_grad)
    return SedOutput(frame, clip, None, torch.zeros(2, 4))


def total_loss(output, batch, config):
    labels = [str(label) for label in range(output.clip_logit.shape[1])]
    return Objective(config, labels, lambda: output)(output, batch)


def make_batch(mask):
    g = torch.Generator().manual_seed(3)
    clip, frame = (torch.randint(2, s, generator=g).float() for s in ((2, 3), (2, 3, 5)))
    if mask == "some":
        clip_mask, frame_mask = (
            torch.randint(2, s, generator=g).float() for s in ((2, 3), (2, 3, 5))
        )
    else:
        clip_mask, frame_mask = torch.full((2, 3), mask), torch.full((2, 3, 5), mask)
    return Batch(torch.zeros(2, 1, 4, 5), clip, clip_mask, frame, frame_mask)


def test_a_batch_that_knows_nothing_gives_zero_and_a_finite_gradient():
    """0, not NaN.

    Pins defect 7 of earlier systems: the loss grew with the number of labels.
    """
    output = make_output(requires_grad=True)
    parts = total_loss(output, make_batch(0.0), LossConfig())
    assert float(parts["total"].detach()) == 0
    parts["total"].backward()
    for logit in (output.frame_logit, output.clip_logit):
        assert (logit.grad == 0).all()


def test_parts_and_their_sum():
    output, batch = make_output(), make_batch("some")
    config = LossConfig(clip_weight=0.7, frame_weight=1.5)
    parts = total_loss(output, batch, config)
    clip = plain_bce(output.clip_logit, batch.clip_target, batch.clip_mask)
    frame = plain_bce(output.frame_logit, batch.frame_target, batch.frame_mask)
    assert float(parts["clip"]) == pytest.approx(0.7 * clip, rel=1e-5)
    assert float(parts["frame"]) == pytest.approx(1.5 * frame, rel=1e-5)
    assert float(parts["total"]) == pytest.approx(0.7 * clip + 1.5 * frame, rel=1e-5)


def test_a_part_of_weight_zero_is_not_computed():
    parts = total_loss(make_output(), make_batch("some"), LossConfig(frame_weight=0.0))
    assert set(parts) == {"clip", "total"}


@pytest.mark.parametrize("soft", [0.0, 0.45])
def test_unknown_cells_are_pulled_towards_their_target(soft):
    output, batch = make_output(requires_grad=True), make_batch("some")
    config = LossConfig(clip_weight=1.0, frame_weight=0.0, unknown_weight=0.3, unknown_target=soft)
    parts = total_loss(output, batch, config)
    clip = output.clip_logit.detach()
    unknown = (batch.clip_mask == 0).numpy()
    assert unknown.any()
    pulled = 0.3 * plain_bce(clip, np.full(clip.shape, soft), unknown)
    assert float(parts["clip_unknown"].detach()) == pytest.approx(pulled, rel=1e-5)
    parts["total"].backward()
    slope = output.clip_logit.grad[torch.from_numpy(unknown)]
    above = torch.sigmoid(clip[torch.from_numpy(unknown)]) > soft
    assert ((slope > 0) == above).all()


def test_all_known_leaves_nothing_to_pull():
    config = LossConfig(unknown_weight=0.3)
    parts = total_loss(make_output(), make_batch(1.0), config)
    assert float(parts["clip_unknown"]) == 0
    assert float(parts["frame_unknown"]) == 0
