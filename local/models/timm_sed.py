"""Any convolutional backbone of timm.

The backbone's last map is folded over frequency only; time stays, one column every 32 input frames
for most. Pretrained weights come from a file (`weights`), or from timm's hub when `pretrained` is
set and a network is there.

timm's names of what earlier systems used: efficientnet_b0 and _b2, resnext50_32x4d,
mobilenetv2_100, resnet18, densenet121, resnest50d, rexnet_100. All keep time to 1/32 at level -1.
"""

import difflib
import logging
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from local.io.errors import CanopyError
from local.models.common import (
    ConvParams,
    fold_frequency,
    hidden_layer,
    input_layers,
    make_head,
    n_channels,
    smooth_cells,
)
from local.models.pretrained import fit_hint, plain_name, read_weights, take_weights
from local.models.sed_model import SedModel, register

log = logging.getLogger("canopy")

Weights = dict[str, torch.Tensor]


class TimmParams(ConvParams):
    """Parameters of `timm`; `weights` are a network for pictures of timm, or a whole model."""

    backbone: str = "resnet18"
    pretrained: bool = False
    # Last feature level taken: -1 is the deepest, -2 has twice the time resolution.
    level: int = Field(default=-1, le=-1)
    # Stochastic depth: chance that the deepest block is left out of a step, less for those before.
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0)


class TimmSed(SedModel):
    """See the module."""

    def __init__(
        self, params: TimmParams, n_classes: int, n_bands: int, weights: Weights | None = None
    ) -> None:
        super().__init__()
        self.frequency_pool = params.frequency_pool
        self.smooth = params.smooth
        self.input_layers = input_layers(params, n_bands)
        self.backbone = _backbone(params, n_channels(params), weights)
        info: Any = self.backbone.feature_info
        self.step = int(info.reduction()[-1])
        n_features = int(info.channels()[-1])
        self.hidden = hidden_layer(n_features, params.hidden)
        self.head = make_head(params, params.hidden or n_features, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) log-mel -> (B, D, T'), T' = T // step."""
        n_frames = x.shape[-1]
        x = fold_frequency(self.backbone(self.input_layers(x))[-1], self.frequency_pool)
        # Backbones round a last, incomplete cell up; the contract counts whole cells.
        x = x[..., : max(1, n_frames // self.step)]
        return self.hidden(smooth_cells(x) if self.smooth else x)


def _backbone(params: TimmParams, n_in: int, weights: Weights | None) -> nn.Module:
    # Takes seconds to import, which stages without a timm model need not wait for.
    import timm

    if params.backbone not in timm.list_models():
        near = difflib.get_close_matches(params.backbone, timm.list_models(), n=4, cutoff=0.4)
        raise CanopyError(
            f"model.params.backbone is {params.backbone!r}, which timm does not know; near: "
            f"{', '.join(near) or 'nothing, see timm.list_models()'}"
        )
    options: dict[str, Any] = {
        "features_only": True,
        "in_chans": n_in,
        "out_indices": [params.level],
    }
    if params.drop_path > 0:
        options["drop_path_rate"] = params.drop_path
        _require_depth(params, options)
    if weights is not None:
        return _from_file(params, options, weights)
    if not params.pretrained:
        return timm.create_model(params.backbone, pretrained=False, **options)
    published = timm.get_pretrained_cfg(params.backbone)
    if published is None or not published.has_weights:
        raise CanopyError(
            f"timm has no pretrained weights of {params.backbone}; set model.params.pretrained to "
            "false, or name a file in model.params.weights"
        )
    try:
        return timm.create_model(params.backbone, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise CanopyError(
            f"weights of {params.backbone} could not be fetched ({type(error).__name__}); without "
            f"a network, fetch {_file_names(published)} elsewhere, put the file on this machine "
            "and its path in model.params.weights"
        ) from None


def _require_depth(params: TimmParams, options: dict[str, Any]) -> None:
    """Refuse stochastic depth of a backbone that has none."""
    import timm

    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = timm.create_model(params.backbone, pretrained=False, **options)
        has_depth = any(getattr(module, "drop_prob", 0) for module in model.modules())
    except TypeError:
        has_depth = False
    if not has_depth:
        raise CanopyError(
            f"drop_path is {params.drop_path:g}, but timm's {params.backbone} has no stochastic "
            "depth; leave out relabel.drop_path and model.params.drop_path, or name another "
            "backbone"
        )


def _file_names(published: Any) -> str:
    """What the file of weights is called where timm would fetch it."""
    files = []
    if published.hf_hub_id:
        files.append(f"{published.hf_hub_filename or 'model.safetensors'} of {published.hf_hub_id}")
    if published.url:
        files.append(str(published.url).rsplit("/", maxsplit=1)[-1])
    return " or ".join(files)


def _from_file(params: TimmParams, options: dict[str, Any], weights: Weights) -> nn.Module:
    import timm

    path = params.weights
    # timm passes over keys that it does not find. Built twice from one seed, once with the file,
    # layers that come out alike were not in it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = timm.create_model(params.backbone, pretrained=False, **options)
        _refuse_strange(params.backbone, path, weights, fresh)
        torch.manual_seed(0)
        try:
            loaded = timm.create_model(
                params.backbone,
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": weights},
                **options,
            )
        except (RuntimeError, KeyError) as error:
            raise CanopyError(
                f"model.params.weights: {path} does not fit {params.backbone} "
                f"({' '.join(str(error).split())[:120]}); {fit_hint(fresh, weights)}"
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
            f"all); {fit_hint(fresh, weights)}"
        )
    kept = {plain_name(key) for key in loaded.state_dict()}
    left = sorted(key for key in weights if plain_name(key) not in kept)
    log.info("%s: %d tensors taken over", path, len(weights) - len(left))
    if left:
        log.info("%s: not taken over: %s", path, ", ".join(left))
    return loaded


def _refuse_strange(backbone: str, path: str | None, weights: Weights, cut: nn.Module) -> None:
    """A file of the backbone has no key that the whole network, classifier and all, lacks."""
    import timm

    with torch.device("meta"):
        whole = set(timm.create_model(backbone, pretrained=False).state_dict())
    strange = [key for key in weights if key not in whole]
    if strange:
        raise CanopyError(
            f"model.params.weights: {path} has {strange[0]}, which {backbone} does not know; "
            f"{fit_hint(cut, weights)}"
        )


@register("timm", TimmParams)
def build(params: TimmParams, n_classes: int, n_bands: int) -> SedModel:
    """Build a timm backbone with its head."""
    if params.weights is None:
        return TimmSed(params, n_classes, n_bands)
    weights = read_weights(Path(params.weights))
    if not any(key.startswith("backbone.") for key in weights):
        return TimmSed(params, n_classes, n_bands, weights)
    # A whole model of this family, not a network for pictures.
    model = TimmSed(params.model_copy(update={"pretrained": False}), n_classes, n_bands)
    take_weights(model, weights, params.weights, ("input_layers.", *model.head_prefixes))
    return model
