"""Level span: partial truth, where only spans that somebody confirmed or rejected may count."""

import numpy as np
import pandas as pd
from scipy.special import expit

from local.io.errors import CanopyError
from local.scoring.evaluation.event_level import check_covered
from local.scoring.evaluation.score_sources import System, Truth
from local.scoring.evaluation.scoring_set import ScoringSet
from local.scoring.known_labels import span_scores
from local.scoring.metrics.auroc import AurocStatistic
from local.scoring.metrics.matching import EventList, overlapping_pairs
from local.scoring.metrics.recording_sums import CountStatistic, Statistic


def span_statistics(
    system: System, truth: Truth, scoring_set: ScoringSet, threshold: float
) -> list[Statistic]:
    """Confirmed against rejected spans, and nothing else.

    A span's score is the highest of the system in it (of its detections, or of its scores over
    time). AUROC compares confirmed with rejected ones; recall is the share of confirmed spans that
    reach the threshold, precision the share of confirmed ones among those that reach it.
    """
    events = truth.events
    if events is None:
        raise CanopyError(f"{truth.path}: has no spans; partial truth is a table of events")
    events = events[~events["recording_id"].isin(scoring_set.others)].reset_index(drop=True)
    spans = scoring_set.event_list(events.assign(score=0.0), truth.path)
    score = _span_scores(system, spans, scoring_set)
    positive = events["polarity"].to_numpy() > 0
    n, n_classes = len(scoring_set.recordings), len(scoring_set.labels)
    found = score >= threshold
    counts = [spans.take(rows).counts(n, n_classes) for rows in (positive & found, positive, found)]
    auroc = AurocStatistic("span auroc", spans.recording, spans.label, positive, score, n_classes)
    return [auroc, CountStatistic("span", *counts)]


def _span_scores(system: System, spans: EventList, scoring_set: ScoringSet) -> np.ndarray:
    """(S,) highest score of the span's class inside each span; 0 where there is no detection."""
    result = np.zeros(len(spans))
    if system.scores is None:
        if system.events is None:
            raise CanopyError(
                f"{system.path}: one score a recording says nothing of spans; give detections or "
                "scores over time"
            )
        found = scoring_set.event_list(system.events, system.path)
        value = found.score if system.scored else np.ones(len(found))
        pairs = overlapping_pairs(spans, found)
        np.maximum.at(result, pairs.true, value[pairs.found])
        return result
    rows = pd.DataFrame(
        {
            "recording_id": np.array(scoring_set.recordings, dtype=object)[spans.recording],
            "label": np.array(scoring_set.labels, dtype=object)[spans.label],
            "onset": spans.onset,
            "offset": spans.offset,
            "source": "",
        }
    )
    check_covered(system, scoring_set)
    return expit(span_scores(system.scores, rows)["score"].to_numpy(np.float64))
