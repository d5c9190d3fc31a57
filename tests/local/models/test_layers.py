"""Input layers and heads against independent statements of what they compute."""

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

from local.models import create_model
from local.models.common import CommonParams, input_layers, n_channels, smooth_cells
from local.models.heads import AttentionHead, PoolHead, TokenHead
from local.models.input_layers import FrequencyCoordinate, LevelNorm
from local.models.pcen import Pcen
from local.models.sequence import positions

BANDS, CLASSES = 32, 3


def windows(n_frames, size=2, seed=0):
    return torch.randn(size, 1, BANDS, n_frames, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------- the heads


def silent_head(level):
    head = AttentionHead(4, CLASSES)
    torch.nn.init.zeros_(head.classes.weight)
    torch.nn.init.constant_(head.classes.bias, level)
    return head.eval()


def test_attention_can_say_no():
    """32 frames of logit -10 give a clip probability of 5e-5, not near one half.

    Pins defect 23 of earlier systems: attention could not say that a class is absent.
    """
    with torch.inference_mode():
        output = silent_head(-10.0)(torch.randn(2, 4, 32))
    torch.testing.assert_close(output.frame_logit, torch.full((2, CLASSES, 32), -10.0))
    probability = torch.sigmoid(output.clip_logit)
    torch.testing.assert_close(
        probability, torch.full_like(probability, 4.54e-5), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize("kind", ["attention", "max", "mean", "token"])
def test_silence_of_the_activity_output_changes_no_score(kind):
    """A logit that is multiplied by a mask of 0 would stand for a probability of .5.

    Pins defect 24 of earlier systems: silence became a probability of one half.
    """
    torch.manual_seed(0)
    if kind == "attention":
        head = AttentionHead(4, CLASSES, activity=True)
    elif kind == "token":
        head = TokenHead(4, CLASSES, activity=True)
    else:
        head = PoolHead(4, CLASSES, kind, activity=True)
    x = torch.randn(2, 4, 9)
    scored = []
    for level in (50.0, -50.0):
        torch.nn.init.constant_(head.activity.bias, level)
        with torch.inference_mode():
            scored.append(head.eval()(x))
    loud, silent = scored
    assert (silent.activity_logit < -40).all()
    torch.testing.assert_close(silent.frame_logit, loud.frame_logit, rtol=0, atol=0)
    torch.testing.assert_close(silent.clip_logit, loud.clip_logit, rtol=0, atol=0)


def test_attention_is_a_mean_weighted_by_a_softmax():
    torch.manual_seed(0)
    head = AttentionHead(4, CLASSES).eval()
    x = torch.randn(2, 4, 9)
    output = head(x)
    weights = torch.exp(head.attention(x).double())
    weights /= weights.sum(dim=-1, keepdim=True)
    expected = (weights * head.classes(x).double()).sum(dim=-1)
    torch.testing.assert_close(output.clip_logit.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.embedding, x.mean(dim=-1))


def test_scores_are_logits():
    """No non-linearity inside; twice the weights, twice the logits.

    Pins defect 26 of earlier systems: scores went through the sigmoid more than once.
    """
    torch.manual_seed(0)
    head = AttentionHead(4, CLASSES).eval()
    torch.nn.init.zeros_(head.classes.bias)
    x = torch.randn(2, 4, 9)
    before = head(x).frame_logit
    with torch.no_grad():
        head.classes.weight *= 10
    torch.testing.assert_close(head(x).frame_logit, 10 * before)


def test_frequency_coordinate_rises_from_minus_one_to_one():
    y = FrequencyCoordinate()(windows(7))
    assert y.shape == (2, 2, BANDS, 7)
    torch.testing.assert_close(y[1, 1, :, 3], torch.linspace(-1, 1, BANDS))
    torch.testing.assert_close(y[:, :1], windows(7))


def test_level_norm_takes_away_what_sounds_all_the_time():
    x = windows(50)
    hum = 5 * torch.randn(2, 1, BANDS, 1)
    torch.testing.assert_close(LevelNorm()(x + hum), LevelNorm()(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_the_simple_head_pools_logits(how):
    torch.manual_seed(0)
    head = PoolHead(4, CLASSES, how, activity=True).eval()
    x = torch.randn(2, 4, 9)
    output = head(x)
    logits = np.einsum("cd,bdt->bct", head.classes.weight[..., 0].detach().numpy(), x.numpy())
    logits += head.classes.bias.detach().numpy()[:, None]
    np.testing.assert_allclose(output.frame_logit.detach().numpy(), logits, atol=1e-5)
    pooled = logits.max(axis=-1) if how == "max" else logits.mean(axis=-1)
    np.testing.assert_allclose(output.clip_logit.detach().numpy(), pooled, atol=1e-5)
    assert output.activity_logit.shape == (2, 1, 9)


def test_the_token_scores_the_window_and_the_cells_themselves():
    torch.manual_seed(0)
    head = TokenHead(4, CLASSES, activity=True).eval()
    x = torch.randn(2, 4, 10)
    output = head(x)
    assert output.frame_logit.shape == (2, CLASSES, 9)
    assert output.activity_logit.shape == (2, 1, 9)
    torch.testing.assert_close(output.clip_logit, x[..., 0] @ head.clip.weight.T + head.clip.bias)
    torch.testing.assert_close(output.embedding, x[..., 0])
    y = x.clone()
    y[..., 3] += 5
    torch.testing.assert_close(head(y).clip_logit, output.clip_logit)
    changed = (head(y).frame_logit != output.frame_logit).any(dim=1)[0]
    assert changed.nonzero().flatten().tolist() == [2]


# ----------------------------------------------------------------------------------- input layers


def power(n_frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(BANDS, n_frames)) * np.logspace(-9, 0, BANDS)[:, None]


@pytest.mark.parametrize("n_frames", [1, 127, 128, 129, 700])
def test_pcen_is_that_of_librosa(n_frames):
    """librosa filters with SciPy and takes the power times 2^31, as its documentation advises."""
    smooth, gain, bias, exponent = 0.04, 0.9, 1.5, 0.4
    layer = Pcen(BANDS, smooth, gain, bias, exponent, trainable=False)
    energy = power(n_frames)
    expected = librosa.pcen(
        energy * 2.0**31,
        gain=gain,
        bias=bias,
        power=exponent,
        b=smooth,
        eps=1e-6,
        zi=(1 - smooth) * energy[:, :1] * 2.0**31,
    )
    found = layer(torch.log(torch.tensor(energy))[None, None].float())[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=3e-5, atol=1e-6)


def test_the_running_level_is_the_recursion():
    layer = Pcen(BANDS, 0.025, 0.98, 2.0, 0.5, trainable=True)
    energy = power(1000)
    b, a = [0.025], [1, -0.975]
    expected = scipy.signal.lfilter(b, a, energy, axis=1, zi=0.975 * energy[:, :1])[0]
    found = layer.level(torch.tensor(energy).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def test_pcen_learns_and_takes_a_constant_gain_away():
    layer = Pcen(BANDS, 0.025, 1.0, 2.0, 0.5, trainable=True)
    x = torch.log(torch.tensor(power(300))).float()[None, None]
    # Ten times the power everywhere is another microphone; with gain 1 nothing changes.
    torch.testing.assert_close(layer(x + np.log(10.0)), layer(x), atol=1e-3, rtol=1e-3)
    layer(x).square().mean().backward()
    assert {name for name, p in layer.named_parameters() if p.grad.abs().sum() > 0} == {
        "log_gain",
        "log_bias",
        "log_power",
    }


def test_pcen_at_the_floor_and_in_half_precision_is_finite():
    layer = Pcen(BANDS, 0.025, 0.98, 2.0, 0.5, trainable=True)
    x = torch.full((2, 1, BANDS, 300), float(np.log(1e-10)))
    x[..., 150:] = 3.0
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.to(torch.bfloat16).float())
    assert y.dtype == torch.float32
    assert torch.isfinite(y).all()
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize(
    ("in_channels", "coordinate", "expected"),
    [(1, False, "x"), (3, False, "xxx"), (1, True, "xc"), (3, True, "xxc")],
)
def test_channels_of_the_trunk(in_channels, coordinate, expected):
    """A coordinate is a second channel, or takes the place of the third."""
    params = CommonParams(in_channels=in_channels, frequency_coordinate=coordinate, norm="none")
    x = windows(7)
    y = input_layers(params, BANDS)(x)
    assert y.shape[1] == n_channels(params) == len(expected)
    ramp = torch.linspace(-1, 1, BANDS)[:, None].expand(BANDS, 7)
    for channel, kind in enumerate(expected):
        torch.testing.assert_close(y[1, channel], x[1, 0] if kind == "x" else ramp)


def test_smoothing_is_the_maximum_plus_the_mean_of_neighbours():
    x = torch.tensor([[[1.0, 5.0, 3.0, -1.0]]])
    expected = [5 + 2.0, 5 + 3.0, 5 + 7 / 3, 3 + 2 / 3]
    torch.testing.assert_close(smooth_cells(x)[0, 0], torch.tensor(expected))


def test_positions_are_sines_and_cosines_of_any_length():
    found = positions(50, 8, torch.zeros(1)).numpy()
    place = np.arange(50)[:, None]
    angle = place / 10000.0 ** (np.arange(0, 8, 2) / 8)
    np.testing.assert_allclose(found[:, 0::2], np.sin(angle), atol=1e-5)
    np.testing.assert_allclose(found[:, 1::2], np.cos(angle), atol=1e-5)
    np.testing.assert_array_equal(positions(9, 8, torch.zeros(1)).numpy(), found[:9])


def test_the_level_is_a_channel_beside_the_change():
    """A steady tone has no change; its level is the last channel, untouched by level_norm."""
    params = CommonParams(level_norm=True, level_channel=True, norm="none")
    x = windows(20)
    y = input_layers(params, BANDS)(x)
    assert y.shape[1] == n_channels(params) == 2
    torch.testing.assert_close(y[:, 1], x[:, 0])
    torch.testing.assert_close(y[:, 0], (x - x.mean(dim=-1, keepdim=True))[:, 0])
    three = CommonParams(level_norm=True, level_channel=True, in_channels=3, norm="none")
    assert input_layers(three, BANDS)(x).shape[1] == n_channels(three) == 3
    with pytest.raises(ValueError, match="goes with level_norm"):
        CommonParams(level_channel=True)


@pytest.mark.parametrize("shape", [(32, 64), (33, 41)])
def test_a_striding_stem_sees_what_pooling_sees(shape):
    # A 3x3 convolution and the mean of 2x2 cells are one 4x4 convolution in steps of 2.
    params = {"channels": [4, 6], "pool": [[2, 2], [2, 2]], "depth": 1}
    pooled = create_model("crnn", params, CLASSES, BANDS).blocks
    striding = create_model("crnn", {**params, "stem": "stride"}, CLASSES, BANDS).blocks
    small = pooled[0].weight.detach()
    large = torch.zeros_like(striding[0].weight)
    for row in range(2):
        for column in range(2):
            large[:, :, row : row + 3, column : column + 3] += small / 4
    x = torch.randn(2, small.shape[1], *shape, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.avg_pool2d(pooled[0](x), 2)
    found = torch.nn.functional.conv2d(x, large, stride=2, padding=striding[0].padding)
    assert striding[0].stride == (2, 2)
    torch.testing.assert_close(found, expected)
    assert len(striding) == len(pooled) - 1
