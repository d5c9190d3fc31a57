"""Every loss against a plain float64 statement of its formula, cell by cell and pair by pair."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local.training.losses.per_cell import l_soft, masked_bce, masked_focal
from local.training.losses.structured import activity_bce, centre_distance, lsep

many = settings(deadline=None, max_examples=25)
seeds = given(seed=st.integers(0, 10**6))


def softplus(z):
    return np.logaddexp(0, z)


def random_cells(seed, shape, hard=False):
    """Logits, soft (or hard) targets, masks with unknown cells, weights that broadcast."""
    g = torch.Generator().manual_seed(seed)
    logit = 4 * torch.randn(shape, generator=g)
    target = torch.rand(shape, generator=g)
    target = torch.where(torch.rand(shape, generator=g) < 0.6, target.round(), target)
    if hard:
        target = target.round()
    mask = torch.tensor([0.0, 0.3, 1.0])[torch.randint(3, shape, generator=g)]
    weight = torch.rand((shape[0], *[1] * (len(shape) - 1)), generator=g) + 0.1
    return logit, target, mask, weight


def in_float64(*tensors):
    return [np.broadcast_to(t.numpy().astype(np.float64), tensors[0].shape) for t in tensors]


def each_cell(*arrays):
    return zip(*(array.reshape(-1) for array in np.broadcast_arrays(*arrays)), strict=True)


# ----------------------------------------------------------------------------- plain statements


def plain_bce(z, y, m, w, positive=1.0, normalise="known"):
    top = bottom = 0.0
    for z1, y1, m1, w1, a1 in each_cell(z, y, m, w, positive):
        top += m1 * w1 * (a1 * y1 * softplus(-z1) + (1 - y1) * softplus(z1))
        bottom += m1 * w1 * (y1 if normalise == "positives" else 1)
    if normalise == "positives":
        return top / max(1.0, bottom)
    return top / bottom if bottom else 0.0


def plain_focal(z, y, m, w, gamma, alpha, on, positive=1.0):
    top = bottom = 0.0
    for z1, y1, m1, w1, a1 in each_cell(z, y, m, w, positive):
        p = 1 / (1 + math.exp(-z1))
        present = -y1 * a1 * (1 - p) ** gamma * math.log(p)
        absent = -(1 - y1) * math.log(1 - p) * (p**gamma if on == "all" else 1)
        if alpha is not None:
            present, absent = alpha * present, (1 - alpha) * absent
        top, bottom = top + m1 * w1 * (present + absent), bottom + m1 * w1
    return top / bottom if bottom else 0.0


def plain_lsep(z, y, m, w):
    """ln(1 + sum of weighted pairs) of every window with a pair; and for hard labels over sets."""
    values = []
    for z1, y1, m1 in zip(z, y, m * w, strict=True):
        pairs = [
            (m1[i] * m1[j] * (y1[i] - y1[j]), math.exp(z1[j] - z1[i]))
            for i in range(len(z1))
            for j in range(len(z1))
            if m1[i] * m1[j] > 0 and y1[i] > y1[j]
        ]
        if pairs:
            values.append(math.log(1 + sum(weight * value for weight, value in pairs)))
    return sum(values) / len(values) if values else 0.0


def plain_activity(z, y, m, w, unknown):
    cells = []
    for b in range(len(y)):
        for t in range(y.shape[2]):
            known = [(y[b, c, t], m[b, c, t] * w[b, c, t]) for c in range(y.shape[1])]
            calls = [(target, mask) for target, mask in known if target > 0 and mask > 0]
            if calls:
                union, mask = max(target for target, _ in calls), max(mask for _, mask in calls)
            elif unknown == "absent":
                union, mask = 0.0, 1.0
            else:
                union, mask = 0.0, min(mask for _, mask in known)
            cells.append((z[b, 0, t], union, mask))
    z, y, m = (np.array(column) for column in zip(*cells, strict=True))
    return plain_bce(z, y, m, 1.0)


def plain_centre(x, y, m, w, centres):
    top = bottom = 0.0
    for x1, f in zip(x, m * w * y, strict=True):
        if f.sum() == 0:
            continue
        mean = sum(f[c] * ((x1 - centres[c]) ** 2).sum() for c in range(len(f))) / f.sum()
        top, bottom = top + f.max() * mean, bottom + f.max()
    return top / bottom if bottom else 0.0


# ---------------------------------------------------------------------------------------- parity

SHAPES = [(5, 4), (3, 4, 6)]


def class_weights(shape):
    """Weights of positives by class, for torch and for numpy."""
    weight = torch.tensor([0.5, 1.0, 2.0, 7.0])
    weight = weight if len(shape) == 2 else weight[:, None]
    return weight, weight.numpy().astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalise", ["known", "positives"])
@many
@seeds
def test_bce(seed, shape, normalise):
    cells = random_cells(seed, shape)
    weight, plain = class_weights(shape)
    loss = masked_bce(*cells, positive_weight=weight, normalise=normalise)
    expected = plain_bce(*in_float64(*cells), plain, normalise)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
@pytest.mark.parametrize("on", ["all", "positives"])
@many
@given(seed=st.integers(0, 10**6), gamma=st.sampled_from([0.0, 0.5, 1.5, 2.0]))
def test_focal(seed, gamma, shape, alpha, on):
    cells = random_cells(seed, shape)
    weight, plain = class_weights(shape)
    options = {"gamma": gamma, "alpha": alpha, "on": on}
    loss = masked_focal(*cells, positive_weight=weight, **options)
    expected = plain_focal(*in_float64(*cells), **options, positive=plain)
    assert float(loss) == pytest.approx(expected, rel=2e-5, abs=1e-9)


def test_focal_is_that_of_the_paper():
    """FL(p_t) = -alpha_t (1 - p_t)^gamma ln p_t; its example: 0.9 right counts 100 times less."""
    logit = torch.tensor([math.log(9.0), -math.log(9.0)], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    for target, z in ((one, logit[:1]), (0 * one, logit[1:])):
        easy = masked_focal(z, target, one, gamma=2.0) / masked_bce(z, target, one)
        assert float(easy) == pytest.approx(0.01)
    plain = masked_focal(logit, torch.tensor([1.0, 0.0]), torch.ones(2), gamma=0.0)
    assert float(plain) == pytest.approx(float(masked_bce(logit, torch.eye(2)[0], torch.ones(2))))


@pytest.mark.parametrize("beta", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@many
@seeds
def test_l_soft(seed, shape, beta):
    cells = random_cells(seed, shape)
    z, y, m, w = in_float64(*cells)
    soft = beta * y + (1 - beta) / (1 + np.exp(-z))
    loss = l_soft(*cells, beta=beta)
    assert float(loss) == pytest.approx(plain_bce(z, soft, m, w), rel=1e-5, abs=1e-9)


def test_l_soft_has_beta_times_the_gradient():
    """Only with the prediction held fixed."""
    logit, target, mask, weight = random_cells(3, (4, 5))
    slopes = []
    for loss in (masked_bce, lambda *cells: l_soft(*cells, beta=0.7)):
        own = logit.clone().requires_grad_()
        loss(own, target, mask, weight).backward()
        slopes.append(own.grad)
    torch.testing.assert_close(slopes[1], 0.7 * slopes[0], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("hard", [True, False])
@many
@seeds
def test_lsep(seed, hard):
    cells = random_cells(seed, (6, 5), hard)
    expected = plain_lsep(*in_float64(*cells))
    assert float(lsep(*cells)) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_lsep_of_hard_labels_is_that_of_the_paper():
    z = torch.tensor([[1.0, -2.0, 0.5, 3.0, 9.0]])
    y, m = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    pairs = [math.exp(negative - positive) for positive in (1, -2) for negative in (0.5, 3)]
    assert float(lsep(z, y, m)) == pytest.approx(math.log(1 + sum(pairs)), rel=1e-6)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_lsep_without_a_pair_is_zero(target):
    logit = torch.randn(3, 4, requires_grad=True)
    loss = lsep(logit, torch.full((3, 4), target), torch.ones(3, 4))
    assert float(loss.detach()) == 0
    loss.backward()
    assert (logit.grad == 0).all()


def test_lsep_of_a_window_without_positives_does_not_dilute_the_others():
    logit, target, mask, _ = random_cells(8, (2, 5), hard=True)
    target[0], mask[0] = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]), 1.0
    target[1] = 0.0
    alone = lsep(logit[:1], target[:1], mask[:1])
    assert float(lsep(logit, target, mask)) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("unknown", ["ignore", "absent"])
@many
@seeds
def test_activity(seed, unknown):
    logit, target, mask, weight = random_cells(seed, (3, 3, 8))
    quiet = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    target[quiet] = 0.0
    output = logit[:, :1]
    _, *plain = in_float64(logit, target, mask, weight)
    expected = plain_activity(output.numpy().astype(np.float64), *plain, unknown)
    loss = activity_bce(output, target, mask, weight, unknown=unknown)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_what_is_taken_as_calling_and_as_silent():
    """Frames: a call, a call in one class only, all denied, one denied, nothing said."""
    target = torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]]])
    mask = torch.tensor([[[1.0, 0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]]])
    slopes = {}
    for unknown in ("ignore", "absent"):
        logit = torch.zeros(1, 1, 5, requires_grad=True)
        activity_bce(logit, target, mask, unknown=unknown).backward()
        slopes[unknown] = torch.sign(logit.grad[0, 0]).tolist()
    assert slopes["ignore"] == [-1, -1, 1, 0, 0]
    assert slopes["absent"] == [-1, -1, 1, 1, 1]


@many
@seeds
def test_centre(seed):
    _, target, mask, weight = random_cells(seed, (6, 4))
    g = torch.Generator().manual_seed(seed)
    x, centres = torch.randn(6, 7, generator=g), torch.randn(4, 7, generator=g)
    _, *plain = in_float64(target, target, mask, weight)
    expected = plain_centre(x.numpy().astype(float), *plain, centres.numpy().astype(float))
    loss = centre_distance(x, target, mask, weight, centres=centres)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-9)


# ------------------------------------------------------------------------------- what all must do

LOSSES = {
    "bce": masked_bce,
    "bce_positives": lambda *c: masked_bce(*c, normalise="positives"),
    "focal": lambda *c: masked_focal(*c, gamma=2.0, alpha=0.25),
    "focal_small_gamma": lambda *c: masked_focal(*c, gamma=0.5),
    "focal_positives": lambda *c: masked_focal(*c, on="positives"),
    "l_soft": lambda *c: l_soft(*c, beta=0.7),
    "lsep": lsep,
    "activity": lambda z, y, m, w=1.0: activity_bce(z[:, None], y[:, None], m[:, None], w),
    "centre": lambda z, y, m, w=1.0: centre_distance(z, y, m, w, centres=torch.ones(z.shape[1], 1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_known_gives_zero_and_a_gradient_of_zero(name):
    logit, target, mask, weight = random_cells(1, (4, 5))
    logit.requires_grad_()
    loss = LOSSES[name](logit, target, 0 * mask, weight if name != "activity" else 1.0)
    assert float(loss.detach()) == 0
    loss.backward()
    assert (logit.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [100.0, -100.0])
@pytest.mark.parametrize("target", [0.0, 0.4, 1.0])
def test_extreme_logits_have_a_finite_loss_and_gradient(name, size, target):
    logit = torch.full((3, 4), size)
    logit[:, ::2] *= -1
    logit.requires_grad_()
    targets = torch.full((3, 4), target)
    targets[1, 1] = 1 - target
    loss = LOSSES[name](logit, targets, torch.ones(3, 4))
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert torch.isfinite(logit.grad).all()


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"activity"}))
def test_unknown_cells_do_not_speak(name):
    """Neither value nor gradient, whatever stands in them. Activity has its own test."""
    logit, target, mask, weight = random_cells(5, (4, 6), hard=True)
    loss = LOSSES[name](logit, target, mask, weight)
    other = torch.where(mask > 0, logit, logit + 9) if name != "centre" else logit.clone()
    other.requires_grad_()
    changed = LOSSES[name](other, torch.where(mask > 0, target, 1 - target), mask, weight)
    assert float(changed.detach()) == pytest.approx(float(loss), rel=1e-6)
    changed.backward()
    if name != "centre":
        assert (other.grad[mask == 0] == 0).all()
    assert (other.grad != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_it_does_not_grow_with_the_number_of_windows(name):
    """Pins defect 7 of earlier systems: the loss grew with the number of labels."""
    logit, target, mask, _ = random_cells(6, (8, 6), hard=True)
    more = [tensor.repeat(5, 1) for tensor in (logit, target, mask)]
    once = float(LOSSES[name](logit, target, mask))
    assert once > 0
    assert float(LOSSES[name](*more)) == pytest.approx(once, rel=1e-5)
