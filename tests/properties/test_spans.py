"""Where events lie in a recording decides nothing about which spans they become."""

import numpy as np
import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from local.config import RelabelConfig
from local.data.tables import EVENT_COLUMNS
from local.inference.scores import Scores
from local.labels.grid import FrameGrid
from local.labels.spans import SpanFinder, SpanRule, frames_to_events
from local.relabel.pseudo_labels import make_pseudo_events
from local.scoring.metrics.matching import EventList, collar_pairs
from local.scoring.metrics.segments import segment_counts

HOPS = [0.005, 0.01, 0.016, 512 / 32000, 0.1, 1 / 3, 320 / 22050]
RUNS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=8)


def scores_of(runs: list[tuple[int, int]], before: int) -> np.ndarray:
    """`before` silent cells, then for each pair a run of loud cells and one of silent cells."""
    parts = [np.zeros(before)]
    for loud, silent in runs:
        parts += [np.ones(loud), np.zeros(silent)]
    return np.concatenate(parts)


def in_cells(spans: list, hop_s: float, start_s: float = 0.0) -> list[tuple[int, int]]:
    """(first cell, cell after the last) of spans, whose bounds must be those of cells."""
    bounds = np.array([(span.onset, span.offset) for span in spans]).reshape(-1, 2)
    cells = (bounds - start_s) / hop_s
    np.testing.assert_allclose(cells, np.round(cells), rtol=0, atol=1e-6)
    return [(int(first), int(last)) for first, last in np.round(cells)]


def expected(runs: list[tuple[int, int]], shortest: int, gap: int, longest: int) -> list:
    """The same in integers: gaps below `gap` cells are closed, then durations are looked at."""
    joined: list[list[int]] = []
    position = 0
    for loud, silent in runs:
        if joined and position - joined[-1][1] < gap:
            joined[-1][1] = position + loud
        else:
            joined.append([position, position + loud])
        position += loud + silent
    return [(a, b) for a, b in joined if shortest <= b - a <= longest]


@given(
    runs=RUNS,
    hop_s=st.sampled_from(HOPS),
    limits=st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 30)),
    shift=st.integers(0, 20_000),
    start=st.sampled_from([0.0, 0.5]),
)
@example(runs=[(1, 2), (1, 1)], hop_s=0.1, limits=(0, 2, 30), shift=0, start=0.0)
@example(runs=[(1, 2), (1, 1)], hop_s=0.1, limits=(0, 2, 30), shift=7, start=0.0)
@example(runs=[(3, 9)], hop_s=0.005, limits=(3, 0, 3), shift=12_345, start=0.5)
def test_spans_move_with_the_scores(runs, hop_s, limits, shift, start):
    """Gaps and durations at, above and below their limits, wherever the events lie."""
    shortest, gap, longest = limits
    times = {"min_duration_s": shortest * hop_s, "max_gap_s": gap * hop_s}
    prob = scores_of(runs, shift)
    grid = FrameGrid(len(prob), hop_s, start * hop_s)
    found = frames_to_events(prob, grid, 0.5, **times, max_duration_s=longest * hop_s)
    cells = expected(runs, shortest, gap, longest)
    assert in_cells(found, hop_s, grid.start_s) == [(a + shift, b + shift) for a, b in cells]


@given(
    runs=RUNS,
    hop_s=st.sampled_from(HOPS),
    limits=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    shift=st.integers(0, 2000),
    cuts=st.lists(st.integers(0, 2200), max_size=6),
)
def test_a_stream_finds_the_spans_of_the_whole(runs, hop_s, limits, shift, cuts):
    prob = scores_of(runs, shift)
    rule = SpanRule(0.5, None, limits[0] * hop_s, limits[1] * hop_s)
    finder = SpanFinder(rule, hop_s)
    found = []
    for piece in np.split(prob, sorted(min(cut, len(prob)) for cut in cuts)):
        found += finder.add(piece)
    found += finder.finish()
    grid = FrameGrid(len(prob), hop_s)
    whole = frames_to_events(prob, grid, 0.5, None, rule.min_duration_s, rule.max_gap_s)
    assert found == whole
    cells = expected(runs, *limits, 10**9)
    assert in_cells(found, hop_s) == [(a + shift, b + shift) for a, b in cells]


@given(
    st.sampled_from(HOPS),
    st.sampled_from([0.02, 0.048, 0.05, 0.1, 0.2, 0.3]),
    st.integers(1, 80),
    st.integers(0, 20_000),
)
def test_limits_in_seconds_as_people_write_them(hop_s, seconds, n_cells, shift):
    """0.3 s are 60 cells of 5 ms: a gap of them stays, one of 59 is closed; likewise durations."""
    ratio = seconds / hop_s
    exact = round(ratio) if abs(ratio - round(ratio)) < 1e-6 else ratio
    prob = scores_of([(1, n_cells), (1, 1)], shift)
    grid = FrameGrid(len(prob), hop_s)
    assert len(frames_to_events(prob, grid, 0.5, max_gap_s=seconds)) == 1 + (n_cells >= exact)
    prob = scores_of([(n_cells, 1)], shift)
    grid = FrameGrid(len(prob), hop_s)
    kept = frames_to_events(prob, grid, 0.5, min_duration_s=seconds)
    assert len(kept) == (n_cells >= exact)
    kept = frames_to_events(prob, grid, 0.5, max_duration_s=seconds)
    assert len(kept) == (n_cells <= exact)


EVENTS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 15)), min_size=1, max_size=6)


def event_list(rows: list[tuple[int, int]], hop_s: float) -> EventList:
    onset = np.array([first for first, _ in rows])
    offset = np.array([first + n for first, n in rows])
    zeros = np.zeros(len(rows), dtype=np.int64)
    return EventList(zeros, zeros, onset * hop_s, offset * hop_s, zeros.astype(float))


@given(EVENTS, EVENTS, st.sampled_from([0.01, 0.1, 0.3]), st.integers(1, 3), st.integers(0, 5000))
def test_collars_and_segments_count_the_same_anywhere(true, found, hop_s, n_cells, shift):
    """The collar and the segments are whole numbers of the cells that the events lie on."""
    counts, shift = [], shift * n_cells
    for more in (0, shift):
        lists = [event_list([(a + more, n) for a, n in rows], hop_s) for rows in (true, found)]
        pairs = collar_pairs(*lists, n_cells * hop_s)
        durations = np.array([(80 * n_cells + more) * hop_s])
        segments = segment_counts(*lists, durations, 1, n_cells * hop_s)
        tables = (segments.hit, segments.n_true, segments.n_found, segments.errors)
        counts.append(
            [
                sorted(zip(pairs.true, pairs.found, strict=True)),
                *(float(table.sum()) for table in tables),
            ]
        )
    assert counts[0] == counts[1]
    near = {
        (i, j)
        for i, (a, n) in enumerate(true)
        for j, (b, m) in enumerate(found)
        if abs(a - b) <= n_cells and abs(a + n - b - m) <= max(n_cells, n / 2)
    }
    assert set(counts[0][0]) == near
    touched = {cell // n_cells for a, n in true for cell in range(a, a + n)}
    assert counts[0][2] == len(touched)


@given(st.sampled_from(HOPS), st.integers(1, 12), st.integers(0, 5000))
def test_a_pseudo_event_of_just_the_least_duration_stays(hop_s, n_cells, shift):
    prob = scores_of([(n_cells, 1)], shift)
    logit = np.where(prob > 0, 5.0, -5.0)[None].astype(np.float32)
    scores = Scores(["r"], ["a"], [logit], np.zeros((1, 1)), hop_s, 0.0)
    config = RelabelConfig(min_duration_s=n_cells * hop_s, max_gap_s=0.0)
    nobody = pd.DataFrame(columns=list(EVENT_COLUMNS))
    found = make_pseudo_events(scores, ["r"], nobody, {"r": len(prob) * hop_s}, config, 1)
    spans = [tuple(row) for row in found[["onset", "offset"]].to_numpy() / hop_s]
    assert [(round(a), round(b)) for a, b in spans] == [(shift, shift + n_cells)]
