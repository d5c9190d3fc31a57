"""Inserting confirmed calls: what the window holds, and what the estimate makes of the scores."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from local.inference.scores import Scores
from local.models import SedModel, SedOutput
from local.relabel.insertion import insert_calls

LABELS = ["a", "b", "c"]


class Loudest(SedModel):
    """Class k scores the level of band 2k in each frame, and keeps what it was shown."""

    step = 1

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, mix=None):
        self.seen.append(x[:, 0].numpy())
        frames = x[:, 0, ::2][:, :3]
        return SedOutput(frames, frames.mean(dim=-1) - 100, None, frames.mean(dim=-1))


def call(recording_id="src", label="a", onset=1.0, offset=1.5, low=np.nan, high=np.nan):
    names = ("recording_id", "label", "onset", "offset", "low_freq", "high_freq")
    return pd.DataFrame([(recording_id, label, onset, offset, low, high)], columns=names)


def scores_of(ids, n_frames, level):
    frames = [np.full((3, n_frames), level, dtype=np.float32) for _ in ids]
    return Scores(ids, LABELS, frames, np.zeros((len(ids), 3), np.float32), 0.1, -0.05)


@pytest.fixture
def scene(toy_dump, toy_config):
    """A source with a call 7 above its background of -6; two targets with background -2."""
    config = toy_config()
    source = np.full((8, 60), -6.0, dtype=np.float32)
    source[:, 10:15] += 7
    arrays = {"src": source, "t0": np.full((8, 50), -2.0, np.float32)}
    arrays["t1"] = np.full((8, 80), -2.0, np.float32)
    return SimpleNamespace(dump=toy_dump(arrays, config), model=Loudest().eval())


def insert(scene, calls, n=6, level=-9.0, seed=0):
    targets = scores_of(["t0", "t1"], 50, level)
    rng = np.random.default_rng(seed)
    return insert_calls(scene.model, scene.dump, calls, targets, n, rng, "cpu")


def test_a_call_keeps_its_level_over_the_background(scene):
    logit = insert(scene, call())
    assert logit.shape == (6, 3)
    # 7 above a background of -2; no call of b or c was there to insert.
    np.testing.assert_allclose(logit[:, 0], 5.0, atol=1e-5)
    assert np.isnan(logit[:, 1:]).all()
    windows = np.concatenate(scene.model.seen)
    assert windows.shape == (6, 8, 20)
    for window in windows:
        inserted = np.flatnonzero(window[0] > 0)
        assert len(inserted) == 5
        assert (np.diff(inserted) == 1).all()
        np.testing.assert_allclose(np.delete(window[0], inserted), -2.0)


def test_only_the_bands_of_the_call_are_inserted(scene):
    limits = scene.dump.front_end.band_edges_hz()
    low, high = limits[2, 1] + 1e-3, limits[5, 0] - 1e-3
    insert(scene, call(low=low, high=high))
    touched = (np.concatenate(scene.model.seen) > 0).any(axis=(0, 2))
    heard = (limits[:, 1] > low) & (limits[:, 0] < high)
    assert 0 < heard.sum() < 8
    np.testing.assert_array_equal(touched, heard)


def test_a_recording_that_scores_higher_keeps_its_score(scene):
    np.testing.assert_allclose(insert(scene, call(), level=8.0)[:, 0], 8.0)


def test_the_same_seed_inserts_the_same(scene):
    insert(scene, call(), seed=3)
    insert(scene, call(), seed=3)
    insert(scene, call(), seed=4)
    first, again, other = scene.model.seen
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_calls_longer_than_a_window_and_short_recordings(toy_dump, toy_config):
    config = toy_config(window={"length_s": 2.0, "short": "repeat"})
    source = np.full((8, 60), -6.0, dtype=np.float32)
    source[:, 5:45] += 7
    dump = toy_dump({"src": source, "t0": np.full((8, 12), -2.0, np.float32)}, config)
    scene = SimpleNamespace(dump=dump, model=Loudest().eval())
    targets = scores_of(["t0"], 12, -9.0)
    rng = np.random.default_rng(0)
    logit = insert_calls(scene.model, dump, call(onset=0.5, offset=4.5), targets, 3, rng, "cpu")
    np.testing.assert_allclose(logit[:, 0], 5.0, atol=1e-5)


def test_window_scores_and_no_targets(scene, toy_dump, toy_config):
    config = toy_config(inference={"pool": {"source": "window"}})
    dump = toy_dump(
        {"src": np.zeros((8, 60), np.float32), "t0": np.zeros((8, 50), np.float32)}, config
    )
    targets = scores_of(["t0"], 50, -9.0)
    targets.window[:] = -500.0
    rng = np.random.default_rng(0)
    logit = insert_calls(scene.model, dump, call(), targets, 2, rng, "cpu")
    np.testing.assert_allclose(logit[:, 0], -100.0, atol=1e-4)
    none = insert_calls(scene.model, dump, call(), scores_of([], 50, 0.0), 2, rng, "cpu")
    assert np.isnan(none).all()


def test_waveforms_are_summed(toy_dump, toy_config):
    class Peak(SedModel):
        input, step = "waveform", 10

        def forward(self, x, mix=None):
            frames = x.unfold(-1, 10, 10).amax(-1).unsqueeze(1).expand(-1, 3, -1)
            return SedOutput(frames, frames.amax(-1), None, frames.mean(-1))

    config = toy_config(features={"kind": "wave"}, window={"length_s": 0.5})
    source = np.zeros(6000, dtype=np.int16)
    source[1000:1500] = 8192
    dump = toy_dump({"src": source, "t0": np.full(5000, 4096, np.int16)}, config)
    targets = scores_of(["t0"], 500, -9.0)
    rng = np.random.default_rng(0)
    logit = insert_calls(Peak().eval(), dump, call(), targets, 4, rng, "cpu")
    np.testing.assert_allclose(logit[:, 0], 0.25 + 0.125, atol=1e-4)


def test_scores_do_not_depend_on_the_batch(scene):
    torch.manual_seed(0)
    calls = pd.concat([call(), call(label="c", onset=2.0, offset=2.3)])
    whole = insert(scene, calls, n=9)
    scene.dump.config = scene.dump.config.model_copy(
        update={"inference": scene.dump.config.inference.model_copy(update={"batch_size": 4})}
    )
    np.testing.assert_array_equal(whole, insert(scene, calls, n=9))
