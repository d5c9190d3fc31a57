"""Events -> targets -> events: exact, in agreement with each other, in any order."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.config import DataConfig, WindowConfig
from local.labels.grid import FrameGrid, coverage, grid_of, to_frames
from local.labels.spans import SpanFinder, SpanRule, frames_to_events, subtract_spans
from local.labels.targets import EventArrays, events_by_recording, window_targets

PARTIAL, COMPLETE = DataConfig(), DataConfig(annotation="complete")
RULE = WindowConfig()
GRID = FrameGrid(50, 0.1)  # 5 s


def arrays(*rows):
    """Rows of (label, onset, offset, polarity, weight, pseudo); the last three may be left out."""
    rows = [(*row, *(1, 1.0, False)[len(row) - 3 :]) for row in rows]
    columns = list(zip(*rows, strict=True)) or [()] * 6
    kinds = (np.int64, float, float, float, float, bool)
    return EventArrays(*(np.array(c, dtype=k) for c, k in zip(columns, kinds, strict=True)))


def targets_of(*rows, n_classes=2, grid=GRID, rule=RULE, data=PARTIAL):
    return window_targets(arrays(*rows), n_classes, grid, rule, data)


def same(one, other):
    for name in ("clip_target", "clip_mask", "frame_target", "frame_mask"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), atol=1e-6, err_msg=name
        )


# ------------------------------------------------------------------------------------------ grid


def test_feature_frames_are_centred_and_samples_are_not():
    assert grid_of(100, 0.02, begin=-0.5) == FrameGrid(100, 0.02, -0.01)
    assert grid_of(100, 0.02, begin=0.0) == FrameGrid(100, 0.02, 0.0)
    grid = grid_of(103, 0.02, begin=-0.5, first=50, step=4)
    assert (grid.n, grid.hop_s) == (25, 0.08)
    assert grid.start_s == pytest.approx(0.99)
    assert grid.end_s == pytest.approx(2.99)
    # Frame 50 of a centred transform is centred on sample 50 * hop.
    assert grid_of(1, 0.02, begin=-0.5, first=50).centres_s[0] == pytest.approx(1.0)
    np.testing.assert_allclose(np.diff(grid.edges_s), 0.08)


@pytest.mark.parametrize(("seconds", "frames"), [(0.0, 0), (0.049, 0), (0.051, 1), (5.0, 50)])
def test_to_frames_is_the_nearest(seconds, frames):
    assert to_frames(seconds, 0.1) == frames


@settings(deadline=None, max_examples=100)
@given(seconds=st.floats(0.1, 60), factor=st.sampled_from([2, 4, 5]))
def test_label_times_scale_with_the_hop(seconds, factor):
    """An event at the same frames of a coarser hop is at scaled seconds.

    Pins defect 19 of earlier systems: labels of stretched sound kept unstretched times.
    """
    fine, coarse = FrameGrid(64, 0.1), FrameGrid(64, 0.1 * factor)
    onset, offset = np.array([seconds]), np.array([seconds * 1.3])
    np.testing.assert_allclose(
        coverage(onset, offset, fine), coverage(factor * onset, factor * offset, coarse), atol=1e-9
    )


# -------------------------------------------------------------------------------------- coverage


def plain_coverage(onset, offset, grid):
    """Cell by cell, as the definition says."""
    cells = []
    for cell in range(grid.n):
        begin = grid.start_s + cell * grid.hop_s
        end = begin + grid.hop_s
        cells.append(max(0.0, min(offset, end) - max(onset, begin)) / grid.hop_s)
    return cells


@settings(deadline=None, max_examples=150)
@given(
    onset=st.floats(0, 7),
    duration=st.floats(1e-3, 8),
    hop=st.sampled_from([0.016, 0.0106667, 0.1, 0.512]),
    first=st.integers(0, 50),
    begin=st.sampled_from([-0.5, 0.0, 1.5]),
)
def test_coverage_sums_to_what_is_inside(onset, duration, hop, first, begin):
    grid = grid_of(60, hop, begin, first)
    offset = onset + duration
    share = coverage(np.array([onset]), np.array([offset]), grid)[0]
    np.testing.assert_allclose(share, plain_coverage(onset, offset, grid), atol=1e-9)
    inside = max(0.0, min(offset, grid.end_s) - max(onset, grid.start_s))
    assert share.sum() * hop == pytest.approx(inside, abs=1e-9)
    assert ((share >= 0) & (share <= 1)).all()


def test_an_event_is_weighed_by_its_exact_share_of_each_frame():
    targets = targets_of((0, 1.03, 2.46))
    np.testing.assert_allclose(targets.frame_mask[0], plain_coverage(1.03, 2.46, GRID), atol=1e-6)
    assert targets.frame_mask[0].sum() * 0.1 == pytest.approx(1.43, abs=1e-6)
    touched = targets.frame_mask[0] > 0
    np.testing.assert_array_equal(targets.frame_target[0], touched)


# ------------------------------------------------------------------------------------ round trip


@st.composite
def events_on_edges(draw):
    """Events on cell edges, one free cell apart at least."""
    cuts = draw(st.lists(st.integers(0, 50), min_size=2, max_size=12, unique=True).map(sorted))
    return list(zip(cuts[::2], cuts[1::2], strict=False))


@settings(deadline=None, max_examples=100)
@given(spans=events_on_edges(), complete=st.booleans(), first=st.integers(0, 200))
def test_round_trip_of_events_on_cell_edges(spans, complete, first):
    grid = FrameGrid(50, 0.1, first * 0.1)
    edges = grid.edges_s
    rows = [(1, edges[a], edges[b]) for a, b in spans]
    targets = targets_of(*rows, grid=grid, data=COMPLETE if complete else PARTIAL)
    assert not targets.frame_target[0].any()
    certain = targets.frame_target[1] * (targets.frame_mask[1] > 1e-3)
    found = frames_to_events(certain, grid, 0.5)
    assert len(found) == len(spans)
    for span, (_, onset, offset) in zip(found, rows, strict=True):
        assert span.onset == pytest.approx(onset, abs=1e-9)
        assert span.offset == pytest.approx(offset, abs=1e-9)


@pytest.mark.parametrize("begin", [-0.5, 0.0])
def test_events_at_the_very_beginning_and_end_survive(begin):
    grid = grid_of(51, 0.1, begin)
    targets = targets_of((0, 0.0, 0.6), (1, 4.5, 5.0), grid=grid)
    np.testing.assert_array_equal(targets.clip_target, [1, 1])
    found = [frames_to_events(targets.frame_target[label], grid, 0.5) for label in (0, 1)]
    assert found[0][0].onset == 0.0
    assert abs(found[0][0].offset - 0.6) <= 0.1
    assert abs(found[1][0].onset - 4.5) <= 0.1
    assert abs(found[1][0].offset - 5.0) <= 0.1


# ------------------------------------------------------------------------------------- the rules


def test_unknown_stays_unknown():
    """Nothing said is masked, not 0; without and with events of other classes.

    Pins defect 16 of earlier systems: unknown cells counted as absent.
    """
    for events in (None, arrays(), arrays((1, 1.0, 2.0))):
        targets = window_targets(events, 2, GRID, RULE, PARTIAL)
        assert targets.clip_mask[0] == 0
        assert targets.frame_mask[0].sum() == 0


def test_frames_around_a_positive_are_unknown():
    targets = targets_of((0, 1.0, 2.0))
    np.testing.assert_allclose(targets.frame_mask[0, :10], 0, atol=1e-6)
    np.testing.assert_allclose(targets.frame_mask[0, 20:], 0, atol=1e-6)
    assert (targets.clip_target[0], targets.clip_mask[0]) == (1, 1)


def test_a_rejected_candidate_is_a_local_negative():
    """Target 0 and known in its own span and class, nowhere else.

    Pins defect 13 of earlier systems: rejected rows were read as confirmed ones.
    Pins defect 14 of earlier systems: a rejected row denied the label in the whole recording.
    """
    targets = targets_of((0, 1.0, 2.0, -1))
    assert targets.frame_target.sum() == 0
    np.testing.assert_allclose(targets.frame_mask[0, 10:20], 1, atol=1e-6)
    assert targets.frame_mask[0].sum() == pytest.approx(10, abs=1e-5)
    assert targets.frame_mask[1].sum() == 0
    np.testing.assert_array_equal(targets.clip_mask, [0, 0])


@pytest.mark.parametrize(("cover", "known"), [(1.0, 0), (0.7, 0), (0.6, 1), (0.25, 1)])
def test_negatives_that_cover_enough_of_a_window_make_it_a_known_absence(cover, known):
    rule = WindowConfig(negative_cover=cover)
    # Two spans that overlap: their union is 3 of 5 s, their sum 4.
    targets = targets_of((0, 1.0, 3.0, -1), (0, 2.0, 4.0, -1, 0.5), rule=rule)
    assert (targets.clip_target[0], targets.clip_mask[0]) == (0, known)


def test_a_negative_outside_the_window_does_not_lend_its_weight():
    rule = WindowConfig(negative_cover=0.5)
    targets = targets_of((0, 0.0, 5.0, -1, 0.3), (0, 8.0, 9.0, -1, 1.0), rule=rule)
    assert targets.clip_mask[0] == pytest.approx(0.3)


def test_a_negative_over_the_whole_window_with_a_call_beside_it_is_no_absence():
    rule = WindowConfig(negative_cover=0.25)
    targets = targets_of((0, 0.0, 3.0, -1), (0, 3.5, 4.5), rule=rule)
    assert (targets.clip_target[0], targets.clip_mask[0]) == (1, 1)
    targets = targets_of((0, 0.0, 3.0, -1), (0, 4.95, 8.0), rule=rule)
    assert targets.clip_mask[0] == 0  # a sliver of a call: nobody knows


def test_several_events_of_a_class_all_count():
    """Pins defect 18 of earlier systems: of several events of a species only one counted."""
    targets = targets_of((0, 0.5, 1.0), (0, 2.0, 2.5), (0, 4.0, 4.5), (1, 2.0, 3.0))
    runs = frames_to_events(targets.frame_target[0] * (targets.frame_mask[0] > 0.5), GRID, 0.5)
    assert [round(run.onset, 6) for run in runs] == [0.5, 2.0, 4.0]
    np.testing.assert_array_equal(targets.clip_target, [1, 1])


@pytest.mark.parametrize("data", [PARTIAL, COMPLETE])
def test_a_sliver_decides_nothing(data):
    """A millisecond inside is neither a positive window nor a positive frame.

    Pins defect 17 of earlier systems: a millisecond made a window positive, not its frames.
    """
    targets = targets_of((0, 4.999, 7.0), data=data)
    assert targets.clip_mask[0] == 0
    assert targets.frame_mask[0, -1] == 0
    assert targets.frame_target[0].sum() == 0


@pytest.mark.parametrize(
    ("onset", "offset", "positive"),
    [(4.6, 5.4, 0), (4.3, 5.3, 1), (4.1, 20.0, 0), (4.0, 20.0, 1), (-3.0, 1.0, 1), (-3.0, 0.9, 0)],
)
def test_half_of_it_or_a_second_must_be_visible(onset, offset, positive):
    targets = targets_of((0, onset, offset), rule=WindowConfig(min_visible_share=0.51))
    assert targets.clip_target[0] == positive
    assert (targets.frame_target[0].sum() > 0) == bool(positive)


@pytest.mark.parametrize("length", [0.05, 0.3, 1.0])
def test_a_window_shorter_than_a_second_can_be_inside_a_long_call(length):
    """`min_visible_s` must not ask for more than the window has."""
    rule = WindowConfig(length_s=length)
    targets = targets_of((0, 0.0, 60.0), grid=FrameGrid(10, length / 10, 30.0), rule=rule)
    assert targets.clip_target[0] == 1


@settings(deadline=None, max_examples=100)
@given(
    onset=st.floats(0.0, 4.0),
    duration=st.floats(0.001, 5.0),
    share=st.floats(0.0, 1.0),
    seconds=st.floats(0.01, 10),
)
def test_a_window_that_contains_a_whole_call_is_positive(onset, duration, share, seconds):
    rule = WindowConfig(min_visible_share=share, min_visible_s=seconds)
    targets = targets_of((0, onset, min(5.0, onset + duration)), rule=rule)
    assert (targets.clip_target[0], targets.clip_mask[0]) == (1, 1)


def test_complete_annotation():
    targets = targets_of((0, 1.05, 2.0), data=COMPLETE)
    np.testing.assert_array_equal(targets.clip_target, [1, 0])
    np.testing.assert_array_equal(targets.clip_mask, [1, 1])
    np.testing.assert_array_equal(targets.frame_mask, np.ones((2, 50)))
    np.testing.assert_allclose(targets.frame_target[0], plain_coverage(1.05, 2.0, GRID), atol=1e-6)
    empty = window_targets(None, 2, GRID, RULE, COMPLETE)
    assert empty.clip_mask.all()
    assert empty.frame_mask.all()
    assert not empty.frame_target.any()


# ------------------------------------------------------------------------------------ precedence


TP, FP = (1, 1.0, False), (-1, 1.0, False)
PSEUDO_P, PSEUDO_N = (1, 0.4, True), (-1, 0.4, True)


@pytest.mark.parametrize(
    ("one", "other", "target", "mask"),
    [
        (TP, FP, 1, 1.0),
        (TP, PSEUDO_N, 1, 1.0),
        (TP, PSEUDO_P, 1, 1.0),
        (FP, PSEUDO_P, 0, 1.0),
        (FP, PSEUDO_N, 0, 1.0),
        (PSEUDO_P, PSEUDO_N, 1, 0.4),
    ],
)
@pytest.mark.parametrize("data", [PARTIAL, COMPLETE])
@pytest.mark.parametrize("turned", [False, True])
def test_tp_before_fp_before_pseudo(one, other, target, mask, data, turned):
    """Whatever the order of rows.

    Pins defect 40 of earlier systems: pseudo labels overwrote what people had said.
    """
    rows = [(0, 1.0, 3.0, *one), (0, 1.0, 3.0, *other)]
    targets = targets_of(*(rows[::-1] if turned else rows), data=data)
    np.testing.assert_array_equal(targets.frame_target[0, 11:29], target)
    np.testing.assert_allclose(targets.frame_mask[0, 11:29], mask, atol=1e-6)


def test_a_rejected_candidate_silences_a_pseudo_event_of_the_window_as_well():
    """Clip and frames hear the same row."""
    rule = WindowConfig(negative_cover=0.5)
    rows = [(0, 0.0, 5.0, *FP), (0, 1.0, 3.0, *PSEUDO_P)]
    targets = targets_of(*rows, rule=rule)
    assert (targets.clip_target[0], targets.clip_mask[0]) == (0, 1)
    narrow = targets_of((0, 1.0, 3.0, *FP), (0, 1.0, 3.0, *PSEUDO_P), rule=rule)
    assert narrow.clip_mask[0] == 0
    # What the rejected span leaves of it still counts, when it is enough.
    beside = targets_of((0, 1.0, 2.0, *FP), (0, 1.5, 4.0, *PSEUDO_P), rule=rule)
    assert (beside.clip_target[0], beside.clip_mask[0]) == (1, np.float32(0.4))
    # Another class has no say.
    assert targets_of((1, 0.0, 5.0, *FP), (0, 1.0, 3.0, *PSEUDO_P), rule=rule).clip_target[0] == 1


@st.composite
def some_events(draw):
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        onset = draw(st.integers(-20, 60)) / 10
        duration = draw(st.integers(1, 40)) / 10
        weight = draw(st.sampled_from([0.25, 0.5, 1.0]))
        polarity, pseudo = draw(st.sampled_from([1, -1])), draw(st.booleans())
        rows.append((draw(st.integers(0, 1)), onset, onset + duration, polarity, weight, pseudo))
    return rows


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(rows=some_events(), complete=st.booleans(), cover=st.sampled_from([0.25, 1.0]))
def test_order_of_events_and_the_agreement_of_clip_and_frames(rows, complete, cover):
    """Any order gives the same targets; a clip and its frames never contradict.

    Pins defect 17 of earlier systems: a millisecond made a window positive, not its frames.
    """
    data = COMPLETE if complete else PARTIAL
    rule = WindowConfig(negative_cover=cover)
    targets = targets_of(*rows, data=data, rule=rule)
    for order in itertools.islice(itertools.permutations(rows), 24):
        same(targets_of(*order, data=data, rule=rule), targets)
    for label in (0, 1):
        known_frames = targets.frame_target[label][targets.frame_mask[label] > 1e-6]
        if targets.clip_mask[label] > 0 and targets.clip_target[label] == 0:
            assert not known_frames.any()
        if targets.clip_target[label] == 1:
            assert known_frames.any()
    assert ((targets.frame_mask >= 0) & (targets.frame_mask <= 1)).all()
    assert ((targets.clip_mask >= 0) & (targets.clip_mask <= 1)).all()


def plain_frames(rows, label, rule, grid, complete, points=10):
    """Targets and masks of one class by asking every cell at `points` moments, in plain loops.

    Onsets and offsets lie on the moments' borders, so that shares of cells are exact.
    """
    rows = [row for row in rows if row[0] == label]
    true, pseudo = ([row for row in rows if row[5] == kind] for kind in (False, True))

    def moments(cell):
        start = grid.start_s + cell * grid.hop_s
        return [start + (k + 0.5) * grid.hop_s / points for k in range(points)]

    def at(row, moment):
        return row[1] <= moment < row[2]

    def cells_of(row):
        found = {c for c in range(grid.n) if any(at(row, m) for m in moments(c))}
        return found - spoken if row[5] else found

    def counts(row):
        seen = sum(at(row, m) for c in cells_of(row) for m in moments(c)) * grid.hop_s / points
        longest = min(row[2] - row[1], rule.length_s)
        return seen >= min(rule.min_visible_share * longest, rule.min_visible_s) - 1e-9

    spoken: set[int] = set()
    spoken = set().union(*[cells_of(row) for row in true])
    target, mask = np.zeros(grid.n), np.full(grid.n, 1.0 if complete else 0.0)
    for cell in range(grid.n):
        here = [row for row in (true if cell in spoken else pseudo) if cell in cells_of(row)]
        loud = [row for row in here if row[3] > 0 and counts(row)]
        sliver = [row for row in here if row[3] > 0 and not counts(row)]
        silent = [row for row in here if row[3] < 0]
        envelope = [
            np.mean([max([row[4] for row in some if at(row, m)], default=0) for m in moments(cell)])
            for some in (loud, silent)
        ]
        if loud and complete:
            target[cell] = np.mean([any(at(row, m) for row in loud) for m in moments(cell)])
            mask[cell] = max(row[4] for row in loud)
        elif loud:
            target[cell], mask[cell] = 1, envelope[0]
        elif sliver:
            mask[cell] = 0
        elif silent:
            mask[cell] = max(envelope[1], mask[cell])
    return target, mask


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(rows=some_events(), complete=st.booleans(), wide=st.booleans())
def test_frames_against_a_plain_statement(rows, complete, wide):
    """Union of events in a cell, greatest weight in overlaps, true rows before pseudo ones."""
    # Times are tenths of a second: many events end and begin inside one of the wide cells.
    grid = FrameGrid(5, 1.0) if wide else FrameGrid(50, 0.1)
    data = COMPLETE if complete else PARTIAL
    targets = targets_of(*rows, grid=grid, data=data)
    for label in (0, 1):
        target, mask = plain_frames(rows, label, RULE, grid, complete)
        np.testing.assert_allclose(targets.frame_mask[label], mask, atol=1e-6)
        np.testing.assert_allclose(targets.frame_target[label], target, atol=1e-6)


def test_events_of_a_class_fill_the_union_of_a_cell():
    """Neither the larger share nor the sum; the greater weight where two overlap.

    Pins defect 18 of earlier systems: of several events of a species only one counted.
    """
    grid = FrameGrid(2, 1.0)
    beside = targets_of((0, 0.0, 0.3), (0, 0.5, 0.9), grid=grid)
    np.testing.assert_allclose(beside.frame_mask[0], [0.7, 0.0], atol=1e-6)
    overlapping = targets_of((0, 0.0, 0.5), (0, 0.3, 0.9), grid=grid)
    np.testing.assert_allclose(overlapping.frame_mask[0], [0.9, 0.0], atol=1e-6)
    weighed = targets_of((0, 0.0, 0.5, 1, 0.5, True), (0, 0.3, 0.9, 1, 0.2, True), grid=grid)
    np.testing.assert_allclose(weighed.frame_mask[0], [0.5 * 0.5 + 0.4 * 0.2, 0], atol=1e-6)
    rejected = targets_of((0, 0.0, 0.3, -1), (0, 0.5, 0.9, -1), grid=grid)
    np.testing.assert_allclose(rejected.frame_mask[0], [0.7, 0.0], atol=1e-6)
    whole = targets_of((0, 0.0, 0.3), (0, 0.5, 0.9), grid=grid, data=COMPLETE)
    np.testing.assert_allclose(whole.frame_target[0], [0.7, 0.0], atol=1e-6)


def test_negatives_beside_each_other_cover_a_window_together():
    """In coarse cells as well: two rejected spans that meet inside a cell cover all of it."""
    rule = WindowConfig(negative_cover=1.0)
    rows = [(0, 0.0, 2.4, -1), (0, 2.4, 5.0, -1)]
    targets = targets_of(*rows, grid=FrameGrid(5, 1.0), rule=rule)
    assert (targets.clip_target[0], targets.clip_mask[0]) == (0, 1)


def test_targets_of_two_windows_agree_where_they_overlap():
    rows = [(0, 1.0, 2.3), (1, 0.4, 3.3, -1)]
    early = targets_of(*rows, grid=FrameGrid(50, 0.1, 0.0))
    late = targets_of(*rows, grid=FrameGrid(50, 0.1, 0.5))
    np.testing.assert_allclose(early.frame_mask[:, 5:], late.frame_mask[:, :45], atol=1e-5)


# ------------------------------------------------------------------------------ tables and spans


def test_events_by_recording():
    frame = pd.DataFrame(
        {
            "recording_id": ["b", "a", "b"],
            "label": ["y", "x", "x"],
            "onset": [1.0, 2.0, 3.0],
            "offset": [2.0, 3.0, 4.0],
            "polarity": [1.0, -1.0, 1.0],
            "weight": [1.0, 1.0, 0.5],
            "source": ["tp", "fp", "pseudo:cycle1"],
        }
    )
    events = events_by_recording(frame, ["x", "y"])
    assert sorted(events) == ["a", "b"]
    assert len(events["b"]) == 2
    assert events["b"].label.tolist() == [1, 0]
    assert events["b"].pseudo.tolist() == [False, True]
    assert events["a"].polarity.tolist() == [-1.0]


def spans_of(prob, *args, **options):
    found = frames_to_events(np.array(prob), FrameGrid(len(prob), 1.0), *args, **options)
    return [(span.onset, span.offset, span.score) for span in found]


def test_hysteresis():
    prob = [0.1, 0.4, 0.9, 0.4, 0.1, 0.4, 0.1, 0.8]
    assert spans_of(prob, 0.5) == [(2, 3, 0.9), (7, 8, 0.8)]
    assert spans_of(prob, 0.5, 0.3) == [(1, 4, 0.9), (7, 8, 0.8)]
    assert spans_of(prob, 0.91) == []


def test_near_spans_are_one_and_short_ones_fall():
    prob = [0.9, 0.1, 0.6, 0.1, 0.1, 0.1, 0.7]
    assert spans_of(prob, 0.5, max_gap_s=1.5) == [(0, 3, 0.9), (6, 7, 0.7)]
    assert spans_of(prob, 0.5, max_gap_s=1.5, min_duration_s=2.0) == [(0, 3, 0.9)]
    assert spans_of(prob, 0.5, min_duration_s=1.0) == [(0, 1, 0.9), (2, 3, 0.6), (6, 7, 0.7)]


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(st.integers(0, 40), st.integers(1, 40)),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=6),
)
def test_subtract_spans_against_sets(whole, taken):
    onset, offset = whole[0], whole[0] + whole[1]
    taken = [(start, start + length) for start, length in taken]
    left = subtract_spans(onset, offset, taken)
    free = set(range(onset, offset)).difference(*(range(a, b) for a, b in taken))
    assert {tick for start, end in left for tick in range(start, end)} == free
    assert all(start < end for start, end in left)


@settings(deadline=None, max_examples=80)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.3, 0.45, 0.6, 0.9]), min_size=0, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    low=st.sampled_from([None, 0.4]),
    shortest=st.sampled_from([0.0, 0.35]),
    gap=st.sampled_from([0.0, 0.25, 0.5]),
    longest=st.sampled_from([np.inf, 1.0]),
)
def test_spans_do_not_depend_on_the_pieces_scores_come_in(
    scores, cuts, low, shortest, gap, longest
):
    prob = np.array(scores)
    rule = SpanRule(0.5, low, shortest, gap, longest)
    grid = FrameGrid(len(prob), 0.1, -0.05)
    whole = frames_to_events(prob, grid, 0.5, low, shortest, gap, longest)
    finder = SpanFinder(rule, 0.1, -0.05)
    found = []
    for piece in np.split(prob, sorted(min(cut, len(prob)) for cut in cuts)):
        found += finder.add(piece)
    assert found + finder.finish() == whole
    for span in whole:
        assert span.offset - span.onset <= longest + 1e-6
