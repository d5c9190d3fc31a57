"""Models of raw waveforms: filters, enhancement, frames; each against a statement of its own."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from local.config import Config, DataConfig, WindowConfig
from local.features.front_ends.front_end_registry import front_end_of
from local.features.npz import write_features
from local.features.store import FeatureStore
from local.inference.score_recordings import score_recordings
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.labels.grid import grid_of
from local.labels.targets import EventArrays, window_targets
from local.models import create_model
from local.models.denet import DenetParams, Enhancement
from local.models.wave_sed import ExclusiveClasses
from local.stages.checks import check_config

BAT = 250_000
SMALL = {
    "sample_rate": 32_000,
    "frame_ms": 4.0,
    "n_filters": 6,
    "kernel": 31,
    "channels": [5, 6],
    "pool": [2, 2, 2],
    "de_channels": [3, 4],
    "de_strides": [2, 3],
    "de_hidden": [5],
    "gru": 7,
    "dense": [9],
}
STEP = 128


def denet(seed=0, n_classes=2, **params):
    torch.manual_seed(seed)
    return create_model("denet", {**SMALL, **params}, n_classes, 1)


def sounds(n_frames=10, size=2, seed=0):
    return torch.randn(size, n_frames * STEP, generator=torch.Generator().manual_seed(seed))


def size_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


# ------------------------------------------------------------------------------------ enhancement


def enhancement(n_samples=90, **params):
    torch.manual_seed(0)
    return Enhancement(DenetParams(**{**SMALL, **params}), n_samples)


def test_enhancement_is_the_plain_loop():
    """Channels folded into the batch are the same branch run on each channel alone."""
    layer = enhancement().double()
    maps = torch.randn(4, 6, 90, dtype=torch.float64, requires_grad=True)
    folded = layer(maps)
    scores = torch.cat([layer.branch(maps[:, [channel]]) for channel in range(6)], dim=1)
    weights = torch.softmax(scores, dim=1)
    looped = torch.zeros(4, 1, 90, dtype=torch.float64)
    for channel in range(6):
        looped = looped + weights[:, channel, None, None] * maps[:, [channel]]
    # Weights are made in single precision, so that half precision cannot spoil them.
    torch.testing.assert_close(folded, looped, rtol=1e-6, atol=1e-6)
    through = torch.randn_like(folded)
    by_loop = torch.autograd.grad((looped * through).sum(), [maps, *layer.parameters()])
    folded_too = torch.autograd.grad((folded * through).sum(), [maps, *layer.parameters()])
    for one, other in zip(folded_too, by_loop, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_weights_of_the_enhancement_add_up_to_one():
    weights = enhancement().weights(torch.randn(5, 6, 90))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    assert weights.std(dim=1).min() > 0


@pytest.mark.parametrize("before_pooling", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
def test_every_parameter_of_the_enhancement_gets_a_gradient(before_pooling, recompute):
    model = denet(before_pooling=before_pooling, checkpoint=recompute).train()
    model(sounds(size=8)).frame_logit.square().mean().backward()
    without = [
        name
        for name, parameter in [
            *model.enhancement.named_parameters(),
            *model.filters.named_parameters(),
        ]
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []
    assert (model.filters.low.grad != 0).all()


def test_the_enhancement_is_trained_and_kept():
    """It moves with the optimiser, and its weights are in the state of the model."""
    model = denet().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model(sounds(size=8)).frame_logit.square().mean().backward()
    optimizer.step()
    keys = [key for key in before if key.startswith(("enhancement.", "filters."))]
    assert len(keys) == len(list(model.enhancement.parameters())) + 2
    assert all(not torch.equal(before[key], model.state_dict()[key]) for key in keys)


def test_dropout_of_the_enhancement_is_for_training_alone():
    layer = enhancement(de_dropout=0.5)
    maps = torch.randn(4, 6, 90)
    assert not torch.equal(layer(maps), layer(maps))
    layer.eval()
    assert torch.equal(layer(maps), layer(maps))


# ----------------------------------------------------------------------- published sizes, contract


def test_published_sizes_layer_by_layer():
    """At 16 kHz, 50 ms and two classes by softmax; the branch has no last bias, unseen by it."""
    model = create_model(
        "denet", {"sample_rate": 16_000, "spacing": "published", "output": "softmax"}, 1, 1
    )
    assert model.step == 800
    assert size_of(model.filters) == 160
    assert size_of(model.enhancement) == 70_889 - 1
    assert size_of(model.blocks) == 18_660
    assert model.gru.input_size == 1_620
    assert size_of(model.gru) == 45_096_960
    assert size_of(model.dense) + size_of(model.head) == 2_627_074
    strides = [one.stride for one in model.enhancement.branch if isinstance(one, nn.Conv1d)]
    assert strides == [(2,), (3,), (3,)]
    # The score is linear: no rectifier follows it.
    assert isinstance(model.enhancement.branch[-1], nn.Linear)
    assert model.enhancement.branch[-1].out_features == 1
    lengths = []
    for layer in model.enhancement.branch:
        if isinstance(layer, nn.Conv1d):
            layer.register_forward_hook(lambda _, __, out: lengths.append(out.shape[-1]))
    model.enhancement.weights(torch.zeros(1, 2, 800))
    assert lengths == [397, 131, 42]


@pytest.mark.parametrize(
    ("rate", "frame_ms", "flat"), [(16_000, 25.0, 780), (16_000, 100.0, 3_420), (BAT, 50.0, 27_660)]
)
def test_values_of_a_frame_at_other_sizes(rate, frame_ms, flat):
    with torch.device("meta"):
        model = create_model("denet", {"sample_rate": rate, "frame_ms": frame_ms}, 2, 1)
    assert model.gru.input_size == flat


def test_published_sincnet():
    with torch.device("meta"):
        model = create_model("sincnet", {}, 2, 1)
    assert model.step == 160
    assert model.context == 3_200
    assert model.dense[0].normalized_shape == (6_420,)
    assert model.input_norm.normalized_shape == (3_200,)
    layers = [layer for layer in model.dense if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in layers] == [6_420, 2_048, 2_048]


@pytest.mark.slow
@pytest.mark.parametrize(
    "params", [{}, {"before_pooling": False}, {"filter_across": True}, {"context_ms": 7.0}]
)
@pytest.mark.parametrize("at_once", [1, 3 * 6 * STEP])
def test_recomputing_and_grouping_change_nothing(params, at_once):
    plain = denet(**params, map_dropout=0.0, conv_dropout=0.0, dropout=0.0).train()
    again = denet(
        **params,
        map_dropout=0.0,
        conv_dropout=0.0,
        dropout=0.0,
        checkpoint=True,
        map_samples_at_once=at_once,
    ).train()
    x = sounds(size=3)
    for model in (plain, again):
        model(x).frame_logit.square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    plain.eval()
    again.eval()
    with torch.inference_mode():
        torch.testing.assert_close(plain(x).frame_logit, again(x).frame_logit)


def test_recomputing_keeps_less():
    """What autograd holds between forward and backward, in numbers."""

    def kept(model):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(sounds(size=8))
        return total

    assert kept(denet(checkpoint=True)) < 0.4 * kept(denet())


@pytest.mark.parametrize("name", ["denet", "sincnet"])
def test_half_precision(name):
    torch.manual_seed(0)
    params = {key: SMALL[key] for key in ("sample_rate", "frame_ms", "n_filters", "kernel")}
    params |= {"channels": [5, 6], "pool": [2, 2, 2], "dense": [9], "context_ms": 4.0}
    model = create_model(name, {**SMALL, **params} if name == "denet" else params, 2, 1).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(sounds(size=8))
    for tensor in (output.frame_logit, output.clip_logit, output.embedding):
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
    output.frame_logit.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        halved = model.filters.kernels()
    assert halved.dtype == torch.float32


@pytest.mark.parametrize("level", [0.0, 1e-8])
def test_silence_gives_finite_scores_and_gradients(level):
    for params in ({}, {"input_norm": "window"}):
        model = denet(**params).train()
        output = model(level * sounds(size=4))
        output.frame_logit.square().mean().backward()
        assert torch.isfinite(output.frame_logit).all()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_recorders_gain_does_not_matter_when_normalised():
    x = sounds()
    with torch.inference_mode():
        model = denet(input_norm="window").eval()
        torch.testing.assert_close(
            model(x).frame_logit, model(1e-3 * x + 0.1).frame_logit, rtol=1e-4, atol=1e-5
        )
        model = denet().eval()
        assert not torch.allclose(model(x).frame_logit, model(1e-3 * x).frame_logit, atol=1e-4)


def test_softmax_scores_are_logits_of_the_softmax():
    torch.manual_seed(0)
    layer = ExclusiveClasses(4, 3)
    x = 30 * torch.randn(2, 4, 5)
    z = layer.layer(x).detach().double()
    p = torch.softmax(z, dim=1)[:, :3]
    found = layer(x).detach().double()
    torch.testing.assert_close(torch.sigmoid(found), p, rtol=1e-4, atol=1e-12)
    assert torch.isfinite(found).all()
    assert (torch.sigmoid(found).sum(dim=1) <= 1 + 1e-6).all()


# ---------------------------------------------------------------------------------------- frames


def test_the_gru_runs_over_frames():
    """A late frame changes early ones, through the backward direction alone; windows do not mix."""
    model = denet().eval()
    x = sounds(size=3)
    late = x.clone()
    late[1, 8 * STEP :] += 1.0
    with torch.no_grad():
        plain, changed = model(x).frame_logit, model(late).frame_logit
        assert (plain[1] != changed[1]).any(dim=0).all()
        torch.testing.assert_close(plain[[0, 2]], changed[[0, 2]])
        # Without the backward direction nothing goes back in time.
        for name, parameter in model.gru.named_parameters():
            if name.endswith("_reverse"):
                parameter.zero_()
        plain, changed = model(x).frame_logit[1], model(late).frame_logit[1]
    torch.testing.assert_close(plain[:, :8], changed[:, :8])
    assert (plain[:, 8:] != changed[:, 8:]).any(dim=0).all()


def test_order_of_frames_matters_and_order_of_windows_does_not():
    model = denet().eval()
    x = sounds(size=3)
    order = torch.tensor([7, 2, 9, 0, 4, 1, 8, 3, 6, 5])
    shuffled = x.view(3, 10, STEP)[:, order].reshape(3, -1)
    turn = torch.tensor([2, 0, 1])
    with torch.no_grad():
        plain = model(x).frame_logit
        assert not torch.allclose(model(shuffled).frame_logit, plain[..., order], atol=1e-4)
        torch.testing.assert_close(model(x[turn]).frame_logit, plain[turn])


def test_frames_are_cut_where_they_say():
    model = denet(context_ms=7.0)  # 224 samples about each 128
    x = sounds(n_frames=4)
    x = torch.cat([x, torch.ones(2, 50)], dim=1)  # a rest that fills no frame
    frames = model.frames(x)
    assert frames.shape == (2, 4, 224)
    torch.testing.assert_close(frames[:, 1], x[:, STEP - 48 : 2 * STEP + 48])
    torch.testing.assert_close(frames[:, 0, :48], torch.zeros(2, 48))
    torch.testing.assert_close(frames[:, 3, 48 : 48 + STEP], x[:, 3 * STEP : 4 * STEP])
    torch.testing.assert_close(frames[:, 3, 48 + STEP :], torch.zeros(2, 48))


def test_filters_across_frames_hear_beyond_their_ends():
    alone, across = denet().eval(), denet(filter_across=True).eval()
    x = sounds(size=1)
    maps = across.filters(x)[0]
    with torch.no_grad():
        kept = alone.filters(x.view(10, STEP))
        inside = slice(15, STEP - 15)
        torch.testing.assert_close(
            maps.unflatten(-1, (10, STEP)).transpose(0, 1)[..., inside], kept[..., inside]
        )
        assert not torch.allclose(alone(x).frame_logit, across(x).frame_logit, atol=1e-5)


# ------------------------------------------------------------------------------- time and labels


def events(*spans):
    onset, offset = np.array(spans, dtype=np.float64).T
    n = len(spans)
    return EventArrays(np.zeros(n, int), onset, offset, np.ones(n), np.ones(n), np.zeros(n, bool))


def targets(spans, n, first=0, frame_ms=50.0):
    """Targets of a window of n samples at 250 kHz with frames of `frame_ms`."""
    config = Config(audio={"sample_rate": BAT}, features={"kind": "wave", "f_max_hz": None})
    step = round(frame_ms * 1e-3 * BAT)
    grid = grid_of(n, front_end_of(config).hop_s, 0.0, first, step)
    rule = WindowConfig(length_s=n / BAT)
    return window_targets(events(*spans), 1, grid, rule, DataConfig(annotation="complete"))


@pytest.mark.parametrize("frame_ms", [50.0, 4.0, 1.0])
def test_a_whole_call_inside_a_window_is_one_on_its_frames(frame_ms):
    step = frame_ms * 1e-3
    call = (0.1 + 3 * step, 0.1 + 7 * step)  # on the edges of frames
    found = targets([call], round(0.1 * BAT) * 9, round(0.1 * BAT), frame_ms)
    assert found.clip_target[0] == 1
    expected = np.zeros(found.frame_target.shape[1])
    expected[3:7] = 1
    np.testing.assert_allclose(found.frame_target[0], expected, atol=1e-6)
    assert (found.frame_mask > 0).all()


def test_labels_are_shares_and_symmetric_in_time():
    n = 125_000
    call = (0.12, 0.26)
    found = targets([call], n).frame_target[0]
    np.testing.assert_allclose(found[:7], [0, 0, 0.6, 1, 1, 0.2, 0], atol=1e-6)
    mirrored = targets([(0.5 - call[1], 0.5 - call[0])], n).frame_target[0]
    np.testing.assert_allclose(mirrored[::-1], found, atol=1e-6)
    assert targets([(0.6, 0.7)], n).frame_target.sum() == 0


def test_events_at_the_first_sample_and_at_the_end_survive():
    found = targets([(0.0, 0.05), (0.45, 0.5)], 125_000).frame_target[0]
    np.testing.assert_allclose(found, [1, 0, 0, 0, 0, 0, 0, 0, 0, 1], atol=1e-6)


# --------------------------------------------------------------------------------------- learning


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("denet", {"filter_across": True, "dropout": 0.0, "map_dropout": 0.0, "conv_dropout": 0.0}),
        ("denet", {"output": "softmax", "dropout": 0.0, "map_dropout": 0.0, "conv_dropout": 0.0}),
        ("sincnet", {"context_ms": 4.0}),
    ],
)
def test_a_small_model_learns_calls_in_noise(name, params):
    """The earlier system only ever said "nothing": here loss falls and both answers are given."""
    small = {key: value for key, value in SMALL.items() if name == "denet" or key in SINCNET_TOO}
    torch.manual_seed(0)
    model = create_model(name, {**small, "spacing": "linear", **params}, 1, 1).train()
    x = 0.1 * sounds(size=8)
    target = torch.zeros(8, 1, 10)
    target[:, 0, 3:6] = 1
    tone = torch.sin(2 * torch.pi * 9_000 / 32_000 * torch.arange(10 * STEP))
    x += 0.3 * tone * target[:, 0].repeat_interleave(STEP, dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(x).frame_logit, target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    said = model(x).frame_logit.detach() > 0
    assert losses[-1] < 0.3 * losses[0]
    assert said[target > 0].float().mean() > 0.9
    assert said[target == 0].float().mean() < 0.1


SINCNET_TOO = ("sample_rate", "frame_ms", "n_filters", "kernel", "channels", "pool", "dense")


# ----------------------------------------------------------------------- in the rest of the house


def wave_config(**params):
    model = {"name": "denet", "params": {**SMALL, "sample_rate": BAT, "frame_ms": 4.0, **params}}
    return Config(
        audio={"sample_rate": BAT},
        features={"kind": "wave"},
        window={"length_s": 0.04},
        model=model,
    )


def test_the_rate_that_a_model_is_told_must_be_that_of_the_sound():
    """The earlier system heard 250 kHz as 8 kHz without noticing."""
    check_config(wave_config())
    with pytest.raises(CanopyError, match=r"sample_rate is 8000, audio.sample_rate 250000"):
        check_config(wave_config(sample_rate=8_000))


def test_whole_recordings_are_scored_on_the_grid_of_frames(tmp_path):
    """Windows of 10 frames over 37 and a bit; every frame of 4 ms has a score."""
    config = wave_config()
    n = 37 * 1_000 + 311
    wave = np.random.default_rng(0).integers(-3000, 3000, n).astype(np.int16)
    write_features(tmp_path / "a.npz", wave, sample_rate=BAT, hop_length=1, duration=n / BAT)
    row = {"recording_id": "a", "file": "a.npz", "n_frames": n, "duration": n / BAT}
    write_csv(tmp_path / "manifest.csv", pd.DataFrame([{**row, "status": "ok", "reason": ""}]))
    torch.manual_seed(0)
    model = create_model("denet", config.model.params, 1, 1).eval()
    scores = score_recordings(model, FeatureStore(tmp_path, config), ["a"], ["call"], "cpu")
    assert scores.hop_s == pytest.approx(0.004)
    assert scores.start_s == 0.0
    assert scores.frames[0].shape == (1, 37)
    assert np.isfinite(scores.frames[0]).all()
    with torch.inference_mode():
        first = model(torch.from_numpy(wave[:10_000].astype(np.float32) / 32768)[None])
    np.testing.assert_allclose(scores.frames[0][0, :5], first.frame_logit[0, 0, :5], atol=1e-5)
