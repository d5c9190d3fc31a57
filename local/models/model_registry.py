"""Networks by the name that a configuration gives as `model.name`."""

import difflib
from collections.abc import Callable
from typing import Any

import torch

from local.config import parse_section
from local.io.errors import CanopyError, first_line

# Importing a family registers its models: a new one is a file, and its name here.
from local.models import (  # noqa: F401
    cnn14,
    conformer,
    crnn,
    denet,
    sincnet,
    timm_sed,
    transformer,
)
from local.models.sed_model import SedModel, registered

# Numbers of a network: 4 GB of float32, some fifty times the largest that the field publishes.
_MAX_NUMBERS = 2**30
# One parameter of a model, and a list of them: more would be made one by one for hours.
_MAX_NUMBER, _MAX_LENGTH = 2**24, 1000


def model_names() -> list[str]:
    """Registered names."""
    return sorted(registered())


def without_pretrained(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters without those that say where first weights come from (a file, a network).

    For a model whose weights are loaded afterwards: neither may be at hand any more.
    """
    return {key: value for key, value in params.items() if key not in ("pretrained", "weights")}


def with_drop_path(name: str, params: dict[str, Any], rate: float | None) -> dict[str, Any]:
    """Parameters with another stochastic depth; None leaves them as they are.

    Raises
    ------
    CanopyError
        A model without such a parameter.
    """
    if rate is None:
        return params
    if name in registered() and "drop_path" not in registered()[name][0].model_fields:
        raise CanopyError(
            f"relabel.drop_path is {rate:g}, but model {name} has no stochastic depth; set it to "
            "null, or model.name to timm"
        )
    return {**params, "drop_path": rate}


def create_model(name: str, params: dict[str, Any], n_classes: int, n_bands: int) -> SedModel:
    """Build a model.

    Parameters
    ----------
    params : checked by the model's own schema.
    n_bands : mel bands of the input; ignored by waveform models.
    """
    known = registered()
    if name not in known:
        near = difflib.get_close_matches(name, model_names(), n=1, cutoff=0.5)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise CanopyError(
            f"model.name is {name!r}, expected one of {', '.join(model_names())}{hint}"
        )
    schema, builder = known[name]
    _check_numbers(name, params)
    checked = parse_section(schema, params, "model.params")
    bare = parse_section(schema, without_pretrained(params), "model.params")
    _check_extent(name, lambda: builder(bare, n_classes, n_bands))
    return builder(checked, n_classes, n_bands)


def _check_numbers(name: str, params: dict[str, Any]) -> None:
    """Refuse numbers and lists that a model would be made of for hours."""
    waiting: list[Any] = list(params.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += value[:_MAX_LENGTH]
        if (isinstance(value, list | tuple) and len(value) > _MAX_LENGTH) or (
            isinstance(value, int) and abs(value) > _MAX_NUMBER
        ):
            raise CanopyError(f"model.params: {str(value)[:40]} is beyond any {name}; lower it")


def _check_extent(name: str, build: Callable[[], SedModel]) -> None:
    """Refuse what would take memory without end, by a model that is built without its numbers."""
    if torch.get_default_device().type == "meta":
        return  # it takes none anyway
    try:
        # What is drawn here must not move the generator that draws the true weights.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = build()
    except OSError:
        return  # of a file or a network: who builds the true one tells it
    except RuntimeError as error:
        raise CanopyError(
            f"model.params: no {name} can be built of them ({first_line(error)}); correct them"
        ) from None
    n = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if n > _MAX_NUMBERS:
        raise CanopyError(
            f"model.params make a {name} of {n} numbers, at most {_MAX_NUMBERS} are taken; make it "
            "smaller"
        )
