"""The parts of the loss."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from local.config.section_base import (
    FrozenDict,
    Positive,
    Section,
    Share,
)


class LossConfig(Section):
    """Parts of the loss, each with its weight; a weight of 0 leaves a part out.

    `clip_weight` and `frame_weight` are the ratio of the loss over windows to that over frames.
    """

    clip_weight: Annotated[float, Field(ge=0.0)] = 1.0
    frame_weight: Annotated[float, Field(ge=0.0)] = 0.5
    # Loss of a cell. focal: an error counts by its size to the power of gamma, for all cells or for
    # positives alone; alpha weighs positives, 1 - alpha negatives, null neither.
    cells: Literal["bce", "focal"] = "bce"
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    focal_alpha: Share | None = None
    focal_on: Literal["all", "positives"] = "all"
    # Factor of the positive side of a cell: one number, or numbers by label (others have 1).
    positive_weight: Positive | Annotated[dict[str, Positive], AfterValidator(FrozenDict)] = 1.0
    # What sums are divided by: the weight of the known cells, or that of the positives.
    normalise: Literal["known", "positives"] = "known"
    # false: what is unknown counts as absent, in all parts.
    masked: bool = True
    # LSoft: targets are beta of what is given and 1 - beta of what the model says itself.
    negative_beta: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    # Unknown cells: left out, or pulled with this weight towards this soft target (by LSoft when
    # beta is below 1).
    unknown_weight: Annotated[float, Field(ge=0.0)] = 0.0
    unknown_target: Share = 0.0
    unknown_beta: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    # Ranking of the known classes of a window.
    lsep_weight: Annotated[float, Field(ge=0.0)] = 0.0
    # "Anything calls here" against the union of events; frames of which that is not known are left
    # out, or taken as silent.
    activity_weight: Annotated[float, Field(ge=0.0)] = 0.0
    activity_unknown: Literal["ignore", "absent"] = "ignore"
    # Distance of a window's embedding to the learned centres of its classes, and the rate at which
    # the centres learn; null: that of the network.
    centre_weight: Annotated[float, Field(ge=0.0)] = 0.0
    centre_lr: Positive | None = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> "LossConfig":
        if self.clip_weight == 0 and self.frame_weight == 0 and self.lsep_weight == 0:
            raise ValueError(
                "clip_weight, frame_weight and lsep_weight are all 0: nothing would be learned"
            )
        if not self.masked and self.unknown_weight > 0:
            raise ValueError(
                "masked is false, so nothing is unknown, but unknown_weight is "
                f"{self.unknown_weight:g}; set it to 0 or masked to true"
            )
        if self.centre_lr is not None and self.centre_weight == 0:
            raise ValueError(
                f"centre_lr is {self.centre_lr:g}, but centre_weight is 0, so there are no "
                "centres; set centre_weight or leave centre_lr out"
            )
        if self.cells == "focal" and self.negative_beta < 1:
            raise ValueError(
                f"negative_beta is {self.negative_beta:g}, which goes with cells bce, not focal; "
                "set it to 1 or change cells"
            )
        return self
