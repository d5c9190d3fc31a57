"""Pseudo windows that are mixed into those around a person's rows (`relabel.pseudo_mixup`)."""

import numpy as np

from local.config import Config
from local.training.epoch_plan import PSEUDO_KIND, TrainingSet, place_pseudo


def draw_partners(
    training_set: TrainingSet,
    config: Config,
    window: int,
    kinds: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """(n, 2) recording positions and first frames of the pseudo window mixed into each window.

    Position -1 where there is none; None where the configuration asks for none at all.
    """
    if not mixes_pseudo(training_set, config) or training_set.pseudo is None:
        return None
    partners = np.full((len(kinds), 2), -1, dtype=np.int64)
    chosen = (kinds < PSEUDO_KIND) & (rng.random(len(kinds)) < config.relabel.pseudo_mixup)
    where = np.flatnonzero(chosen)
    plain = np.ones(len(where))
    partners[where] = place_pseudo(
        training_set, training_set.pseudo, window, config, rng, plain, plain
    )
    return partners


def mixes_pseudo(training_set: TrainingSet, config: Config) -> bool:
    """Whether windows with soft labels are mixed into those around a person's rows."""
    return config.relabel.mixes_pseudo and training_set.pseudo is not None
