"""What models of raw waveforms share: frames, groups of frames, classes that exclude each other.

A window (B, n) is cut into T' = n // step frames; each is looked at alone, through as many samples
around its middle as asked for, and gives one cell of the output.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.utils.checkpoint import checkpoint

from local.io.errors import CanopyError
from local.models.common import HeadParams, make_head
from local.models.sed_model import SedModel
from local.models.sinc_filters import Above0, SincFilters, SincParams

# Below this root mean square (-120 dB of full scale) a window is silent and is left as it is.
_SILENCE = 1e-6


class WaveParams(SincParams, HeadParams):
    """Options of models that hear the waveform through sinc filters."""

    # One label a frame: its length, whole samples. And what a frame is seen through, centred on
    # it; null is the frame itself.
    frame_ms: Above0 = 50.0
    context_ms: Above0 | None = None
    # window: every window is brought to mean 0 and root mean square 1, so that the recorder's gain
    # does not matter.
    input_norm: Literal["none", "window"] = "none"
    # softmax: the classes and silence exclude each other. Scores are logits of the probability.
    output: Literal["sigmoid", "softmax"] = "sigmoid"
    head: Literal["attention", "max", "mean"] = "max"
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    # Filter outputs are made again for the gradient in place of being kept: memory for time.
    checkpoint: bool = False
    # Filter outputs in memory at once (frames x filters x samples) where they are not kept.
    map_samples_at_once: Annotated[int, Field(ge=1)] = 2**22

    @model_validator(mode="after")
    def _frames_fit(self) -> "WaveParams":
        samples = self.frame_ms * 1e-3 * self.sample_rate
        if round(samples) < 1 or abs(samples - round(samples)) > 1e-6 * samples:
            raise ValueError(
                f"frame_ms {self.frame_ms:g} is {samples:g} samples at sample_rate "
                f"{self.sample_rate}; choose a length of whole samples"
            )
        if self.context < self.step:
            raise ValueError(
                f"context_ms {self.context_ms:g} is shorter than frame_ms {self.frame_ms:g}"
            )
        return self

    @property
    def step(self) -> int:
        """Samples from one frame to the next."""
        return round(self.frame_ms * 1e-3 * self.sample_rate)

    @property
    def context(self) -> int:
        """Samples that a frame is seen through."""
        if self.context_ms is None:
            return self.step
        return round(self.context_ms * 1e-3 * self.sample_rate)


class WaveSed(SedModel):
    """Base of models of raw waveforms.

    Attributes
    ----------
    sample_rate : of the waveforms; `audio.sample_rate` must agree.
    filters : the sinc filters.
    """

    input = "waveform"

    def __init__(self, params: WaveParams) -> None:
        super().__init__()
        self.sample_rate = params.sample_rate
        self.step = params.step
        self.context = params.context
        self.normalised = params.input_norm == "window"
        self.recomputed = params.checkpoint
        self.map_samples_at_once = params.map_samples_at_once
        self.filters = SincFilters(params)

    def _add_head(self, params: WaveParams, n_features: int, n_classes: int) -> None:
        self.head = make_head(params, n_features, n_classes)
        if params.output == "softmax":
            self.head.classes = ExclusiveClasses(n_features, n_classes)

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) samples -> the same, normalised where asked for."""
        if not self.normalised:
            return x
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / centred.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=_SILENCE)

    def frames(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) samples -> (B, T', context): frame i is centred on [i, i + 1) * step samples.

        Beyond the window there is silence.
        """
        n_frames = x.shape[-1] // self.step
        x = x[:, : n_frames * self.step]
        around = self.context - self.step
        if around:
            x = nn.functional.pad(x, (around // 2, around - around // 2))
        return x.unfold(-1, self.context, self.step)

    def in_groups(
        self, layers: Callable[[torch.Tensor], torch.Tensor], items: torch.Tensor, maps_each: int
    ) -> torch.Tensor:
        """`layers` over items (N, ...), as many at once as make `map_samples_at_once`.

        `maps_each`: samples of filter outputs of one item. `layers` must treat items alone. What is
        between an item and its result is not kept with `checkpoint`, nor without gradients.
        """
        kept = torch.is_grad_enabled() and not self.recomputed
        n_at_once = len(items) if kept else max(1, self.map_samples_at_once // maps_each)
        if not torch.is_grad_enabled() or kept:
            done = [layers(group) for group in items.split(n_at_once)]
        else:
            done = [
                checkpoint(layers, group, use_reentrant=False) for group in items.split(n_at_once)
            ]
        return done[0] if len(done) == 1 else torch.cat(done)


def require_samples(n_samples: int, layers: str) -> int:
    """The number of samples that layers leave of a frame; refused when it is none."""
    if n_samples < 1:
        raise CanopyError(
            f"model.params: the {layers} leave no sample of a frame; lengthen frame_ms or "
            "context_ms, or make kernels, strides or pool smaller"
        )
    return n_samples


class ExclusiveClasses(nn.Module):
    """Softmax over the classes and "none of them", given as logits of each probability.

    With p = softmax(z), log(p_c / (1 - p_c)) = z_c - log(sum of exp z over all others), so a
    sigmoid of what is returned is exactly p_c, and nothing saturates.
    """

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.layer = nn.Conv1d(n_features, n_classes + 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, T') -> (B, C, T')."""
        z = self.layer(x).float()
        n = z.shape[1]
        own = torch.eye(n, dtype=torch.bool, device=z.device)[: n - 1]
        others = z[:, None].masked_fill(own[None, :, :, None], -torch.inf)
        return z[:, : n - 1] - others.logsumexp(dim=2)
