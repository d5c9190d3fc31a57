"""Windows with soft labels: drawn by confidence, capped in each batch, stretched, mixed in."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from local.config import AugmentConfig
from local.labels.grid import FrameGrid
from local.labels.soft_labels import SoftLabels
from local.labels.targets import EventArrays, Targets
from local.stages.experiment import Experiment
from local.training.augment.batch import Batch
from local.training.augment.input_kind import InputKind
from local.training.augment.mixing import mix_partners
from local.training.epoch_plan import (
    draw_kinds,
    make_training_set,
    place_pseudo,
    plan_epoch,
)
from local.training.examples import WindowDataset, add_background_labels
from local.training.partners import draw_partners
from local.training.pseudo_windows import capped, find_pseudo_windows
from local.training.window_reading import Variations

HOP, N = 0.2, 30
WINDOW, STEP = 20, 2


def soft_of(names, target, weight=0.5):
    """Labels (N, C, n) on the toy's grid of 0.2 s cells."""
    target = np.asarray(target, dtype=np.float16)
    offset = np.arange(len(names) + 1) * target.shape[2]
    flat = np.concatenate(list(target), axis=1)
    return SoftLabels(list(names), ["a", "b", "c"], flat, offset, HOP, -0.05, weight)


@pytest.fixture
def soft_set(toy):
    """Function: changes -> configuration, training set, experiment, soft labels."""

    def make(names=None, target=None, **changes):
        made = toy(**changes)
        experiment = Experiment(made.run)
        own = experiment.ids("train") + experiment.ids("unlabelled")
        names = own if names is None else names
        if target is None:
            target = np.random.default_rng(1).uniform(0.01, 0.9, (len(names), 3, N))
        soft = soft_of(names, target)
        training_set = make_training_set(
            experiment.tables, experiment.known_events, own, experiment.dump, (), soft
        )
        return made.run.config, training_set, experiment, soft

    return make


def test_windows_are_drawn_by_what_their_labels_add_up_to():
    rng = np.random.default_rng(0)
    soft = soft_of(["x", "y", "z"], rng.uniform(0, 1, (3, 3, N)) ** 6)
    found = find_pseudo_windows(soft, [(4, "y"), (7, "z"), (9, "none")], 2.0, {})
    # By a plain loop: 2 s are ten cells, a window every five of them, up to the end.
    expected = []
    for position, name in ((4, "y"), (7, "z")):
        for begin in range(0, 21, 5):
            label = soft.of(name)[:, begin : begin + 10].astype(float)
            total = sum(max(label[k]) for k in range(3))
            expected.append((position, -0.05 + (begin + 5) * HOP, total))
    rows = list(zip(found.recording, found.middle, found.confidence, strict=True))
    np.testing.assert_allclose(rows, expected, rtol=1e-3)
    drawn, middle = found.draw(20000, np.random.default_rng(1))
    share = np.array([total for *_, total in expected])
    nearest = [
        np.argmin([abs(m - e[1]) + 99 * (r != e[0]) for e in expected])
        for r, m in zip(drawn[:6000], middle[:6000], strict=True)
    ]
    counts = np.bincount(nearest, minlength=len(share)) / 6000
    np.testing.assert_allclose(counts, share / share.sum(), atol=0.02)
    # What nobody believes in is no window at all.
    assert find_pseudo_windows(soft_of(["x"], np.zeros((1, 3, N))), [(0, "x")], 2.0, {}) is None
    whole = find_pseudo_windows(soft, [(0, "x")], np.inf, {})
    assert len(whole.recording) == 1


def test_what_people_rejected_draws_no_window():
    target = np.zeros((1, 3, N))
    target[0, 1, 3:6], target[0, 2, 20:22] = 0.9, 0.4
    soft, one = soft_of(["x"], target), np.ones(1)
    # The class 1 was rejected from 0.5 to 1.2 s, where its labels lie.
    rejected = EventArrays(
        one.astype(int), one * 0.5, one * 1.2, -one, one, np.zeros(1, dtype=bool)
    )
    found = find_pseudo_windows(soft, [(0, "x")], 1.0, {"x": rejected})
    assert found.confidence[found.middle < 2].max() == 0
    assert found.confidence.max() == pytest.approx(0.4, rel=1e-3)
    assert soft.of("x")[1, 4] > 0.8
    confirmed = replace(rejected, polarity=one)
    found = find_pseudo_windows(soft, [(0, "x")], 1.0, {"x": confirmed})
    assert found.confidence.max() == pytest.approx(0.9, rel=1e-3)


def test_the_cap_names_those_that_are_too_many():
    kinds = np.array([2, 2, 0, 2, 2, 2, 2, 2, 2, 1])
    assert capped(kinds, 2, 2, 4).tolist() == [3, 6, 7]
    assert capped(kinds, 2, 4, 4).tolist() == []


def test_no_batch_holds_more_pseudo_windows_than_their_share(soft_set):
    config, training_set, *_ = soft_set()
    kinds = draw_kinds(training_set, config, 1600, np.random.default_rng(0))
    rule, size = config.window, config.train.batch_size
    total = rule.p_positive + rule.p_negative + rule.p_pseudo + rule.p_random
    most = int(np.ceil(size * rule.p_pseudo / total))
    n_pseudo = [(kinds[begin : begin + size] == 2).sum() for begin in range(0, 1600, size)]
    assert max(n_pseudo) == most
    assert np.mean(n_pseudo) > 0.7 * most


def test_unlabelled_recordings_come_by_their_confidence_alone(soft_set):
    """Of two unlabelled recordings one says nothing: no window is drawn from it."""
    names = ["u0", "u1"]
    target = np.zeros((2, 3, N))
    target[1, 1, 5:10] = 0.8
    config, training_set, *_ = soft_set(names, target)
    plan = plan_epoch(training_set, config, WINDOW, 800, np.random.default_rng(0))
    drawn = np.array(training_set.recording_ids)[plan[:, 0]]
    assert "u0" not in drawn
    starts = plan[drawn == "u1", 1]
    assert 0 < len(starts) <= 800 * 4 / 16
    # The call lasts from 0.95 to 1.95 s, frames 9 to 19: all windows show some of it.
    assert (starts < 20).all()


def test_windows_follow_the_stretch_of_what_they_are_read_from(soft_set):
    """A stretched window shows the cells that the plain one would, and their labels."""
    target = np.zeros((1, 3, N))
    target[0, 0, 14:16] = 0.9
    config, training_set, experiment, soft = soft_set(
        ["r00"], target, features__stretches=[0.8], window__p_stretched=0.5
    )
    dump_factor, factor = np.array([1.0, 0.8, 1.0, 0.8]), np.array([1.0, 1.0, 1.25, 1.1])
    fixed = replace(training_set.pseudo, jitter_s=0.0)
    n = len(dump_factor)
    plan = place_pseudo(
        *(training_set, fixed, WINDOW, config, np.random.default_rng(0), dump_factor, factor)
    )
    for (row, start), dumped, played in zip(plan, dump_factor, factor, strict=True):
        assert training_set.recording_ids[row] == "r00"
        begin, shown = (start * 0.1 - 0.05) / dumped, WINDOW * 0.1 / played / dumped
        assert begin < 2.8 + 0.2
        assert begin + shown > 2.8 - 0.2
    vary = replace(Variations.none(n), dump_factor=dump_factor, factor=factor)
    dataset = WindowDataset(training_set, experiment.dump, plan, WINDOW, STEP, 3, vary)
    for item in range(n):
        stretch = dump_factor[item] * factor[item]
        start_s = (plan[item, 1] - 0.5) * 0.1 * factor[item]
        cells = FrameGrid(WINDOW // STEP, 0.2, start_s)
        expected = soft.on("r00", cells, stretch)
        found = dataset[item]
        free = found["frame_mask"][0] == 0.5
        np.testing.assert_allclose(
            found["frame_target"][0][free], expected.target[0][free.numpy()], atol=1e-5
        )


def test_repeats_of_a_short_recording_have_no_labels(soft_set):
    config, training_set, experiment, _ = soft_set(window={"length_s": 8.0, "short": "repeat"})
    row = training_set.recording_ids.index("u1")
    plan = np.array([[row, 0]])
    item = WindowDataset(training_set, experiment.dump, plan, 80, STEP, 3)[0]
    mask = item["frame_mask"]
    assert (mask[:, :30] > 0).all()
    assert not mask[:, 31:].any()
    assert item["clip_mask"].tolist() == [0.5] * 3
    assert config.window.short == "repeat"


def test_recordings_nobody_listened_to_are_not_complete(soft_set):
    """Complete annotation speaks for train recordings; those without any take soft labels."""
    _, training_set, experiment, _ = soft_set(data__annotation="complete")
    names = training_set.recording_ids
    plan = np.array([[names.index("u1"), 0], [names.index("r00"), 0]])
    dataset = WindowDataset(training_set, experiment.dump, plan, WINDOW, STEP, 3)
    unlabelled, labelled = dataset[0], dataset[1]
    assert (unlabelled["frame_mask"] == 0.5).all()
    assert (unlabelled["frame_target"] > 0).all()
    assert (labelled["frame_mask"] == 1).all()


@pytest.mark.parametrize("kind", ["mix", "substitute"])
def test_labelled_windows_meet_pseudo_ones(soft_set, kind):
    relabel = {"kind": "soft", "pseudo_mixup": 0.4, "pseudo_mixup_kind": kind}
    changes = {"relabel": relabel, "augment__mixup_target": "soft"}
    config, training_set, *_ = soft_set(**changes)
    kinds = draw_kinds(training_set, config, 4000, np.random.default_rng(0))
    plain = config.model_copy(
        update={"relabel": config.relabel.model_copy(update={"pseudo_mixup": 0.0})}
    )
    before = draw_kinds(training_set, plain, 4000, np.random.default_rng(0))
    labelled = before < 2
    partners = draw_partners(training_set, config, WINDOW, kinds, np.random.default_rng(1))
    if kind == "substitute":
        assert partners is None
        assert (kinds[~labelled] == before[~labelled]).all()
        assert (kinds[labelled] == 2).mean() == pytest.approx(0.4, abs=0.03)
        return
    assert (kinds == before).all()
    mixed = partners[:, 0] >= 0
    assert not mixed[~labelled].any()
    assert mixed[labelled].mean() == pytest.approx(0.4, abs=0.03)


def test_a_batch_carries_the_partners_of_its_windows(soft_set):
    relabel = {"kind": "soft", "pseudo_mixup": 1.0}
    changes = {"relabel": relabel, "augment__mixup_target": "soft"}
    _, training_set, experiment, soft = soft_set(**changes)
    names = training_set.recording_ids
    plan = np.array([[names.index("r00"), 0], [names.index("r01"), 4]])
    partner = np.array([[names.index("u1"), 6], [-1, -1]])
    vary = replace(Variations.none(2), partner=partner)
    dataset = WindowDataset(training_set, experiment.dump, plan, WINDOW, STEP, 3, vary)
    first, second = dataset[0], dataset[1]
    assert first.keys() == second.keys()
    assert (bool(first["partnered"]), bool(second["partnered"])) == (True, False)
    np.testing.assert_array_equal(first["partner"][0], experiment.dump.crop("u1", 6, WINDOW))
    cells = soft.on("u1", FrameGrid(10, 0.2, 5.5 * 0.1))
    np.testing.assert_allclose(first["partner_frame_target"], cells.target, atol=1e-6)
    assert not second["partner_frame_mask"].any()


def test_partners_are_mixed_as_mixup_mixes(toy_config):
    config = AugmentConfig(mixup_lambda=0.25, mixup_target="soft")
    kind = InputKind.of(toy_config(), torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    x, other = torch.randn(3, 1, 8, 6), torch.randn(3, 1, 8, 6)
    own = torch.tensor([[1.0, 0.0, 0.0]] * 3), torch.tensor([[1.0, 1.0, 0.0]] * 3)
    soft = torch.tensor([[0.2, 0.6, 0.4]] * 3), torch.full((3, 3), 0.5)
    frames = [part[..., None].expand(3, 3, 2) for part in (*own, *soft)]
    batch = Batch(
        *(x, *own, frames[0], frames[1]),
        partner=other,
        partnered=torch.tensor([True, False, True]),
        partner_clip_target=soft[0],
        partner_clip_mask=soft[1],
        partner_frame_target=frames[2],
        partner_frame_mask=frames[3],
    )
    found = mix_partners(batch, config, kind, rng)
    assert found.partner is None
    torch.testing.assert_close(found.x[1], x[1])
    for row in (0, 2):
        plain = (0.75 * x[row].exp() + 0.25 * other[row].exp()).log()
        torch.testing.assert_close(found.x[row], plain)
    mask = [0.75 * 1 + 0.25 * 0.5, 0.75 + 0.125, 0.125]
    values = [(0.75 + 0.125 * 0.2) / mask[0], 0.125 * 0.6 / mask[1], 0.4]
    torch.testing.assert_close(found.clip_target[0], torch.tensor(values))
    torch.testing.assert_close(found.clip_mask[0], torch.tensor(mask))
    torch.testing.assert_close(found.frame_target[2, :, 1], torch.tensor(values))
    torch.testing.assert_close(found.clip_target[1], own[0][1])
    torch.testing.assert_close(found.clip_mask[1], own[1][1])


def test_a_background_takes_from_what_is_said_to_be_absent():
    """A claim of absence weighs by the chance that the background lacks the class too."""
    own = np.array([0.0, 0.0, 0.2, 0.2, 1.0, 0.0]), np.array([1.0, 1.0, 0.5, 0.5, 1.0, 1.0])
    other = np.array([0.3, 0.0, 0.4, 0.0, 1.0, 1.0]), np.array([0.5, 1.0, 0.5, 0.0, 1.0, 1.0])
    targets = Targets(own[0].copy(), own[1].copy(), own[0][:, None].copy(), own[1][:, None].copy())
    background = Targets(*other, other[0][:, None], other[1][:, None])
    add_background_labels(targets, background, soft=True)
    expected = [0.7, 1.0, 0.5 * (0.2 + 0.8 * 0.6), 0.5 * 0.2, 1.0, 0.0]
    np.testing.assert_allclose(targets.clip_mask, expected)
    np.testing.assert_allclose(targets.frame_mask[:, 0], expected)
    # The claim of presence weighs what it weighed, where something is known of the background.
    claimed = [0.0, 0.0, 0.2 / (0.2 + 0.8 * 0.6), 0.2, 1.0, 0.0]
    np.testing.assert_allclose(targets.clip_target, claimed)
    np.testing.assert_allclose(targets.frame_target[:, 0], claimed)
