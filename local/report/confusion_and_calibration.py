"""What known rows say of the scores: which classes are taken for which, and whether 0.8 means 0.8.

Rows are partial: a class without a row may sound all the same. So no class is called wrong here;
the question is only what the models score highest where somebody confirmed a class.
"""

import numpy as np
import pandas as pd
from scipy.special import expit

from local.inference.scores import Scores
from local.labels.grid import overlap
from local.report.page_records import CalibrationBin, Confusion
from local.scoring.known_labels import known_rows


def confusion_of(scores: Scores, events: pd.DataFrame, threshold: np.ndarray) -> Confusion | None:
    """How classes score inside confirmed spans of each class; None without frames or spans.

    Parameters
    ----------
    scores : out-of-fold, with frames.
    threshold : (C,) logits.
    """
    labels = list(scores.labels)
    peaks, own = _peaks_in_confirmed(scores, events)
    if len(own) == 0:
        return None
    n_classes = len(labels)
    top, ranks = peaks.argmax(axis=1), _rank_of_own(peaks, own)
    highest = np.zeros((n_classes, n_classes))
    above = np.zeros((n_classes, n_classes))
    np.add.at(highest, (own, top), 1)
    np.add.at(above, own, peaks >= threshold)
    counts = np.bincount(own, minlength=n_classes)
    share = np.maximum(counts, 1)[:, None]
    mean_rank = np.bincount(own, weights=ranks, minlength=n_classes) / share[:, 0]
    return Confusion(
        labels=labels,
        n=counts.tolist(),
        highest=highest / share,
        above=above / share,
        mean_rank=np.where(counts > 0, mean_rank, np.nan),
    )


def calibration_of(
    scores: Scores, events: pd.DataFrame, n_bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Cells of confirmed and rejected rows by their score; bins without cells are left out.

    A cell counts when a known row fills at least half of it. Where a confirmed and a rejected row
    of one class claim the same cell, it counts as confirmed.
    """
    if not scores.frames:
        return ()
    place = {name: row for row, name in enumerate(scores.recording_ids)}
    column = {label: index for index, label in enumerate(scores.labels)}
    mine = known_rows(events)
    mine = mine[mine["recording_id"].isin(place)]
    found, truth = [], []
    for (name, label), rows in mine.groupby(["recording_id", "label"], sort=True):
        row = place[name]
        verdict = _verdicts(rows, scores.grid(row).edges_s, scores.hop_s)
        known = verdict != 0
        found.append(scores.frames[row][column[label], known])
        truth.append(verdict[known] > 0)
    if not found:
        return ()
    probability = expit(np.concatenate(found).astype(np.float64))
    return _bins(probability, np.concatenate(truth), n_bins)


def _bins(probability: np.ndarray, truth: np.ndarray, n_bins: int) -> tuple[CalibrationBin, ...]:
    index = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    return tuple(
        CalibrationBin(
            low=number / n_bins,
            high=(number + 1) / n_bins,
            mean_score=float(probability[index == number].mean()),
            share_present=float(truth[index == number].mean()),
            n=int((index == number).sum()),
        )
        for number in range(n_bins)
        if (index == number).any()
    )


def _verdicts(rows: pd.DataFrame, edges: np.ndarray, hop_s: float) -> np.ndarray:
    """(n,) 1 confirmed, -1 rejected, 0 unknown, for the cells of one recording and class."""
    verdict = np.zeros(len(edges) - 1, dtype=np.int8)
    for event in rows.sort_values("polarity").itertuples():
        shared = overlap(edges[:-1], edges[1:], event.onset, event.offset)
        verdict[shared >= 0.5 * hop_s] = 1 if event.polarity > 0 else -1
    return verdict


def _peaks_in_confirmed(scores: Scores, events: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(E, C) highest logit of every class inside each confirmed row, and (E,) the row's class."""
    place = {name: row for row, name in enumerate(scores.recording_ids)}
    column = {label: index for index, label in enumerate(scores.labels)}
    mine = known_rows(events)
    mine = mine[(mine["polarity"] > 0) & mine["recording_id"].isin(place)]
    peaks, own = [], []
    for event in mine.itertuples() if scores.frames else ():
        row = place[event.recording_id]
        edges = scores.grid(row).edges_s
        inside = overlap(edges[:-1], edges[1:], event.onset, event.offset) > 0
        if inside.any():
            peaks.append(scores.frames[row][:, inside].max(axis=1))
            own.append(column[event.label])
    return np.array(peaks, dtype=np.float64), np.array(own, dtype=int)


def _rank_of_own(peaks: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(E,) 1 where the row's class scores highest; ties share the mean of their places."""
    mine = peaks[np.arange(len(own)), own][:, None]
    return (peaks > mine).sum(axis=1) + ((peaks == mine).sum(axis=1) + 1) / 2
