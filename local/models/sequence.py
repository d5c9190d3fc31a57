"""What encoders over time share: a stem, positions, an optional class token, the head.

All bands of a frame are one vector. Convolutions over time may make the frames fewer first; cells
of the output lie centred over the frames that they stand for. Positions are sines and cosines of
any length, and normalisation is over features, so one set of weights takes any window.
"""

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from local.models.common import (
    CommonParams,
    hidden_layer,
    input_layers,
    make_head,
    n_channels,
    smooth_cells,
)
from local.models.heads import TokenHead
from local.models.sed_model import SedModel


class SequenceParams(CommonParams):
    """Options of encoders over time."""

    # Strides of the convolutions over time; their product is the step. [] keeps every frame.
    downsample: list[int] = Field(default=[2, 2, 2])
    width: int = Field(default=64, ge=2)
    n_blocks: int = Field(default=4, ge=1, le=256)
    n_heads: int = Field(default=4, ge=1)
    feed_forward: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    # token: a learned class token is read along, and its output scores the window.
    head: Literal["token", "attention", "max", "mean"] = "token"  # type: ignore[assignment]

    @model_validator(mode="after")
    def _sizes_fit(self) -> "SequenceParams":
        if self.width % (2 * self.n_heads):
            raise ValueError(
                f"width {self.width} must be a multiple of twice n_heads {self.n_heads}"
            )
        if any(stride < 1 for stride in self.downsample):
            raise ValueError("downsample must be strides of 1 or more")
        return self


class SequenceSed(SedModel):
    """Stem, encoder and head; a family adds the encoder as `encode`.

    Its layers are made by the family before `_add_head` is called.
    """

    def __init__(self, params: SequenceParams, n_bands: int) -> None:
        super().__init__()
        self.smooth = params.smooth
        self.step = math.prod(params.downsample)
        self.input_layers = input_layers(params, n_bands)
        self.stem = _stem(n_channels(params) * n_bands, params.width, params.downsample)
        self.norm = nn.LayerNorm(params.width)
        self.dropout = nn.Dropout(params.dropout)
        has_token = params.head == "token"
        self.token = nn.Parameter(0.02 * torch.randn(params.width)) if has_token else None

    def _add_head(self, params: SequenceParams, n_classes: int) -> None:
        self.hidden = hidden_layer(params.width, params.hidden)
        n_features = params.hidden or params.width
        if params.head == "token":
            self.head = TokenHead(n_features, n_classes, params.dropout, params.activity)
        else:
            self.head = make_head(params, n_features, n_classes)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, width) -> (B, L, width)."""
        raise NotImplementedError

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) log-mel -> (B, D, T'), or (B, D, 1 + T') with the class token in front."""
        x = self.stem(self.input_layers(x).flatten(1, 2)).transpose(1, 2)
        x = self.norm(x)
        x = x + positions(x.shape[1], x.shape[2], x)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], 1, -1), x], dim=1)
        x = self.encode(self.dropout(x)).transpose(1, 2)
        if self.smooth:
            first = 0 if self.token is None else 1
            x = torch.cat([x[..., :first], smooth_cells(x[..., first:])], dim=-1)
        return self.hidden(x)


def positions(n: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Sines and cosines (n, width) of the place (Vaswani et al. 2017), for any n."""
    place = torch.arange(n, device=like.device, dtype=torch.float32)[:, None]
    even = torch.arange(0, width, 2, device=like.device, dtype=torch.float32)
    angle = place * torch.exp(-math.log(10000.0) / width * even)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)


def _stem(n_in: int, width: int, strides: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv1d(n_in, width, 3, padding=1), nn.GELU()]
    for stride in strides:
        # This kernel and padding give T // stride cells, each centred over its own frames.
        around = stride // 2
        layers.append(nn.Conv1d(width, width, stride + 2 * around, stride, padding=around))
        layers.append(nn.GELU())
    return nn.Sequential(*layers)
