"""A small convolutional recurrent network that trains on two cores.

Blocks of two 3x3 convolutions with batch normalisation, average-pooled; the frequency axis is
folded by mean and maximum; a bidirectional GRU over frames; the head. After Cakir et al. 2017
(convolutional recurrent networks for polyphonic sound event detection).
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from local.models.common import (
    ConvParams,
    fold_frequency,
    hidden_layer,
    input_layers,
    make_head,
    n_channels,
    smooth_cells,
)
from local.models.pretrained import start_from
from local.models.sed_model import SedModel, register

_MAX_DEPTH = 64


class CrnnParams(ConvParams):
    """Parameters of `crnn`."""

    # Channels of each block.
    channels: list[int] = Field(default=[16, 32, 64, 128], min_length=1)
    # Average pooling over (bands, frames) after each block; the product over frames is the step.
    pool: list[tuple[int, int]] = Field(default=[(2, 2), (2, 2), (2, 2), (2, 1)])
    # Convolutions in each block, or one number for all; the first blocks cost the most.
    depth: int | list[int] = 2
    # How the first block lessens bands and frames: by pooling, or by steps of its convolution:
    # it sees the same cells (4x4 for a step of 2) and costs a CPU a quarter of it.
    stem: Literal["pool", "stride"] = "pool"
    # Hidden size of each direction of the GRU; 0 leaves it out.
    gru: int = Field(default=64, ge=0)
    frequency_coordinate: bool = True
    frequency_pool: Literal["mean", "mean_max"] = "mean_max"

    @model_validator(mode="after")
    def _one_entry_a_block(self) -> "CrnnParams":
        n_blocks = len(self.channels)
        if len(self.pool) != n_blocks or len(self.depths()) != n_blocks:
            raise ValueError(
                f"channels has {n_blocks} blocks, pool {len(self.pool)}, depth "
                f"{len(self.depths())}; give one entry a block"
            )
        sizes = [*self.channels, *self.depths(), *(size for pair in self.pool for size in pair)]
        if min(sizes) < 1:
            raise ValueError("channels, depth and pool must be 1 or more")
        if max(self.depths()) > _MAX_DEPTH:
            raise ValueError(f"depth is {max(self.depths())}, at most {_MAX_DEPTH} layers a block")
        return self

    def depths(self) -> list[int]:
        """Convolutions of each block."""
        return self.depth if isinstance(self.depth, list) else [self.depth] * len(self.channels)


class Crnn(SedModel):
    """See the module."""

    def __init__(self, params: CrnnParams, n_classes: int, n_bands: int) -> None:
        super().__init__()
        self.step = 1
        self.frequency_pool = params.frequency_pool
        self.smooth = params.smooth
        self.input_layers = input_layers(params, n_bands)
        n_in = n_channels(params)
        blocks: list[nn.Module] = []
        for n_out, pool, depth in zip(params.channels, params.pool, params.depths(), strict=True):
            stride = pool if params.stem == "stride" and not blocks else (1, 1)
            blocks += _convolution(n_in, n_out, stride)
            for _ in range(depth - 1):
                blocks += _convolution(n_out, n_out)
            if stride == (1, 1):
                blocks.append(nn.AvgPool2d(pool))
            n_in = n_out
            self.step *= pool[1]
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(params.dropout)
        self.gru = (
            nn.GRU(n_in, params.gru, batch_first=True, bidirectional=True) if params.gru else None
        )
        n_features = n_in + 2 * params.gru
        self.hidden = hidden_layer(n_features, params.hidden)
        self.head = make_head(params, params.hidden or n_features, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) log-mel -> (B, D, T'), T' = T // step."""
        x = self.blocks(self.input_layers(x))
        x = self.dropout(fold_frequency(x, self.frequency_pool))
        if self.gru is not None:
            # What the filters saw goes past the GRU too: the head need not learn to keep it.
            context, _ = self.gru(x.transpose(1, 2))
            x = torch.cat([x, context.transpose(1, 2)], dim=1)
        return self.hidden(smooth_cells(x) if self.smooth else x)


def _convolution(n_in: int, n_out: int, stride: tuple[int, int] = (1, 1)) -> list[nn.Module]:
    """3x3 in steps of 1; else what `stride` pooled after it sees, and n // stride cells of n."""
    kernel = (stride[0] + 2, stride[1] + 2)
    return [
        nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    ]


@register("crnn", CrnnParams)
def build(params: CrnnParams, n_classes: int, n_bands: int) -> SedModel:
    """Build a CRNN."""
    return start_from(params.weights, Crnn(params, n_classes, n_bands))
