"""A Conformer encoder over time (Gulati et al. 2020) with a class token for the window."""

import torch
from pydantic import Field, field_validator

from local.models.pretrained import start_from
from local.models.sed_model import SedModel, register
from local.models.sequence import SequenceParams, SequenceSed


class ConformerParams(SequenceParams):
    """Parameters of `conformer`."""

    width: int = Field(default=144, ge=2)
    n_blocks: int = Field(default=8, ge=1, le=256)
    feed_forward: int = Field(default=576, ge=1)
    # Cells that the depthwise convolution sees, odd.
    kernel: int = Field(default=31, ge=1)

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("kernel must be odd")
        return kernel


class Conformer(SequenceSed):
    """See the module."""

    def __init__(self, params: ConformerParams, n_classes: int, n_bands: int) -> None:
        super().__init__(params, n_bands)
        # Takes a while to import, which stages without this model need not wait for.
        from torchaudio.models import Conformer as Encoder

        self.encoder = Encoder(
            params.width,
            params.n_heads,
            params.feed_forward,
            params.n_blocks,
            params.kernel,
            dropout=params.dropout,
        )
        self._add_head(params, n_classes)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, width) -> (B, L, width)."""
        # Layer by layer: windows of a batch are of one length, so no mask is made from lengths.
        x = x.transpose(0, 1)
        for layer in self.encoder.conformer_layers:
            x = layer(x, None)
        return x.transpose(0, 1)


@register("conformer", ConformerParams)
def build(params: ConformerParams, n_classes: int, n_bands: int) -> SedModel:
    """Build a Conformer."""
    return start_from(params.weights, Conformer(params, n_classes, n_bands))
