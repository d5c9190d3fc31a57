"""The loss that a configuration asks for, with its parts by name."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from local.config import LossConfig
from local.io.errors import CanopyError
from local.models import SedOutput
from local.training.augment.batch import Batch
from local.training.losses.per_cell import (
    bce_cells,
    l_soft,
    masked_bce,
    masked_focal,
    softened,
    weighted_mean,
)
from local.training.losses.structured import activity_bce, centre_distance, lsep


class Objective(nn.Module):
    """Sum of the configured parts; holds what is learned beside the model.

    Its parameters (the centres of the centre loss) belong into the optimiser and into training
    checkpoints. They are of no use to a trained model, so they are neither averaged nor published.

    Parameters
    ----------
    labels : class labels in the order of the outputs.
    probe : makes one output of the model; called when the loss depends on what the model offers.

    Raises
    ------
    CanopyError
        When the model or the labels do not have what a part needs.
    """

    def __init__(
        self, config: LossConfig, labels: list[str], probe: Callable[[], SedOutput]
    ) -> None:
        super().__init__()
        self.config = config
        check_labels(config, labels)
        given = config.positive_weight
        self.register_buffer("positive_weight", None, persistent=False)
        if isinstance(given, dict):
            self.positive_weight = torch.tensor([given.get(label, 1.0) for label in labels])
        elif given != 1.0:
            self.positive_weight = torch.full((len(labels),), given)
        self.register_parameter("centres", None)
        if config.activity_weight > 0 or config.centre_weight > 0:
            output = probe()
            check_output(config, output)
            if config.centre_weight > 0:
                shape = (len(labels), output.embedding.shape[1])
                self.centres = nn.Parameter(torch.zeros(shape))

    def forward(self, output: SedOutput, batch: Batch) -> dict[str, torch.Tensor]:
        """Parts of the loss by name, already weighted, and their sum as `total`."""
        config = self.config
        if not config.masked:
            batch = _all_known(batch)
        clip = (batch.clip_target, batch.clip_mask)
        frame = (batch.frame_target, batch.frame_mask)
        parts: dict[str, torch.Tensor] = {}
        if config.clip_weight > 0:
            parts |= self._cells("clip", config.clip_weight, output.clip_logit, *clip)
        if config.frame_weight > 0:
            parts |= self._cells("frame", config.frame_weight, output.frame_logit, *frame)
        if config.lsep_weight > 0:
            parts["lsep"] = config.lsep_weight * lsep(output.clip_logit, *clip)
        if config.activity_weight > 0:
            activity: Any = output.activity_logit  # there where the loss asks for it
            heard = activity_bce(activity, *frame, unknown=config.activity_unknown)
            parts["activity"] = config.activity_weight * heard
        if self.centres is not None:
            parts["centre"] = self._centre(output.embedding.float(), *clip)
        parts["total"] = torch.stack(list(parts.values())).sum()
        return parts

    def _cells(
        self,
        part: str,
        weight: float,
        logit: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """One part over cells, and what pulls its unknown cells."""
        config = self.config
        positive = self.positive_weight
        if positive is not None and logit.ndim == 3:
            positive = positive[:, None]
        if config.cells == "focal":
            loss = masked_focal(
                logit,
                target,
                mask,
                gamma=config.focal_gamma,
                alpha=config.focal_alpha,
                on=config.focal_on,
                positive_weight=positive,
                normalise=config.normalise,
            )
        elif config.negative_beta < 1:
            loss = self._soft_negatives(logit, target, mask, positive)
        else:
            loss = masked_bce(
                logit, target, mask, positive_weight=positive, normalise=config.normalise
            )
        parts = {part: weight * loss}
        if config.unknown_weight > 0:
            pulled = torch.full_like(logit, config.unknown_target)
            unknown = (mask == 0).to(logit.dtype)
            if config.unknown_beta < 1:
                pull = l_soft(logit, pulled, unknown, beta=config.unknown_beta)
            else:
                pull = masked_bce(logit, pulled, unknown)
            parts[f"{part}_unknown"] = weight * config.unknown_weight * pull
        return parts

    def _soft_negatives(
        self,
        logit: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        positive_weight: torch.Tensor | None,
    ) -> torch.Tensor:
        """Cross-entropy with LSoft on negatives, whose soft share does not weigh as a positive."""
        negative = target == 0
        goal = torch.where(negative, softened(logit, target, self.config.negative_beta), target)
        if positive_weight is not None:
            positive_weight = torch.where(negative, torch.ones_like(target), positive_weight)
        cells = bce_cells(logit, goal, positive_weight)
        return weighted_mean(cells, target, mask, self.config.normalise)

    def _centre(
        self, embedding: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """The weighted distance, whose weight holds for the network alone.

        Centres follow the plain distance, as in Wen et al. 2016: scaled by a weight of 1e-5 they
        would stand still under an optimiser that does not adapt its steps.
        """
        pull = centre_distance(embedding, target, mask, centres=self.centres.detach())
        follow = centre_distance(embedding.detach(), target, mask, centres=self.centres)
        return self.config.centre_weight * pull + (follow - follow.detach())


def check_labels(config: LossConfig, labels: list[str]) -> None:
    """Refuse weights of classes that are not there."""
    if not isinstance(config.positive_weight, dict):
        return
    for label in config.positive_weight:
        if label not in labels:
            near = get_close_matches(label, labels, n=1, cutoff=0.0) or ["none"]
            raise CanopyError(
                f"loss.positive_weight names the class {label!r}, which classes.csv does not have; "
                f"the nearest is {near[0]!r}"
            )


def check_output(config: LossConfig, output: SedOutput) -> None:
    """Refuse a model without the output that a part needs."""
    if config.activity_weight > 0 and output.activity_logit is None:
        raise CanopyError(
            f"loss.activity_weight is {config.activity_weight:g}, but the model has no activity "
            "output; set model.params.activity to true or the weight to 0"
        )


def _all_known(batch: Batch) -> Batch:
    """What is unknown is absent: a target counts by its mask, and every cell is known."""
    return replace(
        batch,
        clip_target=batch.clip_target * batch.clip_mask,
        clip_mask=torch.ones_like(batch.clip_mask),
        frame_target=batch.frame_target * batch.frame_mask,
        frame_mask=torch.ones_like(batch.frame_mask),
    )
