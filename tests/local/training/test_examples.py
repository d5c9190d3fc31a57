"""Windows are drawn where the configuration says, and read as they were written."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local.config import Config
from local.data.tables import Tables
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError
from local.labels.grid import coverage, grid_of
from local.labels.targets import visible_enough
from local.labels.windows import window_frames
from local.training.epoch_plan import TrainingSet, _draw_rows, make_training_set, plan_epoch
from local.training.examples import WindowDataset

LABELS = ["a", "b", "c"]


def make_tables(events):
    """Tables with rows (recording_id, label, onset, offset, polarity, source)."""
    columns = ["recording_id", "label", "onset", "offset", "polarity", "source"]
    frame = pd.DataFrame(events, columns=columns).assign(weight=1.0)
    classes = pd.DataFrame({"label": LABELS})
    return Tables(pd.DataFrame(), frame, classes)


def feats(n_frames, seed=0):
    return np.random.default_rng(seed).normal(-5, 2, (8, n_frames)).astype(np.float32)


def pool_of(dump, events, ids):
    tables = make_tables(events)
    return make_training_set(tables, tables.events, ids, dump)


@pytest.fixture
def scene(toy_config, toy_dump):
    """Two recordings of 10 s, one of 4 s; rows of all kinds."""
    config = toy_config()
    dump = toy_dump({"r0": feats(101, 0), "r1": feats(101, 1), "r2": feats(41, 2)}, config)
    events = [("r0", "a", 0.4 * i, 0.4 * i + 0.3, 1, "tp") for i in range(20)]
    events += [("r0", "b", 9.0, 10.0, 1, "tp"), ("r1", "c", 0.0, 6.0, -1, "fp")]
    events += [("r2", "a", 0.1 * i, 0.1 * i + 0.5, 1, "pseudo:cycle1") for i in range(18)]
    events += [("r1", "b", 1.0, 1.5, 1, "pseudo:cycle1"), ("r1", "b", 8.0, 8.7, 1, "pseudo:cycle1")]
    return config, dump, pool_of(dump, events, ["r0", "r1", "r2"])


# -------------------------------------------------------------------------------------- the dump


@pytest.mark.parametrize(("start", "length"), [(0, 101), (0, 20), (81, 20), (37, 1)])
def test_a_crop_equals_the_array_written(toy_config, toy_dump, start, length):
    dump = toy_dump({"r0": feats(101)}, toy_config())
    crop = dump.crop("r0", start, length)
    assert crop.dtype == np.float32
    np.testing.assert_array_equal(crop, feats(101)[:, start : start + length])


def test_a_crop_of_a_waveform_is_scaled(toy_config, toy_dump):
    config = toy_config(features={"kind": "wave"}, window__short="silence")
    wave = np.array([0, 16384, -32768, 32767], dtype=np.int16)
    dump = toy_dump({"r0": wave}, config)
    np.testing.assert_array_equal(dump.crop("r0", 1, 2), np.float32([0.5, -1.0]))
    np.testing.assert_array_equal(dump.crop("r0", 2, 4), np.float32([-1.0, 32767 / 32768, 0, 0]))


def test_short_recordings(toy_config, toy_dump):
    """Any length, by a stated rule.

    Pins defect 20 of earlier systems: recordings had to last 60 s at 48 kHz, all in memory.
    """
    short = feats(15)
    repeated = toy_dump({"r0": short}, toy_config(window__short="repeat")).crop("r0", 0, 40)
    np.testing.assert_array_equal(repeated, np.tile(short, 3)[:, :40])
    config = toy_config(window__short="silence")
    silent = toy_dump({"r0": short}, config).crop("r0", 0, 40)
    np.testing.assert_array_equal(silent[:, :15], short)
    np.testing.assert_allclose(silent[:, 15:], np.log(config.features.floor), rtol=1e-6)


def test_short_recordings_are_refused_without_a_rule(toy_config, toy_dump):
    arrays = {"r0": feats(60), "r1": feats(15), "r2": feats(15)}
    dump = toy_dump(arrays, toy_config())
    with pytest.raises(CanopyError, match=r"r1 lasts 1\.400 s, .*length_s 2 \(2 such .*repeat"):
        dump.check_lengths()
    toy_dump(arrays, toy_config(window__short="repeat")).check_lengths()
    toy_dump({"r0": feats(21)}, toy_config()).check_lengths()


def test_invalid_recordings_are_left_out(toy_config, toy_dump):
    dump = toy_dump({"r0": feats(60), "r1": feats(60)}, toy_config())
    path = dump.folder / "manifest.csv"
    path.write_text(path.read_text().replace("r1.npz,60,5.9,ok,", "r1.npz,0,,invalid,broken"))
    dump = type(dump)(dump.folder, dump.config)
    assert "r0" in dump
    assert "r1" not in dump
    training_set = pool_of(dump, [("r1", "a", 0.0, 1.0, 1, "tp")], ["r0", "r1"])
    assert training_set.recording_ids == ["r0"]
    assert len(training_set.event_kind) == 0


@pytest.mark.parametrize(("seconds", "step", "frames"), [(2.0, 1, 20), (2.0, 8, 24), (0.1, 32, 32)])
def test_a_window_is_whole_cells(seconds, step, frames):
    assert window_frames(seconds, 0.1, step) == frames


# -------------------------------------------------------------------------------------- the plan


def visible_of(training_set: TrainingSet, config, row, start, window):
    """Whether each event of recording `row` counts in the window, by a plain statement."""
    front_end = front_end_of(config)
    grid = grid_of(window, front_end.hop_s, front_end.begin, start)
    duration = training_set.event_offset - training_set.event_onset
    seen = (
        coverage(training_set.event_onset, training_set.event_offset, grid).sum(axis=1) * grid.hop_s
    )
    return visible_enough(seen, duration, config.window) & (training_set.event_recording == row)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_event_a_window_was_drawn_for_counts_in_it(data):
    """Wherever the event lies, however long it is: no window is wasted on a sliver."""
    share = data.draw(st.floats(0.05, 1.0))
    config = Config.model_validate(
        {
            "audio": {"sample_rate": 1000},
            "features": {"kind": data.draw(st.sampled_from(["logmel", "wave"])), "hop_length": 100},
            "window": {"length_s": 2.0, "min_visible_share": share, "p_random": 0},
        }
    )
    hop_s = front_end_of(config).hop_s
    window = window_frames(config.window.length_s, hop_s, 1)
    n_frames = window + data.draw(st.integers(0, 4 * window))
    end = (n_frames - 1) * hop_s
    onset = data.draw(st.floats(0, end - 0.05))
    offset = onset + data.draw(st.floats(0.01, 8))
    offset = min(offset, end)
    training_set = TrainingSet(
        ["r0"],
        np.array([n_frames]),
        {},
        np.zeros(1, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        np.array([onset]),
        np.array([offset]),
        np.zeros(1, dtype=np.int64),
    )
    plan = plan_epoch(training_set, config, window, 500, np.random.default_rng(0))
    assert (plan[:, 1] >= 0).all()
    assert (plan[:, 1] <= n_frames - window).all()
    # The outermost starts are the doubtful ones.
    starts = np.unique(plan[:, 1])
    for start in {*starts[:3], *starts[-3:], *starts[::20]}:
        assert visible_of(training_set, config, 0, start, window)[0]


def test_windows_of_every_kind_show_what_they_were_drawn_for(scene):
    config, _, training_set = scene
    for kind, key in enumerate(("p_positive", "p_negative", "p_pseudo")):
        shares = dict.fromkeys(("p_positive", "p_negative", "p_pseudo", "p_random"), 0.0)
        only = config.model_copy(
            update={"window": config.window.model_copy(update={**shares, key: 1.0})}
        )
        plan = plan_epoch(training_set, only, 20, 300, np.random.default_rng(1))
        for row, start in plan:
            shown = visible_of(training_set, only, row, start, 20)
            assert (shown & (training_set.event_kind == kind)).any()


def drawn_rows(training_set, config, kind, n=6000):
    """How often each class was drawn for: from windows around events that stand alone."""
    rows = np.flatnonzero(training_set.event_kind == kind)
    balanced = config.window.balance_classes and kind != 2
    rng = np.random.default_rng(0)
    drawn = _draw_rows(rows, training_set.event_label, n, balanced, rng)
    return np.bincount(training_set.event_label[drawn], minlength=3) / n


def test_true_classes_are_balanced_and_pseudo_ones_are_not(scene):
    """Pseudo events keep their natural balance.

    Pins defect 41 of earlier systems: pseudo labels denied, and were drawn class by class.
    """
    config, _, training_set = scene
    np.testing.assert_allclose(drawn_rows(training_set, config, 0), [0.5, 0.5, 0], atol=0.03)
    np.testing.assert_allclose(drawn_rows(training_set, config, 2), [0.9, 0.1, 0], atol=0.03)


def test_balance_of_the_plan_itself(scene):
    config, _, training_set = scene
    window = {**config.window.model_dump(), "p_negative": 0, "p_pseudo": 0, "p_random": 0}
    for balanced, share in ((True, 0.5), (False, 1 / 21)):
        rule = type(config.window)(**{**window, "balance_classes": balanced})
        plan = plan_epoch(
            training_set,
            config.model_copy(update={"window": rule}),
            20,
            4000,
            np.random.default_rng(0),
        )
        assert set(plan[:, 0]) == {0}
        # The one call of b fills 9 to 10 s, where no other event reaches.
        of_b = np.mean(
            [
                visible_of(training_set, config, 0, s, 20)[training_set.event_label == 1].any()
                for s in plan[:, 1]
            ]
        )
        # Some windows around late calls of a show b as well.
        assert share - 0.03 <= of_b <= share + 0.2


def test_shares_of_the_kinds(scene):
    config, _, training_set = scene
    # r2 is reached by pseudo and random windows only, r1 not by positive ones.
    plan = plan_epoch(training_set, config, 20, 20_000, np.random.default_rng(0))
    share = np.bincount(plan[:, 0], minlength=3) / len(plan)
    total = 0.6 + 0.3 + 0.3 + 0.1
    length = np.array([101, 101, 41]) / 243
    expected = np.array([0.6, 0.3 + 0.03, 0.27]) / total + 0.1 / total * length
    np.testing.assert_allclose(share, expected, atol=0.015)


def test_random_windows_fall_evenly_on_all_time(scene):
    config, _, training_set = scene
    window = {**config.window.model_dump(), "p_positive": 0, "p_negative": 0, "p_pseudo": 0}
    config = config.model_copy(update={"window": type(config.window)(**window)})
    plan = plan_epoch(training_set, config, 20, 20_000, np.random.default_rng(0))
    share = np.bincount(plan[:, 0], minlength=3) / len(plan)
    np.testing.assert_allclose(share, np.array([101, 101, 41]) / 243, atol=0.015)
    starts = plan[plan[:, 0] == 0, 1]
    assert (starts.min(), starts.max()) == (0, 81)
    np.testing.assert_allclose(np.histogram(starts, 4, (0, 82))[0] / len(starts), 0.25, atol=0.02)


def test_absent_kinds_fall_away_and_nothing_to_draw_is_told(toy_config, toy_dump):
    config = toy_config(window={"length_s": 2.0, "p_random": 0.0})
    dump = toy_dump({"r0": feats(101)}, config)
    only_negative = pool_of(dump, [("r0", "a", 1.0, 2.0, -1, "fp")], ["r0"])
    assert len(plan_epoch(only_negative, config, 20, 50, np.random.default_rng(0))) == 50
    with pytest.raises(CanopyError, match=r"no window can be drawn.*raise p_random"):
        plan_epoch(pool_of(dump, [], ["r0"]), config, 20, 5, np.random.default_rng(0))


def test_a_plan_is_a_function_of_its_generator_and_not_of_the_order_of_rows(scene):
    config, dump, training_set = scene
    plan = plan_epoch(training_set, config, 20, 100, np.random.default_rng(4))
    np.testing.assert_array_equal(
        plan, plan_epoch(training_set, config, 20, 100, np.random.default_rng(4))
    )
    assert (plan != plan_epoch(training_set, config, 20, 100, np.random.default_rng(5))).any()
    events = [
        ("r0", "a", 1.0, 2.0, 1, "tp"),
        ("r1", "b", 3.0, 4.0, 1, "tp"),
        ("r0", "c", 1, 2, -1, "fp"),
    ]
    plans = [
        plan_epoch(pool_of(dump, rows, ["r0", "r1"]), config, 20, 100, np.random.default_rng(0))
        for rows in (events, events[::-1])
    ]
    np.testing.assert_array_equal(*plans)


# --------------------------------------------------------------------------------------- windows


def test_items_are_the_same_in_any_order_and_process(scene):
    config, dump, training_set = scene
    plan = plan_epoch(training_set, config, 20, 12, np.random.default_rng(0))
    dataset = WindowDataset(training_set, dump, plan, 20, 2, 3)
    forward = [dataset[i] for i in range(12)]
    other = WindowDataset(training_set, dump, plan, 20, 2, 3)
    for i in reversed(range(12)):
        for key, value in other[i].items():
            assert torch.equal(value, forward[i][key]), key


def test_an_item_holds_the_window_and_its_targets(scene):
    _, dump, training_set = scene
    # b of r0 sounds from 9 to 10 s; frame 81 begins at 8.05 s.
    windows = WindowDataset(training_set, dump, np.array([[0, 81]]), 20, 2, 3)
    item = windows[0]
    np.testing.assert_array_equal(item["x"], feats(101, 0)[None, :, 81:])
    assert item["frame_target"].shape == (3, 10)
    np.testing.assert_array_equal(item["clip_target"], [0, 1, 0])
    cells = coverage(np.array([9.0]), np.array([10.0]), grid_of(20, 0.1, -0.5, 81, 2))[0]
    np.testing.assert_allclose(item["frame_mask"][1], cells, atol=1e-6)
    assert windows.describe(0) == {"recording_id": "r0", "onset": pytest.approx(8.1)}


@pytest.mark.parametrize(("short", "known"), [("repeat", 8), ("silence", 10)])
def test_repeats_of_a_completely_annotated_recording_are_not_called_silent(
    toy_config, toy_dump, short, known
):
    """The call sounds again in the repeat, where the table has no row."""
    config = toy_config(window={"length_s": 2.0, "short": short}, data={"annotation": "complete"})
    dump = toy_dump({"r0": feats(16)}, config)
    training_set = pool_of(dump, [("r0", "a", 0.0, 0.5, 1, "tp")], ["r0"])
    item = WindowDataset(training_set, dump, np.array([[0, 0]]), 20, 2, 3)[0]
    assert item["x"].shape == (1, 8, 20)
    np.testing.assert_array_equal(item["frame_mask"][0], [1.0] * known + [0.0] * (10 - known))
