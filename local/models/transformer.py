"""A Transformer encoder over time with a class token for the window."""

import torch
from torch import nn

from local.models.pretrained import start_from
from local.models.sed_model import SedModel, register
from local.models.sequence import SequenceParams, SequenceSed


class TransformerParams(SequenceParams):
    """Parameters of `transformer`."""


class Transformer(SequenceSed):
    """See the module; normalised before each sub-layer, which trains without a long warm-up."""

    def __init__(self, params: TransformerParams, n_classes: int, n_bands: int) -> None:
        super().__init__(params, n_bands)
        layer = nn.TransformerEncoderLayer(
            params.width,
            params.n_heads,
            params.feed_forward,
            params.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, params.n_blocks, norm=nn.LayerNorm(params.width), enable_nested_tensor=False
        )
        # The blocks are copies of one; each begins from weights of its own.
        for parameter in self.encoder.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self._add_head(params, n_classes)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, width) -> (B, L, width)."""
        return self.encoder(x)


@register("transformer", TransformerParams)
def build(params: TransformerParams, n_classes: int, n_bands: int) -> SedModel:
    """Build a Transformer."""
    return start_from(params.weights, Transformer(params, n_classes, n_bands))
