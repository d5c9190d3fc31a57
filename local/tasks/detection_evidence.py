"""What the estimate of prevalence goes by: each fold's scores where its model saw nothing."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from local.inference.score_files import load_scores
from local.inference.scores import Scores, clip_logits
from local.io.archives import UNREADABLE, read_npz
from local.io.errors import CanopyError
from local.io.files import write_npz
from local.io.seeds import generator
from local.relabel.fold_scores import FoldScores
from local.scoring.known_labels import known_positives, known_rows, span_scores

if TYPE_CHECKING:
    from local.models import SedModel
    from local.models.task_contract import Experiment

log = logging.getLogger("canopy")


def inserted_path(experiment: "Experiment", cycle: int, fold: int) -> Path | None:
    """Where a fold's scores of inserted calls are; None where no estimate goes by them."""
    if not experiment.run.config.prior.inserts_calls:
        return None
    return experiment.run.fold(cycle, fold) / "inserted.npz"


def insert_fold(experiment: "Experiment", cycle: int, fold: int, model: "SedModel") -> None:
    """Write `inserted.npz` of a fold: label (C,), logit (K, C) of `insertion.insert_calls`."""
    from local.relabel.insertion import insert_calls

    run, tables = experiment.run, experiment.tables
    path = run.fold(cycle, fold) / "inserted.npz"
    scores, _ = load_scores(path.with_name("scores.npz"))
    calls = known_rows(tables.events)
    held_out = set(experiment.held_out_ids(fold))
    calls = calls[(calls["polarity"] > 0) & calls["recording_id"].isin(held_out)]
    logit = insert_calls(
        model,
        experiment.dump,
        calls,
        scores.take(_targets(experiment, cycle, fold, scores)),
        run.config.prior.n_insertions,
        generator(run.config.seed, "insert", cycle, fold),
        run.device,
    )
    write_npz(path, label=np.array(tables.labels, dtype=np.str_), logit=logit)
    log.info(
        "cycle%d/fold%d: %d calls inserted in test recordings",
        *(cycle, fold, int(np.isfinite(logit).sum())),
    )


def fold_evidence(experiment: "Experiment", cycle: int) -> list[FoldScores]:
    """Each fold's scores of its held-out train recordings, and of test recordings it never saw.

    A fold whose training saw the groups of all test recordings has nothing to compare: it is left
    out.
    """
    tables, pool = experiment.tables, experiment.run.config.inference.pool
    evidence = []
    for fold in experiment.folds:
        path = experiment.run.fold(cycle, fold) / "scores.npz"
        if not path.exists():
            continue
        scores, _ = load_scores(path)
        row = {name: index for index, name in enumerate(scores.recording_ids)}
        clip = clip_logits(scores, pool)
        held_out = [name for name in experiment.held_out_ids(fold) if name in row]
        target = _targets(experiment, cycle, fold, scores)
        evidence.append(
            FoldScores(
                known=clip[[row[name] for name in held_out]],
                positive=known_positives(tables.events, held_out, tables.labels),
                target=clip[[row[name] for name in target]],
                inserted=_read_inserted(experiment, cycle, fold),
                spans=_spans(scores.take(held_out), tables.events),
            )
        )
    return [fold for fold in evidence if len(fold.target)]


def _targets(experiment: "Experiment", cycle: int, fold: int, scores: Scores) -> list[str]:
    """Scored test recordings whose group the fold's model never saw."""
    seen = experiment.seen_groups(cycle, fold)
    scored = set(scores.recording_ids)
    return [
        name
        for name in experiment.ids("test")
        if name in scored and experiment.groups[name] not in seen
    ]


def _spans(held_out: Scores, events: pd.DataFrame) -> np.ndarray | None:
    """(S, 3) score, verdict and class of known spans; None where frames are not kept."""
    if not held_out.frames:
        return None
    spans = span_scores(held_out, events)
    columns = [spans["score"], spans["polarity"] > 0, spans["class"]]
    return np.column_stack(columns).astype(np.float64)


def _read_inserted(experiment: "Experiment", cycle: int, fold: int) -> np.ndarray | None:
    path = inserted_path(experiment, cycle, fold)
    if path is None:
        return None
    try:
        return read_npz(path)["logit"]
    except (OSError, KeyError, *UNREADABLE):
        raise CanopyError(
            f"{path}: missing or not readable, but prior.n_insertions is "
            f"{experiment.run.config.prior.n_insertions}; run stage 3 again, or set it to 0"
        ) from None
