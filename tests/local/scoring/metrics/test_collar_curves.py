"""Collar-based curves against sed_scores_eval itself and against this house's own matching."""

import numpy as np
import pytest

from local.labels.grid import FrameGrid
from local.labels.spans import frames_to_events
from local.scoring.metrics import psds
from local.scoring.metrics.collar_curves import (
    BEST_F1,
    CollarRule,
    best_f1_statistic,
    collar_curve,
)
from local.scoring.metrics.matching import EventList, collar_pairs, largest_matching

library = pytest.importorskip("sed_scores_eval", reason="needs `make setup-eval`")

LABELS = ["a", "b", "c"]
RECORDINGS = ["r0", "r1", "r2", "r3"]
HOP_S = 0.1
N_CELLS = 300


@pytest.fixture
def scored():
    """Scores over time with bumps at true events and elsewhere: tracks, truth tuples, events."""
    rng = np.random.default_rng(0)
    rows, frames = [], {}
    for number, name in enumerate(RECORDINGS):
        score = rng.uniform(0, 0.2, (3, N_CELLS))
        for label in range(2):  # the third class has no truth
            for place in range(10, N_CELLS - 30, 45):
                length = int(rng.integers(5, 15))
                start = place + int(rng.integers(0, 5))
                if rng.uniform() < 0.7:
                    rows.append((number, label, start * HOP_S, (start + length) * HOP_S))
                if rng.uniform() < 0.8:
                    moved = start + int(rng.integers(-3, 4))
                    score[label, moved : moved + length] = rng.uniform(0.3, 1.0)
        frames[name] = (np.arange(N_CELLS + 1) * HOP_S, score)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    true = EventList(*columns, np.zeros(len(rows)))
    tracks = psds.tracks_of_frames(frames, LABELS)
    return tracks, psds.truth_tuples(true, RECORDINGS, LABELS), true, frames


def own_counts(true, frames, threshold, rule):
    """Hits and wrong detections by the matching that event-based F1 uses."""
    found = [
        (number, label, event.onset, event.offset)
        for number, name in enumerate(RECORDINGS)
        for label in range(2)
        for event in frames_to_events(
            frames[name][1][label], FrameGrid(N_CELLS, HOP_S, 0.0), threshold, threshold, 0.0, 0.0
        )
    ]
    columns = [np.array(column) for column in zip(*found, strict=True)]
    cut = EventList(*columns, np.zeros(len(found)))
    pairs = collar_pairs(true, cut, rule.collar_s, rule.offset_share, rule.use_offset)
    hits = len(largest_matching(pairs, len(true), len(cut))[0])
    return hits, len(cut) - hits


# Off the grid of the scores: on it, rounding decides.
RULES = [CollarRule(0.23, 0.47), CollarRule(0.13, 0.21), CollarRule(0.23, 0.0, False)]


@pytest.mark.parametrize("rule", RULES)
def test_the_curve_counts_what_matching_at_each_threshold_counts(scored, rule):
    tracks, truth, true, frames = scored
    curve = collar_curve(tracks, truth, LABELS, rule)
    assert (np.diff(curve.threshold) < 0).all()
    for threshold in (0.9, 0.7, 0.5, 0.35):
        at = np.flatnonzero(curve.threshold > threshold)[-1]
        hits, wrong = own_counts(true, frames, threshold, rule)
        assert curve.recall[at] * len(true) == pytest.approx(hits)
        assert curve.wrong[at] == wrong
        assert curve.precision[at] == pytest.approx(hits / (hits + wrong))


def test_best_f1_is_that_of_the_library_and_resamples_repeat_recordings(scored):
    tracks, truth, _, _ = scored
    rule = CollarRule()
    options = {"onset_collar": 0.2, "offset_collar": 0.2, "offset_collar_rate": 0.5}
    tables = {name: table[["onset", "offset", "a", "b"]] for name, table in tracks.tables.items()}
    expected = library.collar_based.best_fscore(tables, truth, **options)[0]
    statistic = best_f1_statistic(tracks, truth, RECORDINGS, LABELS, rule)
    row = statistic.values(np.ones((1, 4)))[BEST_F1][0]
    order = ["micro_average", "macro_average", "a", "b"]
    assert row[:4] == pytest.approx([expected[name] for name in order])
    assert np.isnan(row[4])
    counts = np.array([2, 0, 1, 1])
    names = {"0": "r0", "1": "r0", "2": "r2", "3": "r3"}
    again = library.collar_based.best_fscore(
        {key: tables[of] for key, of in names.items()},
        {key: truth[of] for key, of in names.items()},
        **options,
    )[0]
    drawn = statistic.values(counts[None])[BEST_F1][0]
    assert drawn[:4] == pytest.approx([again[name] for name in order])


def test_without_true_events_there_is_no_curve(scored):
    tracks = scored[0]
    nothing = {name: [] for name in RECORDINGS}
    assert len(collar_curve(tracks, nothing, LABELS, CollarRule()).recall) == 0
    statistic = best_f1_statistic(tracks, nothing, RECORDINGS, LABELS, CollarRule())
    assert np.isnan(statistic.values(np.ones((1, 4)))[BEST_F1]).all()
