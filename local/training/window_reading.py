"""How each window of an epoch is read: from which dump, how stretched, over which background.

These draws have a generator of their own, so that which windows an epoch draws does not depend on
what becomes of them.
"""

from dataclasses import dataclass

import numpy as np

from local.config import Config
from local.io.errors import CanopyError
from local.training.epoch_plan import TrainingSet, place_windows, random_windows


@dataclass(frozen=True)
class Variations:
    """One entry a window.

    dump_factor : stretch of the dump it is read from; 1 is the plain dump.
    factor : how many times as long it is played after that.
    wave : whether its waveform is read too, to be augmented.
    background : (n, 2) recording position and first frame in the plain dump of the sound laid
        under it; position -1 is none.
    background_snr_db : decibels between the two; infinite for none.
    partner : (n, 2) recording position and first frame in the plain dump of the window mixed with
        it, by its soft labels; position -1 is none. None where no window has one.
    """

    dump_factor: np.ndarray
    factor: np.ndarray
    wave: np.ndarray
    background: np.ndarray
    background_snr_db: np.ndarray
    partner: np.ndarray | None = None

    @classmethod
    def none(cls, n: int) -> "Variations":
        """`n` windows that are read as they are."""
        return cls(
            dump_factor=np.ones(n),
            factor=np.ones(n),
            wave=np.zeros(n, dtype=bool),
            background=np.full((n, 2), -1, dtype=np.int64),
            background_snr_db=np.full(n, np.inf),
        )


def vary_epoch(
    training_set: TrainingSet, config: Config, window: int, n_windows: int, rng: np.random.Generator
) -> Variations:
    """Draw how the windows of an epoch are read; nothing is drawn that is not asked for."""
    augment = config.augment
    vary = Variations.none(n_windows)
    if config.window.p_stretched > 0:
        chosen = rng.random(n_windows) < config.window.p_stretched
        vary.dump_factor[chosen] = rng.choice(config.features.stretches, size=int(chosen.sum()))
    if augment.stretch is not None:
        vary.factor[:] = rng.uniform(*augment.stretch, size=n_windows)
    if augment.wave_p > 0:
        vary.wave[:] = rng.random(n_windows) < augment.wave_p
    if augment.background_p > 0:
        where = np.flatnonzero(rng.random(n_windows) < augment.background_p)
        vary.background[where] = _backgrounds(training_set, config, window, len(where), rng)
        vary.background_snr_db[where] = rng.uniform(*augment.background_snr_db, size=len(where))
    return vary


def _backgrounds(
    training_set: TrainingSet, config: Config, window: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(n, 2) recording positions and first frames of backgrounds."""
    if config.augment.background_from == "random":
        return random_windows(training_set, window, n, rng)
    if config.augment.background_from == "unlabelled":
        if training_set.n_background == 0:
            raise CanopyError(
                "augment.background_from is unlabelled, but this fold has no readable recordings "
                "of that subset; set it to random"
            )
        return random_windows(training_set, window, n, rng, of_backgrounds=True)
    rows = np.flatnonzero(training_set.event_kind == 1)
    if len(rows) == 0:
        raise CanopyError(
            "augment.background_from is negative, but this fold has no rejected rows; set it to "
            "random"
        )
    chosen = rng.choice(rows, size=n)
    start = place_windows(training_set, chosen, window, config, rng)
    return np.stack([training_set.event_recording[chosen], start], axis=1)
