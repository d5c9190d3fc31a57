"""The sections that say how a network learns: windows, model, loss, augmentation, training."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from local.config.base import Count, Positive, Section, Share


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
    # An event counts in a window when this share of it (of the window, if that is shorter), or this
    # many seconds, is inside.
    min_visible_share: Share = 0.5
    min_visible_s: Positive = 1.0
    # A window is a known negative of a class when negative spans cover at least this share of it.
    # Below 1 it assumes that a rejected candidate speaks for its surroundings as well.
    negative_cover: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class ModelConfig(Section):
    """A registered model by name; `params` are checked by that model's own schema."""

    name: str = "crnn"
    params: dict[str, Any] = {}
    # Path of a checkpoint whose weights start the training (tensors only), or null.
    init: str | None = None


class LossConfig(Section):
    """Masked binary cross-entropy over known cells, clip-wise and frame-wise."""

    clip_weight: Annotated[float, Field(ge=0.0)] = 1.0
    frame_weight: Annotated[float, Field(ge=0.0)] = 0.5
    # Unknown cells: left out, or pulled with this weight towards this soft target.
    unknown_weight: Annotated[float, Field(ge=0.0)] = 0.0
    unknown_target: Share = 0.0

    @model_validator(mode="after")
    def _something_to_learn(self) -> "LossConfig":
        if self.clip_weight == 0 and self.frame_weight == 0:
            raise ValueError("clip_weight and frame_weight are both 0: nothing would be learned")
        return self


class AugmentConfig(Section):
    """Augmentation of feature windows on the device."""

    mixup_alpha: Annotated[float, Field(ge=0.0)] = 0.0
    mixup_p: Share = 1.0
    # soft: targets mixed by lambda; union: a class of either window is present.
    mixup_target: Literal["soft", "union"] = "union"
    gain_db: Annotated[float, Field(ge=0.0)] = 0.0
    freq_masks: Annotated[int, Field(ge=0)] = 0
    freq_mask_share: Share = 0.1
    time_masks: Annotated[int, Field(ge=0)] = 0
    time_mask_share: Share = 0.1
    noise_std: Annotated[float, Field(ge=0.0)] = 0.0


class TrainConfig(Section):
    """Stage 2."""

    n_epochs: Count = 30
    # Windows drawn an epoch; null draws one for each true event and negative of the fold.
    windows_per_epoch: Count | None = None
    batch_size: Count = 32
    lr: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    warmup_share: Share = 0.05
    grad_clip: Positive = 5.0
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    amp: bool = True
    # Validation is the full sliding-window inference on the held-out fold every so many epochs, and
    # always after the last. select: none keeps the last weights, best those of the best score.
    validate_every: Count = 5
    select: Literal["none", "best"] = "none"
    # A non-finite loss skips its step; more than so many in a run stop it.
    max_bad_steps: Annotated[int, Field(ge=0)] = 10
    n_workers: Annotated[int, Field(ge=0)] = 0
