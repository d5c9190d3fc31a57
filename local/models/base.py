"""The contract of a model, and the registry."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from local.config import Section, parse_section
from local.errors import CanopyError


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


class SedModel(nn.Module):
    """Base of all models.

    Attributes
    ----------
    input : "logmel" for (B, 1, n_mels, T) or "wave" for (B, n).
    step : input frames (samples for "wave") in one output cell; T' = T // step.
    """

    input: str = "logmel"
    step: int = 1

    def forward(self, x: torch.Tensor) -> SedOutput:
        """Score a batch of windows."""
        raise NotImplementedError


Builder = Callable[[Any, int, int], SedModel]
_REGISTRY: dict[str, tuple[type[Section], Builder]] = {}


def register(name: str, params: type[Section]) -> Callable[[Builder], Builder]:
    """Register `builder(params, n_classes, n_bands)` under `name`."""

    def keep(builder: Builder) -> Builder:
        _REGISTRY[name] = (params, builder)
        return builder

    return keep


def model_names() -> list[str]:
    """Registered names."""
    return sorted(_REGISTRY)


def without_start(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters without those that say where first weights come from (a file, a network).

    For a model whose weights are loaded afterwards: neither may be at hand any more.
    """
    return {key: value for key, value in params.items() if key not in ("pretrained", "weights")}


def create_model(name: str, params: dict[str, Any], n_classes: int, n_bands: int) -> SedModel:
    """Build a model.

    Parameters
    ----------
    params : checked by the model's own schema.
    n_bands : mel bands of the input; ignored by waveform models.
    """
    if name not in _REGISTRY:
        raise CanopyError(f"model.name is {name!r}, expected one of {', '.join(model_names())}")
    schema, builder = _REGISTRY[name]
    return builder(parse_section(schema, params, "model.params"), n_classes, n_bands)
