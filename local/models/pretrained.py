"""First weights from files: read safely, taken over key by key, and what is not taken is listed."""

import codecs
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from local.io.archives import check_foreign_checkpoint, check_safetensors, check_tensors
from local.io.errors import UNPACKING_ERRORS, CanopyError, first_line
from local.models.sed_model import SedModel

log = logging.getLogger("canopy")

# Where published checkpoints keep the weights among other things.
_WRAPPERS = ("model", "state_dict")
# Backbones that a file is compared with to say what it may be of.
BACKBONES = (
    "efficientnet_b0",
    "efficientnet_b2",
    "resnext50_32x4d",
    "mobilenetv2_100",
    "resnet18",
    "densenet121",
    "resnest50d",
    "rexnet_100",
)


def _plain_arrays() -> list[Any]:
    """What arrays of numbers are made of in a checkpoint: data, no code.

    Some published checkpoints hold counters and the state of their sampler as NumPy arrays beside
    the weights. Named as old and new NumPy name them.
    """
    # `_reconstruct` and `scalar` have no public name.
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    allowed: list[Any] = [np.ndarray, np.dtype, (codecs.encode, "_codecs.encode")]
    for room in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed.append((multiarray._reconstruct, f"{room}._reconstruct"))
        allowed.append((multiarray.scalar, f"{room}.scalar"))
    kinds = ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
    return allowed + [type(np.dtype(kind)) for kind in kinds]


def read_weights(path: Path, of: str = "model.params.weights") -> dict[str, torch.Tensor]:
    """Tensors by name of a safetensors file or a checkpoint; nothing is run.

    A checkpoint may keep them below `model` or `state_dict`, beside numbers and arrays.
    """
    try:
        if path.suffix == ".safetensors":
            check_safetensors(path)
            return load_file(path)
        check_foreign_checkpoint(path)
        with torch.serialization.safe_globals(_plain_arrays()):
            weights = torch.load(path, map_location="cpu", weights_only=True)
        check_tensors(weights, path)
    except FileNotFoundError:
        raise CanopyError(f"{of}: {path} is missing; put the file there") from None
    except (SafetensorError, *UNPACKING_ERRORS) as error:
        raise CanopyError(
            f"{of}: {path} is no file of tensors, or damaged "
            f"({first_line(error)}); fetch it again, best as safetensors"
        ) from None
    if isinstance(weights, dict):
        for name in _WRAPPERS:
            if isinstance(weights.get(name), dict):
                weights = weights[name]
                break
    if (
        not isinstance(weights, dict)
        or not weights
        or not all(map(torch.is_tensor, weights.values()))
    ):
        raise CanopyError(
            f"{of}: {path} holds more than tensors by name; save the network's state_dict alone"
        )
    return weights


def start_from(path: str | None, model: SedModel) -> SedModel:
    """The model, its first weights taken from a file of the same family.

    Normalisation of bands and the layers that hang on the classes are made anew where they differ.
    """
    if path is not None:
        anew = ("input_layers.", *model.head_prefixes)
        take_weights(model, read_weights(Path(path)), path, anew)
    return model


def take_weights(
    model: SedModel,
    weights: dict[str, torch.Tensor],
    path: Path | str,
    anew: tuple[str, ...],
    unused: tuple[str, ...] = (),
) -> None:
    """Load what fits; list every key that is not taken over, and refuse any that is not expected.

    Parameters
    ----------
    anew : beginnings of names that keep their random weights when not all under one fit.
    unused : beginnings of names that the file may have for nothing.
    """
    own = model.state_dict()
    misfits = [
        key for key, value in own.items() if key not in weights or weights[key].shape != value.shape
    ]
    replaced = {prefix for prefix in anew if any(key.startswith(prefix) for key in misfits)}
    fresh = [key for key in own if key.startswith(tuple(replaced))]
    faults = [key for key in misfits if key not in fresh]
    if faults:
        raise CanopyError(
            f"model.params.weights: {path} {_misfit(faults[0], weights, own)}; "
            f"{fit_hint(model, weights)}"
        )
    left = [key for key in weights if key not in own or key in fresh]
    strange = [key for key in left if not key.startswith((*anew, *unused))]
    if strange:
        raise CanopyError(
            f"model.params.weights: {path} has {strange[0]}, which the model does not know; "
            f"{fit_hint(model, weights)}"
        )
    model.load_state_dict({key: weights[key] for key in own if key not in fresh}, strict=False)
    log.info("%s: %d tensors taken over", path, len(own) - len(fresh))
    if fresh:
        log.info("%s: made anew: %s", path, ", ".join(fresh))
    if left:
        log.info("%s: not taken over: %s", path, ", ".join(left))


def _misfit(key: str, weights: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> str:
    if key not in weights:
        return f"has no weights for {key}"
    return f"has {key} as {tuple(weights[key].shape)}, the model wants {tuple(own[key].shape)}"


# ------------------------------------------------------------------------------ the nearest fit


def fit_hint(model: nn.Module, weights: dict[str, torch.Tensor]) -> str:
    """Half a sentence: which model the weights fit best, by names and shapes."""
    shapes = _shapes(weights)
    scores = {name: _likeness(shapes, other) for name, other in _known_shapes().items()}
    best = max(scores, key=lambda name: scores[name])
    own = _likeness(shapes, _shapes(model.state_dict()))
    if max(scores[best], own) < 0.1:
        return "it fits no model known here; name another file"
    if own >= scores[best]:
        return (
            "the nearest fit is this model with other parameters; check model.params and the "
            "number of classes"
        )
    return f"the nearest fit is {best}; change model.name and model.params, or name another file"


def _likeness(one: dict[str, torch.Size], other: dict[str, torch.Size]) -> float:
    """Share of all names that both have, one with the same shape counting twice one without."""
    shared = one.keys() & other.keys()
    alike = sum(one[key] == other[key] for key in shared)
    return (len(shared) + alike) / (2 * len(one.keys() | other.keys()))


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {plain_name(key): value.shape for key, value in weights.items()}


def plain_name(key: str) -> str:
    """A name as backbones of whole and of cut networks share it."""
    return key.removeprefix("backbone.").replace(".", "_")


@lru_cache(maxsize=1)
def _known_shapes() -> dict[str, dict[str, torch.Size]]:
    """Names and shapes of all families at their default sizes; nothing is allocated."""
    # The registry imports the families, and these import this file.
    from local.models.model_registry import create_model, model_names

    known = {}
    with torch.device("meta"):
        for name in model_names():
            if name != "timm":
                known[name] = _shapes(create_model(name, {}, 2, 64).state_dict())
        for backbone in BACKBONES:
            model = create_model("timm", {"backbone": backbone}, 2, 64)
            known[f"timm with backbone {backbone}"] = _shapes(model.state_dict())
    return known
