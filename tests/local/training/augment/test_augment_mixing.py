"""Mixup with a constant lambda, and at what the head sees."""

from dataclasses import replace

import pytest
import torch

from local.config import AugmentConfig, Config
from local.training.augment.batch import Batch
from local.training.augment.chain import augment
from local.training.augment.input_kind import InputKind
from local.training.augment.mixing import last_layer_mix, mixup

KIND = InputKind.of(Config())


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make_batch(size=8):
    g = rng(1)
    return Batch(
        torch.randn((size, 1, 16, 40), generator=g),
        (torch.rand((size, 3), generator=g) < 0.5).float(),
        torch.tensor([0.0, 0.5, 1.0])[torch.randint(3, (size, 3), generator=g)],
        (torch.rand((size, 3, 10), generator=g) < 0.5).float(),
        torch.tensor([0.0, 1.0])[torch.randint(2, (size, 3, 10), generator=g)],
    )


def partners_of(mix, size):
    """Share and partner of each row, told by features that say which row they are of."""
    told = mix(torch.eye(size)[:, :, None].expand(-1, -1, 4))[:, :, 0]
    share = told.diagonal().clone()
    return share, (told - torch.diag(share)).argmax(dim=1)


@pytest.mark.parametrize(("given", "expected"), [(0.3, 0.7), (0.5, 0.5), (0.8, 0.8)])
def test_a_constant_lambda(given, expected):
    config = AugmentConfig(mixup_lambda=given, mixup_target="soft")
    _, mix = last_layer_mix(make_batch(64), config, rng())
    share, order = partners_of(mix, 64)
    met = order != torch.arange(64)
    met &= share < 0.999  # a window that met itself
    assert met.sum() > 50
    torch.testing.assert_close(share[met], torch.full_like(share[met], expected))


def test_a_constant_lambda_alone_switches_mixup_on():
    batch = make_batch()
    assert not torch.equal(augment(batch, AugmentConfig(mixup_lambda=0.5), rng(), KIND).x, batch.x)
    at_last = augment(batch, AugmentConfig(mixup_lambda=0.5, mixup_at="last"), rng(), KIND)
    assert torch.equal(at_last.x, batch.x)
    assert at_last.mix is not None
    assert not torch.equal(at_last.clip_target, batch.clip_target)


@pytest.mark.parametrize("target", ["soft", "union"])
def test_targets_at_the_last_layer_are_those_of_the_mixed_features(target):
    """The same partner and share for features and labels, by a plain statement for each row."""
    config = AugmentConfig(mixup_alpha=0.8, mixup_target=target, mixup_p=0.7)
    batch = make_batch(32)
    mixed, mix = last_layer_mix(batch, config, rng(5))
    features = torch.randn((32, 6, 10), generator=rng(9))
    share, order = partners_of(mix, 32)
    out = mix(features)
    assert torch.equal(mixed.x, batch.x)
    for i in range(32):
        j, s = int(order[i]), float(share[i])
        assert s >= 0.5
        torch.testing.assert_close(out[i], s * features[i] + (1 - s) * features[j])
        if s > 0.999:  # not chosen, or met itself
            continue
        t, m = batch.frame_target, batch.frame_mask
        present = torch.maximum(t[i] * (m[i] > 0), t[j] * (m[j] > 0)) > 0
        if target == "union":
            assert torch.equal(mixed.frame_target[i] > 0, present)
        else:
            weight = s * m[i] + (1 - s) * m[j]
            torch.testing.assert_close(mixed.frame_mask[i], weight)
            expected = (s * m[i] * t[i] + (1 - s) * m[j] * t[j]) / weight.clamp_min(1e-9)
            torch.testing.assert_close(mixed.frame_target[i], expected, atol=1e-5, rtol=1e-5)


def test_both_places_draw_the_same():
    config = AugmentConfig(mixup_alpha=0.8)
    batch = make_batch()
    at_input = mixup(batch, config, KIND, rng(3))
    at_last, _ = last_layer_mix(batch, config, rng(3))
    assert torch.equal(at_input.clip_target, at_last.clip_target)
    assert torch.equal(at_input.frame_mask, at_last.frame_mask)


def test_half_precision_features_stay_so():
    _, mix = last_layer_mix(make_batch(), AugmentConfig(mixup_alpha=0.8), rng())
    assert mix(torch.randn(8, 4, 10, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_gradients_reach_both_windows():
    _, mix = last_layer_mix(make_batch(), AugmentConfig(mixup_lambda=0.5), rng(2))
    features = torch.ones(8, 4, 10, requires_grad=True)
    share, order = partners_of(mix, 8)
    mix(features)[0].sum().backward()
    touched = features.grad.abs().sum(dim=(1, 2)) > 0
    assert set(touched.nonzero().flatten().tolist()) == {0, int(order[0]) if share[0] < 1 else 0}


def test_a_mixed_window_spares_the_calls_of_both():
    bands = torch.eye(8, 16, dtype=torch.bool)
    batch = replace(make_batch(), call_bands=bands)
    mixed, mix = last_layer_mix(batch, AugmentConfig(mixup_alpha=0.8, mixup_p=0.5), rng())
    share, order = partners_of(mix, 8)
    for i in range(8):
        expected = bands[i] | bands[order[i]] if share[i] < 0.999 else bands[i]
        assert torch.equal(mixed.call_bands[i], expected)
