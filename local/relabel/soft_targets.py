"""Soft labels of a cycle: the out-of-fold probabilities of the cycle before, raised to a power.

No threshold is passed and nothing is decided: a cell of time and class takes what models that never
saw the recording's group say of it. The power takes from what is hardly believed more than from
what is, so that the sum over a thousand silent recordings does not teach that all of them call.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.special import expit

from local.inference.scores import Scores
from local.labels.soft_labels import SoftLabels


def make_soft_labels(
    scores: Scores,
    recordings: Iterable[str],
    power: float,
    weight: float,
    shift: np.ndarray | None = None,
) -> SoftLabels:
    """Labels p^power of the recordings that are asked for and scored.

    Parameters
    ----------
    scores : with frames; every recording scored only by models that never saw its group.
    recordings : ids that may be labelled.
    shift : (C,) logits added before the power (prior correction), or None.
    """
    wanted = set(recordings)
    rows = [row for row, name in enumerate(scores.recording_ids) if name in wanted]
    lengths = [scores.frames[row].shape[1] for row in rows]
    offset = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    target = np.empty((len(scores.labels), int(offset[-1])), dtype=np.float16)
    moved = np.zeros(len(scores.labels)) if shift is None else shift
    for place, row in enumerate(rows):
        logit = scores.frames[row].astype(np.float64) + moved[:, None]
        target[:, offset[place] : offset[place + 1]] = expit(logit) ** power
    names = [scores.recording_ids[row] for row in rows]
    return SoftLabels(names, scores.labels, target, offset, scores.hop_s, scores.start_s, weight)


def mass_by_class(soft: SoftLabels) -> pd.DataFrame:
    """What labels add up to, a row a class: expected cells, recordings and seconds."""
    cells = soft.target.sum(axis=1, dtype=np.float64)
    return pd.DataFrame(
        {
            "label": soft.labels,
            "cells": cells,
            "recordings": _highest(soft).sum(axis=0),
            "seconds": cells * soft.hop_s,
        }
    )


def confidence(soft: SoftLabels) -> pd.DataFrame:
    """A row a recording: its confidence, the sum over classes of its highest label."""
    return pd.DataFrame(
        {"recording_id": soft.recording_ids, "confidence": _highest(soft).sum(axis=1)}
    )


def _highest(soft: SoftLabels) -> np.ndarray:
    """(N, C) the highest label of each recording and class."""
    found = [soft.of(name).max(axis=1, initial=0.0) for name in soft.recording_ids]
    return np.stack(found).astype(np.float64) if found else np.zeros((0, len(soft.labels)))
