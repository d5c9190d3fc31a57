"""The results of detection: every score of every cycle, with intervals and baselines."""

from typing import TYPE_CHECKING, Any

import numpy as np

from local.inference.score_files import load_scores
from local.inference.scores import Scores
from local.relabel.prior_correction import Correction, prior_correction
from local.scoring.known_labels import known_positives, read_truth, score_against, score_known
from local.tasks.detection_evidence import fold_evidence
from local.tasks.submission_csv import merge_columns, read_columns

if TYPE_CHECKING:
    from local.models.task_contract import Experiment

METRIC_TITLES = {"lwlrap": "LWLRAP", "map": "mAP", "auroc": "AUROC"}
SCORE_TITLES = {
    "oof_known": "out-of-fold, known labels",
    "oof_truth": "out-of-fold, truth",
    "test_truth_raw": "test, truth, no prior correction",
    "test_truth": "test, truth, as submitted",
}


def metric_title(results: dict[str, Any]) -> str:
    """The metric's name for people."""
    return METRIC_TITLES.get(results["metric"], results["metric"])


def collect(
    experiment: "Experiment",
    cycles: list[int],
    corrected: "dict[int, CorrectedTest] | None" = None,
) -> dict[str, Any]:
    """Score every cycle; `corrected` holds `corrected_test` of those where it is at hand.

    Returns
    -------
    dict with `cycles`: a list of {cycle, scores: {name: score}, prior}. Names: `oof_known` (train,
    out-of-fold, known positives), and where truth exists `oof_truth`, `test_truth` (as submitted,
    prior corrected) and `test_truth_raw` (before the correction).
    """
    return {
        "metric": experiment.run.config.score.metric,
        "labels": experiment.tables.labels,
        "columns": _columns(experiment),
        "cycles": [
            _score_cycle(experiment, cycle, (corrected or {}).get(cycle)) for cycle in cycles
        ],
    }


def _columns(experiment: "Experiment") -> list[str]:
    columns = read_columns(experiment.run.tables, experiment.tables.labels)
    return list(dict.fromkeys(columns["column"]))


def _score_cycle(
    experiment: "Experiment", cycle: int, known: "CorrectedTest | None" = None
) -> dict[str, Any]:
    config = experiment.run.config
    oof, clip = train_part(experiment, cycle)
    scores = {"oof_known": score_known(oof, clip, experiment.tables.events, config)}
    _, test, correction = known or corrected_test(experiment, cycle)
    ids = oof.recording_ids
    # Prevalence of train recordings is not the test's: out-of-fold scores stay uncorrected.
    _add_truth(scores, "oof_truth", experiment, config.score.train_truth, ids, clip)
    names, logit = test
    _add_truth(scores, "test_truth_raw", experiment, config.score.test_truth, names, logit)
    shifted = logit + correction.shift
    _add_truth(scores, "test_truth", experiment, config.score.test_truth, names, shifted)
    prior = {
        "method": config.prior.method,
        "source": correction.source,
        "target": correction.target,
        "shift": correction.shift,
    }
    return {"cycle": cycle, "scores": scores, "prior": prior}


def train_part(experiment: "Experiment", cycle: int) -> tuple[Scores, np.ndarray]:
    """Out-of-fold scores of the train recordings, and their clip logits (N, C)."""
    scores, members = load_scores(experiment.run.cycle(cycle) / "oof.npz")
    train = set(experiment.ids("train"))
    rows = [row for row, name in enumerate(scores.recording_ids) if name in train]
    names = [scores.recording_ids[row] for row in rows]
    return scores.take(names), members["clip_logit"][rows].astype(np.float64)


CorrectedTest = tuple[Scores, tuple[list[str], np.ndarray], Correction]


def corrected_test(experiment: "Experiment", cycle: int) -> CorrectedTest:
    """Test scores, (ids, clip logits before the correction), and the correction."""
    run = experiment.run
    scores, members = load_scores(run.cycle(cycle) / "test.npz")
    logit = members["clip_logit"].astype(np.float64)
    folds = fold_evidence(experiment, cycle) if run.config.prior.method == "estimated" else []
    correction = prior_correction(experiment.tables.labels, logit, run.config, run.datadir, folds)
    return scores, (scores.recording_ids, logit), correction


def _add_truth(
    scores: dict[str, Any],
    name: str,
    experiment: "Experiment",
    truth: str | None,
    recording_ids: list[str],
    logit: np.ndarray,
) -> None:
    """Score against complete truth where the configured file exists."""
    run = experiment.run
    path = run.datadir / truth if truth is not None else None
    if path is None or not path.exists():
        return
    columns = read_columns(run.tables, experiment.tables.labels)
    merged, names = merge_columns(logit, experiment.tables.labels, columns)
    scores[name] = score_against(read_truth(path, recording_ids, names), merged, run.config, name)


def known_counts(experiment: "Experiment") -> np.ndarray:
    """(C,) train recordings with a known positive."""
    tables = experiment.tables
    return known_positives(tables.events, experiment.ids("train"), tables.labels).sum(axis=0)


def table_of_cycles(results: dict[str, Any]) -> str:
    """A table for the terminal: one line a cycle and score."""
    title = metric_title(results)
    lines = [f"{'cycle':>5}  {'score':<34} {title:>7}  {'95 % interval':<15} chance  constant"]
    for cycle in results["cycles"]:
        for name, score in cycle["scores"].items():
            interval = f"{score['low']:.3f}-{score['high']:.3f}"
            lines.append(
                f"{cycle['cycle']:>5}  {SCORE_TITLES[name]:<34} {score['value']:>7.4f}  "
                f"{interval:<15} {score['chance']:>6.3f}  {score['constant_row']:>8.3f}"
            )
        known = cycle["scores"]["oof_known"]
        # Without rejected rows there is none.
        if known.get("span_auc") is not None and np.isfinite(known["span_auc"]):
            interval = f"{known['span_auc_low']:.3f}-{known['span_auc_high']:.3f}"
            lines.append(
                f"{cycle['cycle']:>5}  {'out-of-fold, span AUC':<34} {known['span_auc']:>7.4f}  "
                f"{interval:<15} {0.5:>6.3f}  {'-':>8}"
            )
    return "\n".join(lines)
