"""Checkpoints: tensors and plain values only, written whole, the last two kept.

`last.pt` and `previous.pt` hold all that training needs to go on, at the ends of the last two
epochs; `step.pt` holds it in the middle of an epoch; `best.pt` holds a model that can be used. Each
file carries the SHA-256 of its content as the comment of its zip archive, so that it is checked
without a second file. Nothing is loaded that could run code (`weights_only=True`).
"""

import hashlib
import logging
import os
import struct
import sys
import zipfile
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from local.config import BuiltModel, parse_section
from local.io.archives import check_checksums, check_structure, check_tensors, open_archive
from local.io.errors import UNPACKING_ERRORS, CanopyError, MachineError, first_line
from local.io.files import PASSING_FAULTS, atomic_path, disk_fault
from local.io.limits import regular_size
from local.models import SedModel, create_model, fit_hint, without_pretrained

log = logging.getLogger("canopy")

SCHEMA = 1
# States of training, the furthest first, but that a `step.pt` may have been left behind.
STATES = ("step.pt", "last.pt", "previous.pt")
# The length of the comment ends the last record of a zip archive, and the comment follows.
_COMMENT_LENGTH = struct.Struct("<H")
_SEAL = b"sha256 "


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts atomically, with its checksum."""
    # Through a stream: given a path, torch writes the (temporary) name into the file, and equal
    # states would differ in bytes.
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as stream:
            torch.save({"schema": SCHEMA, **state}, stream)
        with open(temporary, "r+b") as stream:
            end = stream.seek(0, os.SEEK_END) - _COMMENT_LENGTH.size
            seal = _SEAL + _digest(stream, end)
            stream.seek(end)
            stream.write(_COMMENT_LENGTH.pack(len(seal)) + seal)


def _digest(stream: Any, n_bytes: int) -> bytes:
    """SHA-256 of the first `n_bytes` of a file, as hex digits."""
    digest = hashlib.sha256()
    stream.seek(0)
    while n_bytes > 0 and (block := stream.read(min(n_bytes, 1 << 20))):
        digest.update(block)
        n_bytes -= len(block)
    return digest.hexdigest().encode()


def _check_content(archive: zipfile.ZipFile, stream: BinaryIO) -> None:
    """Hold a file against the checksum it carries; one of others against its archive's."""
    seal = archive.comment
    if not seal:
        check_checksums(archive)
        return
    end = stream.seek(0, os.SEEK_END) - len(seal) - _COMMENT_LENGTH.size
    if seal != _SEAL + _digest(stream, end):
        raise zipfile.BadZipFile("its content is not that of its checksum")


def save_last(folder: Path, state: dict[str, Any]) -> None:
    """Write the state at an epoch's end as `last.pt`; what was last becomes `previous.pt`."""
    last = folder / "last.pt"
    if last.exists():
        os.replace(last, folder / "previous.pt")
    save_checkpoint(last, plain(state))
    (folder / "step.pt").unlink(missing_ok=True)


def save_step(folder: Path, state: dict[str, Any]) -> None:
    """Write the state within an epoch as `step.pt`; those of whole epochs stay."""
    save_checkpoint(folder / "step.pt", plain(state))


def load_last(folder: Path) -> dict[str, Any] | None:
    """The state to go on from: the furthest that is whole; a warning names those that are not.

    A `step.pt` that a run left, killed at the end of its epoch, is not ahead of its `last.pt`.
    """
    step, last = (_load_or_set_aside(folder / name) for name in STATES[:2])
    if step is not None and (last is None or _position(step) > _position(last)):
        return step
    if last is not None:
        return last
    state = _load_or_set_aside(folder / STATES[2])
    if state is not None:
        log.warning("%s: going on from previous.pt", folder)
    return state


def _position(state: dict[str, Any]) -> tuple[int, int]:
    progress = state.get("progress", {})
    return int(progress.get("epoch", 0)), int(progress.get("step", 0))


def _load_or_set_aside(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return load_checkpoint(path)
    except MachineError:
        raise
    except CanopyError as error:
        # Out of the way: the next save would put it in the place of the good earlier one.
        aside = path.with_name(f"damaged_{path.name}")
        os.replace(path, aside)
        log.warning("%s; set aside as %s, trying an earlier checkpoint", error, aside.name)
        return None


def plain(value: Any) -> Any:
    """The same in new dicts, lists and tuples, each string once.

    Files of equal states are then equal, whether a state was computed or read: pickle writes what
    it meets a second time as a reference.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return sys.intern(value) if type(value) is str else value


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; one that is damaged, foreign or holds objects is refused."""
    path = Path(path)
    try:
        regular_size(path)
        with open(path, "rb") as stream:
            with open_archive(stream) as archive:
                check_structure(archive)
                _check_content(archive, stream)
            stream.seek(0)
            state = torch.load(stream, map_location="cpu", weights_only=True)
        check_tensors(state, path)
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such checkpoint; train this fold first") from None
    except MemoryError:
        raise MachineError(f"{path}: there is no memory to read it; free some") from None
    except UNPACKING_ERRORS as error:
        if isinstance(error, OSError) and error.errno in PASSING_FAULTS:
            raise disk_fault(path, error) from None
        raise CanopyError(
            f"{path}: not a checkpoint of tensors, or damaged ({first_line(error)}); delete it and "
            "train again"
        ) from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        found = state.get("schema") if isinstance(state, dict) else type(state).__name__
        raise CanopyError(
            f"{path}: checkpoint schema {found!r}, this version reads {SCHEMA}; train again"
        )
    return state


def model_state(model: nn.Module, recipe: dict[str, Any]) -> dict[str, Any]:
    """What `load_model` needs: weights and how to build the model.

    `recipe` has `name`, `params`, `n_classes`, `n_bands`, `labels`.
    """
    # Plain: a frozen mapping of the configuration is an object, which no checkpoint may hold.
    return {"model": model.state_dict(), "recipe": plain(recipe)}


def load_model(path: Path | str, labels: list[str], device: str = "cpu") -> SedModel:
    """Rebuild a trained model in evaluation mode; its classes must be `labels`, in that order."""
    state = load_checkpoint(path)
    recipe = read_recipe(state, path)
    _same_classes(recipe["labels"], labels, path, "train again")
    params = without_pretrained(recipe["params"])
    model = create_model(recipe["name"], params, recipe["n_classes"], recipe["n_bands"])
    load_weights(model, state["model"], path)
    return model.to(device).eval()


def read_recipe(state: dict[str, Any], path: Path | str) -> dict[str, Any]:
    """How the model of a loaded checkpoint is built: see `model_state`; checked."""
    recipe, weights = state.get("recipe"), state.get("model")
    if not isinstance(recipe, dict) or not isinstance(weights, dict):
        raise CanopyError(f"{path}: holds no model that is ready for use; name a fold's best.pt")
    parse_section(BuiltModel, recipe, "recipe", path)
    for key, value in weights.items():
        if not isinstance(key, str) or not torch.is_tensor(value) or value.is_complex():
            raise CanopyError(f"{path}: its weights {key!r:.80} are no numbers; train again")
    return recipe


def load_initial(path: Path | str, labels: list[str]) -> dict[str, torch.Tensor]:
    """Weights of a trained model to start from; its classes must be `labels`, in that order."""
    state = load_checkpoint(path)
    recipe = read_recipe(state, f"model.init: {path}")
    _same_classes(
        recipe["labels"],
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


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], path: Path | str) -> None:
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
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CanopyError(
                f"{path}: {key} holds numbers that are not finite; train again, or name another"
            )
    model.load_state_dict(weights)
