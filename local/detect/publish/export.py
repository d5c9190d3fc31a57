"""From a finished run to a published folder."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import save

from local import __version__
from local.config import Config
from local.detect.ensemble.members import Member
from local.detect.publish.card import LICENCE_TEXT, model_card
from local.detect.publish.folder import (
    CARD,
    LICENCE,
    MODEL,
    SCHEMA,
    SECTIONS,
    UNFINISHED,
    write_sums,
)
from local.detect.publish.onnx_graph import export_onnx
from local.inference.views import inference_window
from local.io.errors import CanopyError
from local.io.files import as_written, make_folder, read_json, write_bytes, write_json, write_text
from local.models import without_pretrained
from local.models.checkpoint import load_checkpoint, load_model
from local.scoring.event_rules.rule_file import read_rule
from local.stages.experiment import Experiment
from local.tasks.detection_thresholds import run_evidence

log = logging.getLogger("canopy")


def run_shift(folder: Path, cycle: int) -> np.ndarray | None:
    """(C,) logits of the run's prior correction; None where it has none or was not submitted."""
    path = folder / "results.json"
    if not path.is_file():
        return None
    with as_written(path):
        for one in read_json(path)["cycles"]:
            if one["cycle"] == cycle and one["prior"]["method"] != "none":
                return np.asarray(one["prior"]["shift"], dtype=np.float64)
    return None


def trained_folds(experiment: Experiment, cycle: int, folds: list[int] | None = None) -> list[Path]:
    """Checkpoints of the folds of a cycle."""
    paths = [experiment.run.fold(cycle, fold) / "best.pt" for fold in folds or experiment.folds]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise CanopyError(f"{absent[0]}: no such model; run stage 2 first")
    return paths


def publish(member: Member, out: Path, folds: list[int] | None, with_onnx: bool) -> list[str]:
    """Write the folder, its checksums last; returns the names of its files."""
    experiment, cycle = member.experiment, member.cycle
    run = experiment.run
    make_folder(out)
    # Until the checksums are there; then what is in the folder is whole.
    write_text(out / UNFINISHED, f"{run.exp}\n")
    paths = trained_folds(experiment, cycle, folds)
    networks, names = [], []
    recipe: dict[str, Any] = {}
    any_length, step, window = True, 1, 1
    for fold, path in zip(folds or experiment.folds, paths, strict=True):
        model = load_model(path, experiment.tables.labels)
        recipe, step = load_checkpoint(path)["recipe"], model.step
        window = inference_window(run.config, step, experiment.dump)
        weights, graph = f"fold{fold}.safetensors", f"fold{fold}.onnx"
        write_bytes(out / weights, save({k: v.contiguous() for k, v in model.state_dict().items()}))
        if with_onnx:
            any_length &= export_onnx(model, run.config, window, out / graph)
            log.info("%s: its scores equal PyTorch's", out / graph)
        networks.append({"weights": weights, "onnx": graph if with_onnx else None})
        names += [weights, *([graph] if with_onnx else [])]
    evidence = run_evidence(experiment, cycle)
    shift = run_shift(run.exp, cycle)
    rule = read_rule(run.exp, run.cycle(cycle) / "oof.npz")
    # Files of first weights are nobody else's.
    recipe["params"] = without_pretrained(recipe["params"])
    write_json(
        out / MODEL,
        {
            "schema": SCHEMA,
            "canopy": __version__,
            "classes": _classes(experiment.tables.classes),
            "config": _settings(run.config, window, recipe),
            "recipe": recipe,
            "step": step,
            "window": window,
            "any_length": any_length,
            "networks": networks,
            "evidence": evidence.to_dict() if evidence else None,
            "prior_shift": shift,
            "event_rule": rule.model_dump() if rule else None,
        },
    )
    write_text(out / CARD, model_card(member, evidence, names))
    write_text(out / LICENCE, LICENCE_TEXT)
    names += [MODEL, CARD, LICENCE]
    write_sums(out, names)
    (out / UNFINISHED).unlink()
    return names


def _settings(config: Config, window: int, recipe: dict[str, Any]) -> dict[str, Any]:
    """Sections that detection needs, and how the model was trained."""
    plain = config.model_dump(mode="json")
    # A window of the longest recording has no meaning away from those recordings.
    plain["inference"] |= {"window_s": None, "window_frames": window}
    plain["relabel"] = {key: plain["relabel"][key] for key in ("min_duration_s", "max_gap_s")}
    plain["model"] = {"name": recipe["name"], "params": recipe["params"]}
    return {name: plain[name] for name in SECTIONS}


def _classes(classes: pd.DataFrame) -> list[list[Any]]:
    columns = classes.reindex(columns=["label", "name", "low_freq", "high_freq"])
    return columns.astype(object).where(columns.notna(), None).to_numpy().tolist()
