"""Level event: detections against complete annotation, and the baselines that stand beside it."""

import numpy as np

from local.io.errors import CanopyError
from local.scoring.evaluation.score_sources import System, Truth, detections
from local.scoring.evaluation.scoring_set import ScoringSet, true_events
from local.scoring.metrics.collar_curves import best_f1_statistic
from local.scoring.metrics.event_statistics import EventOptions, event_statistics
from local.scoring.metrics.matching import EventList
from local.scoring.metrics.psds import (
    MAX_UNASKED_CELLS,
    ScoreTracks,
    is_installed,
    psds_statistic,
    tracks_of_events,
    tracks_of_frames,
    truth_tuples,
)
from local.scoring.metrics.recording_sums import Statistic, plain_values


def system_statistics(
    system: System, truth: Truth, scoring_set: ScoringSet, options: EventOptions
) -> list[Statistic]:
    """Event-level statistics of one system, those over all thresholds where asked for."""
    true = scoring_set.event_list(true_events(truth), truth.path)
    cut, ranked = event_lists(system, scoring_set, options)
    durations = scoring_set.needed_durations("scoring events")
    names, labels = scoring_set.recordings, scoring_set.labels
    statistics = event_statistics(true, cut, ranked, durations, len(labels), options)
    wanted = _wanted_psds(system, options)
    if (wanted or options.best_f1) and system.scored:
        tracks, tuples = score_tracks(system, scoring_set), truth_tuples(true, names, labels)
        if options.best_f1:
            statistics.append(best_f1_statistic(tracks, tuples, names, labels, options.collar))
        statistics += [psds_statistic(one, tracks, tuples, names, labels) for one in wanted]
    return statistics


def _wanted_psds(system: System, options: EventOptions) -> tuple[str, ...]:
    if options.psds is not None:
        return options.psds
    frames = [] if system.scores is None else system.scores.frames
    n_cells = sum(one.size for one in frames)
    return ("psds1",) if is_installed() and n_cells <= MAX_UNASKED_CELLS else ()


def event_lists(
    system: System, scoring_set: ScoringSet, options: EventOptions
) -> tuple[EventList, EventList | None]:
    """Detections at the threshold, and all that can be ranked (None without scores)."""
    check_covered(system, scoring_set)
    cut = scoring_set.event_list(detections(system, options.threshold), system.path)
    if not system.scored:
        return cut, None
    least = options.candidate_threshold if system.scores is not None else -np.inf
    return cut, scoring_set.event_list(detections(system, least), system.path)


def check_covered(system: System, scoring_set: ScoringSet) -> None:
    """Refuse scores over time, if there are any, that lack a recording or a class."""
    if system.scores is None:
        return
    for what, known, wanted in (
        ("recording", system.scores.recording_ids, scoring_set.recordings),
        ("class", system.scores.labels, scoring_set.labels),
    ):
        missing = set(wanted) - set(known)
        if missing:
            raise CanopyError(
                f"{system.path}: no scores of {what} {min(missing)} ({len(missing)} missing in "
                "all); score them too, or give --recordings (with --subset) and --classes"
            )


def score_tracks(system: System, scoring_set: ScoringSet) -> ScoreTracks:
    """Scores over time, as they are or from scored detections."""
    scores = system.scores
    if scores is not None:
        check_covered(system, scoring_set)
    else:
        if system.events is None or not system.scored:
            raise CanopyError(f"{system.path}: PSDS needs scores over time or scored detections")
        found = scoring_set.event_list(system.events, system.path)
        durations = scoring_set.needed_durations("PSDS")
        return tracks_of_events(found, scoring_set.recordings, scoring_set.labels, durations)
    place = {name: row for row, name in enumerate(scores.recording_ids)}
    column = [scores.labels.index(label) for label in scoring_set.labels]
    frames = {
        name: (scores.grid(place[name]).edges_s, scores.frames[place[name]][column])
        for name in scoring_set.recordings
    }
    return tracks_of_frames(frames, scoring_set.labels)


def event_baselines(
    system: System,
    truth: Truth,
    scoring_set: ScoringSet,
    options: EventOptions,
    rng: np.random.Generator,
) -> dict[str, dict[str, np.ndarray]]:
    """`chance` and `constant_row`: measure -> (2 + C,).

    chance: the system's own detections, dealt to the recordings in a random order (times in
    proportion to their lengths), the mean of a few deals. constant_row: in every recording one
    detection of every class over the whole length, scored by the class's prevalence in the truth.
    """
    true = scoring_set.event_list(true_events(truth), truth.path)
    n, n_classes = len(scoring_set.recordings), len(scoring_set.labels)
    durations = scoring_set.needed_durations("scoring events")
    cut, ranked = event_lists(system, scoring_set, options)

    def scored(cut: EventList, ranked: EventList | None) -> dict[str, np.ndarray]:
        return plain_values(event_statistics(true, cut, ranked, durations, n_classes, options), n)

    # A deal of many detections is an average by itself.
    n_deals = 1 if len(true) + len(cut) > 50_000 else 5
    deals = []
    for _ in range(n_deals):
        place = rng.permutation(n)
        dealt = None if ranked is None else _deal(ranked, place, durations)
        deals.append(scored(_deal(cut, place, durations), dealt))
    chance = {name: np.mean([deal[name] for deal in deals], axis=0) for name in deals[0]}
    prevalence = (true.counts(n, n_classes) > 0).mean(axis=0)
    recording, label = np.indices((n, n_classes)).reshape(2, -1)
    whole = EventList(
        recording, label, np.zeros(len(label)), durations[recording], prevalence[label]
    )
    return {"chance": chance, "constant_row": scored(whole, whole)}


def _deal(events: EventList, place: np.ndarray, durations: np.ndarray) -> EventList:
    scale = durations[place[events.recording]] / durations[events.recording]
    return EventList(
        place[events.recording],
        events.label,
        events.onset * scale,
        events.offset * scale,
        events.score,
    )
