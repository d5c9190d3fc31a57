"""Windows that training sees."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from local.config.section_base import Positive, Section, Share


class WindowConfig(Section):
    """Windows that training sees."""

    length_s: Positive = 5.0
    # What becomes of a recording shorter than a window: an error, or padded with its own repeats or
    # with the feature floor.
    short: Literal["refuse", "repeat", "silence"] = "refuse"
    # Shares of the windows of an epoch: drawn around a true event, around a known negative, around
    # a pseudo event, or anywhere in a random recording. Normalised; absent kinds fall away.
    p_positive: Annotated[float, Field(ge=0.0)] = 0.6
    p_negative: Annotated[float, Field(ge=0.0)] = 0.3
    p_pseudo: Annotated[float, Field(ge=0.0)] = 0.3
    p_random: Annotated[float, Field(ge=0.0)] = 0.1
    balance_classes: bool = True
    # Spread the classes of true rows over every batch as evenly as their number allows.
    balance_batches: bool = False
    # Chance that a window is read from one of the dumps of `features.stretches`.
    p_stretched: Share = 0.0
    # A window is the whole recording, padded by `short` to the longest one of the corpus.
    whole: bool = False
    # An event counts in a window when this share of it (of the window, if that is shorter), or this
    # many seconds, is inside.
    min_visible_share: Share = 0.5
    min_visible_s: Positive = 1.0
    # A window is a known negative of a class when negative spans cover at least this share of it.
    # Below 1 it assumes that a rejected candidate speaks for its surroundings as well.
    negative_cover: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0

    @model_validator(mode="after")
    def _balance_agrees(self) -> "WindowConfig":
        if self.balance_batches and not self.balance_classes:
            raise ValueError("balance_batches goes with balance_classes: true; change one of them")
        return self
