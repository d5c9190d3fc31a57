"""What the configuration asks for, in order."""

from dataclasses import replace

import torch

from local.config import AugmentConfig
from local.training.augment.batch import Batch
from local.training.augment.draws import chosen, normal, uniform
from local.training.augment.input_kind import InputKind
from local.training.augment.mixing import last_layer_mix, mix_partners, mixup
from local.training.augment.spectrogram import (
    add_powers,
    gain,
    mask_bands_beside,
    mask_stretch,
    noise_like,
    shift_bands,
    shift_time,
)
from local.training.augment.waveform import add_wave, augment_waves, noise_wave, pitch_shift_rows


def augment(
    batch: Batch,
    config: AugmentConfig,
    rng: torch.Generator,
    kind: InputKind,
) -> Batch:
    """Apply what the configuration asks for; nothing of it changes the input batch.

    First what happens to one sound (pitch, background, noise, shift, level), then windows with soft
    labels that are mixed in, then mixup, then what hides parts of the result.
    """
    batch = _add_sounds(batch, config, rng, kind)
    if config.shift_s > 0:
        batch = shift_time(batch, config, rng, kind)
    if config.pitch_bands > 0 and kind.is_spectrogram:
        batch = shift_bands(batch, config, rng)
    if config.gain_db > 0:
        batch = replace(batch, x=gain(batch.x, config.gain_db, kind, rng))
    if batch.partner is not None:
        batch = mix_partners(batch, config, kind, rng)
    if config.mixes and config.mixup_at == "input":
        batch = mixup(batch, config, kind, rng)
    elif config.mixes:
        batch, mix = last_layer_mix(batch, config, rng)
        batch = replace(batch, mix=mix)
    x = batch.x
    if config.noise_std > 0:
        x = x + config.noise_std * normal(x.shape, rng, x)
    if kind.is_spectrogram:
        for _ in range(config.freq_masks):
            if batch.call_bands is None:
                x = mask_stretch(x, 2, config.freq_mask_share, rng)
            else:
                x = mask_bands_beside(x, batch.call_bands, config.freq_mask_share, rng)
        for _ in range(config.time_masks):
            x = mask_stretch(x, 3, config.time_mask_share, rng)
    return replace(batch, x=x)


def _add_sounds(
    batch: Batch, config: AugmentConfig, rng: torch.Generator, kind: InputKind
) -> Batch:
    """Pitch of waveforms, backgrounds, noise: on the waveform where it is read, else in power."""
    noise = None
    if config.noise_p > 0:
        noise = _draw_noise(config, len(batch.x), rng)
    if not kind.is_spectrogram:
        return replace(batch, x=_change_waves(batch, config, noise, rng, kind))
    done = batch.waved
    if done is None:
        done = torch.zeros(len(batch.x), dtype=torch.bool, device=batch.x.device)
    else:
        batch = augment_waves(batch, config, noise, rng, kind)
    x, never = batch.x, torch.full((len(done),), torch.inf, device=done.device)
    if batch.background is not None and batch.background_snr_db is not None:
        snr_db = torch.where(done, never, batch.background_snr_db)
        x = add_powers(x, batch.background, snr_db, kind)
    if noise is not None:
        snr_db = torch.where(done, never, noise[0].to(x.device))
        other = noise_like(x, noise[1], rng, kind, config.noise_gusts)
        x = add_powers(x, other, snr_db, kind)
    return replace(batch, x=x)


def _change_waves(
    batch: Batch,
    config: AugmentConfig,
    noise: tuple[torch.Tensor, torch.Tensor] | None,
    rng: torch.Generator,
    kind: InputKind,
) -> torch.Tensor:
    """The same for models that take waveforms (B, n)."""
    x = batch.x
    if batch.waved is not None and config.wave_pitch is not None:
        rows = batch.waved.nonzero().flatten()
        shifted = pitch_shift_rows(x[rows], config.wave_pitch, rng, kind.n_fft)
        x = x.index_copy(0, rows, shifted)
    if batch.background is not None and batch.background_snr_db is not None:
        x = add_wave(x, batch.background, batch.background_snr_db)
    if noise is not None:
        other = noise_wave(x, noise[1], rng, config.noise_gusts)
        x = add_wave(x, other, noise[0].to(x.device))
    return x


def _draw_noise(
    config: AugmentConfig, size: int, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decibels (B,) of the noise of each window, infinite for none, and whether it is pink (B,)."""
    noisy = chosen(config.noise_p, size, rng)
    snr_db = uniform(config.noise_snr_db, size, rng)
    pink = chosen({"white": 0.0, "pink": 1.0, "either": 0.5}[config.noise_colour], size, rng)
    return torch.where(noisy, snr_db, torch.inf), pink
