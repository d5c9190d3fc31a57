"""What thresholds and extents of a run are fitted on: known spans, and the recordings at hand."""

from typing import TYPE_CHECKING

import numpy as np

from local.inference.scores import Scores
from local.inference.sliding import SILENT_LOGIT
from local.scoring.event_rules.at_hand import AtHand
from local.scoring.event_rules.evidence import Evidence
from local.scoring.known_labels import known_evidence
from local.tasks.detection_evidence import fold_evidence
from local.tasks.detection_results import corrected_test, train_part

if TYPE_CHECKING:
    from local.models.task_contract import Experiment


def run_evidence(experiment: "Experiment", cycle: int) -> Evidence | None:
    """What thresholds and extents of a run are fitted on; None where scores over time are not kept.

    Where priors are corrected, the test recordings are at hand, and their prevalence is known.
    """
    oof, _ = train_part(experiment, cycle)
    config, at_hand = experiment.run.config, {}
    if config.prior.method != "none" and experiment.ids("test"):
        test, _, correction = corrected_test(experiment, cycle)
        if test.frames and not correction.distrust:
            pool = config.inference.pool
            # Inserted calls have scores of recordings, which are comparable with the highest scores
            # over time where they are just these.
            as_peaks = pool.source == "frame" and pool.method == "max"
            inserted = [fold.inserted for fold in fold_evidence(experiment, cycle)]
            calls = [scores for scores in inserted if scores is not None and as_peaks]
            none = np.zeros((0, len(test.labels)))
            at_hand = at_hand_of(test, correction.target, np.concatenate([none, *calls]))
    return known_evidence(oof, experiment.tables.events, config, at_hand)


def at_hand_of(test: Scores, prevalence: np.ndarray, calls: np.ndarray) -> dict[str, AtHand]:
    """Of every class; calls (K, C), NaN where none was inserted.

    Recordings of digital silence hold no call and have no place among the scores; so of the others
    the more hold the class.
    """
    peaks = np.stack([frames.max(axis=1) for frames in test.frames])
    heard = peaks[(peaks > SILENT_LOGIT + 1).any(axis=1)]
    if not len(heard):
        return {}
    share = np.minimum(1.0, prevalence * len(peaks) / len(heard))
    return {
        label: AtHand.of(share[column], heard[:, column], calls[:, column])
        for column, label in enumerate(test.labels)
    }
