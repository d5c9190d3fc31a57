"""Pseudo labels: events from out-of-fold scores, for the next cycle of training.

A pseudo event is made where the scores of a class over time, with its prior corrected, pass the
thresholds of section `relabel` for long enough. What people said stands: a pseudo event gives way
wherever a true row of its class, confirmed or rejected, lies. Pseudo events are positive unless
asked otherwise, carry a soft weight and their cycle as source, and are not balanced over classes.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from local.config import RelabelConfig
from local.data.tables import EVENT_COLUMNS
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.labels.grid import ROUNDING_S, FrameGrid
from local.labels.spans import frames_to_events, subtract_spans
from local.labels.targets import PSEUDO
from local.scoring.known_labels import known_rows, span_scores


def check_provenance(
    recording_ids: list[str],
    groups: dict[str, str],
    used: np.ndarray,
    seen_by_fold: list[set[str]],
) -> None:
    """Refuse scores that any model gave to a group it had seen in training.

    Parameters
    ----------
    groups : group of every recording.
    used : (N, K) bool, whether fold k's model took part in the score of a recording.
    seen_by_fold : groups that each fold's model saw, K sets.
    """
    for row, name in enumerate(recording_ids):
        if not used[row].any():
            raise CanopyError(f"recording {name} has a score of no model; run stage 3 again")
        for fold in np.flatnonzero(used[row]):
            if groups[name] in seen_by_fold[fold]:
                raise CanopyError(
                    f"recording {name}: its score comes from fold {fold}, which trained on its "
                    f"group {groups[name]}; pseudo labels need out-of-fold scores, run stages 2 "
                    "and 3 of this cycle again"
                )


def check_scores(scores: Scores) -> None:
    """Refuse scores without frames, and what is no number in them: no label could be made of it."""
    if not scores.frames:
        raise CanopyError(
            "relabelling needs scores over time; set inference.keep_frames to true and run stage 3"
        )
    for name, frames in zip(scores.recording_ids, scores.frames, strict=True):
        if np.isnan(frames).any():
            label = scores.labels[int(np.argwhere(np.isnan(frames))[0, 0])]
            raise CanopyError(
                f"recording {name} has a score for {label} that is no number; look at the training "
                "of this cycle (log.csv of its folds), and run stages 2 and 3 again"
            )


def make_pseudo_events(
    scores: Scores,
    recordings: Iterable[str],
    true_events: pd.DataFrame,
    durations: dict[str, float],
    config: RelabelConfig,
    cycle: int,
    shift: np.ndarray | None = None,
    cut: np.ndarray | None = None,
) -> pd.DataFrame:
    """Events of cycle `cycle` found in the scores of the cycle before.

    Parameters
    ----------
    scores : with frames; every recording scored only by models that never saw its group.
    recordings : ids that may be labelled.
    true_events : rows that override; pseudo rows among them are passed over.
    durations : seconds, where events end at the latest.
    shift : (C,) logits added before thresholding (prior correction), or None.
    cut : (C,) logits by which the threshold of positive events is higher, see `bound`, or None.
    """
    wanted = set(recordings)
    cut = np.zeros(len(scores.labels)) if cut is None else cut
    taken = _taken_spans(true_events)
    rows: list[tuple] = []
    for row, name in enumerate(scores.recording_ids):
        if name not in wanted:
            continue
        logit = scores.frames[row].astype(np.float64)
        if shift is not None:
            logit = logit + shift[:, None]
        for column, label in enumerate(scores.labels):
            lengths = config.lengths_of(label)
            spans = _spans(logit[column], scores.grid(row), config, cut[column], lengths)
            for onset, offset, polarity in spans:
                offset = min(offset, durations[name])
                free = subtract_spans(onset, offset, taken.get((name, label), []))
                rows += [
                    (name, label, start, end, polarity)
                    for start, end in free
                    if end - start >= max(lengths[0], 1e-3) - ROUNDING_S
                ]
    frame = pd.DataFrame(rows, columns=["recording_id", "label", "onset", "offset", "polarity"])
    frame = frame.astype({"onset": float, "offset": float, "polarity": float})
    frame["low_freq"] = np.nan
    frame["high_freq"] = np.nan
    frame["weight"] = config.weight
    frame["source"] = f"{PSEUDO}:cycle{cycle}"
    return frame[list(EVENT_COLUMNS)]


def bound(
    scores: Scores,
    recordings: Iterable[str],
    allowed: np.ndarray,
    threshold: float,
    shift: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """By how much a class's threshold must rise for at most `allowed` (C,) recordings to pass it.

    Without a bound, classes that score high by mistake flood the next cycle, each time with more.
    The recordings that pass are those with the highest scores.

    Returns
    -------
    cut : (C,) logits, 0 where no more pass than are allowed. n_passed : (C,) recordings that pass
    without it.
    """
    wanted = set(recordings)
    peaks = np.stack(
        [
            frames.max(axis=1).astype(np.float64)
            for name, frames in zip(scores.recording_ids, scores.frames, strict=True)
            if name in wanted
        ]
    )
    peaks -= _logit(threshold)
    if shift is not None:
        peaks += shift
    ordered = -np.sort(-peaks, axis=0)
    n_passed = (peaks >= 0).sum(axis=0)
    first_out = ordered[np.minimum(allowed, len(peaks) - 1), np.arange(peaks.shape[1])]
    # The first recording that must not pass stays below the threshold by a hair.
    cut = np.where(n_passed > allowed, np.maximum(first_out, 0.0) + 1e-6, 0.0)
    return cut, n_passed


def allowed_by_prevalence(prevalence: np.ndarray, share: float, n_recordings: int) -> np.ndarray:
    """(C,) recordings: `share` of those that should have a class of that prevalence."""
    return np.round(share * prevalence * n_recordings).astype(int)


def allowed_by_confirmed(
    scores: Scores,
    true_events: pd.DataFrame,
    max_per_confirmed: float,
    threshold: float,
    shift: np.ndarray | None = None,
) -> np.ndarray:
    """(C,) recordings: so many for each where a confirmed call passes the threshold, out-of-fold.

    A class that models fire at everywhere but hardly where people confirmed it gets few, and one
    that they never find where it is known to be gets none.
    """
    spans = span_scores(scores, true_events)
    moved = np.zeros(len(scores.labels)) if shift is None else shift
    found = spans["score"].to_numpy() + moved[spans["class"].to_numpy()] >= _logit(threshold)
    confirmed = spans[found & (spans["polarity"].to_numpy() > 0)]
    n = confirmed.groupby("class")["recording_id"].nunique()
    n = n.reindex(range(len(scores.labels))).fillna(0)
    return np.floor(max_per_confirmed * n.to_numpy()).astype(int)


def _spans(
    logit: np.ndarray,
    grid: FrameGrid,
    config: RelabelConfig,
    cut: float,
    lengths: tuple[float, float],
) -> list[tuple[float, float, int]]:
    """(onset, offset, polarity) of one class: what sounds and, when asked, what does not."""
    low = _logit(config.low_threshold) if config.low_threshold is not None else None
    found = frames_to_events(logit - cut, grid, _logit(config.threshold), low, *lengths)
    spans = [(span.onset, span.offset, 1) for span in found]
    if config.negative_below is not None:
        silent = frames_to_events(-logit, grid, -_logit(config.negative_below), None, *lengths)
        spans += [(span.onset, span.offset, -1) for span in silent]
    return spans


def _taken_spans(events: pd.DataFrame) -> dict[tuple[str, str], list[tuple[float, float]]]:
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for event in known_rows(events).itertuples():
        key = (event.recording_id, event.label)
        taken.setdefault(key, []).append((event.onset, event.offset))
    return taken


def _logit(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


def summarise(pseudo: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Pseudo events a class: number, recordings, seconds."""
    seconds = (pseudo["offset"] - pseudo["onset"]).groupby(pseudo["label"]).sum()
    grouped = pseudo.groupby("label")["recording_id"]
    table = pd.DataFrame(
        {"events": grouped.size(), "recordings": grouped.nunique(), "seconds": seconds}
    )
    return table.reindex(labels).fillna(0.0).rename_axis("label").reset_index()
