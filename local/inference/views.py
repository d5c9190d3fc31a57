"""What inference looks at: window lengths, overlaps, and the views of test-time augmentation."""

from dataclasses import dataclass
from itertools import product

from local.config import Config, InferenceConfig
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError
from local.labels.grid import to_frames
from local.labels.windows import Recordings, training_window, window_frames

# Numbers of a window: 256 MB of float32, before the network makes more of them.
_MAX_NUMBERS = 2**26


@dataclass(frozen=True)
class View:
    """One way to look at a recording."""

    shift_s: float
    speed: float
    gain_db: float
    flip: bool
    window: int
    overlap: int
    # Factor of the dump that is looked at: how many times as long its recordings are.
    stretch: float = 1.0


def list_views(config: Config, step: int, dump: Recordings | None = None) -> list[View]:
    """All combinations of the configured dumps, shifts, speeds, gains, flips and window lengths.

    The dump tells how long whole recordings are, for `window.whole`.
    """
    tta = config.inference.tta
    hop_s = front_end_of(config).hop_s
    lengths = [whole_steps(to_frames(length, hop_s), step) for length in tta.lengths_s]
    flips = [False, True] if tta.flip else [False]
    views = []
    for stretch in (1.0, *tta.stretches):
        windows = dict.fromkeys([inference_window(config, step, dump, stretch), *lengths])
        check_extent(config, max(windows))
        views += [
            View(
                *(shift, speed, gain, flip, window),
                inference_overlap(config.inference, config, window),
                stretch,
            )
            for shift, speed, gain, flip, window in product(
                tta.shifts_s, tta.speeds, tta.gains_db, flips, windows
            )
        ]
    return views


def check_views(config: Config) -> None:
    """Refuse gains where features show none."""
    front_end = front_end_of(config)
    if front_end.level is None and any(config.inference.tta.gains_db):
        raise CanopyError(
            f"inference.tta.gains_db needs features that show how loud a sound is, features.kind "
            f"{front_end.kind} makes none; leave it out"
        )


def check_extent(config: Config, window: int) -> None:
    """Refuse a window, in frames, that would take memory without end."""
    n_numbers = front_end_of(config).n_numbers
    if window * n_numbers > _MAX_NUMBERS:
        raise CanopyError(
            f"a window of {window} frames of {n_numbers} numbers holds more than {_MAX_NUMBERS} "
            "numbers; shorten window.length_s or the windows of section inference"
        )


def whole_steps(frames: int, step: int) -> int:
    """Nearest whole number of model steps, in frames; at least one."""
    return max(1, (2 * frames + step) // (2 * step)) * step


def inference_window(
    config: Config, step: int, dump: Recordings | None = None, stretch: float = 1.0
) -> int:
    """Window length in frames, over the recordings of `dump` stretched by a factor."""
    settings = config.inference
    if settings.window_frames is not None:
        return settings.window_frames
    hop_s = front_end_of(config).hop_s
    if settings.window_s is not None:
        return whole_steps(to_frames(settings.window_s, hop_s), step)
    if dump is None:
        return window_frames(config.window.length_s, hop_s, step)
    return training_window(dump, step, stretch)


def inference_overlap(settings: InferenceConfig, config: Config, window: int) -> int:
    """Overlap in frames for a window length; half a window unless given."""
    if settings.overlap_frames is not None:
        overlap = settings.overlap_frames
    elif settings.overlap_s is not None:
        overlap = to_frames(settings.overlap_s, front_end_of(config).hop_s)
    else:
        overlap = window // 2
    if overlap >= window:
        raise CanopyError(
            f"inference.overlap is {overlap} frames, not less than the window of {window}; lower it"
        )
    return overlap
