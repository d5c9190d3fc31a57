"""What holds for any labels, windows, tables, annotations and stitched scores."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from local.config.data import DataConfig
from local.config.window import WindowConfig
from local.data.annotations.formats import read_annotations, write_annotations
from local.data.tables import (
    CLASS_COLUMNS,
    EVENT_COLUMNS,
    RECORDING_COLUMNS,
    Tables,
    read_tables,
    write_tables,
)
from local.io.limits import file_name, id_fault, label_fault, spreadsheet_plain, spreadsheet_safe
from local.labels.grid import FrameGrid, coverage, overlap
from local.labels.spans import frames_to_events, subtract_spans
from local.labels.targets import EventArrays, window_targets
from local.labels.windows import Stitcher, n_cells, window_starts

LABELS = ["a", "b", "Turdus sp."]
TIMES = st.integers(0, 6000).map(lambda cell: cell / 100)
RULE, PARTIAL, COMPLETE = WindowConfig(), DataConfig(), DataConfig(annotation="complete")


@st.composite
def event_rows(draw, most: int = 8) -> list[tuple]:
    """(label index, onset, offset, polarity, weight, pseudo) within a minute."""
    rows = []
    for _ in range(draw(st.integers(0, most))):
        onset, offset = sorted((draw(TIMES), draw(TIMES)))
        rows.append(
            (
                draw(st.integers(0, 2)),
                onset,
                offset + 0.01,
                draw(st.sampled_from([1, -1])),
                draw(st.sampled_from([0.25, 0.5, 1.0])),
                draw(st.booleans()),
            )
        )
    return rows


def arrays(rows: list[tuple]) -> EventArrays:
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 6
    label, onset, offset, polarity, weight, pseudo = (np.array(column) for column in columns)
    return EventArrays(
        label=label.astype(np.int64),
        onset=onset.astype(float),
        offset=offset.astype(float),
        polarity=polarity.astype(np.int64),
        weight=weight.astype(float),
        pseudo=pseudo.astype(bool),
    )


GRIDS = st.builds(
    FrameGrid,
    start_s=st.integers(-100, 5000).map(lambda cell: cell / 100),
    hop_s=st.sampled_from([0.01, 0.032, 0.1, 0.5]),
    n=st.integers(1, 80),
)


# ------------------------------------------------------------------------------------------ labels


@given(event_rows(), GRIDS)
def test_coverage_adds_up_to_what_is_visible(rows, grid):
    """No time of an event is gained or lost between cells, wherever the grid begins."""
    events = arrays(rows)
    visible = overlap(events.onset, events.offset, grid.start_s, grid.end_s)
    filled = coverage(events.onset, events.offset, grid)
    np.testing.assert_allclose(filled.sum(axis=1) * grid.hop_s, visible, atol=1e-6)
    assert ((filled >= 0) & (filled <= 1 + 1e-9)).all()


@given(event_rows(), GRIDS, st.randoms(use_true_random=False), st.sampled_from([PARTIAL, COMPLETE]))
def test_targets_do_not_depend_on_the_order_of_rows(rows, grid, random, data):
    shuffled = random.sample(rows, len(rows))
    first, second = (
        window_targets(arrays(order), len(LABELS), grid, RULE, data) for order in (rows, shuffled)
    )
    for name in ("clip_target", "clip_mask", "frame_target", "frame_mask"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-6)


@given(event_rows(), GRIDS)
def test_no_label_is_gained_or_lost(rows, grid):
    """A class without a row in the window is unknown; one with a whole true positive is present."""
    rows = [(*row[:5], False) for row in rows]
    events = arrays(rows)
    targets = window_targets(events, len(LABELS), grid, RULE, PARTIAL)
    visible = overlap(events.onset, events.offset, grid.start_s, grid.end_s)
    for label in range(len(LABELS)):
        here = (events.label == label) & (visible > 1e-9)
        if not here.any():
            assert targets.clip_mask[label] == 0
            assert not targets.frame_mask[label].any()
        whole = here & (events.polarity > 0) & (visible >= events.offset - events.onset - 1e-9)
        if whole.any():
            assert targets.clip_target[label] == 1
            assert targets.clip_mask[label] >= events.weight[whole].max() - 1e-6
        if not (here & (events.polarity > 0)).any():
            assert targets.clip_target[label] == 0
            assert not targets.frame_target[label].any()


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.sampled_from([0.01, 0.1, 0.32]))
def test_events_and_frames_go_round(active, hop_s):
    """Frames -> spans -> frames gives the frames back."""
    grid = FrameGrid(start_s=0.0, hop_s=hop_s, n=len(active))
    spans = frames_to_events(np.array(active, dtype=float), grid, 0.5)
    onset, offset = (np.array([getattr(s, k) for s in spans]) for k in ("onset", "offset"))
    filled = coverage(onset, offset, grid).sum(axis=0) if spans else np.zeros(grid.n)
    np.testing.assert_allclose(filled, np.array(active, dtype=float), atol=1e-6)
    assert all(before.offset < after.onset for before, after in pairwise(spans))


@given(TIMES, TIMES, st.lists(st.tuples(TIMES, TIMES), max_size=6), st.randoms())
def test_what_is_cut_out_and_what_is_left_make_the_whole(start, end, cuts, random):
    assume(start < end)
    cuts = [(min(pair), max(pair)) for pair in cuts if pair[0] != pair[1]]
    left = subtract_spans(start, end, cuts)
    assert left == subtract_spans(start, end, random.sample(cuts, len(cuts)))
    middle = np.arange(0, 6000) / 100 + 0.005
    inside = (middle > start) & (middle < end)
    taken = np.zeros(len(middle), dtype=bool)
    for one, two in cuts:
        taken |= (middle > one) & (middle < two)
    kept = np.zeros(len(middle), dtype=int)
    for one, two in left:
        kept += (middle > one) & (middle < two)
    np.testing.assert_array_equal(kept, (inside & ~taken).astype(int))


# ----------------------------------------------------------------------------- windows, stitching


@st.composite
def geometry(draw) -> tuple[int, int, int, int]:
    window = draw(st.integers(1, 200))
    n_frames = draw(st.integers(1, 2000))
    return n_frames, window, draw(st.integers(0, window - 1)), draw(st.integers(0, 500))


@given(geometry())
def test_windows_cover_every_frame_and_stay_inside(case):
    n_frames, window, overlap_frames, shift = case
    starts = window_starts(n_frames, window, overlap_frames, shift)
    seen = np.zeros(max(n_frames, window), dtype=bool)
    for start in starts:
        seen[start : start + window] = True
    assert seen[:n_frames].all()
    assert (np.diff(starts) > 0).all()
    assert starts[0] == 0
    assert starts[-1] + window == max(n_frames, window)


def stitch(pieces: list[tuple[int, np.ndarray]], n_frames: int, step: int, method: str):
    """All that a stitcher gives back, joined."""
    stitcher = Stitcher(len(pieces[0][1]), step, method)
    parts = [stitcher.add(scores, start) for start, scores in pieces]
    return np.concatenate([*parts, stitcher.finish(n_frames)], axis=1)


@pytest.mark.slow
@given(geometry(), st.integers(1, 8), st.sampled_from(["max", "mean"]))
def test_stitching_gives_every_cell_what_its_windows_say(case, step, method):
    """Against all windows laid on one long row at once, in the opposite order."""
    n_frames, window, overlap_frames, shift = case
    window = -(-window // step) * step
    starts = window_starts(n_frames, window, min(overlap_frames, window - 1), shift).tolist()
    pieces = [
        (start, np.cos(start + np.arange(2 * (window // step))).reshape(2, -1)) for start in starts
    ]
    got = stitch(pieces, n_frames, step, method)
    assert got.shape == (2, n_cells(n_frames, step))
    rows: list[list[np.ndarray]] = [[] for _ in range(n_cells(n_frames, step) + window)]
    for start, scores in reversed(pieces):
        for cell in range(scores.shape[1]):
            rows[int(np.floor(start / step + 0.5)) + cell].append(scores[:, cell])
    for cell in range(got.shape[1]):
        if rows[cell]:
            pool = np.max if method == "max" else np.mean
            expected = pool(rows[cell], axis=0)
        np.testing.assert_allclose(got[:, cell], expected, atol=1e-12)


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 6))
def test_a_truth_on_the_grid_survives_stitching(n_frames, window, step):
    """Windows that start on cells and show parts of one row of scores give that row back."""
    window = window * step
    truth = np.sin(np.arange(n_cells(max(n_frames, window) + window, step)))[None]
    starts = range(0, n_frames, max(step, window // 2 // step * step))
    pieces = [(s, truth[:, s // step : (s + window) // step]) for s in starts]
    got = stitch(pieces, n_frames, step, "mean")
    np.testing.assert_allclose(got, truth[:, : got.shape[1]])


# -------------------------------------------------------------------------------- tables and files


@st.composite
def some_tables(draw) -> Tables:
    n = draw(st.integers(1, 6))
    recordings = [
        (f"r{i}", f"d/r {i}.wav", draw(st.sampled_from(["train", "test", "unlabelled"])), 61.0,
         draw(st.sampled_from([8000.0, 44_100.0])), 1.0, draw(st.sampled_from(["g", "Ä, \"b\""])))
        for i in range(n)
    ]  # fmt: skip
    events = []
    for label, onset, offset, polarity, weight, pseudo in draw(event_rows()):
        low = draw(st.sampled_from([np.nan, 100.0, 1 / 3]))
        events.append((f"r{draw(st.integers(0, n - 1))}", LABELS[label], onset, offset, low,
                       low + 0.1, polarity, weight, "pseudo" if pseudo else "tp"))  # fmt: skip
    classes = [(label, f"name; {label}", np.nan, 1e4) for label in LABELS]
    return Tables(
        pd.DataFrame(recordings, columns=RECORDING_COLUMNS),
        pd.DataFrame(events, columns=EVENT_COLUMNS),
        pd.DataFrame(classes, columns=CLASS_COLUMNS),
    )


@settings(max_examples=12)
@given(some_tables())
def test_tables_come_back_as_written(tmp_path, tables):
    write_tables(tmp_path / "t", tables, tmp_path)
    back = read_tables(tmp_path / "t")
    for name in ("recordings", "events", "classes"):
        pd.testing.assert_frame_equal(
            getattr(back, name), getattr(tables, name), check_dtype=False, check_exact=True
        )


@settings(max_examples=12)
@given(some_tables(), st.sampled_from(["plain", "raven"]))
def test_annotations_come_back_as_written(tmp_path, tables, form):
    """In as many files as the format takes; no event is gained, lost or moved."""
    folder = tmp_path / form
    events = tables.events
    write_annotations(folder, events, form, force=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    frames = [read_annotations(path, form) for path in files]
    for path in files:
        path.unlink()
    back = pd.concat(frames)[list(EVENT_COLUMNS)] if frames else events.iloc[:0]
    columns = ["recording_id", "label", "onset", "offset", "polarity", "weight"]
    assert sorted(map(tuple, back[columns].to_numpy())) == sorted(
        map(tuple, events[columns].to_numpy())
    )


# ----------------------------------------------------------------------------------- names, sheets

TEXT = st.text(max_size=30) | st.text(alphabet="=+-@'\t\r./\\ aA1", max_size=8)


@given(st.lists(TEXT, min_size=1, max_size=6), st.lists(st.floats(), min_size=1, max_size=6))
def test_spreadsheets_compute_nothing_and_lose_nothing(texts, numbers):
    n = min(len(texts), len(numbers))
    frame = pd.DataFrame({"=text": texts[:n], "number": numbers[:n]})
    safe = spreadsheet_safe(frame)
    pd.testing.assert_frame_equal(spreadsheet_plain(safe), frame, check_dtype=False)
    np.testing.assert_array_equal(safe["number"], frame["number"])
    assert not safe.columns[0].startswith("=")
    for text in safe.iloc[:, 0]:
        if text[:1] in tuple("=+-@\t\r") and text:
            float(text)


@given(TEXT | st.sampled_from(["con", "COM1.x", "..", "-", "a/../b", "é", "x" * 300]))
def test_names_stay_in_their_folder(text):
    if not id_fault(text):
        assert Path("d", text).name == text
        assert text.isascii()
        assert text[0] not in ".-"
    if not label_fault(text):
        assert text.strip()
        assert Path("d", text).parent == Path("d")
    name = file_name(text)
    assert Path("d", f"{name}.wav").parent == Path("d")
    assert name.isascii()
    assert not id_fault(name.replace("%", "_")[:200].rstrip(".") or "x")


@pytest.mark.slow
@given(TEXT, TEXT)
def test_other_labels_have_other_file_names(one, two):
    assert (file_name(one) == file_name(two)) == (one == two)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("-2.5", "-2.5"),
        ("+3e4", "+3e4"),
        ("-1+cmd", "'-1+cmd"),
        ("'=1", "''=1"),
        ("\t=1", "'\t=1"),
        ("＝1", "'＝1"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_what_spreadsheets_get(text, safe):
    assert spreadsheet_safe(pd.DataFrame({"x": [text]}))["x"].tolist() == [safe]
