"""What the estimators of prevalence go by: scores of one model for recordings it never saw."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FoldScores:
    """Scores of one model for recordings it never saw, on a scale that is its own.

    known: (M, C) scores of held-out labelled recordings; positive: (M, C) 1 where a person
    confirmed the class; target: (N, C) scores of the recordings whose prevalence is wanted;
    inserted: (K, C) scores of target recordings in which a held-out call of the class was inserted
    (`insertion.insert_calls`), NaN where there was none, or None; spans: (S, 3) scores of held-out
    spans that people looked at, 1 where they confirmed the class, and its number, or None.
    """

    known: np.ndarray
    positive: np.ndarray
    target: np.ndarray
    inserted: np.ndarray | None = None
    spans: np.ndarray | None = None
