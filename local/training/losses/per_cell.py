"""Losses that are sums over cells (class x window, or class x frame), each for itself.

Sums are divided by the total weight of the known cells, so a loss does not grow with the number of
labels.
"""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)
from torch import distributed

Normalise = Literal["known", "positives"]


def per_weight(total: torch.Tensor, weight: torch.Tensor, least: float = 1e-12) -> torch.Tensor:
    """`total / weight`, a sum over a batch by what it weighs; by `least` where that is less.

    Several processes (ranks) that share a batch each divide their own sum by the mean of all their
    weights. The mean over ranks, which DistributedDataParallel takes of gradients, is then the sum
    over the whole batch by its weight, however its windows are shared out. All ranks must call this
    in the same order.
    """
    if not distributed.is_initialized():
        return total / weight.clamp_min(least)
    weight = weight.detach().clone()
    distributed.all_reduce(weight)
    return total * distributed.get_world_size() / weight.clamp_min(least)


def weighted_mean(
    cells: torch.Tensor, target: torch.Tensor, factor: torch.Tensor, normalise: Normalise = "known"
) -> torch.Tensor:
    """Sum of cells times factor, divided by the weight that speaks; 0 when nothing does.

    known: by the sum of factors. positives: by the sum of factor times target, the number of
    positives of the batch, at least 1.
    """
    total = (cells * factor).sum()
    if normalise == "positives":
        return per_weight(total, (factor * target).sum(), least=1.0)
    return per_weight(total, factor.sum())


def bce_cells(
    output: torch.Tensor, target: torch.Tensor, positive_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Binary cross-entropy a y softplus(-z) + (1 - y) softplus(z) of each cell.

    z is the logit, y the target in [0, 1], a the weight of positives (none: 1), which broadcasts.
    """
    return F.binary_cross_entropy_with_logits(
        output, target, reduction="none", pos_weight=positive_weight
    )


def focal_cells(
    output: torch.Tensor,
    target: torch.Tensor,
    positive_weight: torch.Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    on: Literal["all", "positives"] = "all",
) -> torch.Tensor:
    """Focal loss (Lin et al. 2017) of each cell, for soft targets as well.

    -alpha a y (1 - p)^gamma ln p - (1 - alpha) (1 - y) p^gamma ln(1 - p), with p the probability,
    y the target and a the weight of positives; without `alpha` neither it nor its complement
    counts. `on` positives leaves p^gamma out: what is absent is learned by plain cross-entropy.
    """
    # Powers of probabilities as exponentials of their logarithms: exact where p is 0 or 1 in
    # floating point, and finite in gradient for any gamma.
    ln_present, ln_absent = F.logsigmoid(output), F.logsigmoid(-output)
    present = -target * (gamma * ln_absent).exp() * ln_present
    absent = -(1 - target) * ln_absent
    if on == "all":
        absent = absent * (gamma * ln_present).exp()
    if positive_weight is not None:
        present = present * positive_weight
    if alpha is not None:
        present, absent = alpha * present, (1 - alpha) * absent
    return present + absent


def masked_bce(
    output: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor | float = 1.0,
    *,
    positive_weight: torch.Tensor | None = None,
    normalise: Normalise = "known",
) -> torch.Tensor:
    """Mean binary cross-entropy of logits over known cells: sum(m w cells) / sum(m w)."""
    cells = bce_cells(output, target, positive_weight)
    return weighted_mean(cells, target, mask * weight, normalise)


def masked_focal(
    output: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor | float = 1.0,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    on: Literal["all", "positives"] = "all",
    positive_weight: torch.Tensor | None = None,
    normalise: Normalise = "known",
) -> torch.Tensor:
    """Mean focal loss of logits over known cells; see `focal_cells`."""
    cells = focal_cells(output, target, positive_weight, gamma=gamma, alpha=alpha, on=on)
    return weighted_mean(cells, target, mask * weight, normalise)


def softened(output: torch.Tensor, target: torch.Tensor, beta: float) -> torch.Tensor:
    """Targets beta y + (1 - beta) p, with p the model's own probability, held fixed."""
    return beta * target + (1 - beta) * torch.sigmoid(output.detach())


def l_soft(
    output: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor | float = 1.0,
    *,
    beta: float,
) -> torch.Tensor:
    """Cross-entropy against softened targets: half-believes labels that may be missing.

    Its gradient is beta times that of plain cross-entropy.
    """
    return masked_bce(output, softened(output, target, beta), mask, weight)
