"""Augmentation of waveforms (B, n), and from there to the log-mel windows of a batch."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
import torchaudio.functional

from local.config import AugmentConfig
from local.features.time_stretch import stretch
from local.training.augment.batch import Batch
from local.training.augment.draws import gusts, normal, uniform
from local.training.augment.input_kind import InputKind

# Ratios of frequencies with so small a denominator resample fast, and miss a pitch by less than a
# tenth of a semitone. torchaudio.functional.pitch_shift takes ratios of sample rates as they come,
# for which it builds filters of thousands of phases: seconds for a batch.
_LARGEST_DENOMINATOR = 100


def pitch_shift(wave: torch.Tensor, semitones: float, n_fft: int) -> torch.Tensor:
    """Waveforms (..., n) with all frequencies times 2^(semitones / 12), as long as before.

    Stretched by the ratio, then resampled back to the length.
    """
    ratio = Fraction(2.0 ** (semitones / 12)).limit_denominator(_LARGEST_DENOMINATOR)
    if ratio == 1:
        return wave
    longer = stretch(wave, float(ratio), n_fft)
    shifted = torchaudio.functional.resample(longer, ratio.numerator, ratio.denominator)
    n = wave.shape[-1]
    return torch.nn.functional.pad(shifted[..., :n], (0, max(0, n - shifted.shape[-1])))


def pitch_shift_rows(
    wave: torch.Tensor, bounds: tuple[float, float], rng: torch.Generator, n_fft: int
) -> torch.Tensor:
    """Every row (n,) by semitones of its own."""
    steps = uniform(bounds, len(wave), rng).tolist()
    rows = [pitch_shift(row, step, n_fft) for row, step in zip(wave, steps, strict=True)]
    return torch.stack(rows) if rows else wave


def add_wave(wave: torch.Tensor, other: torch.Tensor, snr_db: torch.Tensor) -> torch.Tensor:
    """Waveforms plus others at `snr_db` (B,) below; not where that is infinite or one is silent."""
    heard = torch.isfinite(snr_db) & (other != 0).any(dim=1) & (wave != 0).any(dim=1)
    rows = heard.nonzero().flatten()
    if len(rows) == 0:
        return wave
    louder = torchaudio.functional.add_noise(wave[rows], other[rows], snr_db[rows].to(wave))
    return wave.index_copy(0, rows, louder)


def noise_wave(
    wave: torch.Tensor, pink: torch.Tensor, rng: torch.Generator, share_of_gusts: float = 0.0
) -> torch.Tensor:
    """Noise shaped as `wave`, white or, where `pink` (B,), with a power of 1 / f.

    In a share of windows it comes and goes.
    """
    white = normal(wave.shape, rng, wave)
    spectrum = torch.fft.rfft(white)
    bins = torch.arange(spectrum.shape[-1], device=wave.device).clamp_min(1)
    shaped = torch.fft.irfft(spectrum / bins.sqrt(), n=wave.shape[-1])
    noise = torch.where(pink[:, None].to(wave.device), shaped, white)
    if share_of_gusts > 0:
        noise = noise * gusts(share_of_gusts, len(wave), wave.shape[-1], rng).to(wave).sqrt()
    return noise


def augment_waves(
    batch: Batch,
    config: AugmentConfig,
    noise: tuple[torch.Tensor, torch.Tensor] | None,
    rng: torch.Generator,
    kind: InputKind,
) -> Batch:
    """The batch with the rows `waved` made anew from their augmented waveforms.

    `noise` holds the decibels (B,) and, for each row, whether it is pink.
    """
    there: Any = batch  # with all that rows `waved` come with
    rows = there.waved.nonzero().flatten()
    if len(rows) == 0:
        return batch
    wave = there.wave[rows].float() / 32768
    if config.wave_pitch is not None:
        wave = pitch_shift_rows(wave, config.wave_pitch, rng, kind.n_fft)
    if batch.background_wave is not None:
        background = batch.background_wave[rows].float() / 32768
        wave = add_wave(wave, background, there.background_snr_db[rows])
    if noise is not None:
        snr_db, pink = (part.to(wave.device)[rows] for part in noise)
        wave = add_wave(wave, noise_wave(wave, pink, rng, config.noise_gusts), snr_db)
    features = kind.front_end.excerpt(wave)
    frames, share = there.wave_frames[rows], there.wave_share[rows]
    x = batch.x.clone()
    x[rows] = kind.front_end.as_input(_take(features, frames, share, kind.front_end.fill))
    return replace(batch, x=x)


def _take(
    features: torch.Tensor, frames: torch.Tensor, share: torch.Tensor, fill: float
) -> torch.Tensor:
    """(R, F, T) frames from (R, F, N) features: between two each, silence for -1."""
    silence = torch.full_like(features[..., :1], fill)
    features = torch.cat([features, silence], dim=-1)
    frames = torch.where(frames < 0, features.shape[-1] - 1, frames)
    left, right = (
        features.gather(2, frames[:, side, None, :].expand(-1, features.shape[1], -1))
        for side in (0, 1)
    )
    share = share[:, None].to(features)
    return left * (1 - share) + right * share
