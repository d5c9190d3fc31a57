"""Augmentation of batches of windows on the device, with their targets.

All draws come from one torch generator that the caller seeds for each step, so a resumed epoch sees
the same batches. Log-mel windows are (B, 1, F, T), waveforms (B, n).
"""

import math
from dataclasses import dataclass, replace

import torch

from local.config import AugmentConfig


@dataclass(frozen=True)
class Batch:
    """Windows and targets as in `labels.Targets`, with a leading batch axis."""

    x: torch.Tensor
    clip_target: torch.Tensor
    clip_mask: torch.Tensor
    frame_target: torch.Tensor
    frame_mask: torch.Tensor


def augment(batch: Batch, config: AugmentConfig, rng: torch.Generator) -> Batch:
    """Apply what the configuration asks for; nothing of it changes the input batch."""
    is_logmel = batch.x.ndim == 4
    x = batch.x
    if config.gain_db > 0:
        x = _gain(x, config.gain_db, is_logmel, rng)
    batch = replace(batch, x=x)
    if config.mixup_alpha > 0:
        batch = mixup(batch, config, is_logmel, rng)
    x = batch.x
    if config.noise_std > 0:
        x = x + config.noise_std * _normal(x.shape, rng, x)
    if is_logmel:
        for _ in range(config.freq_masks):
            x = _mask_stretch(x, 2, config.freq_mask_share, rng)
        for _ in range(config.time_masks):
            x = _mask_stretch(x, 3, config.time_mask_share, rng)
    return replace(batch, x=x)


def mixup(batch: Batch, config: AugmentConfig, is_logmel: bool, rng: torch.Generator) -> Batch:
    """Mix every window with another of the batch, as sounds add: in power.

    lambda ~ Beta(alpha, alpha), taken from its upper half so that the window itself is the louder.
    Targets `union`: a class known to be in either is present; it is known absent when both say so.
    Targets `soft`: lambda-weighted means over what is known.
    """
    size = len(batch.x)
    order = torch.randperm(size, generator=rng).to(batch.x.device)
    share = _beta(config.mixup_alpha, size, rng).to(batch.x)
    share = torch.maximum(share, 1 - share)
    chosen = torch.rand(size, generator=rng).to(batch.x.device) < config.mixup_p
    share = torch.where(chosen, share, torch.ones_like(share))
    x = _mix_inputs(batch.x, batch.x[order], share, is_logmel)
    mixed = {
        part: _mix_targets(
            (getattr(batch, f"{part}_target"), getattr(batch, f"{part}_mask")), order, share, config
        )
        for part in ("clip", "frame")
    }
    return Batch(x, *mixed["clip"], *mixed["frame"])


def _mix_inputs(
    x: torch.Tensor, other: torch.Tensor, share: torch.Tensor, is_logmel: bool
) -> torch.Tensor:
    share = share.view(-1, *[1] * (x.ndim - 1))
    if not is_logmel:
        return share.sqrt() * x + (1 - share).sqrt() * other
    # log(share e^x + (1 - share) e^other); a share of 1 leaves x as it is.
    return torch.logaddexp(x + share.log(), other + (1 - share).clamp_min(1e-30).log())


def _mix_targets(
    pair: tuple[torch.Tensor, torch.Tensor],
    order: torch.Tensor,
    share: torch.Tensor,
    config: AugmentConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    target, mask = pair
    other_target, other_mask = target[order], mask[order]
    share = share.view(-1, *[1] * (target.ndim - 1))
    alone = share == 1
    if config.mixup_target == "union":
        present = torch.maximum(target * (mask > 0), other_target * (other_mask > 0))
        weight = torch.maximum(mask * (target > 0), other_mask * (other_target > 0))
        mixed_target = present
        mixed_mask = torch.where(present > 0, weight, mask * other_mask)
    else:
        mixed_mask = share * mask + (1 - share) * other_mask
        summed = share * mask * target + (1 - share) * other_mask * other_target
        mixed_target = summed / mixed_mask.clamp_min(1e-12)
    return torch.where(alone, target, mixed_target), torch.where(alone, mask, mixed_mask)


def _gain(x: torch.Tensor, gain_db: float, is_logmel: bool, rng: torch.Generator) -> torch.Tensor:
    level = (2 * torch.rand(len(x), generator=rng) - 1).to(x) * gain_db
    level = level.view(-1, *[1] * (x.ndim - 1))
    return x + level * (math.log(10) / 10) if is_logmel else x * 10 ** (level / 20)


def _mask_stretch(x: torch.Tensor, axis: int, share: float, rng: torch.Generator) -> torch.Tensor:
    """SpecAugment (Park et al. 2019): a stretch of up to `share` of the axis takes the mean."""
    size, length = len(x), x.shape[axis]
    width = torch.rand(size, generator=rng) * share * length
    first = torch.rand(size, generator=rng) * (length - width)
    place = torch.arange(length)
    hit = (place >= first[:, None]) & (place < (first + width)[:, None])
    shape = [size, 1, 1, 1]
    shape[axis] = length
    return torch.where(hit.view(shape).to(x.device), x.mean(dim=(2, 3), keepdim=True), x)


def _normal(shape: torch.Size, rng: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    return torch.randn(shape, generator=rng).to(like)


def _beta(alpha: float, size: int, rng: torch.Generator) -> torch.Tensor:
    """Beta(alpha, alpha) draws from the ratio of two gammas."""
    shape = torch.full((2, size), alpha, dtype=torch.float64)
    gammas = torch._standard_gamma(shape, generator=rng).clamp_min(1e-300)
    return gammas[0] / gammas.sum(dim=0)
