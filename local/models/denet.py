"""DENet: raw waveforms through learned band-pass filters, a learned choice among them, a GRU.

After Greco et al. 2021 (Neural Computing and Applications, doi 10.1007/s00521-020-05572-5). Each
frame alone goes through sinc filters; a denoising-enhancement layer gives every filter's output a
weight and adds them up to one waveform; two convolutions follow. A bidirectional GRU over the
frames, directions summed, and two dense layers score each frame. Departures from what was
published: docs/models.md.
"""

import torch
from pydantic import Field, model_validator
from torch import nn

from local.models.pretrained import start_from
from local.models.sed_model import SedModel, register
from local.models.wave_sed import WaveParams, WaveSed, require_samples

# Added to the variance: the square of the published 1e-6 on the standard deviation.
_NORM_EPS = 1e-12


class DenetParams(WaveParams):
    """Parameters of `denet`; the defaults are the published sizes."""

    # The enhancement before the first pooling, as published, or after it: a third of the work.
    before_pooling: bool = True
    # Branch that weighs a filter's output: convolutions of 7 samples, then dense layers.
    de_channels: list[int] = Field(default=[30, 30, 10], min_length=1)
    de_strides: list[int] = Field(default=[2, 3, 3], min_length=1)
    de_kernel: int = Field(default=7, ge=1)
    de_hidden: list[int] = Field(default=[128, 64])
    de_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    # Convolutions over the enhanced waveform, and the pooling after the filters and after each.
    channels: list[int] = Field(default=[60, 60])
    conv_kernel: int = Field(default=5, ge=1)
    pool: list[int] = Field(default=[3, 3, 3])
    # Filters run over the whole window and are cut into frames after, so that a frame's ends hear
    # what lies beyond them; false, as published: each frame alone, silence around it.
    filter_across: bool = False
    # Units of each direction of the GRU over frames, and of the dense layers after it.
    gru: int = Field(default=2048, ge=1)
    dense: list[int] = Field(default=[1024, 512])
    # Dropout of whole channels after the pooling of the filters, and after each convolution.
    map_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    conv_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DenetParams":
        if len(self.de_channels) != len(self.de_strides):
            raise ValueError(
                f"de_channels has {len(self.de_channels)} layers, de_strides "
                f"{len(self.de_strides)}; give one entry a layer"
            )
        if len(self.pool) != len(self.channels) + 1:
            raise ValueError(
                f"pool has {len(self.pool)} entries; give one for the filters and one for each of "
                f"the {len(self.channels)} channels"
            )
        sizes = [*self.de_channels, *self.de_strides, *self.de_hidden, *self.channels, *self.pool]
        if min([*sizes, *self.dense]) < 1:
            raise ValueError("channels, strides, pool and units must be 1 or more")
        if self.filter_across and (self.context != self.step or self.step % self.stride):
            raise ValueError(
                "filter_across goes with context_ms null and a stride that divides the frame's "
                f"{self.step} samples"
            )
        return self


class Enhancement(nn.Module):
    """Weighs F waveforms by what one small network says of each, and adds them up.

    The network is the same for all: waveforms are folded into the batch. Its scores go through a
    softmax over the F waveforms. It has no last bias, which the softmax would not see.
    """

    def __init__(self, params: DenetParams, n_samples: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 1
        for n_out, stride in zip(params.de_channels, params.de_strides, strict=True):
            layers += [nn.Conv1d(n_in, n_out, params.de_kernel, stride), nn.ReLU(inplace=True)]
            n_in = n_out
            left = (n_samples - params.de_kernel) // stride + 1
            n_samples = require_samples(left, "convolutions of the enhancement")
        layers.append(nn.Flatten())
        n_in *= n_samples
        for n_out in params.de_hidden:
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
            n_in = n_out
        layers.append(nn.Linear(n_in, 1, bias=False))
        self.branch = nn.Sequential(*layers)
        self.dropout = nn.Dropout(params.de_dropout)

    def weights(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, F, T) waveforms -> (N, F) weights, adding up to 1."""
        n, n_filters, n_samples = maps.shape
        scores = self.branch(maps.reshape(n * n_filters, 1, n_samples))
        return torch.softmax(scores.view(n, n_filters).float(), dim=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, F, T) -> (N, 1, T)."""
        weights = self.dropout(self.weights(maps)).to(maps.dtype)
        return torch.bmm(weights[:, None], maps)


class Denet(WaveSed):
    """See the module."""

    def __init__(self, params: DenetParams, n_classes: int) -> None:
        super().__init__(params)
        self.filter_across = params.filter_across
        self.before_pooling = params.before_pooling
        n_samples = -(-params.context // params.stride)
        self.maps_each = params.n_filters * n_samples
        pooled = require_samples(n_samples // params.pool[0], "pooling of the filters")
        self.enhancement = Enhancement(params, n_samples if self.before_pooling else pooled)
        self.pooling = nn.Sequential(
            nn.MaxPool1d(params.pool[0]), nn.LeakyReLU(0.3), nn.Dropout1d(params.map_dropout)
        )
        blocks: list[nn.Module] = []
        n_in = 1
        for n_out, pool in zip(params.channels, params.pool[1:], strict=True):
            pooled = require_samples((pooled - params.conv_kernel + 1) // pool, "convolutions")
            blocks.append(_Block(n_in, n_out, params.conv_kernel, pool, params.conv_dropout))
            n_in = n_out
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        self.gru_dropout = nn.Dropout(params.dropout)
        self.gru = nn.GRU(n_in * pooled, params.gru, batch_first=True, bidirectional=True)
        self.dense = _dense(params.gru, params.dense, params.dropout)
        self._add_head(params, [params.gru, *params.dense][-1], n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) samples -> (B, D, T'), T' = n // step."""
        x = self.prepare(x)
        n, n_frames = len(x), x.shape[-1] // self.step
        if self.filter_across:
            x = x[:, : n_frames * self.step]
            x = self.in_groups(self._look_across, x, n_frames * self.maps_each)
        else:
            frames = self.frames(x).reshape(n * n_frames, -1)
            x = self.in_groups(self._look, frames, self.maps_each)
        x = self.gru_dropout(self.blocks(x).view(n, n_frames, -1))
        forward, backward = self.gru(x)[0].chunk(2, dim=-1)
        return self.dense((forward + backward).transpose(1, 2))

    def _look(self, frames: torch.Tensor) -> torch.Tensor:
        """(N, context) -> (N, 1, samples after pooling)."""
        return self._enhance(self.filters(frames))

    def _look_across(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) -> (B * T', 1, samples after pooling)."""
        maps = self.filters(x).unflatten(-1, (x.shape[-1] // self.step, -1))
        return self._enhance(maps.transpose(1, 2).flatten(0, 1))

    def _enhance(self, maps: torch.Tensor) -> torch.Tensor:
        if self.before_pooling:
            return self.pooling(self.enhancement(maps))
        return self.enhancement(self.pooling(maps))


class _Block(nn.Module):
    """Convolution, pooling, normalisation over the channels of each sample."""

    def __init__(self, n_in: int, n_out: int, kernel: int, pool: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(n_in, n_out, kernel)
        self.pooling = nn.MaxPool1d(pool)
        self.norm = nn.LayerNorm(n_out, eps=_NORM_EPS)
        self.last = nn.Sequential(nn.LeakyReLU(0.3), nn.Dropout1d(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, n_in, T) -> (N, n_out, (T - kernel + 1) // pool)."""
        x = self.pooling(self.convolution(x))
        return self.last(self.norm(x.transpose(1, 2)).transpose(1, 2))


def _dense(n_in: int, units: list[int], dropout: float) -> nn.Sequential:
    """Dense layers on each frame; the dropout after the last one is the head's."""
    layers: list[nn.Module] = []
    for n_out in units:
        if layers:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Conv1d(n_in, n_out, 1), nn.BatchNorm1d(n_out), nn.LeakyReLU(0.3)]
        n_in = n_out
    return nn.Sequential(*layers)


@register("denet", DenetParams)
def build(params: DenetParams, n_classes: int, n_bands: int) -> SedModel:
    """Build a DENet; `n_bands` does not matter."""
    return start_from(params.weights, Denet(params, n_classes))
