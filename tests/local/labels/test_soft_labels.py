"""Soft labels on the cells of windows, against plain loops; what people said overrides them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.config import DataConfig, WindowConfig
from local.io.errors import CanopyError
from local.labels.grid import FrameGrid
from local.labels.soft_labels import SoftCells, SoftLabels, load_soft_labels, save_soft_labels
from local.labels.targets import EventArrays, window_targets

RULE = WindowConfig(length_s=2.0, min_visible_share=0.5, min_visible_s=10.0)
PARTIAL, COMPLETE = DataConfig(), DataConfig(annotation="complete")


def soft_of(*recordings, hop_s=0.2, start_s=-0.05, weight=0.5):
    """Recordings of (C, n) probabilities, named r0, r1, ..."""
    arrays = [np.asarray(one, dtype=np.float16) for one in recordings]
    offset = np.concatenate([[0], np.cumsum([one.shape[1] for one in arrays])])
    names = [f"r{i}" for i in range(len(arrays))]
    labels = [f"c{i}" for i in range(len(arrays[0]))]
    target = np.concatenate(arrays, axis=1)
    return SoftLabels(names, labels, target, offset, hop_s, start_s, weight)


def plain_cells(values, hop_s, start_s, grid, weight):
    """Mean over each cell of what is constant in steps, one tiny piece after another."""
    n_pieces = 2000
    target, share = np.zeros((len(values), grid.n)), np.zeros(grid.n)
    for cell in range(grid.n):
        begin = grid.start_s + cell * grid.hop_s
        total, known = np.zeros(len(values)), 0
        for piece in range(n_pieces):
            time = begin + (piece + 0.5) / n_pieces * grid.hop_s
            place = int(np.floor((time - start_s) / hop_s))
            if 0 <= place < values.shape[1]:
                total += values[:, place]
                known += 1
        target[:, cell] = total / max(known, 1)
        share[cell] = weight * known / n_pieces
    return target, share


@pytest.mark.parametrize("stretch", [1.0, 0.8, 1.3])
@pytest.mark.parametrize("start_s", [-0.7, 0.0, 1.234, 5.3])
def test_a_window_shows_the_mean_over_each_cell(start_s, stretch):
    rng = np.random.default_rng(3)
    soft = soft_of(rng.uniform(size=(3, 9)), rng.uniform(size=(3, 30)))
    grid = FrameGrid(6, 0.31, start_s)
    found = soft.on("r1", grid, stretch)
    values = soft.of("r1").astype(np.float64)
    target, weight = plain_cells(values, 0.2 * stretch, -0.05 * stretch, grid, 0.5)
    np.testing.assert_allclose(found.target, target, atol=2e-3)
    np.testing.assert_allclose(found.weight, weight, atol=1e-3)


def test_on_their_own_grid_labels_are_what_they_were():
    rng = np.random.default_rng(4)
    soft = soft_of(rng.uniform(size=(2, 12)))
    found = soft.on("r0", soft.grid("r0"))
    np.testing.assert_allclose(found.target, soft.of("r0"), atol=1e-6)
    np.testing.assert_allclose(found.weight, 0.5)
    beyond = soft.on("r0", FrameGrid(4, 0.2, 50.0))
    assert not beyond.weight.any()
    assert not beyond.target.any()


def test_they_are_kept_and_read(tmp_path):
    soft = soft_of(np.full((2, 3), 0.25), np.full((2, 5), 0.5))
    path = tmp_path / "soft_labels.npz"
    save_soft_labels(path, soft, 1.5)
    again = load_soft_labels(path)
    assert again.recording_ids == ["r0", "r1"]
    assert again.target.dtype == np.float16
    np.testing.assert_array_equal(again.of("r1"), soft.of("r1"))
    assert (again.hop_s, again.start_s, again.weight) == (0.2, -0.05, 0.5)
    assert "r1" in again
    assert "x" not in again


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"soft_target": np.full((2, 8), np.nan, np.float16)}, "what is no probability"),
        ({"soft_target": np.full((2, 8), 1.5, np.float16)}, "what is no probability"),
        ({"soft_target": np.zeros((2, 7), np.float16)}, "not that of offset"),
        ({"offset": np.array([0, 9, 8])}, "does not increase"),
        ({"offset": np.array([0, 8])}, "expected"),
        ({"hop_s": np.float64(np.nan)}, "no number"),
        ({"weight": None}, "has no member weight"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, words):
    soft = soft_of(np.full((2, 3), 0.25), np.full((2, 5), 0.5))
    path = tmp_path / "soft_labels.npz"
    save_soft_labels(path, soft, 1.5)
    with np.load(path) as stored:
        members = {name: stored[name] for name in stored.files} | change
    np.savez(path, **{name: value for name, value in members.items() if value is not None})
    with pytest.raises(CanopyError, match=f"{words}.*; run stage 4 again"):
        load_soft_labels(path)


# ---------------------------------------------------------------------------------- and targets


def arrays(*rows):
    """Rows of (class, onset, offset, polarity)."""
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], []]
    return EventArrays(
        label=np.array(columns[0], dtype=np.int64),
        onset=np.array(columns[1], dtype=np.float64),
        offset=np.array(columns[2], dtype=np.float64),
        polarity=np.array(columns[3], dtype=np.float64),
        weight=np.ones(len(rows)),
        pseudo=np.zeros(len(rows), dtype=bool),
    )


def plain_targets(rows, hard, grid, soft):
    """Cell by cell: the soft label where no row of the class touches it and nothing is known."""
    clip_target, clip_mask = hard.clip_target.copy(), hard.clip_mask.copy()
    target, mask = hard.frame_target.copy(), hard.frame_mask.copy()
    for label in range(len(clip_target)):
        highest = None
        for cell in range(grid.n):
            begin, end = grid.edges_s[cell], grid.edges_s[cell + 1]
            said = any(
                row[0] == label and min(row[2], end) - max(row[1], begin) > 1e-8 for row in rows
            )
            if said or mask[label, cell] > 0 or soft.weight[cell] == 0:
                continue
            target[label, cell], mask[label, cell] = soft.target[label, cell], soft.weight[cell]
            highest = max(highest or 0.0, soft.target[label, cell])
        called = any(
            row[0] == label and row[3] > 0 and min(row[2], grid.end_s) > max(row[1], grid.start_s)
            for row in rows
        )
        if clip_mask[label] == 0 and not called and highest is not None:
            clip_target[label], clip_mask[label] = highest, soft.weight.max()
    return clip_target, clip_mask, target, mask


times = st.integers(-10, 30).map(lambda n: n / 10)
row_of = st.tuples(
    st.integers(0, 2), times, st.integers(1, 25).map(lambda n: n / 10), st.sampled_from([1, -1])
).map(lambda row: (row[0], row[1], row[1] + row[2], row[3]))


@settings(max_examples=150, deadline=None)
@given(st.lists(row_of, max_size=5), st.booleans())
def test_targets_are_those_of_a_plain_loop(rows, complete):
    grid = FrameGrid(10, 0.2, 0.0)
    rng = np.random.default_rng(len(rows))
    soft = SoftCells(
        rng.uniform(0.01, 1, (3, 10)).astype(np.float32),
        np.where(np.arange(10) < 8, 0.5, 0.0),
    )
    data = COMPLETE if complete else PARTIAL
    events = arrays(*rows)
    hard = window_targets(events, 3, grid, RULE, data)
    found = window_targets(events, 3, grid, RULE, data, soft)
    expected = plain_targets(rows, hard, grid, soft)
    for value, plain in zip(
        (found.clip_target, found.clip_mask, found.frame_target, found.frame_mask),
        expected,
        strict=True,
    ):
        np.testing.assert_allclose(value, plain, atol=1e-6)
    # What rows or complete annotation say stands.
    known = hard.frame_mask > 0
    np.testing.assert_array_equal(found.frame_target[known], hard.frame_target[known])
    np.testing.assert_array_equal(found.frame_mask[known], hard.frame_mask[known])
    if complete:
        assert (found.frame_mask == hard.frame_mask).all() or (hard.frame_mask == 0).any()


def test_what_people_said_overrides():
    grid = FrameGrid(10, 0.2, 0.0)
    soft = SoftCells(np.full((3, 10), 0.9, np.float32), np.full(10, 0.5))
    events = arrays((0, 0.0, 1.0, -1), (1, 0.4, 1.6, 1), (2, -5.0, 0.2, 1))
    found = window_targets(events, 3, grid, RULE, PARTIAL, soft)
    # Rejected in the first half: absent there, soft beyond, and of the window only what is left.
    assert found.frame_target[0].tolist() == pytest.approx([0] * 5 + [0.9] * 5)
    assert found.frame_mask[0].tolist() == [1] * 5 + [0.5] * 5
    assert (found.clip_target[0], found.clip_mask[0]) == (pytest.approx(0.9), 0.5)
    # Confirmed: present there and in the window.
    assert found.frame_target[1, 2:8].tolist() == [1] * 6
    assert (found.clip_target[1], found.clip_mask[1]) == (1, 1)
    # A sliver of a call: nothing is said of its cell nor of the window.
    assert found.frame_mask[2].tolist() == [0] + [0.5] * 9
    assert found.clip_mask[2] == 0
