"""Every registered model keeps the contract: shapes, gradients, evaluation, any length."""

from pathlib import Path

import pytest
import torch

from local.io.errors import CanopyError
from local.models import create_model, model_names
from local.models.checkpoint import load_model, model_state, save_checkpoint
from local.models.sed_model import SedModel, SedOutput, registered

BANDS, CLASSES = 32, 3
LABELS = ["a", "b", "c"]
TINY = {"channels": [4, 6], "pool": [[2, 2], [2, 2]], "gru": 5}
THIN = {"channels": [2, 3, 4, 4, 5, 6]}
SHORT = {"width": 16, "n_blocks": 2, "n_heads": 2, "feed_forward": 24}
SMALL = "mobilenetv3_small_050"
# Raw waveforms: frames of 4 ms, 128 samples.
SAMPLES = 16  # in what is called a frame below
SINC = {"sample_rate": 32_000, "n_filters": 6, "kernel": 31, "frame_ms": 4.0}
CONVOLUTIONS = {"channels": [5, 6], "pool": [2, 2, 2]}
CHUNKS = {**SINC, **CONVOLUTIONS, "context_ms": 4.0, "dense": [9, 8], "dropout": 0.1}
BRANCH = {"de_channels": [3, 4], "de_strides": [2, 3], "de_hidden": [5]}
FRAMES = {**SINC, **CONVOLUTIONS, **BRANCH, "gru": 7, "dense": [9, 8], "map_dropout": 0.0}
# The backbones of earlier systems; the largest have their own test below.
CASES = {
    "crnn": ("crnn", {}),
    "crnn-tiny": ("crnn", {**TINY, "depth": [2, 1], "activity": True, "level_norm": True}),
    "crnn-level": ("crnn", {**TINY, "level_norm": True, "level_channel": True}),
    "crnn-stride": ("crnn", {**TINY, "stem": "stride", "depth": [2, 1], "gru": 0}),
    "crnn-plain": ("crnn", {**TINY, "gru": 0, "depth": 1, "frequency_coordinate": False}),
    "cnn14": ("cnn14", THIN),
    "cnn14-max": ("cnn14", {**THIN, "head": "max", "activity": True, "hidden": 7}),
    "transformer": ("transformer", {}),
    "transformer-frames": ("transformer", {**SHORT, "downsample": [], "head": "attention"}),
    "conformer": ("conformer", {**SHORT, "downsample": [3, 1, 2], "kernel": 7, "activity": True}),
    "resnet18": ("timm", {"backbone": "resnet18"}),
    "resnet18-level": (
        "timm",
        {"backbone": "resnet18", "in_channels": 3, "level_norm": True, "level_channel": True},
    ),
    "resnet18-options": (
        "timm",
        {
            "backbone": "resnet18",
            "level": -2,
            "in_channels": 3,
            "hidden": 8,
            "activity": True,
            "level_norm": True,
        },
    ),
    "efficientnet_b0": ("timm", {"backbone": "efficientnet_b0", "frequency_coordinate": True}),
    "efficientnet_b0-simple": (
        "timm",
        {"backbone": "efficientnet_b0", "head": "max", "frequency_pool": "mean_max"},
    ),
    "mobilenetv2_100": ("timm", {"backbone": "mobilenetv2_100"}),
    "rexnet_100": ("timm", {"backbone": "rexnet_100", "in_channels": 3}),
    SMALL: ("timm", {"backbone": SMALL}),
    "sincnet": ("sincnet", CHUNKS),
    "sincnet-context": ("sincnet", {**CHUNKS, "context_ms": 5.0, "input_norm": "window"}),
    "denet": ("denet", FRAMES),
    "denet-after": ("denet", {**FRAMES, "before_pooling": False, "activity": True}),
    "denet-softmax": ("denet", {**FRAMES, "output": "softmax", "head": "attention"}),
    "denet-across": ("denet", {**FRAMES, "filter_across": True, "checkpoint": True}),
}
WAVES = {"sincnet": CHUNKS, "denet": FRAMES}
SMALLEST = {
    "crnn": TINY,
    "cnn14": THIN,
    "timm": {"backbone": SMALL},
    "transformer": SHORT,
    "conformer": {**SHORT, "kernel": 3},
}
# What every family that takes log-mel must honour.
OPTIONS = {
    "pcen": {"pcen": True},
    "pcen-fixed": {"pcen": True, "pcen_trainable": False, "norm": "none"},
    "coordinate": {"frequency_coordinate": True},
    "pictures": {"in_channels": 3, "norm": "none", "level_norm": True},
    "pictures-coordinate": {"in_channels": 3, "frequency_coordinate": True},
    "max": {"head": "max", "smooth": True, "activity": True},
    "mean": {"head": "mean", "hidden": 6},
    "attention": {"head": "attention", "hidden": 6, "smooth": True, "dropout": 0.5},
}


def build(case, seed=0) -> SedModel:
    name, params = CASES[case]
    torch.manual_seed(seed)
    return create_model(name, params, CLASSES, BANDS)


def windows(n_frames, size=2, seed=0, case="crnn"):
    shape = (n_frames * SAMPLES,) if CASES[case][0] in WAVES else (1, BANDS, n_frames)
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(seed))


def n_cells(n_frames, case):
    model = build(case)
    return (n_frames * SAMPLES if model.input == "waveform" else n_frames) // model.step


def test_every_registered_name_is_tried_here():
    """A new family must come with a case."""
    assert {name for name, _ in CASES.values()} == set(model_names())


@pytest.mark.parametrize("name", [*SMALLEST, *WAVES])
def test_every_parameter_is_explained(name):
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    missing = [key for key in registered()[name][0].model_fields if f"`{key}`" not in page]
    assert missing == []
    assert f"`{name}`" in page


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_shapes_at_any_length(case):
    """T' = T // step.

    Pins defect 27 of earlier systems: normalisation tied a model to one window length.
    """
    model = build(case).eval()
    wants_activity = CASES[case][1].get("activity", False)
    for n_frames in (64, 95, 131):
        with torch.inference_mode():
            output = model(windows(n_frames, case=case))
        cells = n_cells(n_frames, case)
        assert isinstance(output, SedOutput)
        assert output.frame_logit.shape == (2, CLASSES, cells)
        assert output.clip_logit.shape == (2, CLASSES)
        assert output.embedding.ndim == 2
        assert len(output.embedding) == 2
        assert (output.activity_logit is not None) == wants_activity
        if wants_activity:
            assert output.activity_logit.shape == (2, 1, cells)
        for tensor in (output.frame_logit, output.clip_logit, output.embedding):
            assert tensor.dtype == torch.float32
            assert torch.isfinite(tensor).all()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_parameter_gets_a_gradient(case):
    """Pins defect 4 of earlier systems: the centres of the centre loss were never trained."""
    model = build(case).train()
    with torch.no_grad():
        # Residual branches may begin with a weight of 0, which lets nothing through at first.
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    output = model(windows(96, size=4, case=case))
    loss = output.frame_logit.square().mean() + output.clip_logit.square().mean()
    if output.activity_logit is not None:
        loss = loss + output.activity_logit.square().mean()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    moved = [name for name, p in model.named_parameters() if p.grad.abs().sum() > 0]
    assert len(moved) > 0.9 * len(list(model.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_features_can_be_mixed_before_the_head(case):
    """forward(x, mix) is the head of mix(features(x)); a class token is one column more."""
    model = build(case).eval()
    x = windows(131, size=3, case=case)
    seen = []

    def turn(features):
        seen.append(features)
        return features.flip(0)

    with torch.inference_mode():
        plain, turned = model(x), model(x, mix=turn)
        features = model.features(x)
        torch.testing.assert_close(seen[0], features)
        half = model(x, mix=lambda f: 0.5 * f + 0.5 * f.flip(0))
    assert features.shape[0] == 3
    has_token = hasattr(model, "token") and model.token is not None
    assert features.shape[2] == n_cells(131, case) + int(has_token)
    for one, other in zip(plain, turned, strict=True):
        if one is not None:
            torch.testing.assert_close(other, one.flip(0))
    torch.testing.assert_close(half.clip_logit[0], half.clip_logit[2])
    assert not torch.equal(half.clip_logit, plain.clip_logit)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", SMALLEST)
def test_every_family_honours_the_common_options(name, option):
    torch.manual_seed(0)
    params = {**SMALLEST[name], **OPTIONS[option]}
    model = create_model(name, params, CLASSES, BANDS).train()
    output = model(windows(96, size=4) - 8)
    loss = output.frame_logit.square().mean() + output.clip_logit.square().mean()
    if params.get("activity"):
        loss = loss + output.activity_logit.square().mean()
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    has_pcen = any("log_gain" in key for key in model.state_dict())
    assert has_pcen == (params.get("pcen", False) and params.get("pcen_trainable", True))
    model.eval()
    for n_frames in (64, 131):
        with torch.inference_mode():
            output = model(windows(n_frames) - 8)
        assert output.frame_logit.shape == (2, CLASSES, n_frames // model.step)
        assert torch.isfinite(output.clip_logit).all()
        frames, clip = output.frame_logit, output.clip_logit
        if params.get("head") == "max":
            torch.testing.assert_close(clip, frames.amax(dim=-1))
        elif params.get("head") == "mean":
            torch.testing.assert_close(clip, frames.mean(dim=-1))
        elif name in ("crnn", "cnn14", "timm") or params.get("head") == "attention":
            assert (clip <= frames.amax(dim=-1) + 1e-5).all()
            assert (clip >= frames.amin(dim=-1) - 1e-5).all()


@pytest.mark.parametrize("option", ["pcen", "max"])
@pytest.mark.parametrize("name", SMALLEST)
def test_scores_are_float32_under_half_precision(name, option):
    torch.manual_seed(0)
    model = create_model(name, {**SMALLEST[name], **OPTIONS[option]}, CLASSES, BANDS)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(windows(96, size=4) - 8)
    for tensor in output:
        if tensor is not None:
            assert tensor.dtype == torch.float32
            assert torch.isfinite(tensor).all()
    (output.frame_logit.mean() + output.clip_logit.mean()).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.slow
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("backbone", ["resnext50_32x4d", "densenet121", "resnest50d"])
def test_the_larger_backbones_build_and_step(backbone, in_channels):
    torch.manual_seed(0)
    params = {"backbone": backbone, "in_channels": in_channels}
    model = create_model("timm", params, CLASSES, BANDS).train()
    assert model.step == 32
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    output = model(windows(64))
    (output.frame_logit.square().mean() + output.clip_logit.square().mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    first = next(p for p in model.backbone.parameters() if p.ndim == 4)
    assert first.shape[1] == in_channels


@pytest.mark.parametrize("n_classes", [24, 26])
@pytest.mark.parametrize("name", SMALLEST)
def test_any_number_of_classes(name, n_classes):
    model = create_model(name, SMALLEST[name], n_classes, BANDS).eval()
    with torch.inference_mode():
        output = model(windows(64))
    assert output.frame_logit.shape[1] == output.clip_logit.shape[1] == n_classes


@pytest.mark.parametrize("n_frames", [512, 2048])
@pytest.mark.parametrize("name", ["transformer", "conformer"])
def test_encoders_take_long_windows_with_one_set_of_weights(name, n_frames):
    """Pins defect 27 of earlier systems: normalisation tied a model to one window length."""
    model = create_model(name, {**SMALLEST[name], "downsample": [2, 2]}, CLASSES, BANDS).eval()
    with torch.inference_mode():
        output = model(windows(n_frames, size=1))
    assert output.frame_logit.shape[-1] == n_frames // 4


@pytest.mark.parametrize("name", ["transformer", "conformer"])
def test_the_class_token_hears_the_whole_window(name):
    model = create_model(name, SMALLEST[name], CLASSES, BANDS).eval()
    x = windows(160, size=1)
    for place in (0, 80, 152):
        y = x.clone()
        y[..., place : place + 8] += 3
        with torch.inference_mode():
            assert not torch.equal(model(x).clip_logit, model(y).clip_logit)


@pytest.mark.parametrize("name", ["transformer", "conformer"])
def test_encoders_know_where_a_cell_is(name):
    torch.manual_seed(0)
    model = create_model(name, SMALLEST[name], CLASSES, BANDS).eval()
    x = windows(1, size=1).expand(-1, -1, -1, 160)
    with torch.inference_mode():
        inner = model(x).frame_logit[..., 5:-5]
    assert inner.std(dim=-1).min() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_save_and_load_round_trip(case, tmp_path):
    """Weights, buffers and parameters of the model come back to the bit."""
    name, params = CASES[case]
    model = build(case)
    model.train()(windows(96, size=4, case=case))  # moves the statistics of the normalisation
    model.eval()
    recipe = {"name": name, "params": params, "n_classes": CLASSES, "n_bands": BANDS}
    save_checkpoint(tmp_path / "best.pt", model_state(model, {**recipe, "labels": LABELS}))
    again = load_model(tmp_path / "best.pt", LABELS)
    assert not again.training
    x = windows(96, seed=1, case=case)
    with torch.inference_mode():
        for one, other in zip(model(x), again(x), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_dropout_is_off_at_inference(case):
    """eval() reaches the whole tree; training does differ.

    Pins defect 5 of earlier systems: dropout was on at inference.
    """
    model = build(case).eval()
    assert not any(module.training for module in model.modules())
    x = windows(96, case=case)
    with torch.inference_mode():
        assert torch.equal(model(x).frame_logit, model(x).frame_logit)
        # Neither does a window's score hang on its neighbours in the batch.
        alone = model(x[:1]).clip_logit
        torch.testing.assert_close(model(x).clip_logit[:1], alone, atol=1e-4, rtol=1e-4)
        model.train()
        assert not torch.equal(model(x).frame_logit, model(x).frame_logit)


@pytest.mark.parametrize("case", ["crnn-tiny", "resnet18"])
def test_the_seed_decides_the_weights(case):
    one, same, other = build(case, 0), build(case, 0), build(case, 1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert any(
        not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("case", ["crnn-tiny", "cnn14", "transformer", "conformer", SMALL])
def test_a_cell_of_the_output_lies_over_its_input_frames(case):
    """What happens late in a window changes late cells more than early ones."""
    model = build(case).eval()
    x = windows(320, size=1)
    louder = x.clone()
    louder[..., 256:] += 3.0
    with torch.inference_mode():
        change = (model(louder).frame_logit - model(x).frame_logit).abs().mean(dim=(0, 1))
    assert int(change.argmax()) * model.step >= 256 - 2 * model.step


# ------------------------------------------------------------------------------------- the errors


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("crn", {}, "model.name is 'crn', expected one of cnn14, .*; the nearest is crnn"),
        ("crnn", {"chanels": [4]}, "unknown key model.params.chanels; the nearest .* channels"),
        ("crnn", {"dropout": 1.0}, "model.params.dropout: .*less than 1, found 1.0"),
        ("crnn", {"channels": [4]}, "channels has 1 .*pool 4"),
        ("crnn", {**TINY, "pool": [[2, 2], [0, 2]]}, "must be 1 or more"),
        ("crnn", {**TINY, "depth": [1]}, "channels has 2 blocks.* depth 1"),
        ("timm", {"backbone": "resnet81"}, "backbone is 'resnet81', .* near: "),
        ("timm", {"backbone": "efficientnet-b0"}, "near: .*efficientnet_b0"),
        ("timm", {"backbone": "resnest50"}, "near: .*resnest50d"),
        ("timm", {"head": "token"}, "model.params.head: .*'attention', 'max' or 'mean'"),
        ("cnn14", {"channels": [4]}, "channels must be six numbers"),
        ("transformer", {"width": 20}, "width 20 must be a multiple of twice n_heads 4"),
        ("transformer", {"downsample": [0]}, "downsample must be strides of 1 or more"),
        ("transformer", {"frequency_pool": "mean"}, "unknown key model.params.frequency_pool"),
        ("conformer", {"kernel": 4}, "kernel must be odd"),
        ("crnn", {"in_channels": 2}, "model.params.in_channels: .*1 or 3, found 2"),
        ("denet", {**FRAMES, "frame_ms": 4.01}, "frame_ms 4.01 is 128.32 samples .* whole samples"),
        ("denet", {**FRAMES, "frame_ms": 0.5}, "convolutions of the enhancement leave no sample"),
        ("denet", {**FRAMES, "pool": [2, 2]}, "pool has 2 entries; .*each of the 2 channels"),
        ("denet", {**FRAMES, "de_strides": [2]}, "de_channels has 2 layers, de_strides 1"),
        ("denet", {**FRAMES, "kernel": 30}, "kernel is 30; an odd number has a middle"),
        ("denet", {**FRAMES, "context_ms": 8.0, "filter_across": True}, "context_ms null"),
        ("denet", {**FRAMES, "f_max_hz": 17e3}, "to 17000 Hz do not fit sample_rate 32000"),
        ("denet", {**FRAMES, "bands_hz": [[1e3, 2e3]]}, "spacing: given goes with bands_hz"),
        ("denet", {**FRAMES, "min_band_hz": 16e3}, "reach beyond half of sample_rate 32000"),
        ("sincnet", {**CHUNKS, "context_ms": 3.0}, "context_ms 3 is shorter than frame_ms 4"),
        ("sincnet", {**CHUNKS, "kernel": 255}, "filters leave no sample"),
    ],
)
def test_faults_of_the_parameters_are_told(name, params, message):
    with pytest.raises(CanopyError, match=message):
        create_model(name, params, CLASSES, BANDS)
