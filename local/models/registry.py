"""The contract of a model, and the registry."""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from local.config import Section, parse_section
from local.io.errors import CanopyError, first_line

# Numbers of a network: 4 GB of float32, some fifty times the largest that the field publishes.
_MAX_NUMBERS = 2**30
# One parameter of a model, and a list of them: more would be made one by one for hours.
_MAX_NUMBER, _MAX_LENGTH = 2**24, 1000


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


def model_names() -> list[str]:
    """Registered names."""
    return sorted(_REGISTRY)


def without_pretrained(params: dict[str, Any]) -> dict[str, Any]:
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
        near = difflib.get_close_matches(name, model_names(), n=1, cutoff=0.5)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise CanopyError(
            f"model.name is {name!r}, expected one of {', '.join(model_names())}{hint}"
        )
    schema, builder = _REGISTRY[name]
    _check_numbers(name, params)
    checked = parse_section(schema, params, "model.params")
    bare = parse_section(schema, without_pretrained(params), "model.params")
    _check_extent(name, lambda: builder(bare, n_classes, n_bands))
    return builder(checked, n_classes, n_bands)


def _check_numbers(name: str, params: dict[str, Any]) -> None:
    """Refuse numbers and lists that a model would be made of for hours."""
    waiting: list[Any] = list(params.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += value[:_MAX_LENGTH]
        if (isinstance(value, list | tuple) and len(value) > _MAX_LENGTH) or (
            isinstance(value, int) and abs(value) > _MAX_NUMBER
        ):
            raise CanopyError(f"model.params: {str(value)[:40]} is beyond any {name}; lower it")


def _check_extent(name: str, build: Callable[[], SedModel]) -> None:
    """Refuse what would take memory without end, by a model that is built without its numbers."""
    if torch.get_default_device().type == "meta":
        return  # it takes none anyway
    try:
        # What is drawn here must not move the generator that draws the true weights.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = build()
    except OSError:
        return  # of a file or a network: who builds the true one tells it
    except RuntimeError as error:
        raise CanopyError(
            f"model.params: no {name} can be built of them ({first_line(error)}); correct them"
        ) from None
    n = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if n > _MAX_NUMBERS:
        raise CanopyError(
            f"model.params make a {name} of {n} numbers, at most {_MAX_NUMBERS} are taken; make it "
            "smaller"
        )
