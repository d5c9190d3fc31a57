"""AUROC, the area under the ROC curve: the share of (positive, negative) pairs in the right order.

Ties count half. It is taken of whole recordings (complete truth) and of spans that somebody
confirmed or rejected (partial truth): where most cells are unknown, only the latter is honest.
"""

import numpy as np

from local.io.errors import CanopyError
from local.scoring.metrics.recording_sums import Statistic, divide, mean_of_classes

# Numbers held at once while resamples are computed: 32 MB each of a few arrays.
_BLOCK_NUMBERS = 1 << 22


class AurocStatistic(Statistic):
    """AUROC of decisions: cells of a table (recording, class), or spans of recordings.

    A drawn recording brings all its decisions, so each counts as often as its recording was drawn,
    and a pair counts by the product of both. Micro pools the classes. NaN where a class lacks
    positives or negatives.

    Parameters
    ----------
    recording, label : (E,) int. positive : (E,) bool. score : (E,), NaN is refused.
    """

    def __init__(
        self,
        name: str,
        recording: np.ndarray,
        label: np.ndarray,
        positive: np.ndarray,
        score: np.ndarray,
        n_classes: int,
    ) -> None:
        bad = np.isnan(score)
        if bad.any():
            raise CanopyError(
                f"{name}: score {int(bad.argmax())} of {len(bad)} is NaN; mend the model or the "
                "file that gave it"
            )
        self.names = (name,)
        rows = [np.arange(len(label)), *(np.flatnonzero(label == c) for c in range(n_classes))]
        self._parts = [(recording[mine], positive[mine], score[mine]) for mine in rows]

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Statistic`."""
        pooled, *classes = (_weighted_auroc(counts, *part) for part in self._parts)
        per_class = np.reshape(classes, (len(classes), len(counts))).T
        table = np.column_stack([pooled, mean_of_classes(per_class), per_class])
        return {self.names[0]: table}


def _weighted_auroc(
    counts: np.ndarray, recording: np.ndarray, positive: np.ndarray, score: np.ndarray
) -> np.ndarray:
    """AUROC (B,) of decisions (E,), weighted by how often their recordings count (B, N)."""
    if len(recording) == 0:
        return np.full(len(counts), np.nan)
    order = np.argsort(score, kind="stable")
    recording, positive, score = recording[order], positive[order], score[order]
    starts = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))
    result = np.empty(len(counts))
    block = max(1, _BLOCK_NUMBERS // len(recording))
    for start in range(0, len(counts), block):
        weight = counts[start : start + block, recording].astype(np.float64)
        up = np.add.reduceat(weight * positive, starts, axis=1)
        down = np.add.reduceat(weight * ~positive, starts, axis=1)
        below = np.cumsum(down, axis=1) - 0.5 * down
        pairs = up.sum(axis=1) * down.sum(axis=1)
        result[start : start + block] = divide((up * below).sum(axis=1), pairs)
    return result
