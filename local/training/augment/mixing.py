"""Mixup: two windows as one, at the input or at what the head sees."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from local.config import AugmentConfig
from local.training.augment.batch import Batch
from local.training.augment.draws import beta, chosen
from local.training.augment.input_kind import InputKind


def mixup(batch: Batch, config: AugmentConfig, kind: InputKind, rng: torch.Generator) -> Batch:
    """Mix every window with another of the batch, as sounds add: in power where levels show.

    lambda ~ Beta(alpha, alpha), or `mixup_lambda`; the larger of it and its rest is the window's
    own, so that the window itself is the louder.
    Targets `union`: a class known to be in either is present; it is known absent when both say so.
    Targets `soft`: lambda-weighted means over what is known.
    """
    order, share = _partners(batch, config, rng)
    mixed = _mix_labels(batch, order, share, config)
    return replace(mixed, x=_mix_inputs(batch.x, batch.x[order], share, kind.front_end.level))


def mix_partners(
    batch: Batch, config: AugmentConfig, kind: InputKind, rng: torch.Generator
) -> Batch:
    """Mix windows with the partners that they came with, by the rules of `mixup`.

    Where no mixup is asked for, lambda is one half.
    """
    if batch.partner is None or batch.partnered is None:
        return batch
    share = _shares(config if config.mixes else _HALF, batch.x, rng)
    share = torch.where(batch.partnered, share, torch.ones_like(share))
    changes: dict[str, Any] = {}
    for part in ("clip", "frame"):
        names = f"{part}_target", f"{part}_mask"
        pair = getattr(batch, names[0]), getattr(batch, names[1])
        other = getattr(batch, f"partner_{names[0]}"), getattr(batch, f"partner_{names[1]}")
        changes |= dict(zip(names, _mix_targets(pair, other, share, config), strict=True))
    x = _mix_inputs(batch.x, batch.partner, share, kind.front_end.level)
    return replace(batch, x=x, partner=None, **changes)


def last_layer_mix(
    batch: Batch, config: AugmentConfig, rng: torch.Generator
) -> tuple[Batch, Callable[[torch.Tensor], torch.Tensor]]:
    """The batch with mixed targets, and what mixes the model's (B, D, T') features alike.

    Features are no powers: they are mixed linearly (manifold mixup, Verma et al. 2019).
    """
    order, share = _partners(batch, config, rng)

    def mix(features: torch.Tensor) -> torch.Tensor:
        own = share.to(features.dtype).view(-1, *[1] * (features.ndim - 1))
        return own * features + (1 - own) * features[order]

    return _mix_labels(batch, order, share, config), mix


def _partners(
    batch: Batch, config: AugmentConfig, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each window's partner, and its own share from 1/2 to 1 (1: it is left alone)."""
    size, device = len(batch.x), batch.x.device
    order = torch.randperm(size, generator=rng).to(device)
    share = _shares(config, batch.x, rng)
    mixed = chosen(config.mixup_p, size, rng).to(device)
    return order, torch.where(mixed, share, torch.ones_like(share))


# What windows are mixed by where no mixup is asked for.
_HALF = AugmentConfig(mixup_lambda=0.5)


def _shares(config: AugmentConfig, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """(B,) the larger of lambda and its rest, for windows `x`."""
    if config.mixup_lambda is None:
        share = beta(config.mixup_alpha, len(x), rng).to(x)
    else:
        share = torch.full((len(x),), config.mixup_lambda).to(x)
    return torch.maximum(share, 1 - share)


def _mix_labels(
    batch: Batch, order: torch.Tensor, share: torch.Tensor, config: AugmentConfig
) -> Batch:
    changes: dict[str, Any] = {}
    for part in ("clip", "frame"):
        names = f"{part}_target", f"{part}_mask"
        pair = getattr(batch, names[0]), getattr(batch, names[1])
        other = pair[0][order], pair[1][order]
        changes |= dict(zip(names, _mix_targets(pair, other, share, config), strict=True))
    if batch.call_bands is not None:
        others = batch.call_bands[order] & (share < 1)[:, None]
        changes["call_bands"] = batch.call_bands | others
    return replace(batch, **changes)


def _mix_inputs(
    x: torch.Tensor, other: torch.Tensor, share: torch.Tensor, level: str | None
) -> torch.Tensor:
    share = share.view(-1, *[1] * (x.ndim - 1))
    if level is None:
        return share * x + (1 - share) * other
    if level == "amplitude":
        return share.sqrt() * x + (1 - share).sqrt() * other
    # log(share e^x + (1 - share) e^other); a share of 1 leaves x as it is.
    return torch.logaddexp(x + share.log(), other + (1 - share).clamp_min(1e-30).log())


def _mix_targets(
    pair: tuple[torch.Tensor, torch.Tensor],
    other: tuple[torch.Tensor, torch.Tensor],
    share: torch.Tensor,
    config: AugmentConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    (target, mask), (other_target, other_mask) = pair, other
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
