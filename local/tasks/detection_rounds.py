"""Which cycle of relabelling is handed in, and when further ones are not worth their time.

Judged by what people know and models did not see: confirmed against rejected spans out-of-fold
(span AUC), which assumes nothing of what is unlabelled. Where nothing was rejected, by the metric
over known recordings. Never by truth.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from local.scoring.known_labels import score_known
from local.tasks.detection_results import METRIC_TITLES, train_part

if TYPE_CHECKING:
    from local.config import Config
    from local.models.task_contract import Experiment


def evidence_of(known: dict[str, Any], config: "Config") -> tuple[str, float]:
    """What cycles are compared by, and a cycle's value, of `score_known` of its train part."""
    span_auc = known.get("span_auc")
    if span_auc is not None and np.isfinite(span_auc):
        return "span AUC", float(span_auc)
    metric = config.score.metric
    return f"{METRIC_TITLES.get(metric, metric)} on known labels", float(known["value"])


def best_of(values: list[float]) -> int:
    """Place of the highest value, the first of equals; the last place where none is a number."""
    if np.isnan(values).all():
        return len(values) - 1
    return int(np.nanargmax(values))


def stop_reason(experiment: "Experiment", cycle: int) -> str:
    """Why no labels are made for a cycle, in words; "" where they are to be made.

    The evidence of the cycle before lies more than `relabel.max_fall` below the best before it.
    """
    config = experiment.run.config
    if cycle < 2 or config.relabel.max_fall is None:
        return ""
    score = config.score.model_copy(update={"n_bootstrap": 0})
    quick = config.model_copy(update={"score": score})
    values, name = [], ""
    for before in range(cycle):
        oof, clip = train_part(experiment, before)
        name, value = evidence_of(score_known(oof, clip, experiment.tables.events, quick), quick)
        values.append(value)
    best = best_of(values[:-1])
    # A value that is no number says nothing.
    if not values[-1] < values[best] - config.relabel.max_fall:
        return ""
    return (
        f"out-of-fold {name} fell from {values[best]:.3f} in cycle {best} to {values[-1]:.3f} in "
        f"cycle {cycle - 1}, by more than relabel.max_fall {config.relabel.max_fall:g}"
    )


def choose_cycle(results: dict[str, Any], config: "Config", ended: str) -> dict[str, Any]:
    """The cycle to hand in, by the scores that `collect` found, and why.

    Returns
    -------
    dict with `cycle`, `evidence` (its name), `by_cycle` (its values), `words` (one sentence) and,
    where rounds `ended` early, that reason.
    """
    cycles = [entry["cycle"] for entry in results["cycles"]]
    found = [evidence_of(entry["scores"]["oof_known"], config) for entry in results["cycles"]]
    name, values = found[-1][0], [value for _, value in found]
    chosen = best_of(values)
    listed = ", ".join(f"{value:.4f} (cycle {n})" for n, value in zip(cycles, values, strict=True))
    words = f"submitted: cycle {cycles[chosen]}"
    if len(cycles) > 1:
        words += f", the best by out-of-fold {name}: {listed}"
    if ended:
        words += f"; no further cycle, as {ended}"
    return {
        "cycle": cycles[chosen],
        "evidence": name,
        "by_cycle": values,
        "ended": ended or None,
        "words": words,
    }
