"""Cnn14 of PANNs with decision-level attention, its tensors named as in the public checkpoints.

Kong et al. 2020 (PANNs: large-scale pretrained audio neural networks for audio pattern
recognition): six blocks of two 3x3 convolutions, average-pooled by two after the first five; mean
over bands; maximum plus mean over three neighbours in time; a linear layer; attention over cells.
Here cells and windows are scored in logits, the attention's weighted sum of them included, and
nothing inside turns them into probabilities.

`weights` takes `Cnn14_DecisionLevelAtt_mAP=0.425.pth`, `Cnn14_mAP=0.431.pth` and their kin. Those
were trained on decibels of 64 mel bands from 50 to 14,000 Hz at 32 kHz, transform 1024, hop 320.
The network's input is decibels too, so with a front end like that the normalisation of bands is
taken over; with another number of bands, or with `pcen` or `level_norm`, it is made anew.
"""

import logging
import math
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from local.models.common import (
    ConvParams,
    channel_layers,
    fold_frequency,
    front_layers,
    n_channels,
    smooth_cells,
)
from local.models.heads import attend
from local.models.pretrained import read_weights, take_weights
from local.models.sed_model import SedModel, SedOutput, register

log = logging.getLogger("canopy")

_DB = 10.0 / math.log(10.0)
_N_BLOCKS = 6
# Weights of the public files that are of no use here: the front end is stage 0's.
_UNUSED = ("spectrogram_extractor.", "logmel_extractor.")
_HEADS = ("att_block.", "fc_audioset.", "activity.")


class Cnn14Params(ConvParams):
    """Parameters of `cnn14`."""

    # Channels of the six blocks; the public sizes, or fewer for small machines.
    channels: list[int] = Field(default=[64, 128, 256, 512, 1024, 2048])
    block_dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    # Units of the linear layer (`fc1`); 0: as many as the last block has channels.
    hidden: int = Field(default=0, ge=0)
    smooth: bool = True
    frequency_pool: Literal["mean", "mean_max"] = "mean"

    @field_validator("channels")
    @classmethod
    def _six(cls, channels: list[int]) -> list[int]:
        if len(channels) != _N_BLOCKS or min(channels) < 1:
            raise ValueError("channels must be six numbers of 1 or more")
        return channels

    @field_validator("level_channel")
    @classmethod
    def _one_spectrogram(cls, level_channel: bool) -> bool:
        if level_channel:
            raise ValueError("level_channel is not for cnn14, whose first layer is the public one")
        return level_channel


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, then average pooling."""

    def __init__(self, n_in: int, n_out: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.bn2 = nn.BatchNorm2d(n_out)
        nn.init.xavier_uniform_(self.conv1.weight)
        nn.init.xavier_uniform_(self.conv2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in, T, F) -> (B, n_out, T // pool, F // pool)."""
        x = torch.relu_(self.bn1(self.conv1(x)))
        x = torch.relu_(self.bn2(self.conv2(x)))
        return nn.functional.avg_pool2d(x, self.pool) if self.pool > 1 else x


class UnusedNorm(nn.Module):
    """Holds the tensors of a normalisation that public checkpoints have and nothing applies."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(n))
        self.register_buffer("bias", torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))
        self.register_buffer("num_batches_tracked", torch.tensor(0))


class AttentionBlock(nn.Module):
    """Class and attention logits of each cell."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.att = nn.Conv1d(n_features, n_classes, 1)
        self.cla = nn.Conv1d(n_features, n_classes, 1)
        self.bn_att = UnusedNorm(n_classes)
        for layer in (self.att, self.cla):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, D, T') -> frame logits (B, C, T'), clip logits (B, C)."""
        frame_logit = self.cla(x).float()
        # Bounded as in the original: no cell can weigh more than e^20 times another.
        return frame_logit, attend(frame_logit, self.att(x).clamp(-10.0, 10.0))


class Cnn14(SedModel):
    """See the module."""

    head_prefixes = _HEADS

    def __init__(self, params: Cnn14Params, n_classes: int, n_bands: int) -> None:
        super().__init__()
        self.params = params
        self.step = 2 ** (_N_BLOCKS - 1)
        self.scale = 1.0 if params.pcen else _DB
        self.front = nn.Sequential(*front_layers(params, n_bands))
        self.bn0 = nn.BatchNorm2d(n_bands) if params.norm == "band" else None
        self.channel_layers = nn.Sequential(*channel_layers(params))
        sizes = [n_channels(params), *params.channels]
        for block, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
            pool = 1 if block == _N_BLOCKS else 2
            self.add_module(f"conv_block{block}", ConvBlock(n_in, n_out, pool))
        self.block_dropout = nn.Dropout(params.block_dropout)
        self.dropout = nn.Dropout(params.dropout)
        n_features = params.hidden or sizes[-1]
        self.fc1 = nn.Linear(sizes[-1], n_features)
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.zeros_(self.fc1.bias)
        if params.head == "attention":
            self.att_block = AttentionBlock(n_features, n_classes)
        else:
            self.fc_audioset = nn.Linear(n_features, n_classes)
            nn.init.xavier_uniform_(self.fc_audioset.weight)
            nn.init.zeros_(self.fc_audioset.bias)
        self.activity = nn.Conv1d(n_features, 1, 1) if params.activity else None

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) natural-log mel -> (B, D, T'), T' = T // 32."""
        x = self.front(x) * self.scale
        if self.bn0 is not None:
            x = self.bn0(x.transpose(1, 2)).transpose(1, 2)
        # Time before frequency: the published filters lie that way.
        x = self.channel_layers(x).transpose(2, 3)
        for block in range(1, _N_BLOCKS + 1):
            x = self.block_dropout(self.get_submodule(f"conv_block{block}")(x))
        x = fold_frequency(x.transpose(2, 3), self.params.frequency_pool)
        if self.params.smooth:
            x = smooth_cells(x)
        x = self.dropout(x).transpose(1, 2)
        return torch.relu_(self.fc1(x)).transpose(1, 2)

    def score(self, features: torch.Tensor) -> SedOutput:
        """Logits of cells and of the window, by attention or by maximum or mean over cells."""
        x = self.dropout(features)
        if self.params.head == "attention":
            frame_logit, clip_logit = self.att_block(x)
        else:
            frame_logit = self.fc_audioset(x.transpose(1, 2)).transpose(1, 2).float()
            by_max = self.params.head == "max"
            clip_logit = frame_logit.amax(dim=-1) if by_max else frame_logit.mean(dim=-1)
        return SedOutput(
            frame_logit,
            clip_logit,
            self.activity(x).float() if self.activity is not None else None,
            features.float().mean(dim=-1),
        )

    def take(self, path: Path) -> None:
        """Take the weights of a public checkpoint, or of another `cnn14`, over."""
        weights = read_weights(path)
        if self.params.pcen or self.params.level_norm:
            # Statistics of plain decibels say nothing of such an input.
            weights = {key: value for key, value in weights.items() if not key.startswith("bn0.")}
        first = "conv_block1.conv1.weight"
        if first in weights:
            weights[first] = self._spread(weights[first])
        take_weights(self, weights, path, anew=("bn0.", "front.", *_HEADS), unused=_UNUSED)
        kept = self.bn0 is not None and torch.equal(
            self.bn0.get_buffer("running_mean"), weights.get("bn0.running_mean", torch.zeros(0))
        )
        if kept and any(key.startswith(_UNUSED) for key in weights):
            log.info(
                "%s: normalisation of bands taken over; it is right for features like the file's "
                "(64 bands from 50 to 14,000 Hz at 32 kHz, n_fft 1024, hop_length 320)",
                path,
            )

    def _spread(self, weight: torch.Tensor) -> torch.Tensor:
        """The first convolution of one channel for the channels here; a coordinate begins at 0."""
        n_in = n_channels(self.params)
        if weight.ndim != 4 or weight.shape[1] != 1 or n_in == 1:
            return weight
        n_copies = n_in - int(self.params.frequency_coordinate)
        copies = weight.expand(-1, n_copies, -1, -1) / n_copies
        return torch.cat([copies, torch.zeros_like(weight).expand(-1, n_in - n_copies, -1, -1)], 1)


@register("cnn14", Cnn14Params)
def build(params: Cnn14Params, n_classes: int, n_bands: int) -> SedModel:
    """Build a Cnn14."""
    model = Cnn14(params, n_classes, n_bands)
    if params.weights is not None:
        model.take(Path(params.weights))
    return model
