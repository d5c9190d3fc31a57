"""Scores of a first training, what is known of them, and the truth that judges what is decided."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from local.config import Config, load_config
from local.inference.score_files import load_scores
from local.inference.scores import Scores
from local.relabel.fold_scores import FoldScores
from local.scoring.known_labels import known_rows, read_truth, span_scores
from local.scoring.metrics.matching import EventList
from local.stages.experiment import Experiment
from local.stages.run import Run
from local.tasks.detection_evidence import fold_evidence
from local.tasks.detection_results import train_part
from recipes.rfcx.transfer.first_training import Place


@dataclass(frozen=True)
class Stored:
    """One competition of one seed, N test recordings and C classes.

    oof : scores of train recordings by models that never saw them. spans : known rows of them with
    `score`. source : (C,) prevalence that the scores carry. truth (N, C) and truth_events are
    opened to judge alone.
    """

    name: str
    seed: int
    config: Config
    labels: list[str]
    folds: list[FoldScores]
    oof: Scores
    oof_clip: np.ndarray
    spans: pd.DataFrame
    events: pd.DataFrame
    source: np.ndarray
    test: Scores
    test_clip: np.ndarray
    truth: np.ndarray
    truth_events: EventList

    @property
    def prevalence(self) -> np.ndarray:
        """(C,) true share of test recordings, no nearer to 0 or 1 than half a recording."""
        half = 0.5 / len(self.truth)
        return np.clip(self.truth.mean(axis=0), half, 1 - half)


def read_stored(place: Place, cycle: int = 0) -> Stored:
    """The scores of a finished first training."""
    config = load_config(place.exp / "config.yaml")
    run = Run(config, place.data, place.folder / "dump", place.exp, "cpu", 1, False)
    experiment = Experiment(run)
    tables, labels = experiment.tables, experiment.tables.labels
    oof, oof_clip = train_part(experiment, cycle)
    test, members = load_scores(run.cycle(cycle) / "test.npz")
    truth = read_truth(place.data / str(config.score.test_truth), test.recording_ids, labels)
    return Stored(
        name=place.competition.name,
        seed=place.seed,
        config=config,
        labels=labels,
        folds=fold_evidence(experiment, cycle),
        oof=oof,
        oof_clip=oof_clip,
        spans=span_scores(oof, tables.events),
        events=known_rows(tables.events),
        source=_share_of_confirmed(known_rows(tables.events), labels),
        test=test,
        test_clip=members["clip_logit"].astype(np.float64),
        truth=truth.astype(np.int64),
        truth_events=_truth_events(place, config, test.recording_ids, labels),
    )


def _share_of_confirmed(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """(C,) prevalence that training shows: of rows, smoothed by one of each kind."""
    n_all = rows["label"].value_counts().reindex(labels).fillna(0)
    n_confirmed = rows.loc[rows["polarity"] > 0, "label"].value_counts().reindex(labels).fillna(0)
    return ((n_confirmed + 1) / (n_all + 2)).to_numpy(dtype=np.float64)


def _truth_events(
    place: Place, config: Config, recording_ids: list[str], labels: list[str]
) -> EventList:
    table = pd.read_csv(place.data / str(config.score.test_events), dtype={"species_id": str})
    table = table.rename(columns={"t_min": "onset", "t_max": "offset"})
    table["label"] = "s" + table["species_id"].str.removeprefix("s")
    return EventList.of(table, recording_ids, labels)
