"""Augmentation: off it is nothing, on it does what it says, and never to its input."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from local.config import AugmentConfig, Config
from local.training.augment import chain
from local.training.augment.batch import Batch
from local.training.augment.input_kind import InputKind
from local.training.augment.mixing import mixup

ALL = AugmentConfig(
    mixup_alpha=0.5, gain_db=6, freq_masks=2, time_masks=2, noise_std=0.1, mixup_target="union"
)
PARTS = {
    "mixup": {"mixup_alpha": 0.5},
    "gain": {"gain_db": 6},
    "freq": {"freq_masks": 2, "freq_mask_share": 0.5},
    "time": {"time_masks": 2, "time_mask_share": 0.5},
    "noise": {"noise_std": 0.1},
}


SPECTRA, WAVES = (
    InputKind.of(Config.model_validate({"features": {"kind": kind}})) for kind in ("logmel", "wave")
)


def augment(batch, config, rng):
    """By what the shape of the batch is."""
    return chain.augment(batch, config, rng, SPECTRA if batch.x.ndim == 4 else WAVES)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make_batch(size=6, wave=False, seed=1):
    g = rng(seed)
    shape = (size, 400) if wave else (size, 1, 16, 40)
    clip = (size, 3)
    frame = (size, 3, 10)
    return Batch(
        torch.randn(shape, generator=g),
        (torch.rand(clip, generator=g) < 0.5).float(),
        torch.tensor([0.0, 0.5, 1.0])[torch.randint(3, clip, generator=g)],
        (torch.rand(frame, generator=g) < 0.5).float(),
        torch.tensor([0.0, 0.3, 1.0])[torch.randint(3, frame, generator=g)],
    )


def tensors(batch):
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if value is not None}


def equal(one, other):
    return all(torch.equal(tensor, tensors(other)[name]) for name, tensor in tensors(one).items())


@pytest.mark.parametrize("wave", [False, True])
def test_off_is_the_identical_batch(wave):
    """Pins defect 2 of earlier systems: augmentation was configured and never ran."""
    batch = make_batch(wave=wave)
    assert equal(augment(batch, AugmentConfig(), rng()), batch)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_changes_the_batch(part):
    """Augmentation that is asked for takes place.

    Pins defect 2 of earlier systems: augmentation was configured and never ran.
    """
    batch = make_batch()
    changed = augment(batch, AugmentConfig(**PARTS[part]), rng())
    share = (changed.x != batch.x).flatten(1).any(dim=1).float().mean()
    assert share >= 0.5
    assert torch.isfinite(changed.x).all()
    assert changed.x.shape == batch.x.shape


@pytest.mark.parametrize("wave", [False, True])
@pytest.mark.parametrize("target", ["union", "soft"])
def test_the_input_is_not_modified(wave, target):
    """What is cached stays un-augmented.

    Pins defect 3 of earlier systems: augmented sound was written into the cache.
    """
    batch = make_batch(wave=wave)
    before = {name: tensor.clone() for name, tensor in tensors(batch).items()}
    augment(batch, ALL.model_copy(update={"mixup_target": target}), rng())
    for name, tensor in tensors(batch).items():
        assert torch.equal(tensor, before[name]), name


def test_the_generator_decides_everything():
    batch = make_batch()
    torch.manual_seed(1)
    one = augment(batch, ALL, rng(3))
    torch.manual_seed(2)
    assert equal(one, augment(batch, ALL, rng(3)))
    assert not torch.equal(one.x, augment(batch, ALL, rng(4)).x)


def test_gain_shifts_a_log_spectrum_and_scales_a_waveform_alike():
    for wave in (False, True):
        batch = make_batch(size=200, wave=wave)
        changed = augment(batch, AugmentConfig(gain_db=6), rng())
        if wave:
            level = 20 * torch.log10(changed.x / batch.x).mean(dim=1)
        else:
            level = (changed.x - batch.x).mean(dim=(1, 2, 3)) * 10 / math.log(10)
        assert level.abs().max() <= 6 + 1e-4
        assert level.min() < -5
        assert level.max() > 5


def test_masks_are_stretches_of_bounded_width():
    batch = make_batch(size=50)
    for axis, part in ((2, "freq"), (3, "time")):
        options = {f"{part}_masks": 1, f"{part}_mask_share": 0.25}
        changed = augment(batch, AugmentConfig(**options), rng())
        others = tuple({1, 2, 3} - {axis})
        hit = (changed.x != batch.x).sum(dim=others) > 0
        widths = hit.sum(dim=1)
        assert widths.max() <= 0.25 * batch.x.shape[axis] + 1
        assert widths.max() >= 2
        edges = torch.diff(torch.nn.functional.pad(hit.int(), (1, 1)), dim=1)
        assert (edges == 1).sum(dim=1).max() <= 1
        # The masked stretch holds the mean of its window.
        mean = batch.x.mean(dim=(1, 2, 3), keepdim=True).expand_as(batch.x)
        torch.testing.assert_close(changed.x[changed.x != batch.x], mean[changed.x != batch.x])


# ----------------------------------------------------------------------------------------- mixup


def partners(batch, config, seed=0):
    """Order and share that mixup drew, found by mixing batches whose inputs tell them."""
    size = len(batch.x)
    ids = torch.arange(size, dtype=torch.float64)
    marks = torch.zeros(size, size, dtype=torch.float64)
    marks[ids.long(), ids.long()] = 1.0
    marked = Batch(marks, *list(tensors(batch).values())[1:])
    mixed = mixup(marked, config, WAVES, rng(seed)).x ** 2
    share = mixed.diagonal().clone()
    rest = mixed - torch.diag(share)
    return share, rest.argmax(dim=1)


def mixed_batch(target, p=1.0, alpha=0.8):
    config = AugmentConfig(mixup_alpha=alpha, mixup_target=target, mixup_p=p)
    batch = make_batch(size=16)
    share, order = partners(batch, config)
    return batch, mixup(batch, config, SPECTRA, rng()), share, order


def test_sounds_add_in_power_and_the_window_itself_is_the_louder():
    batch, mixed, share, order = mixed_batch("union")
    # Where a window met itself nothing tells the share; it does not matter either.
    met = share < 0.999
    assert met.sum() >= 8
    assert (share[met] >= 0.5 - 1e-6).all()
    for i in met.nonzero().flatten().tolist():
        power = (
            share[i] * batch.x[i].double().exp() + (1 - share[i]) * batch.x[order[i]].double().exp()
        )
        torch.testing.assert_close(mixed.x[i].double(), power.log(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["clip", "frame"])
def test_union_against_a_plain_statement(part):
    """Present in either is present, with the weight of who says so; absent needs both."""
    batch, mixed, share, order = mixed_batch("union")
    target, mask = getattr(batch, f"{part}_target").numpy(), getattr(batch, f"{part}_mask").numpy()
    for i in np.flatnonzero(share.numpy() < 0.999):
        j = int(order[i])
        for cell in np.ndindex(target[i].shape):
            says = [(target[k][cell], mask[k][cell]) for k in (i, j)]
            present = [weight for value, weight in says if value > 0 and weight > 0]
            expected = max(present) if present else says[0][1] * says[1][1]
            assert getattr(mixed, f"{part}_mask")[i][cell] == pytest.approx(expected)
            if expected > 0:
                assert getattr(mixed, f"{part}_target")[i][cell] == bool(present)


@pytest.mark.parametrize("part", ["clip", "frame"])
def test_soft_against_a_plain_statement(part):
    """Means weighted by share and by what is known."""
    batch, mixed, share, order = mixed_batch("soft")
    target, mask = getattr(batch, f"{part}_target").numpy(), getattr(batch, f"{part}_mask").numpy()
    for i in np.flatnonzero(share.numpy() < 0.999):
        j, s = int(order[i]), float(share[i])
        for cell in np.ndindex(target[i].shape):
            weights = np.array([s * mask[i][cell], (1 - s) * mask[j][cell]])
            found = float(getattr(mixed, f"{part}_mask")[i][cell])
            assert found == pytest.approx(weights.sum(), abs=1e-5)
            if weights.sum() > 0:
                expected = weights @ [target[i][cell], target[j][cell]] / weights.sum()
                found = float(getattr(mixed, f"{part}_target")[i][cell])
                assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("target", ["union", "soft"])
def test_windows_that_are_not_chosen_stay_as_they_are(target):
    config = AugmentConfig(mixup_alpha=0.8, mixup_target=target, mixup_p=0.0)
    batch = make_batch()
    mixed = mixup(batch, config, SPECTRA, rng())
    torch.testing.assert_close(mixed.x, batch.x, atol=1e-6, rtol=1e-6)
    for name, tensor in tensors(batch).items():
        if name != "x":
            assert torch.equal(getattr(mixed, name), tensor), name


def test_about_the_asked_share_is_mixed():
    config = AugmentConfig(mixup_alpha=5.0, mixup_p=0.3)
    batch = make_batch(size=400)
    changed = (mixup(batch, config, SPECTRA, rng()).x != batch.x).flatten(1).float().mean(
        dim=1
    ) > 0.5
    assert 0.2 < changed.float().mean() < 0.4


def test_a_waveform_keeps_its_power():
    config = AugmentConfig(mixup_alpha=2.0)
    batch = make_batch(size=64, wave=True)
    mixed = mixup(batch, config, WAVES, rng())
    assert float(mixed.x.var()) == pytest.approx(float(batch.x.var()), rel=0.05)


def test_a_batch_of_one_mixes_with_itself_alone():
    batch = make_batch(size=1)
    mixed = augment(batch, AugmentConfig(mixup_alpha=0.5), rng())
    torch.testing.assert_close(mixed.x, batch.x)
