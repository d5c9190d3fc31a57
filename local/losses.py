"""Losses over known cells. Every loss takes (output, target, mask, weight).

`mask` is the weight of a cell (0: unknown), `weight` a further factor that broadcasts (1.0: none).
Sums are divided by the total weight of the known cells, so the loss does not grow with the number
of labels; a batch that knows nothing gives 0 with a gradient of 0.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)

from local.augment import Batch
from local.config import LossConfig
from local.models import SedOutput


def masked_bce(
    output: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Mean binary cross-entropy of logits over known cells.

    sum(m w [softplus(z) - z y]) / sum(m w), with z the logit and y the target in [0, 1].
    """
    factor = mask * weight
    cells = F.binary_cross_entropy_with_logits(output, target, reduction="none")
    return (cells * factor).sum() / factor.sum().clamp_min(1e-12)


def total_loss(output: SedOutput, batch: Batch, config: LossConfig) -> dict[str, torch.Tensor]:
    """Parts of the loss by name, already weighted, and their sum as `total`."""
    parts: dict[str, torch.Tensor] = {}
    for part, weight in (("clip", config.clip_weight), ("frame", config.frame_weight)):
        if weight == 0:
            continue
        logit = getattr(output, f"{part}_logit")
        target, mask = getattr(batch, f"{part}_target"), getattr(batch, f"{part}_mask")
        parts[part] = weight * masked_bce(logit, target, mask)
        if config.unknown_weight > 0:
            pulled = torch.full_like(logit, config.unknown_target)
            unknown = (mask == 0).to(logit.dtype)
            parts[f"{part}_unknown"] = (
                weight * config.unknown_weight * masked_bce(logit, pulled, unknown)
            )
    parts["total"] = torch.stack(list(parts.values())).sum()
    return parts
