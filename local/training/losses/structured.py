"""Losses that tie cells together: the order of classes, the union of classes, class centres."""

from typing import Literal

import torch

from local.training.losses.per_cell import masked_bce, per_weight


def lsep(
    output: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Log-sum-exp pairwise loss (Li et al. 2017): what is present ranks above what is absent.

    Mean over windows of ln(1 + sum over pairs (i, j) of w_ij exp(z_j - z_i)), over windows that
    have a pair; w_ij = m_i m_j max(0, y_i - y_j), which for hard labels picks every known positive
    i with every known negative j. `output`, `target`, `mask` are (B, C).
    """
    known = mask * weight
    above = (target[:, :, None] - target[:, None, :]).clamp_min(0.0)
    pairs = (known[:, :, None] * known[:, None, :] * above).flatten(1)
    gap = (output[:, None, :] - output[:, :, None]).flatten(1)
    terms = torch.cat([gap.new_zeros(len(gap), 1), gap + pairs.log()], dim=1)
    has_pair = (pairs > 0).any(dim=1).to(output.dtype)
    return per_weight((terms.logsumexp(dim=1) * has_pair).sum(), has_pair.sum(), least=1.0)


def activity_bce(
    output: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor | float = 1.0,
    *,
    unknown: Literal["ignore", "absent"] = "ignore",
) -> torch.Tensor:
    """Cross-entropy of "anything calls here" against the union of events.

    A frame calls (with the greatest target and weight of its known positives) where any class is
    known to call. It is silent where every class is known to be absent, with the least of their
    weights. Of other frames nothing is known: `ignore` leaves them out, `absent` takes them as
    silent, as if the positive rows were all that calls.

    Parameters
    ----------
    output : (B, 1, T') logits.
    target, mask : (B, C, T') of the classes.
    """
    factor = mask * weight
    heard = target * (factor > 0)
    union = heard.amax(dim=1, keepdim=True)
    loud = (factor * (heard > 0)).amax(dim=1, keepdim=True)
    silent = factor.amin(dim=1, keepdim=True)
    if unknown == "absent":
        silent = torch.ones_like(silent)
    return masked_bce(output, union, torch.where(union > 0, loud, silent))


def centre_distance(
    output: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor | float = 1.0,
    *,
    centres: torch.Tensor,
) -> torch.Tensor:
    """Squared distance of embeddings to the centres of their classes (after Wen et al. 2016).

    A window's distance is the mean over its known positive classes, weighted by m w y; the loss is
    the mean over windows, weighted by the greatest m w y of each.

    Parameters
    ----------
    output : (B, D) embeddings.
    target, mask : (B, C).
    centres : (C, D).
    """
    factor = mask * weight * target
    distance = (output[:, None, :] - centres).square().sum(dim=2)
    each = (distance * factor).sum(dim=1) / factor.sum(dim=1).clamp_min(1e-12)
    window = factor.amax(dim=1)
    return per_weight((each * window).sum(), window.sum())
