"""What all log-mel families share: their options, and the layers before and after a trunk."""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from local.config import Section
from local.models.heads import AttentionHead, PoolHead
from local.models.input_layers import BandNorm, Copies, FrequencyCoordinate, LevelNorm, WithLevel
from local.models.pcen import Pcen

Above0 = Annotated[float, Field(gt=0.0)]


class HeadParams(Section):
    """Options of every family: how a window is scored, and where first weights come from."""

    # How a window's score comes from its cells.
    head: Literal["attention", "max", "mean"] = "attention"
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    # A further output that says whether anything calls.
    activity: bool = False
    # A file of first weights (safetensors, or a checkpoint of tensors only).
    weights: str | None = None


class CommonParams(HeadParams):
    """Options of every family that takes log-mel."""

    # The front: per-channel energy normalisation in place of the logarithm, each band's mean over
    # the window taken away, batch normalisation of each band.
    pcen: bool = False
    pcen_trainable: bool = True
    # Share of the newest frame in the running level; 0.025 at 16 ms a frame is 0.6 s.
    pcen_smooth: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.025
    pcen_gain: Above0 = 0.98
    pcen_bias: Above0 = 2.0
    pcen_power: Above0 = 0.5
    level_norm: bool = False
    # Beside level_norm: the level itself as a further channel (of 3 channels, the second). What
    # sounds all the time, such as an engine or rain, has no other trace.
    level_channel: bool = False
    norm: Literal["band", "none"] = "band"
    # Channels the trunk sees: the spectrogram once, or three times as pictures have. A frequency
    # coordinate is a second channel of 1, and takes the place of the last of 3.
    in_channels: Literal[1, 3] = 1
    frequency_coordinate: bool = False
    # A further layer of so many units between trunk and head; 0 leaves it out.
    hidden: int = Field(default=0, ge=0)
    # Maximum plus mean over three neighbouring cells before the head.
    smooth: bool = False

    @model_validator(mode="after")
    def _level_is_another_channel(self) -> "CommonParams":
        if self.level_channel and not self.level_norm:
            raise ValueError("level_channel goes with level_norm: without it the level is there")
        return self


class ConvParams(CommonParams):
    """Options of families whose trunk keeps a frequency axis."""

    # How that axis is folded: its mean, or its mean plus its maximum.
    frequency_pool: Literal["mean", "mean_max"] = "mean"


def n_channels(params: CommonParams) -> int:
    """Channels that a trunk gets from `input_layers`."""
    if params.in_channels == 3:
        return 3
    return 1 + int(params.level_channel) + int(params.frequency_coordinate)


def front_layers(params: CommonParams, n_bands: int) -> list[nn.Module]:
    """Layers before the normalisation of bands."""
    layers: list[nn.Module] = []
    if params.pcen:
        layers.append(
            Pcen(
                n_bands,
                params.pcen_smooth,
                params.pcen_gain,
                params.pcen_bias,
                params.pcen_power,
                params.pcen_trainable,
            )
        )
    if params.level_norm:
        layers.append(LevelNorm())
    return layers


def channel_layers(params: CommonParams) -> list[nn.Module]:
    """Layers that make the channels of the trunk."""
    layers: list[nn.Module] = []
    copies = n_channels(params) - int(params.frequency_coordinate) - int(params.level_channel)
    if copies > 1:
        layers.append(Copies(copies))
    if params.frequency_coordinate:
        layers.append(FrequencyCoordinate())
    return layers


def input_layers(params: CommonParams, n_bands: int) -> nn.Sequential:
    """(B, 1, F, T) -> (B, K, F, T), K = `n_channels(params)`."""
    layers = front_layers(params, n_bands)
    if params.norm == "band":
        layers.append(BandNorm(n_bands))
    layers += channel_layers(params)
    if params.level_channel:
        return nn.Sequential(WithLevel(nn.Sequential(*layers), n_bands, params.norm == "band"))
    return nn.Sequential(*layers)


def fold_frequency(x: torch.Tensor, how: str) -> torch.Tensor:
    """(B, D, F', T') -> (B, D, T') by `ConvParams.frequency_pool`."""
    mean = x.mean(dim=2)
    return mean + x.amax(dim=2) if how == "mean_max" else mean


def smooth_cells(x: torch.Tensor) -> torch.Tensor:
    """(B, D, T') -> the same shape: maximum plus mean over three neighbours."""
    largest = nn.functional.max_pool1d(x, 3, stride=1, padding=1)
    return largest + nn.functional.avg_pool1d(x, 3, stride=1, padding=1)


def hidden_layer(n_features: int, n_hidden: int) -> nn.Module:
    """(B, n_features, T') -> (B, n_hidden, T'); 0 hidden units pass everything on."""
    if n_hidden == 0:
        return nn.Identity()
    return nn.Sequential(nn.Conv1d(n_features, n_hidden, 1), nn.ReLU(inplace=True))


def make_head(params: HeadParams, n_features: int, n_classes: int) -> nn.Module:
    """The head that `params.head` names."""
    if params.head == "attention":
        return AttentionHead(n_features, n_classes, params.dropout, params.activity)
    return PoolHead(n_features, n_classes, params.head, params.dropout, params.activity)
