"""Augmentation of log-mel windows (B, 1, F, T); time shift also of waveforms (B, n)."""

from dataclasses import replace

import torch

from local.config import AugmentConfig
from local.features.front_ends.front_end import LOG_POWER_PER_DB
from local.io.errors import CanopyError
from local.training.augment.batch import Batch
from local.training.augment.draws import gamma, gusts
from local.training.augment.input_kind import InputKind

# Least power of noise between gusts, so that its log is finite.
_CALM = 1e-6


def gain(x: torch.Tensor, gain_db: float, kind: InputKind, rng: torch.Generator) -> torch.Tensor:
    """A level of its own for each window, up to `gain_db` up or down."""
    level = (2 * torch.rand(len(x), generator=rng) - 1).to(x) * gain_db
    return kind.front_end.louder(x, level.view(-1, *[1] * (x.ndim - 1)))


def mask_stretch(x: torch.Tensor, axis: int, share: float, rng: torch.Generator) -> torch.Tensor:
    """SpecAugment (Park et al. 2019): a stretch of up to `share` of the axis takes the mean."""
    size, length = len(x), x.shape[axis]
    width = torch.rand(size, generator=rng) * share * length
    first = torch.rand(size, generator=rng) * (length - width)
    place = torch.arange(length)
    hit = (place >= first[:, None]) & (place < (first + width)[:, None])
    shape = [size, 1, 1, 1]
    shape[axis] = length
    return torch.where(hit.view(shape).to(x.device), x.mean(dim=(2, 3), keepdim=True), x)


def mask_bands_beside(
    x: torch.Tensor, taken: torch.Tensor, share: float, rng: torch.Generator
) -> torch.Tensor:
    """As `mask_stretch` over bands, beside the bands `taken` (B, F) bool.

    The width is drawn first, and made to fit the widest stretch that is free; then a place among
    all those where it fits. A window with no free band is left as it is.
    """
    free = ~taken.cpu()
    size, n_bands = free.shape
    # How many bands are free from each band upwards: the distance to the next one that is taken.
    band = torch.arange(n_bands)
    blocked = torch.where(free, n_bands, band).flip(1).cummin(dim=1).values.flip(1)
    room = blocked - band
    drawn = torch.rand(size, generator=rng) * share * n_bands
    width = torch.minimum(drawn.ceil().long(), room.amax(dim=1))
    fits = (room >= width[:, None]) & free
    # The k-th place that fits.
    k = (torch.rand(size, generator=rng) * fits.sum(dim=1)).long()
    first = (fits.cumsum(dim=1) > k[:, None]).long().argmax(dim=1)
    hit = (band >= first[:, None]) & (band < (first + width)[:, None])
    hit = hit.view(size, 1, n_bands, 1).to(x.device)
    return torch.where(hit, x.mean(dim=(2, 3), keepdim=True), x)


def shift_time(batch: Batch, config: AugmentConfig, rng: torch.Generator, kind: InputKind) -> Batch:
    """Roll each window by whole output cells, and its frame targets by as many.

    What leaves at one end comes in at the other, so the window holds the same calls: what is known
    of it as a whole stays.
    """
    n_cells = batch.frame_target.shape[-1]
    step = batch.x.shape[-1] // n_cells
    most = min(n_cells, int(config.shift_s / (kind.front_end.hop_s * step) + 1e-9))
    if most == 0:
        raise CanopyError(
            f"augment.shift_s {config.shift_s:g} is less than one output cell of "
            f"{kind.front_end.hop_s * step:.3g} s, so nothing would move; raise it or set it to 0"
        )
    cells = torch.randint(-most, most + 1, (len(batch.x),), generator=rng).to(batch.x.device)
    return replace(
        batch,
        x=_roll(batch.x, cells * step, n_cells * step),
        frame_target=_roll(batch.frame_target, cells, n_cells),
        frame_mask=_roll(batch.frame_mask, cells, n_cells),
    )


def _roll(x: torch.Tensor, by: torch.Tensor, length: int) -> torch.Tensor:
    """Entry i of the last axis goes to i + by, modulo `length`; what lies beyond stays."""
    place = torch.arange(x.shape[-1], device=x.device).repeat(len(x), 1)
    place[:, :length] = (place[:, :length] - by[:, None]) % length
    place = place.view(len(x), *[1] * (x.ndim - 2), -1)
    return x.gather(-1, place.expand(x.shape))


def shift_bands(batch: Batch, config: AugmentConfig, rng: torch.Generator) -> Batch:
    """Move each spectrum up or down by whole mel bands; the edge band fills what is left bare.

    A shift along the mel axis multiplies frequencies by one factor where bands are spaced
    logarithmically, and adds to them below 1 kHz on Slaney's scale.
    """
    most, n_bands = config.pitch_bands, batch.x.shape[2]
    by = torch.randint(-most, most + 1, (len(batch.x),), generator=rng).to(batch.x.device)
    place = torch.arange(n_bands, device=batch.x.device) - by[:, None]
    inside = place.clamp(0, n_bands - 1)
    x = batch.x.gather(2, inside[:, None, :, None].expand(batch.x.shape))
    bands = batch.call_bands
    if bands is not None:
        bands = bands.gather(1, inside) & (place == inside)
    return replace(batch, x=x, call_bands=bands)


def add_powers(
    x: torch.Tensor, other: torch.Tensor, snr_db: torch.Tensor, kind: InputKind
) -> torch.Tensor:
    """Log-mel windows plus others, as sounds add on average: in power.

    `other` is brought to `snr_db` (B,) below the window: of the power of all bands, each counted by
    the hertz that it stands for. Where that is infinite, or there is no sound, nothing is added.
    """
    width = kind.band_width.view(1, 1, -1, 1)
    # Log of sums, so that nothing overflows.
    own, others = ((a + width.log()).flatten(1).logsumexp(dim=1) for a in (x, other))
    level = own - others - snr_db.to(x) * LOG_POWER_PER_DB
    heard = torch.isfinite(level).view(-1, 1, 1, 1)
    level = torch.where(torch.isfinite(level), level, torch.zeros_like(level))
    return torch.where(heard, torch.logaddexp(x, other + level.view(-1, 1, 1, 1)), x)


def noise_like(
    x: torch.Tensor,
    pink: torch.Tensor,
    rng: torch.Generator,
    kind: InputKind,
    share_of_gusts: float = 0.0,
) -> torch.Tensor:
    """Log-mel spectra (B, 1, F, T) of noise, white or, where `pink` (B,), pink.

    The power in a band is that of independent draws at each frame; overlap of frames is left out.
    In a share of windows it comes and goes.
    """
    colour = pink.long().to(kind.noise_mean.device)
    shape = kind.noise_shape[colour][:, None, :, None].expand(x.shape)
    power = gamma(shape.contiguous(), rng).clamp_min(1e-30) / shape
    if share_of_gusts > 0:
        factor = gusts(share_of_gusts, len(x), x.shape[-1], rng).to(x)
        power = power * factor[:, None, None].clamp_min(_CALM)
    return (power * kind.noise_mean[colour][:, None, :, None]).log()
