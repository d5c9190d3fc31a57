"""Checks of detection's configuration against itself and the prepared tables, before any work."""

from pathlib import Path

import torch

from local.config import Config
from local.data.annotated import Annotated
from local.data.tables import Tables
from local.features.front_ends.front_end import check_input
from local.features.front_ends.front_end_registry import front_end_of
from local.inference.views import (
    check_extent,
    check_views,
    inference_overlap,
    inference_window,
    list_views,
)
from local.io.errors import CanopyError, first_line
from local.labels.windows import window_frames
from local.models import SedModel, create_model, with_drop_path, without_pretrained
from local.models.checkpoint import load_initial, load_weights
from local.models.task_contract import Trial
from local.relabel.prevalence import read_prevalence
from local.scoring.metrics.clip_metrics import METRICS
from local.tasks.detection_cells import check_cells
from local.training.augment.input_kind import check_augment
from local.training.losses.objective import check_labels, check_output


def check_config(config: Config) -> None:
    """Augmentation, views, metric, model, windows.

    The model scores one window of noise, so parameters that do not fit each other show here.
    """
    check_augment(config)
    check_views(config)
    if config.score.metric not in METRICS:
        raise CanopyError(
            f"score.metric is {config.score.metric!r}, expected one of {', '.join(sorted(METRICS))}"
        )
    _check_relabel(config)
    model = _model(config)
    x = _noise(config, model.step, 1)
    _check_windows(config, model.step)
    n_frames = x.shape[-1]
    with torch.inference_mode():
        try:
            output = model.eval()(x)
        except RuntimeError as error:
            raise CanopyError(
                f"model.params do not fit windows of {n_frames} frames and "
                f"{front_end_of(config).n_bands} bands ({first_line(error)})"
            ) from None
    check_output(config.loss, output)
    if output.frame_logit.shape[-1] != n_frames // model.step:
        raise CanopyError(
            f"model {config.model.name} gives {output.frame_logit.shape[-1]} frames for a window "
            f"of {n_frames}, expected {n_frames // model.step}; its declared step is wrong"
        )


def _check_relabel(config: Config) -> None:
    """What later cycles need, before the first one is trained."""
    relabel, model = config.relabel, config.model
    if relabel.n_cycles == 0:
        return
    if not config.inference.keep_frames:
        raise CanopyError(
            "inference.keep_frames is false, but relabelling needs scores over time; set it to "
            "true, or relabel.n_cycles to 0"
        )
    if relabel.kind == "events" and relabel.pseudo_mixup > 0:
        raise CanopyError(
            f"relabel.pseudo_mixup is {relabel.pseudo_mixup:g}, which mixes windows with soft "
            "labels; set relabel.kind to soft, or pseudo_mixup to 0"
        )
    if relabel.drop_path is not None:
        params = with_drop_path(model.name, without_pretrained(model.params), relabel.drop_path)
        create_model(model.name, params, 2, front_end_of(config).n_bands)


def trial(config: Config, n: int, device: torch.device) -> Trial:
    """The configured model with `n` windows of noise."""
    model = _model(config)
    x = _noise(config, model.step, n)
    return Trial(
        model=model.to(device),
        x=x.to(device),
        loss=lambda output: output.frame_logit.square().mean(),
        batch=f"{n} windows of {x.shape[-1] * front_end_of(config).hop_s:.3f} s",
    )


def _model(config: Config) -> SedModel:
    """The configured model for two classes, without weights from elsewhere."""
    params = config.model.params
    if params.get("pretrained"):
        params = {**params, "pretrained": False}
    front_end = front_end_of(config)
    model = create_model(config.model.name, params, 2, front_end.n_bands)
    check_input(front_end, config.model.name, model.input)
    rate = getattr(model, "sample_rate", config.audio.sample_rate)
    if rate != config.audio.sample_rate:
        raise CanopyError(
            f"model.params.sample_rate is {rate}, audio.sample_rate {config.audio.sample_rate}; a "
            "model of waveforms must be told the rate that it hears, make them one"
        )
    return model


def _step(config: Config) -> int:
    """Frames a cell of the configured model."""
    return _model(config).step


def _noise(config: Config, step: int, n: int) -> torch.Tensor:
    front_end = front_end_of(config)
    window = window_frames(config.window.length_s, front_end.hop_s, step)
    check_extent(config, window)
    drawn_by = torch.Generator().manual_seed(0)
    return front_end.as_input(torch.randn(n, *front_end.axes, window, generator=drawn_by))


def _check_windows(config: Config, step: int) -> None:
    for view in list_views(config, step):
        if view.window < step:
            raise CanopyError(
                f"inference window of {view.window} frames is shorter than one output frame of "
                f"{step}; lengthen it"
            )
    inference_overlap(config.inference, config, inference_window(config, step))


def check_tables(config: Config, tables: Tables, datadir: Path) -> None:
    """Classes, first weights, priors, subsets and window against what was prepared."""
    check_labels(config.loss, tables.labels)
    config.relabel.check_labels(tables.labels)
    if (initial := config.model.init_of(0)) is not None:
        load_fitting(config, initial, tables.labels)
    if config.prior.given is not None:
        read_prevalence(datadir / config.prior.given, tables.labels)
    recordings = tables.recordings
    _check_subsets(config, set(recordings["subset"]))
    front_end = front_end_of(config)
    check_cells(config, Annotated.of(tables), front_end.hop_s, _step(config))
    shortest = recordings.loc[recordings["duration"].idxmin()]
    window = config.window
    too_short = shortest["duration"] < window.length_s - 1e-6
    if window.short == "refuse" and too_short and not window.whole:
        raise CanopyError(
            f"recording {shortest['recording_id']} lasts {shortest['duration']:.3f} s, less than "
            f"window.length_s {window.length_s:g}; shorten the window or set window.short to "
            "repeat or silence"
        )


def _check_subsets(config: Config, subsets: set[str]) -> None:
    """Refuse a setting that goes by recordings of a subset where there are none."""
    augment, relabel, data = config.augment, config.relabel, config.data
    backgrounds = augment.background_p > 0 and augment.background_from == "unlabelled"
    # Whether it is in use, what it is, the subsets one of which must have recordings, what to do.
    for used, setting, wanted, mend in (
        (
            config.prior.method == "estimated",
            "prior.method estimated",
            ("test",),
            "set it to none or given",
        ),
        (
            backgrounds,
            "augment.background_from unlabelled",
            ("unlabelled",),
            "set it to random or negative",
        ),
        (
            relabel.n_cycles > 0,
            "relabel.subsets",
            relabel.subsets,
            "name another subset, or set relabel.n_cycles to 0",
        ),
        (
            bool(data.reviewed),
            "data.reviewed_subsets",
            data.reviewed_subsets,
            "name another subset, or leave data.reviewed out",
        ),
    ):
        if used and not subsets & set(wanted):
            named = " or ".join(wanted) or "(none is named)"
            raise CanopyError(
                f"{setting} goes by recordings of subset {named}, but there are none; {mend}"
            )


def load_fitting(config: Config, path: Path, labels: list[str]) -> dict[str, torch.Tensor]:
    """Weights to start from, which must be of the configured model and these classes."""
    weights = load_initial(path, labels)
    params = without_pretrained(config.model.params)
    model = create_model(config.model.name, params, len(labels), front_end_of(config).n_bands)
    load_weights(model, weights, path)
    return weights
