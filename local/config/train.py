"""How a network learns: the model, the optimiser, the epochs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from local.config.section_base import (
    Count,
    Positive,
    Section,
    Settings,
    Share,
    Some,
)


class ModelConfig(Section):
    """A registered model by name; `params` are checked by that model's own schema."""

    name: str = "crnn"
    params: Settings = {}
    # Path of a checkpoint whose weights start the training (tensors only), or null. {fold} in it
    # stands for the number of the fold.
    init: str | None = None

    def init_of(self, fold: int) -> Path | None:
        """The checkpoint that a fold starts from, if any."""
        return None if self.init is None else Path(self.init.replace("{fold}", str(fold)))


class TrainConfig(Section):
    """Stage 2."""

    n_epochs: Count = 30
    # Windows drawn an epoch; null draws one for each true event and negative of the fold.
    windows_per_epoch: Count | None = None
    batch_size: Count = 32
    # Batches whose gradients are averaged into one step of the optimiser.
    accumulate: Count = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    lr: Positive = 1e-3
    # Rate of the layers after the trunk; null: that of all.
    lr_head: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    # Warm-up is linear over this share of the steps. Then: cosine to zero; step, times step_factor
    # after every step_epochs; noam, with the inverse root of the step; or constant.
    schedule: Literal["cosine", "step", "noam", "constant"] = "cosine"
    step_epochs: Positive = 10.0
    step_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
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
    n_workers: Some = 0
    # Minutes after which the state is saved within an epoch; 0 saves it after every step.
    save_minutes: Annotated[float, Field(ge=0.0)] = 10.0
