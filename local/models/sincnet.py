"""SincNet (Ravanelli and Bengio 2018): chunks of raw waveform, each labelled by itself.

Learned band-pass filters, two convolutions, three dense layers, with the reference's
normalisations. A chunk is `context_ms` long and there is one for every `frame_ms`: 200 ms and 10 ms
in the reference, which keeps one label a file; here each chunk labels the frame in its middle.
"""

import torch
from pydantic import Field, model_validator
from torch import nn

from local.models.pretrained import start_from
from local.models.sed_model import SedModel, register
from local.models.wave_sed import Above0, WaveParams, WaveSed, require_samples


class SincnetParams(WaveParams):
    """Parameters of `sincnet`; the defaults are the reference's sizes."""

    frame_ms: Above0 = 10.0
    context_ms: Above0 | None = 200.0
    channels: list[int] = Field(default=[60, 60])
    conv_kernel: int = Field(default=5, ge=1)
    # Pooling after the filters and after each convolution.
    pool: list[int] = Field(default=[3, 3, 3])
    dense: list[int] = Field(default=[2048, 2048, 2048])
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _sizes_fit(self) -> "SincnetParams":
        if len(self.pool) != len(self.channels) + 1:
            raise ValueError(
                f"pool has {len(self.pool)} entries; give one for the filters and one for each of "
                f"the {len(self.channels)} channels"
            )
        if min([*self.channels, *self.pool, *self.dense]) < 1:
            raise ValueError("channels, pool and dense must be 1 or more")
        return self


class Sincnet(WaveSed):
    """See the module."""

    def __init__(self, params: SincnetParams, n_classes: int) -> None:
        super().__init__(params)
        n_samples = require_samples((params.context - params.taps) // params.stride + 1, "filters")
        self.maps_each = params.n_filters * n_samples
        self.input_norm = nn.LayerNorm(params.context)
        pooled = require_samples(n_samples // params.pool[0], "pooling of the filters")
        self.first = nn.Sequential(
            nn.MaxPool1d(params.pool[0]),
            nn.LayerNorm([params.n_filters, pooled]),
            nn.LeakyReLU(0.2),
        )
        blocks: list[nn.Module] = []
        n_in = params.n_filters
        for n_out, pool in zip(params.channels, params.pool[1:], strict=True):
            pooled = require_samples((pooled - params.conv_kernel + 1) // pool, "convolutions")
            blocks += [
                nn.Conv1d(n_in, n_out, params.conv_kernel),
                nn.MaxPool1d(pool),
                nn.LayerNorm([n_out, pooled]),
                nn.LeakyReLU(0.2),
            ]
            n_in = n_out
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        n_in *= pooled
        dense: list[nn.Module] = [nn.LayerNorm(n_in)]
        for n_out in params.dense:
            dense += [
                nn.Linear(n_in, n_out),
                nn.BatchNorm1d(n_out, momentum=0.05),
                nn.LeakyReLU(0.2),
            ]
            n_in = n_out
        self.dense = nn.Sequential(*dense)
        self._add_head(params, n_in, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) samples -> (B, D, T'), T' = n // step."""
        frames = self.frames(self.prepare(x))
        n, n_frames, _ = frames.shape
        looked = self.in_groups(self._look, frames.reshape(n * n_frames, -1), self.maps_each)
        return self.dense(self.blocks(looked)).view(n, n_frames, -1).transpose(1, 2)

    def _look(self, chunks: torch.Tensor) -> torch.Tensor:
        """(N, context) -> (N, n_filters, samples after pooling)."""
        return self.first(self.filters(self.input_norm(chunks), same=False).abs())


@register("sincnet", SincnetParams)
def build(params: SincnetParams, n_classes: int, n_bands: int) -> SedModel:
    """Build a SincNet; `n_bands` does not matter."""
    return start_from(params.weights, Sincnet(params, n_classes))
