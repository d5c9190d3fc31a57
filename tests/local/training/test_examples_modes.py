"""Balanced batches, whole recordings, bands of calls; batches do not depend on who reads them."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from local.config import Config
from local.data.tables import Tables
from local.inference.score_recordings import score_recordings
from local.io.errors import CanopyError
from local.labels.windows import training_window
from local.models import SedModel, SedOutput
from local.stages.checks import check_config
from local.training.epoch_plan import make_training_set, plan_epoch
from local.training.examples import WindowDataset
from local.training.window_reading import Variations, vary_epoch

LABELS = ["a", "b", "c", "d", "e"]


def feats(n_frames, seed=0):
    return np.random.default_rng(seed).normal(-5, 2, (8, n_frames)).astype(np.float32)


def tables_of(events, columns=("recording_id", "label", "onset", "offset", "polarity", "source")):
    frame = pd.DataFrame(events, columns=list(columns)).assign(weight=1.0)
    return Tables(pd.DataFrame(), frame, pd.DataFrame({"label": LABELS}))


# ------------------------------------------------------------------------------ balanced batches


@pytest.fixture
def one_class_a_recording(toy_dump):
    """Very unequal numbers of rows: positives of a to d, negatives of a, b and e, pseudo of a."""

    def make(config):
        numbers = {("a", 1): 40, ("b", 1): 10, ("c", 1): 3, ("d", 1): 1}
        numbers |= {("a", -1): 60, ("b", -1): 5, ("e", -1): 2, ("a", 0): 9}
        ids, events = [], []
        for (label, polarity), n in numbers.items():
            for i in range(n):
                ids.append(f"{label}_{polarity}_{i}")
                source = "pseudo:cycle1" if polarity == 0 else "x"
                events.append((ids[-1], label, 1.0, 2.0, polarity or 1, source))
        dump = toy_dump({name: feats(40) for name in ids}, config)
        tables = tables_of(events)
        return make_training_set(tables, tables.events, ids, dump)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 16, 40])
def test_every_batch_is_as_balanced_as_can_be(toy_config, one_class_a_recording, batch_size):
    config = toy_config(
        window={"length_s": 2.0, "balance_batches": True, "p_random": 0.0},
        train={"batch_size": batch_size},
    )
    training_set = one_class_a_recording(config)
    plan = plan_epoch(training_set, config, 20, 20 * batch_size, np.random.default_rng(0))
    open_to = {"1": "abcd", "-1": "abe"}
    totals = dict.fromkeys(LABELS, 0)
    for batch in plan[:, 0].reshape(20, batch_size):
        counts = dict.fromkeys(LABELS, 0)
        windows = [training_set.recording_ids[row].split("_")[:2] for row in batch]
        windows = [(label, kind) for label, kind in windows if kind != "0"]
        # The kind that fewer classes have has the first choice.
        for label, kind in sorted(windows, key=lambda window: len(open_to[window[1]])):
            # Nobody gets one more while another class of the kind has fewer.
            assert counts[label] == min(counts[other] for other in open_to[kind])
            counts[label] += 1
            totals[label] += 1
    shared = [totals[label] for label in "abcd"]
    assert max(shared) - min(shared) <= 0.15 * sum(shared) / 4


def test_with_rows_of_both_kinds_counts_differ_by_one_at_most(toy_config, toy_dump):
    config = toy_config(
        window={"length_s": 2.0, "balance_batches": True, "p_random": 0.0},
        train={"batch_size": 12},
    )
    events = [
        (f"{label}_{k}", label, 1.0, 2.0, 1 if k else -1, "x")
        for position, label in enumerate(LABELS)
        for k in range(2 + 3 * position)
    ]
    ids = [event[0] for event in events]
    dump = toy_dump({name: feats(40) for name in ids}, config)
    tables = tables_of(events)
    training_set = make_training_set(tables, tables.events, ids, dump)
    plan = plan_epoch(training_set, config, 20, 240, np.random.default_rng(0))
    drawn = np.array([LABELS.index(training_set.recording_ids[row][0]) for row in plan[:, 0]])
    for batch in drawn.reshape(20, 12):
        counts = np.bincount(batch, minlength=5)
        assert counts.max() - counts.min() <= 1
    totals = np.bincount(drawn, minlength=5)
    assert totals.max() - totals.min() <= 1


def test_classes_without_confirmed_rows_leave_room_for_the_others(toy_config, toy_dump):
    """Rejected rows stand back where confirmed ones have no choice."""
    config = toy_config(
        window={"length_s": 2.0, "balance_batches": True, "p_random": 0.0},
        train={"batch_size": 8},
    )
    numbers = {("a", 1): 3, ("b", 1): 3, ("a", -1): 3, ("b", -1): 3, ("c", -1): 3, ("d", -1): 3}
    events = [
        (f"{label}_{polarity}_{k}", label, 1.0, 2.0, polarity, "x")
        for (label, polarity), n in numbers.items()
        for k in range(n)
    ]
    ids = [event[0] for event in events]
    tables = tables_of(events)
    training_set = make_training_set(
        tables, tables.events, ids, toy_dump({n: feats(40) for n in ids}, config)
    )
    plan = plan_epoch(training_set, config, 20, 8 * 50, np.random.default_rng(0))
    names = [training_set.recording_ids[row] for row in plan[:, 0]]
    for batch in np.reshape(names, (50, 8)):
        labels = [name.split("_")[0] for name in batch]
        n_confirmed = sum(name.split("_")[1] == "1" for name in batch)
        # a and b take all confirmed rows; beyond four of these nothing can be even.
        expected = max(2, -(-n_confirmed // 2))
        assert max(map(labels.count, LABELS)) == expected


def test_the_other_draws_of_a_balanced_plan(toy_config, one_class_a_recording):
    window = {"length_s": 2.0, "balance_batches": True}
    config = toy_config(window=window, train={"batch_size": 16})
    training_set = one_class_a_recording(config)
    plan = plan_epoch(training_set, config, 20, 3000, np.random.default_rng(0))
    kinds = [training_set.recording_ids[row].split("_")[1] for row in plan[:, 0]]
    # p_pseudo 0.3 of 1.3, and the share of random windows that meets one.
    assert kinds.count("0") / 3000 == pytest.approx(0.3 / 1.3 + 0.1 / 1.3 * 9 / 130, abs=0.03)
    again = plan_epoch(training_set, config, 20, 3000, np.random.default_rng(0))
    np.testing.assert_array_equal(plan, again)
    # All rows of a class are used, not the first of them.
    assert (
        len({row for row in plan[:, 0] if training_set.recording_ids[row].startswith("a_1")}) == 40
    )


# ------------------------------------------------------------------------------ whole recordings


class Mean(SedModel):
    """Scores a cell of four frames by its mean, and notes the windows it saw."""

    step = 4

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        n = x.shape[-1] // 4
        cells = x[:, 0, :3, : 4 * n].unflatten(-1, (n, 4)).mean(-1)
        return SedOutput(cells, cells.amax(-1), None, cells.mean(-1))


def test_a_window_is_the_whole_recording(toy_config, toy_dump):
    config = toy_config(window={"length_s": 2.0, "whole": True, "short": "silence"})
    arrays = {"r0": feats(101, 0), "r1": feats(61, 1)}
    dump = toy_dump(arrays, config)
    window = training_window(dump, 4)
    assert window == 104
    tables = tables_of([("r0", "a", 9.0, 9.8, 1, "tp"), ("r1", "b", 1.0, 2.0, 1, "tp")])
    training_set = make_training_set(tables, tables.events, ["r0", "r1"], dump)
    plan = plan_epoch(training_set, config, window, 30, np.random.default_rng(0))
    assert (plan[:, 1] == 0).all()
    item = WindowDataset(training_set, dump, np.array([[0, 0]]), window, 4, 5)[0]
    np.testing.assert_array_equal(item["x"][0, :, :101], arrays["r0"])
    assert item["clip_target"].tolist() == [1, 0, 0, 0, 0]
    item = WindowDataset(training_set, dump, np.array([[1, 0]]), window, 4, 5)[0]
    np.testing.assert_allclose(item["x"][0, :, 61:], np.log(1e-10), rtol=1e-6)
    model = Mean().eval()
    scores = score_recordings(model, dump, ["r0", "r1"], LABELS[:3], "cpu")
    assert {shape[-1] for shape in model.seen} == {104}
    assert sum(shape[0] for shape in model.seen) == 2
    assert [frames.shape[1] for frames in scores.frames] == [25, 15]


def test_a_window_of_inference_that_is_given_is_kept(toy_config, toy_dump):
    config = toy_config(window={"whole": True, "short": "repeat"}, inference={"window_frames": 20})
    dump = toy_dump({"r0": feats(101)}, config)
    model = Mean().eval()
    score_recordings(model, dump, ["r0"], LABELS[:3], "cpu")
    assert {shape[-1] for shape in model.seen} == {20}


def test_whole_recordings_of_different_lengths_need_a_rule(toy_config, toy_dump):
    arrays = {"r0": feats(101), "r1": feats(100), "r2": feats(61)}
    dump = toy_dump(arrays, toy_config(window={"whole": True}))
    with pytest.raises(CanopyError, match=r"r2 lasts 6\.000 s, the longest 10\.000 s.*1 such"):
        dump.check_lengths()
    toy_dump(arrays, toy_config(window={"whole": True, "short": "repeat"})).check_lengths()
    del arrays["r2"]
    toy_dump(arrays, toy_config(window={"whole": True})).check_lengths()


def test_whole_recordings_pass_the_check_of_the_configuration(toy_config):
    check_config(toy_config(window={"whole": True, "short": "repeat"}))


# -------------------------------------------------------------------------------- bands of calls


def test_call_bands_are_those_of_the_positives_in_sight(toy_config, toy_dump):
    config = toy_config(augment={"freq_masks": 1, "freq_mask_spares_calls": True})
    dump = toy_dump({"r0": feats(101)}, config)
    limits = dump.front_end.band_edges_hz()
    columns = ("recording_id", "label", "onset", "offset", "polarity", "source")
    rows = [
        ("r0", "a", 1.0, 1.4, 1, "tp", *limits[2]),
        ("r0", "b", 5.0, 5.4, -1, "fp", *limits[4]),
        ("r0", "c", 5.2, 5.4, 1, "tp", limits[6, 0] + 1, limits[6, 1] - 1),
        ("r0", "d", 8.0, 8.5, 1, "tp", np.nan, np.nan),
    ]
    tables = tables_of(rows, (*columns, "low_freq", "high_freq"))
    training_set = make_training_set(tables, tables.events, ["r0"], dump)
    data = WindowDataset(
        training_set, dump, np.array([[0, 5], [0, 45], [0, 75], [0, 20]]), 20, 2, 5
    )
    neighbours = [
        bool(low < limits[2, 1] and high > limits[2, 0]) for low, high in limits
    ]  # triangles overlap
    assert data[0]["call_bands"].tolist() == neighbours
    assert neighbours[2]
    assert not all(neighbours)
    high = data[1]["call_bands"]
    assert high[6]
    assert not high[:5].any()
    # A call of unknown band may be anywhere.
    assert data[2]["call_bands"].all()
    assert not data[3]["call_bands"].any()


def test_a_band_of_the_class_stands_in(toy_config, toy_dump):
    config = toy_config(augment={"freq_masks": 1, "freq_mask_spares_calls": True})
    dump = toy_dump({"r0": feats(101)}, config)
    low, high = dump.front_end.band_edges_hz()[3]
    tables = tables_of([("r0", "a", 1.0, 1.4, 1, "tp")])
    classes = pd.DataFrame({"label": LABELS, "low_freq": low, "high_freq": high})
    training_set = make_training_set(
        Tables(tables.recordings, tables.events, classes), tables.events, ["r0"], dump
    )
    bands = WindowDataset(training_set, dump, np.array([[0, 5]]), 20, 2, 5)[0]["call_bands"]
    assert bands[3]
    assert not bands[6:].any()


# ------------------------------------------------------------------------------ who reads it all


def test_workers_read_what_one_process_reads(sound_dump):
    config = Config.model_validate(
        {
            "audio": {"sample_rate": 8000},
            "features": {"n_fft": 256, "hop_length": 80, "n_mels": 16, "keep_wave": True}
            | {"stretches": [0.9]},
            "window": {"length_s": 0.8, "short": "repeat", "p_stretched": 0.5},
            "augment": {"stretch": [0.8, 1.2], "wave_p": 0.5, "wave_pitch": [-1, 1]}
            | {"background_p": 0.5, "background_from": "random"}
            | {"freq_masks": 1, "freq_mask_spares_calls": True},
        }
    )
    waves = {f"r{i}": np.random.default_rng(i).normal(0, 0.1, 16000) for i in range(2)}
    dump = sound_dump(waves, config)
    tables = tables_of([("r0", "a", 0.5, 1.0, 1, "tp"), ("r1", "b", 0.5, 1.5, -1, "fp")])
    training_set = make_training_set(tables, tables.events, ["r0", "r1"], dump)
    vary = vary_epoch(training_set, config, 80, 12, np.random.default_rng(0))
    plan = plan_epoch(
        training_set, config, 80, 12, np.random.default_rng(1), vary.dump_factor, vary.factor
    )
    batches = [
        list(DataLoader(WindowDataset(training_set, dump, plan, 80, 4, 5, vary), 4, num_workers=n))
        for n in (0, 2)
    ]
    assert {"wave", "background", "call_bands", "waved"} <= set(batches[0][0])
    for one, other in zip(*batches, strict=True):
        assert set(one) == set(other)
        for key in one:
            assert torch.equal(one[key], other[key]), key


def test_windows_that_nothing_varies_carry_nothing_more(toy_config, toy_dump):
    """No slower and no larger than before: the items hold what they held."""
    dump = toy_dump({"r0": feats(101)}, toy_config())
    tables = tables_of([("r0", "a", 1.0, 2.0, 1, "tp")])
    training_set = make_training_set(tables, tables.events, ["r0"], dump)
    data = WindowDataset(training_set, dump, np.array([[0, 5]]), 20, 2, 5, Variations.none(1))
    targets = {f"{part}_{kind}" for part in ("clip", "frame") for kind in ("target", "mask")}
    assert set(data[0]) == {"x"} | targets
