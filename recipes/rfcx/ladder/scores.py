"""Scores of the rungs: each against the truth, before and after prior correction, and compared.

LWLRAP of a competition is a ratio of sums over its recordings, so every score is kept as its parts
(one number a recording) and all intervals come from the same drawn recordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from local.inference.score_files import load_scores
from local.io.errors import CanopyError
from local.io.files import read_json
from local.io.seeds import generator
from local.relabel.prior_correction import matching_shift
from local.scoring.known_labels import read_truth
from local.scoring.metrics.bootstrap import percentiles, resample_counts
from local.scoring.metrics.clip_metrics import chance_score, constant_row_score
from local.scoring.metrics.lwlrap import lwlrap_sums
from local.tasks.submission_csv import merge_columns, read_columns
from recipes.rfcx.ladder.climb import Plan
from recipes.rfcx.ladder.rungs import Rung

N_RESAMPLES = 2000
KINDS = ("raw", "prior", "oracle")

# Sum of precisions and number of positives of each recording, (N,) both.
Parts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SeedScores:
    """One rung on one seed's competition: parts by kind, and the two baselines of its truth.

    raw: before the correction of priors; prior: with the estimated ones; oracle: with those of the
    test recordings' truth, by the same function with the same strength.
    """

    parts: dict[str, Parts]
    chance: float
    constant_row: float

    def value(self, kind: str) -> float:
        """LWLRAP."""
        total, count = self.parts[kind]
        return float(total.sum() / count.sum())


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds with its 95 % interval, and the value of every seed."""

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """What a difference says."""
        if self.low > 0:
            return "helps"
        return "hurts" if self.high < 0 else "no difference"


# ----------------------------------------------------------------------------------------- reading


def score_rung(plan: Plan, rung: Rung, seed: int) -> SeedScores:
    """Read what a rung's run has left, and score it. This opens the truth."""
    folder = plan.folder(rung.run, seed)
    is_blend = (folder / "blend.json").is_file()
    prior = _prior_of(folder, rung.cycle, is_blend)
    path = (folder if is_blend else folder / f"cycle{rung.cycle}") / "test.npz"
    scores, members = load_scores(path)
    logit = members["clip_logit"].astype(np.float64)
    columns = read_columns(plan.dump(seed) / "tables", scores.labels)
    _, names = merge_columns(logit, scores.labels, columns)
    truth = read_truth(plan.truth(seed), scores.recording_ids, names)
    settings = plan.config.prior
    target = true_prevalence(truth, names, scores.labels, columns)
    shifts = {
        "raw": np.zeros(logit.shape[1]),
        "prior": np.asarray(prior["shift"], dtype=np.float64),
        "oracle": matching_shift(logit, target, max_ratio=settings.max_odds_ratio),
    }
    parts = {
        kind: lwlrap_sums(truth, merge_columns(logit + shift, scores.labels, columns)[0])
        for kind, shift in shifts.items()
    }
    return SeedScores(parts, chance_score(truth), constant_row_score(truth))


def _prior_of(folder: Path, cycle: int, is_blend: bool) -> dict[str, list[float]]:
    if is_blend:
        return read_json(folder / "blend.json")["prior"]
    results = read_json(folder / "results.json")
    for record in results["cycles"]:
        if record["cycle"] == cycle:
            return record["prior"]
    raise CanopyError(f"{folder / 'results.json'}: no cycle {cycle}; run the ladder again")


def true_prevalence(
    truth: np.ndarray, names: list[str], labels: list[str], columns: pd.DataFrame
) -> np.ndarray:
    """(C,) share of test recordings with each class; N of them show half a one at the least."""
    half = 0.5 / len(truth)
    share = dict(zip(names, np.clip(truth.mean(axis=0), half, 1 - half), strict=True))
    column_of = dict(zip(columns["label"], columns["column"], strict=True))
    return np.array([share[column_of[label]] for label in labels])


# --------------------------------------------------------------------------------------- intervals


def estimate(parts: Sequence[Parts], over_seeds: bool = False) -> Estimate:
    """Mean over seeds of sum / sum, with a bootstrap interval.

    Parameters
    ----------
    parts : one a seed; a difference has the difference of its numerators.
    over_seeds : draw seeds, with replacement, before the recordings of each drawn one (a two-stage
        bootstrap); otherwise every seed is taken once and its recordings are drawn.
    """
    n_seeds = len(parts)
    values = tuple(float(total.sum() / count.sum()) for total, count in parts)
    pick = generator(0, "ladder", "seeds").integers(n_seeds, size=(n_seeds, N_RESAMPLES))
    total = np.zeros(N_RESAMPLES)
    for place in range(n_seeds):
        if over_seeds:
            every = np.stack([_resampled(part, place, seed) for seed, part in enumerate(parts)])
            total += every[pick[place], np.arange(N_RESAMPLES)]
        else:
            total += _resampled(parts[place], 0, place)
    low, high = percentiles(total / n_seeds)
    return Estimate(float(np.mean(values)), low, high, values)


def _resampled(part: Parts, *names: int) -> np.ndarray:
    rng = generator(0, "ladder", "recordings", *names)
    counts = np.concatenate(list(resample_counts(len(part[0]), rng, N_RESAMPLES)))
    return (counts @ part[0]) / (counts @ part[1])


def difference(above: Sequence[Parts], below: Sequence[Parts]) -> Estimate:
    """Paired difference over the same seeds and recordings."""
    pairs = zip(above, below, strict=True)
    return estimate([(a - b, count) for (a, count), (b, _) in pairs], over_seeds=True)


# ------------------------------------------------------------------------------------- all together


@dataclass(frozen=True)
class Measured:
    """All rungs that were run: scores by rung key, one a seed."""

    rungs: list[Rung]
    scores: dict[str, list[SeedScores]]

    def parts(self, key: str, kind: str) -> list[Parts]:
        """Parts of every seed."""
        return [score.parts[kind] for score in self.scores[key]]

    def estimate(self, key: str, kind: str) -> Estimate:
        """A rung's scores of one kind."""
        return estimate(self.parts(key, kind))

    def against(self, key: str, kind: str, below: str | None, below_kind: str) -> Estimate | None:
        """One rung less another; None when one of them was not run."""
        if below is None or key not in self.scores or below not in self.scores:
            return None
        return difference(self.parts(key, kind), self.parts(below, below_kind))

    def rung(self, key: str) -> Rung:
        """The rung called `key`."""
        return next(rung for rung in self.rungs if rung.key == key)


def measure(plan: Plan, rungs: list[Rung]) -> Measured:
    """Score the rungs whose runs were asked for."""
    kept = [rung for rung in rungs if rung.run in plan.runs]
    scores = {rung.key: [score_rung(plan, rung, seed) for seed in plan.seeds] for rung in kept}
    return Measured(kept, scores)
