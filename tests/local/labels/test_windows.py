"""Windows cover every frame; stitching puts scores back where they were heard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.io.errors import CanopyError
from local.labels.windows import Stitcher, n_cells, stream_starts, window_starts

MINUTE = 3751  # frames of a minute at 32 kHz and a hop of 512


def test_window_512_cover_49():
    starts = [0, 463, 926, 1389, 1852, 2315, 2778, 3239]
    assert window_starts(MINUTE, 512, 49).tolist() == starts


def test_window_512_cover_256():
    starts = window_starts(MINUTE, 512, 256)
    assert starts.tolist() == [*range(0, 3073, 256), 3239]
    assert len(starts) == 14


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_windows_cover_and_stay_inside(data):
    """Pins defect 31 of earlier systems: a recording of one window, or less, failed."""
    window = data.draw(st.integers(1, 60))
    overlap = data.draw(st.integers(0, window - 1))
    n_frames = data.draw(st.integers(1, 500))
    shift = data.draw(st.integers(0, 100))
    starts = window_starts(n_frames, window, overlap, shift)
    assert starts.dtype == np.int64
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= window - overlap).all()
    seen = np.zeros(max(n_frames, window), dtype=int)
    for start in starts:
        seen[start : start + window] += 1
    assert (seen[:n_frames] > 0).all()
    if n_frames >= window:
        assert starts[-1] == n_frames - window
    else:
        # A recording shorter than a window is one window, padded.
        assert starts.tolist() == [0]


def test_a_shift_moves_the_inner_windows_only():
    assert window_starts(100, 20, 10, 4).tolist() == [0, 4, 14, 24, 34, 44, 54, 64, 74, 80]


@pytest.mark.parametrize(("window", "overlap"), [(10, 10), (10, 11), (10, -1), (0, 0)])
def test_an_overlap_that_does_not_fit_is_refused(window, overlap):
    with pytest.raises(CanopyError, match=f"overlap of {overlap} .* window of {window}"):
        window_starts(100, window, overlap)


def stitch(truth, n_frames, window, overlap, step, method):
    """Windows read `truth` (C, n_frames) at the centre of each cell, then stitched."""
    pieces = []
    for start in window_starts(n_frames, window, overlap):
        centres = start + step * np.arange(window // step) + step // 2
        pieces.append((int(start), truth[:, np.minimum(centres, n_frames - 1)]))
    return lay(pieces, n_frames, step, method)


def lay(pieces, n_frames, step, method):
    """Pieces (start, scores) laid one after the other; what is final comes back in parts."""
    stitcher = Stitcher(len(pieces[0][1]) if pieces else 1, step, method)
    parts = [stitcher.add(scores, start) for start, scores in pieces]
    return np.concatenate([*parts, stitcher.finish(n_frames)], axis=1)


@settings(deadline=None, max_examples=60)
@given(
    n_frames=st.integers(1, 700),
    cells=st.integers(1, 12),
    step=st.sampled_from([1, 2, 8, 32]),
    share=st.floats(0, 0.95),
    method=st.sampled_from(["max", "mean"]),
)
def test_constant_in_constant_out(n_frames, cells, step, share, method):
    window = cells * step
    values = np.array([[-7.5], [0.0], [3.25]])
    truth = np.broadcast_to(values, (3, n_frames))
    result = stitch(truth, n_frames, window, int(share * window), step, method)
    assert result.shape == (3, n_cells(n_frames, step))
    np.testing.assert_array_equal(result, np.broadcast_to(values, result.shape))


@settings(deadline=None, max_examples=100)
@given(
    start=st.integers(0, 5000),
    cell=st.integers(0, 15),
    step=st.sampled_from([1, 2, 3, 8, 32]),
    method=st.sampled_from(["max", "mean"]),
)
def test_a_peak_lies_within_half_a_cell_of_its_true_time(start, cell, step, method):
    """At any start; the error does not grow with time.

    Pins defect 32 of earlier systems: stitched scores drifted along the recording.
    """
    everywhere = np.full((1, 7000 // step + 1), -20.0)
    scores = np.full((1, 16), -20.0)
    scores[0, cell] = 5.0
    found = int(lay([(0, everywhere), (start, scores)], 7000, step, method)[0].argmax())
    assert abs(found * step - (start + cell * step)) <= step / 2


@pytest.mark.parametrize(("step", "overlap"), [(32, 49), (8, 49), (1, 480), (32, 0)])
def test_no_drift_over_an_hour(step, overlap):
    """Peaks late in a long recording are as exact as the first.

    Pins defect 32 of earlier systems: stitched scores drifted along the recording.
    """
    n_frames = 225_001
    truth = np.full((1, n_frames), -9.0, dtype=np.float32)
    peaks = np.array([100, 61_003, 150_555, 224_900])
    for peak in peaks:
        truth[0, peak - step : peak + step] = 4.0
    result = stitch(truth, n_frames, 512, overlap, step, "max")[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], result > 0, [0]])))
    middles = edges.reshape(-1, 2).mean(axis=1) * step
    assert len(middles) == len(peaks)
    assert np.abs(middles - peaks).max() <= step


def test_max_and_mean_against_plain_statements():
    rng = np.random.default_rng(0)
    pieces = [
        (0, rng.normal(size=(2, 4))),
        (2, rng.normal(size=(2, 4))),
        (5, rng.normal(size=(2, 4))),
    ]
    for method, combine in (("max", max), ("mean", lambda values: sum(values) / len(values))):
        result = lay(pieces, 9, 1, method)
        for row in range(2):
            for frame in range(9):
                heard = [s[row, frame - at] for at, s in pieces if at <= frame < at + 4]
                assert result[row, frame] == pytest.approx(combine(heard), abs=1e-12)


def test_a_short_recording_keeps_its_own_cells_only():
    """What a padded window says behind the end is not kept."""
    result = lay([(0, np.arange(8.0)[None])], 10, 2, "max")
    np.testing.assert_array_equal(result, [[0, 1, 2, 3, 4]])


def test_a_rest_that_no_window_reached_repeats_its_neighbour():
    np.testing.assert_array_equal(lay([(0, np.array([[3.0]]))], 12, 8, "mean"), [[3.0, 3.0]])


def test_no_window_at_all_is_a_defect_of_the_caller():
    with pytest.raises(ValueError, match="no window"):
        lay([], 10, 1, "max")


@settings(deadline=None, max_examples=60)
@given(
    n_frames=st.integers(1, 400),
    window=st.integers(1, 60),
    overlap=st.floats(0, 0.95),
    shift=st.integers(-50, 50),
)
def test_starts_of_a_stream_are_those_of_the_whole(n_frames, window, overlap, shift):
    overlap = int(overlap * window)
    asked = []

    def goes_on_after(end):
        asked.append(end)
        return n_frames > end

    found = list(stream_starts(goes_on_after, lambda: n_frames, window, overlap, shift))
    last = n_frames - window
    inner = np.arange(shift % (window - overlap), last, window - overlap)
    expected = np.unique([0, *inner, last]) if last > 0 else [0]
    assert [start for start, _ in found] == list(expected)
    assert [last for _, last in found] == [False] * (len(found) - 1) + [True]
    assert asked == sorted(asked)  # never looks back


def test_what_is_held_does_not_grow():
    stitcher = Stitcher(1, 2, "max")
    parts = [stitcher.add(np.zeros((1, 8)), start) for start in range(0, 4000, 8)]
    assert {part.shape[1] for part in parts[1:]} == {4}
    assert stitcher._scores.shape[1] <= 8


@pytest.mark.parametrize(
    ("n_frames", "step", "cells"), [(1, 32, 1), (47, 32, 1), (48, 32, 2), (64, 32, 2)]
)
def test_n_cells_is_the_nearest_whole_number(n_frames, step, cells):
    assert n_cells(n_frames, step) == cells
