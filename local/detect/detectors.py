"""What detects: runs, checkpoints and published folders, alone or as an ensemble.

Modules that need PyTorch are imported where a model needs them, so that a published folder on ONNX
Runtime starts within a second.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from local.config import Config, load_config
from local.detect.publish.folder import Published, is_published, read_published
from local.features.front_ends.front_end import check_input
from local.features.front_ends.front_end_registry import front_end_of
from local.inference.sliding import Scorer
from local.inference.views import View, list_views
from local.io.errors import CanopyError
from local.io.files import file_digest
from local.scoring.event_rules.evidence import Evidence
from local.scoring.event_rules.rule_file import EventRule, read_rule

log = logging.getLogger("canopy")

# How far above a checkpoint its run's configuration may lie: EXPDIR/TAG/cycle<n>/fold<k>/best.pt.
_LEVELS = 3


class Engine(Protocol):
    """What computes."""

    @property
    def scorers(self) -> Sequence[Scorer]:
        """One a network: windows -> their logits."""

    def features(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Samples as they come -> features (*axes, k)."""


@dataclass(frozen=True)
class Request:
    """Which models are wanted, and how: plain values that can be sent to other processes."""

    paths: list[Path]
    engine: str = "auto"
    device: str = "cpu"
    cycle: str = "submitted"
    conf: Path | None = None
    dumpdir: Path | None = None
    batch_size: int | None = None
    tta: bool = True
    n_threads: int = 1


@dataclass(frozen=True)
class ModelSpec:
    """A model before it is loaded.

    graphs : its networks as ONNX, one each; empty where there are none. load : its networks for
    PyTorch. evidence : gives what thresholds are fitted on. shift : gives the prior correction.
    files : what it is made of, for telling whether it changed. rule : makes its events, fitted with
    complete annotation; None where there is none.
    """

    path: Path
    classes: pd.DataFrame
    config: Config
    step: int
    graphs: list[Path]
    any_length: bool
    load: Callable[[], list[Any]]
    evidence: Callable[[], Evidence | None]
    shift: Callable[[], np.ndarray | None]
    files: list[Path]
    rule: EventRule | None = None

    @property
    def labels(self) -> list[str]:
        """Labels in output order."""
        return self.classes["label"].tolist()


@dataclass(frozen=True)
class Detector:
    """Loaded models that score the same classes on the same cells."""

    labels: list[str]
    config: Config
    step: int
    views: list[View]
    engine: Engine

    @property
    def hop_s(self) -> float:
        """Seconds of a cell."""
        return front_end_of(self.config).hop_s * self.step

    @property
    def start_s(self) -> float:
        """Where the first cell begins."""
        return front_end_of(self.config).start_s


def describe(request: Request) -> list[ModelSpec]:
    """The models of a request, checked to fit together."""
    models = [_describe(path, request) for path in request.paths]
    for other in models[1:]:
        _same(models[0], other)
    return models


def fingerprint_of(models: list[ModelSpec]) -> list[str]:
    """Digests of all files that the models are made of."""
    return [file_digest(path) for model in models for path in model.files]


def load(request: Request, models: list[ModelSpec] | None = None) -> Detector:
    """Load the models of a request."""
    models = describe(request) if models is None else models
    config = _settings(models[0].config, request)
    front_end = front_end_of(config)
    if front_end.n_channels > 1:
        raise CanopyError(
            f"{models[0].path}: features.kind {front_end.kind} hears {front_end.n_channels} "
            "channels, and detection reads one; give another model"
        )
    if not front_end.can_stream:
        log.info("features.kind %s holds each recording in memory as a whole", front_end.kind)
    views = list_views(config, models[0].step)
    engine: Engine
    if chosen_engine(request, models) == "onnx":
        from local.detect.onnx_engine import OnnxEngine

        window = models[0].config.inference.window_frames
        other = [view.window for view in views if view.window != window]
        if other and not all(model.any_length for model in models):
            raise CanopyError(
                f"{models[0].path}: its ONNX files take windows of {window} frames only, and the "
                f"test-time augmentation has one of {other[0]}; give --no-tta or --engine torch"
            )
        graphs = [graph for model in models for graph in model.graphs]
        engine = OnnxEngine(graphs, config, request.n_threads)
    else:
        from local.detect.torch_engine import TorchEngine, set_threads

        set_threads(request.n_threads)
        networks = [network for model in models for network in model.load()]
        engine = TorchEngine(networks, config, request.device)
    return Detector(models[0].labels, config, models[0].step, views, engine)


def chosen_engine(request: Request, models: list[ModelSpec]) -> str:
    """`onnx` or `torch`: ONNX Runtime where every model has graphs and no GPU is asked for."""
    bare = [model for model in models if not model.graphs]
    if request.engine == "onnx":
        if bare:
            raise CanopyError(
                f"{bare[0].path}: has no ONNX files; publish the run with bin/export.py, or give "
                "--engine torch"
            )
        if request.device != "cpu":
            raise CanopyError("--engine onnx computes on the CPU; give --device cpu")
        return "onnx"
    return "torch" if bare or request.engine == "torch" or request.device != "cpu" else "onnx"


def _settings(config: Config, request: Request) -> Config:
    """The configuration of a model as detection runs it."""
    inference = config.inference.model_dump()
    if request.batch_size is not None:
        inference["batch_size"] = request.batch_size
    if not request.tta:
        del inference["tta"]
    return config.model_copy(update={"inference": type(config.inference).model_validate(inference)})


def _same(first: ModelSpec, other: ModelSpec) -> None:
    """Models of an ensemble are averaged cell by cell."""
    if first.labels != other.labels:
        raise CanopyError(
            f"{other.path}: its classes are not those of {first.path}; an ensemble needs models of "
            "the same classes in the same order"
        )
    if first.step != other.step:
        raise CanopyError(
            f"{other.path}: its cells have {other.step} frames and those of {first.path} "
            f"{first.step}; detect with each alone"
        )
    for section in ("audio", "features", "inference"):
        if getattr(first.config, section) != getattr(other.config, section):
            raise CanopyError(
                f"{other.path}: its section {section} differs from that of {first.path}; an "
                "ensemble needs models of the same front end and windows"
            )


def _describe(path: Path, request: Request) -> ModelSpec:
    if path.is_dir() and is_published(path):
        return _published(read_published(path))
    if path.is_dir():
        return _run(path, request)
    if path.is_file():
        return _checkpoint(path, request)
    raise CanopyError(
        f"{path}: no such model; give a run (EXPDIR/TAG), a checkpoint (best.pt) or a published "
        "folder"
    )


def _published(model: Published) -> ModelSpec:
    def networks() -> list[Any]:
        from local.models import create_model, without_pretrained
        from local.models.checkpoint import load_weights
        from local.models.pretrained import read_weights

        recipe, loaded = model.recipe, []
        for files in model.networks:
            network = create_model(
                recipe["name"],
                without_pretrained(recipe["params"]),
                recipe["n_classes"],
                recipe["n_bands"],
            )
            load_weights(network, read_weights(files.weights, "the model"), files.weights)
            loaded.append(network)
        return loaded

    graphs = [files.onnx for files in model.networks if files.onnx is not None]
    return ModelSpec(
        path=model.folder,
        classes=model.classes,
        config=model.config,
        step=model.step,
        graphs=graphs if len(graphs) == len(model.networks) else [],
        any_length=model.any_length,
        load=networks,
        evidence=lambda: model.evidence,
        shift=lambda: model.shift,
        files=[model.folder / "SHA256SUMS"],
        rule=model.rule,
    )


def _run(folder: Path, request: Request) -> ModelSpec:
    from local.detect.ensemble.members import open_member
    from local.detect.publish.export import run_shift, trained_folds
    from local.models.checkpoint import load_model
    from local.tasks.detection_thresholds import run_evidence

    member = open_member(folder, request.cycle, None, request.dumpdir)
    experiment, cycle = member.experiment, member.cycle
    paths = trained_folds(experiment, cycle)
    labels = experiment.tables.labels
    loaded = [load_model(path, labels) for path in paths]
    step = loaded[0].step
    return ModelSpec(
        path=folder,
        classes=experiment.tables.classes,
        config=_with_window(experiment.run.config, step, experiment.dump),
        step=step,
        graphs=[],
        any_length=True,
        load=lambda: loaded,
        evidence=lambda: run_evidence(experiment, cycle),
        shift=lambda: run_shift(folder, cycle),
        files=[folder / "config.yaml", *paths],
        rule=read_rule(folder, experiment.run.cycle(cycle) / "oof.npz"),
    )


def _checkpoint(path: Path, request: Request) -> ModelSpec:
    from local.models.checkpoint import load_checkpoint, load_model, read_recipe

    recipe = read_recipe(load_checkpoint(path), path)
    conf = request.conf or next(
        (
            folder / "config.yaml"
            for folder in list(path.resolve().parents)[:_LEVELS]
            if (folder / "config.yaml").is_file()
        ),
        None,
    )
    if conf is None:
        raise CanopyError(
            f"{path}: no config.yaml above it, so its front end is not known; give the run's with "
            "--conf"
        )
    labels = list(recipe["labels"])
    model, config = load_model(path, labels), load_config(conf)
    front_end = front_end_of(config)
    check_input(front_end, recipe["name"], model.input)
    if front_end.n_bands != recipe["n_bands"]:
        raise CanopyError(
            f"{path}: takes {recipe['n_bands']} bands, and {conf} makes {front_end.n_bands}; give "
            "the config.yaml of its run with --conf"
        )
    classes = pd.DataFrame({"label": labels, "name": labels})
    return ModelSpec(
        path=path,
        classes=classes.assign(low_freq=np.nan, high_freq=np.nan),
        config=_with_window(config, model.step, None),
        step=model.step,
        graphs=[],
        any_length=True,
        load=lambda: [model],
        evidence=lambda: None,
        shift=lambda: None,
        files=[path, conf],
    )


def _with_window(config: Config, step: int, dump: Any) -> Config:
    """The configuration with the length of its windows written out."""
    from local.inference.views import inference_window

    given = (config.inference.window_frames, config.inference.window_s) != (None, None)
    if dump is None and config.window.whole and not given:
        raise CanopyError(
            "window.whole makes windows of the longest recording, which a checkpoint does not "
            "tell; detect with the run's folder, or set inference.window_s in --conf"
        )
    window = inference_window(config, step, dump)
    inference = config.inference.model_copy(update={"window_frames": window, "window_s": None})
    return config.model_copy(update={"inference": inference})
