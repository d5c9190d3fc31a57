"""Checkpoints: tensors and plain values only, written whole, the last two kept.

`last.pt` and `previous.pt` hold all that training needs to go on; `best.pt` holds a model that can
be used. Nothing is loaded that could run code (`weights_only=True`).
"""

import logging
import os
import zipfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from local.errors import UNPACKING_ERRORS, CanopyError, first_line
from local.files import atomic_path
from local.models import SedModel, create_model, fit_hint, without_start

log = logging.getLogger("canopy")

SCHEMA = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts atomically."""
    # Through a stream: given a path, torch writes the (temporary) name into the file, and equal
    # states would differ in bytes.
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        torch.save({"schema": SCHEMA, **state}, stream)


def save_last(folder: Path, state: dict[str, Any]) -> None:
    """Write `last.pt`; what was last becomes `previous.pt`."""
    last = folder / "last.pt"
    if last.exists():
        os.replace(last, folder / "previous.pt")
    save_checkpoint(last, state)


def load_last(folder: Path) -> dict[str, Any] | None:
    """State to go on from: `last.pt`, or `previous.pt` with a warning when that is damaged."""
    for name in ("last.pt", "previous.pt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            return load_checkpoint(path)
        except CanopyError as error:
            # Out of the way: the next save would put it in the place of the good earlier one.
            aside = folder / f"damaged_{name}"
            os.replace(path, aside)
            log.warning("%s; set aside as %s, trying an earlier checkpoint", error, aside.name)
    return None


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; one that is damaged, foreign or holds objects is refused."""
    path = Path(path)
    try:
        # torch reads past flipped bits; the archive's own checksums do not.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"checksum of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such checkpoint; train this fold first") from None
    except UNPACKING_ERRORS as error:
        raise CanopyError(
            f"{path}: not a checkpoint of tensors, or damaged ({first_line(error)}); delete it and "
            "train again"
        ) from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        found = state.get("schema") if isinstance(state, dict) else type(state).__name__
        raise CanopyError(f"{path}: checkpoint schema {found!r}, this version reads {SCHEMA}")
    return state


def model_state(model: SedModel, recipe: dict[str, Any]) -> dict[str, Any]:
    """What `load_model` needs: weights and how to build the model.

    `recipe` has `name`, `params`, `n_classes`, `n_bands`, `labels`.
    """
    return {"model": model.state_dict(), "recipe": recipe}


def load_model(path: Path | str, labels: list[str], device: str = "cpu") -> SedModel:
    """Rebuild a trained model in evaluation mode; its classes must be `labels`, in that order."""
    state = load_checkpoint(path)
    if not {"recipe", "model"} <= set(state):
        raise CanopyError(f"{path}: holds no model that is ready for use; name a fold's best.pt")
    recipe = state["recipe"]
    _same_classes(recipe["labels"], labels, path, "train again")
    params = without_start(recipe["params"])
    model = create_model(recipe["name"], params, recipe["n_classes"], recipe["n_bands"])
    load_weights(model, state["model"], path)
    return model.to(device).eval()


def load_initial(path: Path | str, labels: list[str]) -> dict[str, torch.Tensor]:
    """Weights of a trained model to start from; its classes must be `labels`, in that order."""
    state = load_checkpoint(path)
    if not isinstance(state.get("model"), dict) or not isinstance(state.get("recipe"), dict):
        raise CanopyError(
            f"model.init: {path} holds no model that is ready for use; name a fold's best.pt"
        )
    _same_classes(
        state["recipe"]["labels"],
        labels,
        path,
        "start from a model of these classes, or give the file as model.params.weights, which "
        "makes the class layers anew",
    )
    return state["model"]


def _same_classes(trained: list[str], labels: list[str], path: Path | str, mend: str) -> None:
    if trained == labels:
        return
    pairs = enumerate(zip_longest(trained, labels, fillvalue="nothing"), start=1)
    place, (there, here) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    raise CanopyError(
        f"{path}: trained for {len(trained)} classes, the tables have {len(labels)}; the first "
        f"difference is class {place}, {there} there and {here} here; {mend}"
    )


def load_weights(model: SedModel, weights: dict[str, torch.Tensor], path: Path | str) -> None:
    """Load weights that must fit key by key and shape by shape.

    The first misfit is named, with the model that the weights fit best.
    """
    own = model.state_dict()
    for key, value in own.items():
        if key not in weights:
            raise CanopyError(f"{path}: has no weights for {key}; {fit_hint(model, weights)}")
        if weights[key].shape != value.shape:
            raise CanopyError(
                f"{path}: {key} is {tuple(weights[key].shape)}, the model wants "
                f"{tuple(value.shape)}; {fit_hint(model, weights)}"
            )
    extra = sorted(set(weights) - set(own))
    if extra:
        raise CanopyError(
            f"{path}: has weights {extra[0]} that the model does not know; "
            f"{fit_hint(model, weights)}"
        )
    model.load_state_dict(weights)
