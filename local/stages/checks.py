"""Checks of a configuration against itself and against the prepared data, before any work."""

import torch

from local.config import Config
from local.data.folds import check_enough
from local.data.reviewed import read_reviewed
from local.data.tables import read_tables
from local.features.front_ends.front_end import check_input
from local.features.front_ends.kinds import front_end_of
from local.inference.views import (
    check_extent,
    check_views,
    inference_overlap,
    inference_window,
    list_views,
)
from local.io.errors import CanopyError, first_line
from local.labels.windows import window_frames
from local.models import create_model, without_pretrained
from local.models.checkpoint import load_initial, load_weights
from local.relabel.priors import read_prevalence
from local.scoring.metrics.clip_metrics import METRICS
from local.stages.places import Run
from local.training.augment.input_kind import check_augment
from local.training.losses.objective import check_labels, check_output


def check_config(config: Config) -> None:
    """Everything that needs no data: filters, metric, model, windows.

    The model scores one window of silence, so parameters that do not fit each other show here.
    """
    front_end = front_end_of(config)
    check_augment(config)
    check_views(config)
    if config.score.metric not in METRICS:
        raise CanopyError(
            f"score.metric is {config.score.metric!r}, expected one of {', '.join(sorted(METRICS))}"
        )
    params = config.model.params
    if config.model.params.get("pretrained"):
        params = {**params, "pretrained": False}
    model = create_model(config.model.name, params, 2, front_end.n_bands).eval()
    check_input(front_end, config.model.name, model.input)
    rate = getattr(model, "sample_rate", config.audio.sample_rate)
    if rate != config.audio.sample_rate:
        raise CanopyError(
            f"model.params.sample_rate is {rate}, audio.sample_rate {config.audio.sample_rate}; a "
            "model of waveforms must be told the rate that it hears, make them one"
        )
    window = window_frames(config.window.length_s, front_end.hop_s, model.step)
    check_extent(config, window)
    _check_windows(config, model.step)
    silence = torch.zeros(1, *front_end.axes, window)
    with torch.inference_mode():
        try:
            output = model(front_end.as_input(silence))
        except RuntimeError as error:
            raise CanopyError(
                f"model.params do not fit windows of {window} frames and {front_end.n_bands} bands "
                f"({first_line(error)})"
            ) from None
    check_output(config.loss, output)
    if output.frame_logit.shape[-1] != window // model.step:
        raise CanopyError(
            f"model {config.model.name} gives {output.frame_logit.shape[-1]} frames for a window "
            f"of {window}, expected {window // model.step}; its declared step is wrong"
        )


def _check_windows(config: Config, step: int) -> None:
    for view in list_views(config, step):
        if view.window < step:
            raise CanopyError(
                f"inference window of {view.window} frames is shorter than one output frame of "
                f"{step}; lengthen it"
            )
    inference_overlap(config.inference, config, inference_window(config, step))


def check_data(run: Run) -> None:
    """What the tables say against the settings; nothing when they are not there yet."""
    if not (run.tables / "recordings.csv").exists():
        return
    tables = read_tables(run.tables)
    recordings = tables.recordings
    check_enough(recordings, tables.events, tables.labels, run.config.split.n_folds)
    check_labels(run.config.loss, tables.labels)
    check_init(run.config, tables.labels)
    reviewed = [run.datadir / name for name in run.config.data.reviewed]
    durations = recordings.set_index("recording_id")["duration"]
    read_reviewed(reviewed, durations, tables.labels)
    if run.config.prior.given is not None:
        read_prevalence(run.datadir / run.config.prior.given, tables.labels)
    _check_subsets(run.config, set(recordings["subset"]))
    shortest = recordings.loc[recordings["duration"].idxmin()]
    window = run.config.window
    too_short = shortest["duration"] < window.length_s - 1e-6
    if window.short == "refuse" and too_short and not window.whole:
        raise CanopyError(
            f"recording {shortest['recording_id']} lasts {shortest['duration']:.3f} s, less than "
            f"window.length_s {window.length_s:g}; shorten the window or set window.short to "
            "repeat or silence"
        )


def _check_subsets(config: Config, subsets: set[str]) -> None:
    """Settings that go by recordings of a subset need some."""
    if config.prior.method == "estimated" and "test" not in subsets:
        raise CanopyError(
            "prior.method is estimated, which goes by test recordings, and there are none; set it "
            "to none or given"
        )
    augment = config.augment
    unlabelled = augment.background_p > 0 and augment.background_from == "unlabelled"
    if unlabelled and "unlabelled" not in subsets:
        raise CanopyError(
            "augment.background_from is unlabelled, but there are no recordings of that subset; "
            "set it to random or negative"
        )


def check_init(config: Config, labels: list[str], fold: int = 0) -> None:
    """The weights that a fold would start from must be of this model and these classes."""
    initial = config.model.init_of(fold)
    if initial is None:
        return
    weights = load_initial(initial, labels)
    params = without_pretrained(config.model.params)
    n_bands = front_end_of(config).n_bands
    model = create_model(config.model.name, params, len(labels), n_bands)
    load_weights(model, weights, initial)
