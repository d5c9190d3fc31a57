"""The folder of a published model: what is in it, whole or refused. Needs no PyTorch.

model.json          classes, configuration, networks, out-of-fold evidence, prior correction
fold<k>.safetensors weights of each fold's network
fold<k>.onnx        the same network with its front end, waveform in, logits out
README.md           the model card
LICENSE.txt         to be filled by who publishes
SHA256SUMS          checksums of all of these, as `sha256sum --check` reads them
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from local.config import BuiltModel, Config, parse_section
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError
from local.io.files import as_written, file_digest, read_json, write_text
from local.io.limits import read_text
from local.jobs.locks import LOCK_NAME
from local.scoring.event_rules.evidence import Evidence
from local.scoring.event_rules.rule_file import EventRule, parse_rule

SCHEMA = 1
# There while the folder is written: one that was left so is no model, and is written anew.
UNFINISHED = ".unfinished"
MODEL, CARD, LICENCE, SUMS = "model.json", "README.md", "LICENSE.txt", "SHA256SUMS"
# What model.json keeps of a configuration: what detection needs, and how it was trained.
SECTIONS = ("audio", "features", "data", "window", "model", "inference", "relabel")
# Names of the graphs' input and outputs.
INPUT, FEATURES, FRAME, CLIP = "waveform", "features", "frame_logit", "clip_logit"
# What ONNX Runtime raises, which is no common class.
RUNTIME_ERRORS = (
    RuntimeError,
    runtime.Fail,
    runtime.InvalidArgument,
    runtime.InvalidGraph,
    runtime.InvalidProtobuf,
    runtime.NoSuchFile,
    runtime.NotImplemented,
    runtime.RuntimeException,
)
# Bytes of the list of checksums, and frames of a window: far beyond any published model.
_MAX_SUMS_BYTES, _MAX_WINDOW = 2**20, 2**26
_SUM = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9_.-]+)")


@dataclass(frozen=True)
class NetworkFiles:
    """One network of a published model; `onnx` is None where there is no graph."""

    weights: Path
    onnx: Path | None


@dataclass(frozen=True)
class Published:
    """A published model as read from its folder.

    classes : `label, name, low_freq, high_freq`. recipe : what `create_model` takes. step : input
    frames a cell. any_length : whether the graphs take windows of other lengths than `window`
    frames. shift : (C,) logits of the run's prior correction, or None. rule : of its events, or
    None.
    """

    folder: Path
    classes: pd.DataFrame
    config: Config
    recipe: dict[str, Any]
    step: int
    window: int
    any_length: bool
    networks: list[NetworkFiles]
    evidence: Evidence | None
    shift: np.ndarray | None
    rule: EventRule | None = None

    @property
    def labels(self) -> list[str]:
        """Labels in output order."""
        return self.classes["label"].tolist()


def is_published(folder: Path) -> bool:
    """Whether a folder looks like a published model."""
    return any((folder / name).is_file() for name in (SUMS, MODEL, UNFINISHED))


def write_sums(folder: Path, names: list[str]) -> None:
    """Write the checksums of files in the folder."""
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in sorted(names)]
    write_text(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> dict[str, str]:
    """Digests by file; a file that is missing or is not what was published is refused."""
    path = folder / SUMS
    if (folder / UNFINISHED).is_file():
        raise CanopyError(
            f"{folder}: not finished; give the command of bin/export.py that began it again"
        )
    if not path.is_file():
        raise CanopyError(f"{path}: missing, so the model cannot be checked; copy the folder again")
    sums: dict[str, str] = {}
    for line in read_text(path, _MAX_SUMS_BYTES, "list of checksums").splitlines():
        match = _SUM.fullmatch(line)
        if match is None:
            raise CanopyError(f"{path}: {line!r:.80} is no checksum; copy the folder again")
        sums[match[2]] = match[1]
    if MODEL not in sums:
        raise CanopyError(f"{path}: does not list {MODEL}; copy the folder again")
    for name, digest in sums.items():
        if not (folder / name).is_file():
            raise CanopyError(f"{folder / name}: missing from the model; copy the folder again")
        if file_digest(folder / name) != digest:
            raise CanopyError(
                f"{folder / name}: was changed after it was published (its checksum differs from "
                f"that in {SUMS}); copy the folder again"
            )
    return sums


def read_published(folder: Path) -> Published:
    """Check and read a published model."""
    sums = check_sums(folder)
    told = read_json(folder / MODEL)
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        found = told.get("schema") if isinstance(told, dict) else type(told).__name__
        raise CanopyError(f"{folder / MODEL}: schema {found!r}, this version reads {SCHEMA}")
    with as_written(folder / MODEL):
        return _published(folder, told, sums)


def _published(folder: Path, told: dict[str, Any], sums: dict[str, str]) -> Published:
    path = folder / MODEL
    recipe = parse_section(BuiltModel, told["recipe"], "recipe", path)
    config = parse_section(Config, told["config"], "config", path)
    n_bands = front_end_of(config).n_bands
    if n_bands != recipe.n_bands:
        raise CanopyError(
            f"{path}: its networks take {recipe.n_bands} bands, and its configuration makes "
            f"{n_bands}; copy the folder again"
        )
    if any(len(row) != 4 for row in told["classes"]):
        raise CanopyError(f"{path}: a class is not label, name and two frequencies; copy it again")
    classes = pd.DataFrame(told["classes"], columns=["label", "name", "low_freq", "high_freq"])
    if classes["label"].tolist() != recipe.labels:
        raise CanopyError(f"{path}: its classes are not those of its networks; copy it again")
    step, window = int(told["step"]), int(told["window"])
    if not 1 <= step <= window <= _MAX_WINDOW:
        raise CanopyError(f"{path}: windows of {window} frames in steps of {step} cannot be")
    shift = told["prior_shift"]
    if shift is not None:
        shift = np.asarray(shift, dtype=np.float64)
        if shift.shape != (len(classes),) or not np.isfinite(shift).all():
            raise CanopyError(f"{path}: prior_shift is no list of {len(classes)} numbers")
    return Published(
        folder=folder,
        classes=classes.astype({"low_freq": float, "high_freq": float}),
        config=config,
        recipe=recipe.model_dump(),
        step=step,
        window=window,
        any_length=bool(told["any_length"]),
        networks=_networks(folder, told["networks"], sums),
        evidence=Evidence.from_dict(told["evidence"]) if told["evidence"] else None,
        shift=shift,
        # Models of before have none.
        rule=parse_rule(told["event_rule"], path) if told.get("event_rule") else None,
    )


def _networks(folder: Path, told: list[Any], sums: dict[str, str]) -> list[NetworkFiles]:
    networks = []
    for entry in told:
        for name in (entry["weights"], entry["onnx"]):
            if name is not None and name not in sums:
                raise CanopyError(f"{folder / SUMS}: does not list {name}; copy the folder again")
        graph = folder / entry["onnx"] if entry["onnx"] else None
        networks.append(NetworkFiles(folder / entry["weights"], graph))
    if not networks:
        raise CanopyError(f"{folder / MODEL}: names no network; copy the folder again")
    return networks


def check_out(out: Path, force: bool) -> None:
    """Refuse to write over something else, or without being told."""
    if (out / UNFINISHED).is_file() or {path.name for path in out.iterdir()} <= {LOCK_NAME}:
        return
    if not force:
        raise CanopyError(f"{out} is there already; give another --out, or --force")
    if not is_published(out):
        raise CanopyError(
            f"{out} holds something else than a published model, which --force would mix with it; "
            "give another --out"
        )
