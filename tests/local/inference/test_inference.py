"""The sliding-window path: averages, pooling, views, stitching, batches, files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from local.config import PoolConfig
from local.inference import score_recordings as scoring_loop
from local.inference.score_files import PartialScores, load_scores, save_scores
from local.inference.score_recordings import score_recordings
from local.inference.scores import (
    Scores,
    average_scores,
    clip_logits,
    mean_logit,
    pool_frames,
)
from local.io.errors import CanopyError
from local.jobs.interruption import Interrupted
from local.jobs.shards import Shard
from local.models import SedModel, SedOutput, create_model

LABELS = ["a", "b", "c"]


class Bands(SedModel):
    """Class k scores the mean of band k over cells of two frames, `delay` cells late."""

    step = 2

    def __init__(self, delay: int = 0) -> None:
        super().__init__()
        self.delay = delay
        self.batches: list[int] = []

    def forward(self, x):
        self.batches.append(len(x))
        n = x.shape[-1] // 2
        cells = x[:, 0, :3, : 2 * n].unflatten(-1, (n, 2)).mean(-1)
        if self.delay:
            quiet = torch.full_like(cells[..., : self.delay], -9.0)
            cells = torch.cat([quiet, cells[..., : -self.delay]], dim=-1)
        return SedOutput(cells, cells.amax(-1), None, cells.mean(-1))


def cells_of(array):
    """What `Bands` says of a whole recording, stated directly."""
    n = max(1, round(array.shape[1] / 2 + 1e-9))
    padded = np.pad(array[:3].astype(np.float64), ((0, 0), (0, 2 * n)), mode="edge")
    return padded[:, : 2 * n].reshape(3, n, 2).mean(-1)


def noise(n_frames, seed=0):
    return np.random.default_rng(seed).normal(-2, 2, (8, n_frames)).astype(np.float32)


def one_peak(n_frames, at, label=1):
    array = np.full((8, n_frames), -9, dtype=np.float32)
    array[label, at : at + 4] = 5
    return array


def score(model, dump, names=("r",), labels=LABELS):
    return score_recordings(model, dump, list(names), labels, "cpu")


# -------------------------------------------------------------------------------------- averages


def test_mean_logit_is_the_logit_of_the_mean_probability():
    values = np.random.default_rng(0).normal(0, 5, (4, 3, 7))
    np.testing.assert_allclose(mean_logit(values), logit(expit(values).mean(axis=0)), rtol=1e-9)
    np.testing.assert_allclose(
        mean_logit(values, axis=2), logit(expit(values).mean(axis=2)), rtol=1e-9
    )


def test_mean_logit_of_one_is_that_one_to_the_bit():
    values = np.random.default_rng(0).normal(0, 50, (1, 3, 7)).astype(np.float32)
    np.testing.assert_array_equal(mean_logit(values), values[0])
    np.testing.assert_array_equal(mean_logit(values.transpose(1, 0, 2), axis=1), values[0])


def test_mean_logit_does_not_saturate():
    # Near 1 the mean is that of the small rests: 1 - p ~ exp(-z).
    high = np.array([60.0, 62.0])
    expected = -np.log((np.exp(-60.0) + np.exp(-62.0)) / 2)
    assert mean_logit(high) == pytest.approx(expected, abs=1e-9)
    assert mean_logit(-high) == pytest.approx(-expected, abs=1e-9)
    assert mean_logit(np.array([60.0])) == pytest.approx(60.0)
    assert mean_logit(np.array([800.0, 800.0])) == pytest.approx(800.0)


def test_models_are_averaged_in_probability_not_by_maximum():
    """Pins defect 33 of earlier systems: folds were combined by their maximum."""
    frames = [np.array([[4.0, -4.0]]), np.array([[-8.0, -4.0]])]
    parts = [Scores(["r"], ["a"], [f], f.max(1, keepdims=True), 0.1, 0.0) for f in frames]
    mean = average_scores(parts)
    expected = logit((expit(4.0) + expit(-8.0)) / 2)
    np.testing.assert_allclose(mean.frames[0], [[expected, -4.0]], atol=1e-12)
    np.testing.assert_allclose(mean.window, [[logit((expit(4.0) + expit(-4.0)) / 2)]], atol=1e-12)


def test_scores_of_other_recordings_are_not_averaged():
    part = Scores(["r"], ["a"], [np.zeros((1, 2))], np.zeros((1, 1)), 0.1, 0.0)
    with pytest.raises(CanopyError, match="differ in recordings"):
        average_scores([part, replace(part, recording_ids=["q"])])


# --------------------------------------------------------------------------------------- pooling


@pytest.mark.parametrize(("seconds", "k"), [(0.1, 1), (0.5, 5), (0.54, 5), (99.0, 40)])
@pytest.mark.parametrize("method", ["max", "topk", "smooth_max"])
def test_pooling_rules(method, seconds, k):
    frames = np.random.default_rng(1).normal(0, 3, (3, 40))
    p = expit(frames)
    if method == "max":
        expected = p.max(axis=1)
    elif method == "topk":
        expected = np.sort(p, axis=1)[:, ::-1][:, :k].mean(axis=1)
    else:
        # Beyond the ends the outermost score goes on.
        padded = np.pad(p, ((0, 0), (k, k)), mode="edge")
        width = [padded[:, i : i + k].mean(axis=1) for i in range(padded.shape[1] - k + 1)]
        centred = np.stack(width, axis=1)[:, k - k // 2 :][:, :40]
        expected = centred.max(axis=1)
    found = pool_frames(frames, 0.1, PoolConfig(method=method, seconds=seconds))
    np.testing.assert_allclose(expit(found), expected, rtol=1e-9)


@pytest.mark.parametrize("method", ["max", "topk", "smooth_max"])
def test_pooling_keeps_the_order_of_very_sure_classes(method):
    frames = np.stack([np.full(20, 60.0), np.full(20, 61.0), np.full(20, -61.0)])
    pooled = pool_frames(frames, 0.1, PoolConfig(method=method, seconds=0.5))
    np.testing.assert_allclose(pooled, [60, 61, -61], atol=1e-6)


def test_every_subset_is_pooled_by_one_function(toy_dump, toy_config):
    """Pins defect 35 of earlier systems: validation and test were pooled by different rules."""
    # The score of a recording does not depend on who stands beside it.
    config = toy_config(inference__pool=PoolConfig(method="topk", seconds=0.4).model_dump())
    dump = toy_dump({"r": noise(61), "q": noise(61, 1)}, config)
    both = clip_logits(score(Bands(), dump, ["r", "q"]), config.inference.pool)
    alone = clip_logits(score(Bands(), dump, ["q"]), config.inference.pool)
    np.testing.assert_array_equal(both[1], alone[0])


def test_window_source_is_the_highest_window(toy_dump, toy_config):
    config = toy_config(inference__pool={"source": "window"})
    dump = toy_dump({"r": noise(60)}, config)
    scores = score(Bands(), dump)
    expected = cells_of(noise(60)).max(axis=1)
    np.testing.assert_allclose(clip_logits(scores, config.inference.pool)[0], expected, rtol=1e-5)


# ------------------------------------------------------------------------------- sliding windows


def test_windows_of_512_that_share_49(toy_dump, toy_config):
    config = toy_config(inference__window_frames=512, inference__overlap_frames=49)
    array, model = noise(3751), Bands()
    dump = toy_dump({"r": array}, config)
    scores = score(model, dump)
    assert sum(model.batches) == 8
    # What only windows of an even start cover (0, 926, ...); the others lie half a cell off.
    for first, end in ((0, 463), (926 + 49, 1389), (1852 + 49, 2315)):
        own = slice((first + 1) // 2 + 1, end // 2 - 1)
        np.testing.assert_allclose(scores.frames[0][:, own], cells_of(array)[:, own], rtol=1e-5)
    assert scores.frames[0].shape == (3, 1876)
    assert (scores.hop_s, scores.start_s) == (0.2, -0.05)


@pytest.mark.parametrize("stitch", ["max", "mean"])
@pytest.mark.parametrize("n_frames", [20, 40, 61, 202])
def test_a_local_model_sees_no_windows(toy_dump, toy_config, stitch, n_frames):
    array = noise(n_frames)
    array[:, -1] = array[:, -2]
    config = toy_config(inference__stitch=stitch, inference__overlap_frames=10)
    even = array[:, : n_frames // 2 * 2]
    found = score(Bands(), toy_dump({"r": even}, config)).frames[0]
    np.testing.assert_allclose(found, cells_of(even), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("short", ["refuse", "repeat", "silence"])
@pytest.mark.parametrize("n_frames", [2, 3, 7, 19])
def test_short_recordings_get_one_window_and_their_own_length(
    toy_dump, toy_config, short, n_frames
):
    """Pins defect 31 of earlier systems: a recording of one window, or less, failed."""
    config = toy_config(window__short=short)
    array, model = noise(n_frames), Bands()
    scores = score(model, toy_dump({"r": array}, config))
    assert model.batches == [1]
    n_cells = max(1, (n_frames + 1) // 2)
    assert scores.frames[0].shape == (3, n_cells)
    whole = n_frames // 2
    np.testing.assert_allclose(
        scores.frames[0][:, :whole], cells_of(array)[:, :whole], rtol=1e-4, atol=1e-5
    )
    assert np.isfinite(scores.frames[0]).all()


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_batches_that_mix_recordings_change_nothing(toy_dump, toy_config, batch_size):
    config = toy_config(inference__batch_size=batch_size, inference__tta={"flip": True})
    arrays = {f"r{n}": noise(n, n) for n in (61, 13, 100, 20)}
    torch.manual_seed(0)
    model = create_model("crnn", config.model.params, 3, 8).eval()
    dump = toy_dump(arrays, config)
    together = score(model, dump, arrays)
    for row, name in enumerate(arrays):
        alone = score(model, dump, [name])
        np.testing.assert_allclose(together.frames[row], alone.frames[0], atol=2e-5)
        np.testing.assert_allclose(together.window[row], alone.window[0], atol=2e-5)


def test_an_overlap_as_long_as_the_window_is_refused(toy_dump, toy_config):
    config = toy_config(inference__window_frames=20, inference__overlap_frames=20)
    with pytest.raises(CanopyError, match=r"inference\.overlap is 20 frames"):
        score(Bands(), toy_dump({"r": noise(61)}, config))


# ----------------------------------------------------------------------------------------- views


def test_the_plain_view_alone_is_no_augmentation(toy_dump, toy_config):
    plain = toy_config()
    tta = toy_config(inference__tta={"shifts_s": [0.0], "speeds": [1.0], "gains_db": [0.0]})
    dump = toy_dump({"r": noise(61)}, plain)
    assert plain == tta
    model = Bands()
    score(model, dump)
    assert sum(model.batches) == 6  # starts 0 10 20 30 40 41: one look each


@pytest.mark.parametrize(
    "tta",
    [
        {"shifts_s": [0.3]},
        {"shifts_s": [-0.7]},
        {"flip": True},
        {"speeds": [0.9]},
        {"speeds": [1.1]},
        {"speeds": [1.25], "flip": True, "shifts_s": [0.5]},
        {"lengths_s": [1.0, 4.0]},
        {"shifts_s": [0.0, 0.5], "speeds": [0.8, 1.0, 1.2], "flip": True},
    ],
)
@pytest.mark.parametrize("at", [0, 40, 150, 296])
def test_views_bring_a_planted_call_back_to_its_time(toy_dump, toy_config, tta, at):
    config = toy_config(inference__tta=tta)
    scores = score(Bands(), toy_dump({"r": one_peak(300, at)}, config)).frames[0]
    assert scores.shape == (3, 150)
    weight = expit(scores[1].astype(np.float64))
    weight[weight < 0.01] = 0  # what the background sums up to
    centre = (weight * (np.arange(150) + 0.5)).sum() / weight.sum()
    # Half a cell for windows that start on odd frames, a quarter for the interpolation of speeds.
    assert abs(centre - (at + 2) / 2) <= (0.75 if "speeds" in tta else 0.5)
    assert weight.sum() == pytest.approx(2, abs=1)
    assert scores[[0, 2]].max() < -8


def test_a_flipped_window_is_heard_backwards_and_scored_forwards(toy_dump, toy_config):
    # A model that answers two cells late is two cells early where time runs backwards.
    config = toy_config(inference__window_frames=60, inference__tta={"flip": True})
    dump = toy_dump({"r": one_peak(60, 28)}, config)
    frames = score(Bands(delay=2), dump).frames[0][1]
    half = logit(0.5 * expit(5.0))
    np.testing.assert_allclose(frames[[12, 13, 16, 17]], half, atol=1e-3)
    assert frames[[14, 15]].max() < -8


def test_gain_is_a_level_in_decibels(toy_dump, toy_config):
    config = toy_config(inference__tta={"gains_db": [10.0]})
    array = noise(60)
    found = score(Bands(), toy_dump({"r": array}, config)).frames[0]
    np.testing.assert_allclose(found, cells_of(array) + np.log(10), rtol=1e-4, atol=1e-4)


def test_views_are_averaged_in_probability(toy_dump, toy_config):
    config = toy_config(inference__tta={"gains_db": [-10.0, 0.0, 10.0]})
    array = noise(60)
    found = score(Bands(), toy_dump({"r": array}, config)).frames[0]
    views = [expit(cells_of(array) + gain) for gain in (-np.log(10), 0, np.log(10))]
    np.testing.assert_allclose(expit(found), np.mean(views, axis=0), rtol=1e-4)


def test_samples_instead_of_frames(toy_dump, toy_config):
    class Samples(SedModel):
        input, step = "waveform", 50

        def forward(self, x):
            cells = x.unflatten(-1, (-1, 50)).abs().amax(-1).unsqueeze(1).repeat(1, 3, 1)
            return SedOutput(cells, cells.amax(-1), None, cells.mean(-1))

    config = toy_config(features={"kind": "wave"}, window__length_s=0.5)
    wave = np.zeros(3000, dtype=np.int16)
    wave[1510] = 16384
    scores = score(Samples(), toy_dump({"r": wave}, config))
    assert (scores.hop_s, scores.start_s) == (pytest.approx(0.05), 0.0)
    expected = np.zeros((3, 60))
    expected[:, 30] = 0.5
    np.testing.assert_allclose(scores.frames[0], expected, atol=1e-6)


# ----------------------------------------------------------------------------------------- files


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    frames = [rng.normal(0, 9, (3, n)).astype(np.float32) for n in (5, 1, 8)]
    window = rng.normal(0, 9, (3, 3)).astype(np.float32)
    return Scores(["x", "y", "z"], LABELS, frames, window, 0.2, -0.05)


def test_scores_come_back_as_they_went(tmp_path, scores):
    clip, used = np.arange(9.0).reshape(3, 3), np.eye(3, dtype=bool)
    save_scores(tmp_path / "oof.npz", scores, clip, keep_frames=True, used=used)
    back, members = load_scores(tmp_path / "oof.npz")
    assert (back.recording_ids, back.labels) == (scores.recording_ids, LABELS)
    assert (back.hop_s, back.start_s) == (0.2, -0.05)
    for found, expected in zip(back.frames, scores.frames, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(back.window, scores.window)
    np.testing.assert_array_equal(members["clip_logit"], clip)
    np.testing.assert_array_equal(members["used"], used)
    with np.load(tmp_path / "oof.npz", allow_pickle=False) as stored:
        dtypes = {name: stored[name].dtype for name in stored.files}
    assert dtypes["clip_logit"] == dtypes["frame_logit"] == np.float32
    assert not any(dtype.hasobject for dtype in dtypes.values())


def test_frames_are_left_out_where_they_are_not_kept(tmp_path, scores):
    save_scores(tmp_path / "test.npz", scores, scores.window, keep_frames=False)
    back, members = load_scores(tmp_path / "test.npz")
    assert back.frames == []
    assert not [name for name in members if name.startswith("frame")]


@pytest.mark.parametrize("fault", ["absent", "empty", "cut", "text", "objects", "member"])
def test_damaged_scores_are_one_sentence(tmp_path, scores, fault):
    path = tmp_path / "oof.npz"
    save_scores(path, scores, scores.window, keep_frames=True)
    whole = path.read_bytes()
    if fault == "absent":
        path.unlink()
    elif fault == "objects":
        np.savez(path, recording_id=np.array([{}], dtype=object), allow_pickle=True)
    elif fault == "member":
        np.savez(path, recording_id=np.array(["x"]))
    else:
        path.write_bytes(
            {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"a,b\n1,2\n"}[fault]
        )
    with pytest.raises(CanopyError, match=r"oof\.npz.*run stage 3"):
        load_scores(path)


# ------------------------------------------------------------------------------- killed runs


@pytest.fixture
def blocks(toy_dump, toy_config):
    """A model, a dump of 23 recordings in several blocks, and the scores of an unbroken run."""
    config = toy_config(inference__batch_size=2, inference__tta={"flip": True})
    arrays = {f"r{n:02d}": noise(20 + 9 * n % 70, n) for n in range(23)}
    torch.manual_seed(0)
    model = create_model("crnn", config.model.params, 3, 8).eval()
    dump = toy_dump(arrays, config)
    return model, dump, list(arrays), score(model, dump, arrays)


class Counting(PartialScores):
    """Counts the blocks that were made anew."""

    n_made = 0

    def add(self, scores):
        self.n_made += 1
        super().add(scores)


class Stopping(PartialScores):
    """Ends with an error after so many blocks."""

    n_left = 0

    def add(self, scores):
        super().add(scores)
        self.n_left -= 1
        if self.n_left == 0:
            raise KeyboardInterrupt


def same(found, expected):
    assert found.recording_ids == expected.recording_ids
    np.testing.assert_array_equal(found.window, expected.window)
    for row, frames in enumerate(expected.frames):
        np.testing.assert_array_equal(found.frames[row], frames)


@pytest.mark.slow
@pytest.mark.parametrize("n_blocks", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, blocks, n_blocks):
    model, dump, names, whole = blocks
    kept = Stopping(tmp_path, "f")
    kept.n_left = n_blocks
    with pytest.raises(KeyboardInterrupt):
        score_recordings(model, dump, names, LABELS, "cpu", kept=kept)
    made = len(list((tmp_path / "infer.parts").glob("*.npz")))
    assert made == n_blocks
    (tmp_path / "infer.parts" / ".r00.abcdefgh.tmp.npz").write_bytes(b"half")
    again = Counting(tmp_path, "f")
    same(score_recordings(model, dump, names, LABELS, "cpu", kept=again), whole)
    again.remove()
    afresh = Counting(tmp_path, "f")
    score_recordings(model, dump, names, LABELS, "cpu", kept=afresh)
    assert again.n_made == afresh.n_made - n_blocks
    assert afresh.n_made > 3
    afresh.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump"]


def test_kept_scores_of_other_settings_or_damaged_ones_are_made_again(tmp_path, blocks):
    model, dump, names, whole = blocks
    kept = PartialScores(tmp_path, "f")
    score_recordings(model, dump, names, LABELS, "cpu", kept=kept)
    kept.close()
    parts = sorted((tmp_path / "infer.parts").glob("*.npz"))
    parts[0].write_bytes(parts[0].read_bytes()[:-7])
    parts[1].unlink()
    content = bytearray(parts[2].read_bytes())
    content[len(content) // 2] ^= 1
    parts[2].write_bytes(bytes(content))
    kept = PartialScores(tmp_path, "f")
    assert kept.get(["r00"]) is None
    same(score_recordings(model, dump, names, LABELS, "cpu", kept=kept), whole)
    kept.close()
    PartialScores(tmp_path, "other").close()
    assert not (tmp_path / "infer.parts").exists()
    PartialScores.discard(tmp_path)
    assert not (tmp_path / "infer.journal").exists()


def test_inference_stops_where_it_is_asked_to(tmp_path, blocks, monkeypatch):
    model, dump, names, whole = blocks

    def stop(place):
        raise Interrupted("SIGTERM", place)

    monkeypatch.setattr(scoring_loop, "stop_if_asked", stop)
    with pytest.raises(Interrupted, match="SIGTERM at recording r"):
        score_recordings(model, dump, names, LABELS, "cpu")  # in training nobody keeps blocks
    kept = PartialScores(tmp_path, "f")
    with pytest.raises(Interrupted, match="SIGTERM at recording r"):
        score_recordings(model, dump, names, LABELS, "cpu", kept=kept)
    kept.close()
    monkeypatch.setattr(scoring_loop, "stop_if_asked", lambda place: None)
    kept = PartialScores(tmp_path, "f")
    same(score_recordings(model, dump, names, LABELS, "cpu", kept=kept), whole)


def test_shares_score_together_what_one_process_scores(tmp_path, blocks):
    model, dump, names, whole = blocks
    scored = []
    for k in range(2):
        kept = PartialScores(tmp_path, "f", Shard(k, 2))
        part = score_recordings(model, dump, names, LABELS, "cpu", kept=kept, shard=Shard(k, 2))
        scored += part.recording_ids
        kept.close()
    assert sorted(scored) == sorted(names)
    kept = Counting(tmp_path, "f")
    same(score_recordings(model, dump, names, LABELS, "cpu", kept=kept), whole)
    assert kept.n_made == 0
    kept.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump"]
    # Shares of other settings are not taken.
    PartialScores(tmp_path, "g", Shard(0, 2)).close()
    kept = Counting(tmp_path, "f")
    same(score_recordings(model, dump, names, LABELS, "cpu", kept=kept), whole)
    assert kept.n_made > 0
