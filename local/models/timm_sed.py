"""Any convolutional backbone of timm with the attention head.

The backbone's last map is averaged over frequency only; time stays, one column every 32 input
frames for most. Pretrained weights come from a file (`weights`), or from timm's hub when
`pretrained` is set and a network is there.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from local.config import Section
from local.errors import CanopyError
from local.models.base import SedModel, SedOutput, register
from local.models.heads import AttentionHead, BandNorm, FrequencyCoordinate, LevelNorm


class TimmParams(Section):
    """Parameters of `timm`."""

    backbone: str = "resnet18"
    pretrained: bool = False
    # A file of weights for the backbone (safetensors, or a checkpoint of tensors only).
    weights: str | None = None
    # Last feature level taken: -1 is the deepest, -2 has twice the time resolution.
    level: int = Field(default=-1, le=-1)
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    hidden: int = Field(default=0, ge=0)
    # Channels the backbone sees: 1, or 3 equal ones as pictures have.
    in_channels: int = Field(default=1, ge=1, le=3)
    frequency_coordinate: bool = False
    level_norm: bool = False
    activity: bool = False


class TimmSed(SedModel):
    """See the module."""

    def __init__(self, params: TimmParams, n_classes: int, n_bands: int) -> None:
        super().__init__()
        inputs: list[nn.Module] = [LevelNorm()] if params.level_norm else []
        inputs.append(BandNorm(n_bands))
        if params.frequency_coordinate:
            inputs.append(FrequencyCoordinate())
        self.input_layers = nn.Sequential(*inputs)
        self.copies = 1 if params.frequency_coordinate else params.in_channels
        n_in = 2 if params.frequency_coordinate else params.in_channels
        self.backbone = _backbone(params, n_in)
        info = self.backbone.feature_info
        self.step = int(info.reduction()[-1])
        n_features = int(info.channels()[-1])
        self.hidden = (
            nn.Sequential(nn.Conv1d(n_features, params.hidden, 1), nn.ReLU(inplace=True))
            if params.hidden
            else nn.Identity()
        )
        self.head = AttentionHead(
            params.hidden or n_features, n_classes, params.dropout, params.activity
        )

    def forward(self, x: torch.Tensor) -> SedOutput:
        """(B, 1, F, T) log-mel -> scores with T' = T // step."""
        n_frames = x.shape[-1]
        x = self.input_layers(x)
        if self.copies > 1:
            x = x.expand(-1, self.copies, -1, -1)
        x = self.backbone(x)[-1].mean(dim=2)
        # Backbones round a last, incomplete cell up; the contract counts whole cells.
        x = x[..., : max(1, n_frames // self.step)]
        return self.head(self.hidden(x))


def _backbone(params: TimmParams, n_in: int) -> nn.Module:
    # Takes seconds to import, which stages without a timm model need not wait for.
    import timm

    if params.backbone not in timm.list_models():
        near = (
            ", ".join(timm.list_models(f"*{params.backbone[:6]}*")[:5]) or "see timm.list_models()"
        )
        raise CanopyError(
            f"model.params.backbone is {params.backbone!r}, which timm does not know; near: {near}"
        )
    options = {"features_only": True, "in_chans": n_in, "out_indices": [params.level]}
    if params.weights is not None:
        return _from_file(params, options)
    try:
        return timm.create_model(params.backbone, pretrained=params.pretrained, **options)
    except (OSError, RuntimeError, ValueError) as error:
        if not params.pretrained:
            raise
        raise CanopyError(
            f"weights of {params.backbone} could not be fetched ({type(error).__name__}); without "
            "a network, download them elsewhere and name the file in model.params.weights"
        ) from None


def _from_file(params: TimmParams, options: dict[str, Any]) -> nn.Module:
    import timm

    path = Path(str(params.weights))
    overlay = {"state_dict": _read_weights(path)}
    # timm passes over keys that it does not find. Built twice from one seed, once with the file,
    # layers that come out alike were not in it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = timm.create_model(params.backbone, pretrained=False, **options)
        torch.manual_seed(0)
        try:
            loaded = timm.create_model(
                params.backbone, pretrained=True, pretrained_cfg_overlay=overlay, **options
            )
        except (RuntimeError, KeyError) as error:
            raise CanopyError(
                f"model.params.weights: {path} does not fit {params.backbone} "
                f"({' '.join(str(error).split())[:120]}); name the backbone's own file"
            ) from None
    after = dict(loaded.named_parameters())
    bare = [
        name
        for name, before in fresh.named_parameters()
        if before.ndim > 1 and before.std() > 0 and torch.equal(before, after[name])
    ]
    if bare:
        raise CanopyError(
            f"model.params.weights: {path} has no weights for {bare[0]} ({len(bare)} layers in "
            f"all); name a file of {params.backbone}"
        )
    return loaded


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name; nothing is unpickled but tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CanopyError(f"model.params.weights: {path} is missing; put the file there") from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise CanopyError(
            f"model.params.weights: {path} is no file of tensors, or damaged ({reason}); fetch it "
            "again, best as safetensors"
        ) from None
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise CanopyError(
            f"model.params.weights: {path} holds more than tensors by name; save the backbone's "
            "state_dict alone"
        )
    return weights


@register("timm", TimmParams)
def build(params: TimmParams, n_classes: int, n_bands: int) -> SedModel:
    """Build a timm backbone with the attention head."""
    return TimmSed(params, n_classes, n_bands)
