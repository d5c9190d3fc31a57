"""Masks beside calls, shifts in time and pitch, noise and backgrounds on log-mel windows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from local.config import AugmentConfig, Config
from local.features.front_ends.logmel_torch import LogMel
from local.io.errors import CanopyError
from local.training.augment.batch import Batch
from local.training.augment.chain import augment
from local.training.augment.input_kind import InputKind
from local.training.augment.spectrogram import add_powers, mask_bands_beside, noise_like
from local.training.augment.waveform import noise_wave

CONFIG = Config.model_validate(
    {
        "audio": {"sample_rate": 16000},
        "features": {"n_fft": 512, "hop_length": 160, "n_mels": 40, "dtype": "float32"},
        "augment": {"noise_p": 1.0},
    }
)
KIND = InputKind.of(CONFIG)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make_batch(size=6, n_frames=41, n_cells=10):
    g = rng(1)
    return Batch(
        torch.randn((size, 1, 40, n_frames), generator=g),
        (torch.rand((size, 3), generator=g) < 0.5).float(),
        torch.ones(size, 3),
        torch.rand((size, 3, n_cells), generator=g),
        torch.rand((size, 3, n_cells), generator=g),
    )


# ------------------------------------------------------------------------- masks beside the calls


def test_masks_stand_beside_the_calls_and_everywhere_else():
    taken = torch.zeros(4000, 20, dtype=torch.bool)
    taken[:, 6:9] = True
    x = torch.randn((4000, 1, 20, 5), generator=rng())
    out = mask_bands_beside(x, taken, 0.3, rng(1))
    hit = (out != x).any(dim=3)[:, 0]
    assert not (hit & taken).any()
    # Every free band is met, also those at the edges of the call.
    assert (hit.float().mean(dim=0)[~taken[0]] > 0.02).all()
    widths = hit.sum(dim=1)
    assert widths.max() == 6
    assert (widths > 0).all()
    edges = torch.diff(torch.nn.functional.pad(hit.int(), (1, 1)), dim=1)
    assert (edges == 1).sum(dim=1).max() == 1
    mean = x.mean(dim=(1, 2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(out[out != x], mean[out != x])


def test_places_of_a_mask_are_even():
    """By counting: width 1 fits in each free band alike."""
    taken = torch.zeros(20_000, 10, dtype=torch.bool)
    taken[:, [0, 4, 5]] = True
    x = torch.randn((20_000, 1, 10, 3), generator=rng())
    hit = (mask_bands_beside(x, taken, 0.1, rng(1)) != x).any(dim=3)[:, 0]
    np.testing.assert_allclose(hit.float().mean(dim=0)[~taken[0]], 1 / 7, atol=0.01)


def test_a_mask_narrows_to_what_is_free_and_a_full_window_has_none():
    taken = torch.ones(50, 20, dtype=torch.bool)
    taken[:25, 7:9] = False
    x = torch.randn((50, 1, 20, 5), generator=rng())
    hit = (mask_bands_beside(x, taken, 1.0, rng(1)) != x).any(dim=3)[:, 0]
    assert (hit[:25] & ~taken[:25]).any(dim=1).all()
    assert not (hit & taken).any()
    assert not hit[25:].any()


def test_sparing_happens_where_the_batch_says_so():
    batch = make_batch()
    config = AugmentConfig(freq_masks=3, freq_mask_share=0.5, freq_mask_spares_calls=True)
    full = replace(batch, call_bands=torch.ones(6, 40, dtype=torch.bool))
    assert torch.equal(augment(full, config, rng(), KIND).x, batch.x)
    free = replace(batch, call_bands=torch.zeros(6, 40, dtype=torch.bool))
    assert not torch.equal(augment(free, config, rng(), KIND).x, batch.x)


# ------------------------------------------------------------------------------- shifts in time


@pytest.mark.parametrize("wave", [False, True])
def test_a_shift_moves_sound_and_labels_by_the_same_cells(wave):
    """Each window carries its own position; 41 frames are 10 cells of 4 and a rest that stays."""
    batch = make_batch(200)
    x = torch.arange(41.0).expand(200, 1, 40, 41).clone()
    batch = replace(
        batch,
        x=x[:, 0, 0] if wave else x,
        frame_target=torch.arange(10.0).expand(200, 3, 10).clone(),
        frame_mask=torch.arange(10.0).expand(200, 3, 10) + 1,
    )
    shift = augment(batch, AugmentConfig(shift_s=0.121), rng(), KIND)
    cells = shift.frame_target[:, 0].long()
    frames = (shift.x if wave else shift.x[:, 0, 0]).long()
    by = (-cells[:, 0]) % 10
    # 0.121 s are three cells of 40 ms at most.
    assert set(by.tolist()) == {0, 1, 2, 3, 7, 8, 9}
    for i in range(200):
        assert cells[i].tolist() == np.roll(np.arange(10), int(by[i])).tolist()
        assert frames[i, :40].tolist() == np.roll(np.arange(40), 4 * int(by[i])).tolist()
        assert frames[i, 40] == 40
    assert torch.equal(shift.frame_mask, shift.frame_target + 1)
    assert torch.equal(shift.clip_target, batch.clip_target)


def test_a_shift_that_moves_nothing_is_told():
    with pytest.raises(CanopyError, match=r"shift_s 0\.03 is less than one output cell of 0\.04 s"):
        augment(make_batch(), AugmentConfig(shift_s=0.03), rng(), KIND)


# ------------------------------------------------------------------------------ shifts in pitch


def test_bands_move_as_one_and_call_bands_with_them():
    batch = make_batch(100)
    bands = torch.zeros(100, 40, dtype=torch.bool)
    bands[:, 20:23] = True
    moved = augment(replace(batch, call_bands=bands), AugmentConfig(pitch_bands=3), rng(), KIND)
    seen = set()
    for i in range(100):
        by = int(moved.call_bands[i].int().argmax()) - 20
        seen.add(by)
        rows = np.clip(np.arange(40) - by, 0, 39)
        assert torch.equal(moved.x[i, 0], batch.x[i, 0][rows])
        assert moved.call_bands[i].sum() == 3
    assert seen == set(range(-3, 4))
    assert torch.equal(moved.frame_target, batch.frame_target)


# ------------------------------------------------------------------------ noise and backgrounds


def power(x):
    """Total power of log-mel windows by a sum over bands, each with its width, in float64."""
    edges_width = KIND.band_width.double().view(1, 1, -1, 1)
    return (x.double().exp() * edges_width).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_what_is_added_has_the_power_asked_for(snr_db):
    x, other = (torch.randn((5, 1, 40, 41), generator=rng(i)) - 6 for i in (1, 2))
    out = add_powers(x, other + 30, torch.full((5,), snr_db), KIND)
    added = power(out) - power(x)
    found = 10 * torch.log10(power(x) / added)
    torch.testing.assert_close(found, torch.full_like(found, snr_db), atol=0.02, rtol=0)


def test_nothing_is_added_where_nothing_is_asked_for():
    x = torch.randn((3, 1, 40, 41), generator=rng(1))
    out = add_powers(x, torch.zeros_like(x), torch.tensor([math.inf, 0.0, math.inf]), KIND)
    assert torch.equal(out[0], x[0])
    assert torch.equal(out[2], x[2])
    assert (out[1] > x[1]).all()


@pytest.mark.parametrize("pink", [False, True])
def test_noise_has_the_spectrum_that_sampled_noise_has(pink):
    """Against the front end itself on sampled noise: mean level and spread in each band."""
    n = 16000 * 40
    white = np.fft.rfft(np.random.default_rng(0).standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / 16000)
    sampled = np.fft.irfft(white / np.sqrt(np.maximum(hertz, 1.0)) if pink else white, n)
    real = LogMel(CONFIG.features, 16000)(torch.from_numpy(sampled).float())
    made = noise_like(torch.zeros(1, 1, 40, 4000), torch.tensor([pink]), rng(), KIND)[0, 0]
    level = [a.double().exp().mean(dim=1).log() for a in (real, made)]
    difference = (level[0] - level[1]) - (level[0] - level[1]).mean()
    # The lowest bands of pink noise hold the slope inside one bin.
    assert difference[3:].abs().max() < 0.15
    spread = [a.double().std(dim=1) for a in (real, made)]
    torch.testing.assert_close(spread[0], spread[1], atol=0.35, rtol=0.25)


def test_gusts_come_and_go_in_their_share_of_windows():
    """Noise whose level swings within the window, in the spectrum and in the waveform alike."""
    x, white = torch.zeros(300, 1, 40, 200), torch.zeros(300, dtype=torch.bool)
    flat = noise_like(x, white, rng(), KIND)
    gusty = noise_like(x, white, rng(), KIND, 0.5)
    wave = noise_wave(torch.zeros(300, 8000), white, rng(), 0.5)
    levels = [
        flat.exp().mean(dim=(1, 2)).unflatten(1, (10, 20)).mean(dim=2),
        gusty.exp().mean(dim=(1, 2)).unflatten(1, (10, 20)).mean(dim=2),
        wave.square().unflatten(1, (10, 800)).mean(dim=2),
    ]
    swing = [level.max(dim=1).values / level.mean(dim=1) for level in levels]
    assert (swing[0] < 1.2).all()
    for own in swing[1:]:
        assert 0.35 < (own > 1.25).float().mean() < 0.6
    for own in levels[1:]:
        assert float(own.mean()) == pytest.approx(float(own.median()), rel=0.2)
    assert torch.isfinite(gusty).all()


def test_noise_in_the_chain():
    batch = make_batch(400)
    config = AugmentConfig(noise_p=0.4, noise_snr_db=(0, 10), noise_colour="either")
    out = augment(batch, config, rng(), KIND).x
    changed = (out != batch.x).flatten(1).any(dim=1)
    assert 0.3 < changed.float().mean() < 0.5
    snr = 10 * torch.log10(power(batch.x) / (power(out) - power(batch.x)))[changed]
    assert snr.min() > -0.1
    assert snr.max() < 10.1
    # White noise lies in high bands as much as in low ones, pink mostly in low ones.
    lift = (out - batch.x)[changed].mean(dim=(1, 3))
    tilt = lift[:, :8].mean(dim=1) / lift[:, -8:].mean(dim=1)
    assert (tilt > 2).any()
    assert (tilt < 1.2).any()


def test_a_background_in_the_chain():
    batch = make_batch(3)
    behind = torch.randn((3, 1, 40, 41), generator=rng(7))
    snr_db = torch.tensor([5.0, math.inf, 12.0])
    batch = replace(batch, background=behind, background_snr_db=snr_db)
    config = AugmentConfig(background_p=0.5)
    out = augment(batch, config, rng(), KIND).x
    assert torch.equal(out[1], batch.x[1])
    for i in (0, 2):
        scale = power(batch.x)[i] / power(behind)[i] / 10 ** (snr_db[i].double() / 10)
        expected = (batch.x[i].double().exp() + scale * behind[i].double().exp()).log()
        torch.testing.assert_close(out[i].double(), expected, atol=1e-4, rtol=1e-4)
