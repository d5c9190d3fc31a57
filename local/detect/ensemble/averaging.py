"""Blends: one score from several runs that scored the same recordings.

`blend` takes the weighted mean of K runs' logits as probability, as logit or as rank. Weights may
be fitted: greedy forward selection with replacement (Caruana, Niculescu-Mizil, Crew, Ksikes 2004)
on out-of-fold scores against known labels. Truth is never looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_expit, logsumexp
from scipy.stats import rankdata

from local.io.errors import CanopyError
from local.scoring.metrics.clip_metrics import score_metric

METHODS = ("probability", "rank", "logit")
# Rounds of forward selection: weights are multiples of 1 / N_ROUNDS or coarser.
N_ROUNDS = 30
# A round must gain this much; less is rounding.
_LEAST_GAIN = 1e-12


def blend(logits: Sequence[np.ndarray], weights: np.ndarray, method: str) -> np.ndarray:
    """Blended logits (N, C) of K arrays (N, C).

    probability: logit of the weighted mean of probabilities. logit: weighted mean of logits.
    rank: recordings are put in order of their weighted mean rank, class by class among the N rows,
    and the values of the probability blend of that class are handed out in this order. Ranks alone
    would make all classes equally frequent; this way a class keeps its level against the others,
    which both the ranking of classes and the prior correction need. Ties share the mean value.

    Parameters
    ----------
    weights : (K,) not negative; divided by their sum. Runs of weight 0 play no part.
    """
    weights = _shares(weights, len(logits))
    kept = [row for row, weight in enumerate(weights) if weight > 0]
    stack = np.stack([np.asarray(logits[row], dtype=np.float64) for row in kept])
    weights = weights[kept]
    if not np.isfinite(stack).all():
        raise CanopyError("scores to blend are not all finite numbers; infer again")
    if method == "logit":
        return np.tensordot(weights, stack, axes=1)
    log_weight = np.log(weights)[:, None, None]
    mean = logsumexp(log_weight + log_expit(stack), axis=0)
    mean -= logsumexp(log_weight + log_expit(-stack), axis=0)
    return mean if method == "probability" else _by_rank(stack, weights, mean)


def _by_rank(stack: np.ndarray, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    ranks = np.tensordot(weights, rankdata(stack, axis=1), axes=1)
    # Equal mean ranks may differ in the last bits by the order of summation.
    places = rankdata(ranks.round(9), axis=0)
    values, steps = np.sort(mean, axis=0), np.arange(1, len(mean) + 1)
    columns = [
        np.interp(places[:, column], steps, values[:, column]) for column in range(mean.shape[1])
    ]
    return np.stack(columns, axis=1)


def _shares(weights: np.ndarray, n_runs: int) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (n_runs,):
        raise CanopyError(f"{n_runs} runs need {n_runs} weights, found {weights.size}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        shown = ",".join(f"{weight:g}" for weight in weights)
        raise CanopyError(
            f"weights are {shown}; they must be 0 or more, and one of them more than 0"
        )
    return weights / weights.sum()


# ---------------------------------------------------------------------------------------- fitting


def fit_weights(
    logits: Sequence[np.ndarray],
    score: Callable[[np.ndarray], float],
    method: str,
    n_rounds: int = N_ROUNDS,
) -> np.ndarray:
    """Weights (K,) that sum to 1, by greedy forward selection with replacement.

    Starts with the best run; each round adds the run, which may be in already, whose addition
    scores best. The selection of the round with the best score is taken, the earliest of equals.

    Parameters
    ----------
    score : blended logits (N, C) -> number, the higher the better; NaN is an error.
    """
    n_runs = len(logits)
    counts, best_counts, best = np.zeros(n_runs), np.ones(n_runs), -np.inf
    for _ in range(n_rounds):
        trials = counts + np.eye(n_runs)
        values = [score(blend(logits, trial, method)) for trial in trials]
        if np.isnan(values).any():
            raise CanopyError(
                "weights cannot be fitted without a recording that has a known positive; give "
                "--weights equal"
            )
        counts = trials[int(np.argmax(values))]
        if max(values) > best + _LEAST_GAIN:
            best_counts, best = counts, max(values)
    return best_counts / best_counts.sum()


@dataclass(frozen=True)
class Fit:
    """Fitted weights, and what blending by fitted weights is worth.

    weights: (K,) fitted on all labelled recordings. cross_fitted: (N, C) logits in which every
    recording is blended with weights that were fitted without its fold. per_fold: fold -> weights.
    """

    weights: np.ndarray
    cross_fitted: np.ndarray
    per_fold: dict[int, np.ndarray]


def cross_fit(
    logits: Sequence[np.ndarray], truth: np.ndarray, fold: np.ndarray, metric: str, method: str
) -> Fit:
    """Fit weights on known labels, and once without each fold.

    Parameters
    ----------
    logits : K arrays (N, C), out-of-fold.
    truth : (N, C) known positives; rows without any take no part in the score.
    fold : (N,) fold of each recording.
    """
    has: np.ndarray = np.asarray(truth.any(axis=1))

    def fitted(rows: np.ndarray) -> np.ndarray:
        # Ranks are taken among all recordings, whether they are labelled or not.
        return fit_weights(
            logits, lambda mixed: score_metric(metric, truth[rows], mixed[rows]), method
        )

    cross = blend(logits, np.ones(len(logits)), method)
    per_fold = {}
    for number in sorted(set(fold[has].tolist())):
        if (has & (fold != number)).any():
            per_fold[number] = fitted(has & (fold != number))
            mine = fold == number
            cross[mine] = blend(logits, per_fold[number], method)[mine]
    return Fit(fitted(has), cross, per_fold)


def read_weights(text: str, n_runs: int) -> np.ndarray:
    """Weights (K,) of an option like "1,2,1", as shares of 1; "equal" is all the same."""
    if text == "equal":
        return np.full(n_runs, 1 / n_runs)
    try:
        weights = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise CanopyError(
            f"--weights is {text!r}; give equal, fit, or a number for each run, as in 1,2,1"
        ) from None
    return _shares(weights, n_runs)
