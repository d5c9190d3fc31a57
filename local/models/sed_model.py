"""The contract of a network for detection, and how a family registers itself."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from local.config import Section


class SedOutput(NamedTuple):
    """What a model says of a batch of B windows; all scores are logits.

    frame_logit: (B, C, T') one column a cell of `SedModel.step` input frames.
    clip_logit: (B, C) of the whole window.
    activity_logit: (B, 1, T') "anything calls here", or None.
    embedding: (B, D) of the whole window.
    """

    frame_logit: torch.Tensor
    clip_logit: torch.Tensor
    activity_logit: torch.Tensor | None
    embedding: torch.Tensor


Mix = Callable[[torch.Tensor], torch.Tensor]


class SedModel(nn.Module):
    """Base of all models: features, and a head that scores them.

    Attributes
    ----------
    input : "spectrogram" for (B, K, F, T) or "waveform" for (B, n): what of a front end it takes.
    step : input frames (samples of a waveform) in one output cell; T' = T // step.
    head_prefixes : what the names of the parameters that score begin with; they hang on the
        classes and are made anew where first weights come from another set of classes.
    """

    input: str = "spectrogram"
    step: int = 1
    head_prefixes: tuple[str, ...] = ("head.",)
    head: nn.Module

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, T') what the head sees; a class token, if any, is one more column in front."""
        raise NotImplementedError

    def score(self, features: torch.Tensor) -> SedOutput:
        """What the head says of features."""
        return self.head(features)

    def forward(self, x: torch.Tensor, mix: Mix | None = None) -> SedOutput:
        """Score a batch of windows; `mix` changes the features before they are scored.

        `mix` maps features to features of the same shape and may combine windows of the batch.
        """
        features = self.features(x)
        return self.score(features if mix is None else mix(features))


Builder = Callable[[Any, int, int], SedModel]
_REGISTRY: dict[str, tuple[type[Section], Builder]] = {}


def register(name: str, params: type[Section]) -> Callable[[Builder], Builder]:
    """Register `builder(params, n_classes, n_bands)` under `name`."""

    def keep(builder: Builder) -> Builder:
        _REGISTRY[name] = (params, builder)
        return builder

    return keep


def registered() -> dict[str, tuple[type[Section], Builder]]:
    """Name -> schema of the parameters, and builder, of the families that were imported."""
    return dict(_REGISTRY)
