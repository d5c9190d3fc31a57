"""Level clip: one decision a recording and class, and the baselines that stand beside it."""

import numpy as np
from scipy.special import logit

from local.scoring.evaluation.score_sources import System
from local.scoring.metrics.clip_metrics import chance_score, clip_statistic
from local.scoring.metrics.recording_sums import CountStatistic, Statistic, plain_values


def clip_statistics(truth: np.ndarray, score: np.ndarray, threshold: float) -> list[Statistic]:
    """Statistics of clip truth (N, C) bool and scores (N, C)."""
    found = score >= threshold
    metrics = [clip_statistic(name, truth, score) for name in ("lwlrap", "map", "auroc")]
    return [*metrics, CountStatistic("clip", truth & found, truth, found)]


def clip_threshold(system: System, threshold: float) -> float:
    """The threshold in the unit of the system's clip scores."""
    return float(logit(threshold)) if system.logits else threshold


def clip_baselines(
    truth: np.ndarray, score: np.ndarray, threshold: float
) -> dict[str, dict[str, np.ndarray]]:
    """`chance` and `constant_row`: measure -> (2 + C,).

    chance: a random ranking, exactly, and decisions dealt at random to recordings. constant_row:
    every recording the same scores, by prevalence in the truth; for F1, every class everywhere.
    """
    n, n_classes = truth.shape
    nothing = np.full(2 + n_classes, np.nan)
    chance = {"lwlrap": nothing.copy(), "map": nothing.copy(), "auroc": nothing.copy()}
    chance["lwlrap"][0] = chance_score(truth, "lwlrap")
    for index in range(n_classes):
        column = truth[:, [index]]
        for name in ("map", "auroc"):
            chance[name][2 + index] = chance_score(column, name)
    for name in ("map", "auroc"):
        chance[name][1] = chance_score(truth, name)
    found = score >= threshold
    expected = CountStatistic("clip", truth * found.mean(axis=0), truth, found)
    plain = np.ones((1, n))
    chance |= {name: table[0] for name, table in expected.values(plain).items()}
    row = np.empty(n_classes)
    row[np.argsort(-truth.sum(axis=0), kind="stable")] = -np.arange(n_classes)
    constant = clip_statistics(truth, np.broadcast_to(row, truth.shape), -np.inf)
    return {"chance": chance, "constant_row": plain_values(constant, n)}
