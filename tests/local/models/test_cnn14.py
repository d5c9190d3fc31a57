"""Cnn14 against the public checkpoints: names, shapes, what it computes, what is taken over.

The published files themselves are not here; files of their names and shapes are made.
"""

import io
import logging
import zipfile

import numpy as np
import pytest
import torch
from torch.nn import functional

from local.io.errors import CanopyError
from local.models import create_model

PUBLIC = [64, 128, 256, 512, 1024, 2048]
THIN = [6, 6, 8, 8, 8, 10]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def public_shapes(channels, n_bands=64, n_classes=527, n_fft=1024, kind="attention"):
    """Names and shapes as published: `attention` for decision level, `plain` for tagging."""
    bins = n_fft // 2 + 1
    shapes = {
        "spectrogram_extractor.stft.conv_real.weight": (bins, 1, n_fft),
        "spectrogram_extractor.stft.conv_imag.weight": (bins, 1, n_fft),
        "logmel_extractor.melW": (bins, n_bands),
    }

    def add_norm(name, n):
        shapes.update({f"{name}.{part}": (n,) for part in BATCH_NORM})
        shapes[f"{name}.num_batches_tracked"] = ()

    add_norm("bn0", n_bands)
    n_in = 1
    for block, n_out in enumerate(channels, start=1):
        shapes[f"conv_block{block}.conv1.weight"] = (n_out, n_in, 3, 3)
        shapes[f"conv_block{block}.conv2.weight"] = (n_out, n_out, 3, 3)
        add_norm(f"conv_block{block}.bn1", n_out)
        add_norm(f"conv_block{block}.bn2", n_out)
        n_in = n_out
    shapes["fc1.weight"] = (n_in, n_in)
    shapes["fc1.bias"] = (n_in,)
    if kind == "attention":
        for part in ("att", "cla"):
            shapes[f"att_block.{part}.weight"] = (n_classes, n_in, 1)
            shapes[f"att_block.{part}.bias"] = (n_classes,)
        add_norm("att_block.bn_att", n_classes)
    else:
        shapes["fc_audioset.weight"] = (n_classes, n_in)
        shapes["fc_audioset.bias"] = (n_classes,)
    return shapes


def public_weights(**options):
    """Random weights that let a signal through: it must come out, or nothing is compared."""
    generator = torch.Generator().manual_seed(11)
    weights = {}
    for name, shape in public_shapes(THIN, n_fft=64, **options).items():
        value = torch.randn(shape, generator=generator)
        if name.endswith("tracked"):
            value = torch.tensor(100)
        elif name.endswith("running_var"):
            value = 1 + 0.2 * value.abs()
        elif name.endswith("running_mean"):
            value = 0.2 * value
        elif len(shape) == 1:
            value = (1 if name.endswith("weight") else 0.2) + 0.2 * value
        else:
            value *= (2 / (value[0].numel())) ** 0.5
        if name.startswith("bn0.running"):
            value = 20 * value - 40 if name.endswith("mean") else 400 * value
        weights[name] = value
    return weights


def write(path, weights, **beside):
    torch.save({"iteration": 600000, "model": weights, **beside}, path)
    return str(path)


def cnn14(n_bands=64, n_classes=3, **params):
    torch.manual_seed(0)
    return create_model("cnn14", {"channels": THIN, **params}, n_classes, n_bands)


def public_forward(weights, x):
    """The published network in evaluation mode, from decibels (B, 1, T, F) to cell logits."""

    def norm(x, name):
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return functional.batch_norm(
            x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5
        )

    x = norm(x.transpose(1, 3), "bn0").transpose(1, 3)
    for block in range(1, 7):
        name = f"conv_block{block}"
        for layer in ("1", "2"):
            x = functional.conv2d(x, weights[f"{name}.conv{layer}.weight"], padding=1)
            x = functional.relu(norm(x, f"{name}.bn{layer}"))
        if block < 6:
            x = functional.avg_pool2d(x, 2)
    x = x.mean(dim=3)
    x = functional.max_pool1d(x, 3, 1, 1) + functional.avg_pool1d(x, 3, 1, 1)
    x = functional.relu(
        functional.linear(x.transpose(1, 2), weights["fc1.weight"], weights["fc1.bias"])
    )
    x = x.transpose(1, 2)
    if "fc_audioset.weight" in weights:
        bias = weights["fc_audioset.bias"]
        return functional.linear(x.transpose(1, 2), weights["fc_audioset.weight"], bias), None
    att, cla = (
        functional.conv1d(x, weights[f"att_block.{part}.weight"], weights[f"att_block.{part}.bias"])
        for part in ("att", "cla")
    )
    return cla, torch.softmax(att.clamp(-10, 10), dim=-1)


def natural_log(n_frames=131, n_bands=64):
    return torch.randn(2, 1, n_bands, n_frames, generator=torch.Generator().manual_seed(5)) * 4 - 9


@pytest.mark.slow
def test_names_and_shapes_are_those_of_the_public_checkpoint_and_it_runs():
    model = create_model("cnn14", {}, 527, 64).eval()
    expected = {
        name: shape
        for name, shape in public_shapes(PUBLIC).items()
        if not name.startswith(("spectrogram_extractor.", "logmel_extractor."))
    }
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected
    # 80,753,615 is the published count of the tagging network; the attention is a second layer.
    plain = 80_753_615
    n_parameters = sum(p.numel() for p in model.parameters())
    assert n_parameters == plain + 2048 * 527 + 527
    with torch.inference_mode():
        output = model(natural_log(128))
    assert model.step == 32
    assert output.frame_logit.shape == (2, 527, 4)
    assert output.embedding.shape == (2, 2048)


def test_a_public_checkpoint_computes_what_it_was_published_to(tmp_path):
    """Every layer taken over, front end alike: cells and window from natural-log mel."""
    weights = public_weights(n_classes=3)
    model = cnn14(weights=write(tmp_path / "a.pth", weights)).eval()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[name], msg=name)
    x = natural_log()
    decibels = 10 * torch.log10(torch.exp(x)).transpose(2, 3)
    cells, attention = public_forward(weights, decibels)
    with torch.inference_mode():
        output = model(x)
    torch.testing.assert_close(output.frame_logit, cells, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        output.clip_logit, (attention * cells).sum(dim=-1), atol=1e-4, rtol=1e-4
    )
    # What another scale of the input would give is far from it.
    assert (public_forward(weights, 0.9 * decibels)[0] - cells).abs().max() > 0.01


def test_the_plain_network_computes_with_the_simple_head(tmp_path):
    weights = public_weights(n_classes=3, kind="plain")
    model = cnn14(weights=write(tmp_path / "a.pth", weights), head="max").eval()
    x = natural_log()
    cells, _ = public_forward(weights, 10 * torch.log10(torch.exp(x)).transpose(2, 3))
    with torch.inference_mode():
        output = model(x)
    torch.testing.assert_close(output.frame_logit, cells.transpose(1, 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.clip_logit, cells.amax(dim=1), atol=1e-4, rtol=1e-4)


def taken(own, weights):
    """Parts whose layers are the file's."""
    parts = {
        "bn0": "bn0.running_mean",
        "trunk": "conv_block6.conv2.weight",
        "fc1": "fc1.weight",
        "classes": "att_block.cla.weight",
    }
    return {
        part
        for part, key in parts.items()
        if key in weights
        and key in own
        and own[key].shape == weights[key].shape
        and torch.equal(own[key], weights[key])
    }


@pytest.mark.parametrize(
    ("n_bands", "params", "kind", "expected"),
    [
        (64, {}, "attention", {"bn0", "trunk", "fc1"}),
        (128, {}, "attention", {"trunk", "fc1"}),
        (64, {}, "plain", {"bn0", "trunk", "fc1"}),
        (128, {}, "plain", {"trunk", "fc1"}),
        (64, {"level_norm": True}, "attention", {"trunk", "fc1"}),
        (64, {"pcen": True}, "attention", {"trunk", "fc1"}),
        (64, {"norm": "none"}, "attention", {"trunk", "fc1"}),
        (64, {"activity": True}, "attention", {"bn0", "trunk", "fc1"}),
    ],
)
def test_the_front_end_is_kept_or_replaced_and_every_skipped_key_is_listed(
    tmp_path, caplog, n_bands, params, kind, expected
):
    """Pins defect 28 of earlier systems: pretrained weights were left out without a word."""
    weights = public_weights(kind=kind)
    path = write(tmp_path / "a.pth", weights)
    with caplog.at_level(logging.INFO, "canopy"):
        model = cnn14(n_bands, weights=path, **params)
    own = model.state_dict()
    assert taken(own, weights) == expected
    assert (model.bn0 is None) == (params.get("norm") == "none")
    listed = caplog.text
    for key, value in weights.items():
        if key not in own or own[key].shape != value.shape or not torch.equal(own[key], value):
            assert key in listed, key
    if n_bands == 128:
        assert torch.equal(model.bn0.running_mean, torch.zeros(128))
        assert "made anew: bn0.weight" in listed
    with torch.inference_mode():
        assert torch.isfinite(model.eval()(natural_log(64, n_bands)).clip_logit).all()


@pytest.mark.parametrize(
    ("params", "factors"),
    [
        ({"frequency_coordinate": True}, [1, 0]),
        ({"in_channels": 3}, [1 / 3, 1 / 3, 1 / 3]),
        ({"in_channels": 3, "frequency_coordinate": True}, [0.5, 0.5, 0]),
    ],
)
def test_more_channels_begin_as_the_one_that_was(tmp_path, params, factors):
    weights = public_weights(n_classes=3)
    path = write(tmp_path / "a.pth", weights)
    one, more = cnn14(weights=path).eval(), cnn14(weights=path, **params).eval()
    first = more.state_dict()["conv_block1.conv1.weight"]
    assert first.shape[1] == len(factors)
    for channel, factor in enumerate(factors):
        expected = factor * weights["conv_block1.conv1.weight"][:, 0]
        torch.testing.assert_close(first[:, channel], expected)
    x = natural_log()
    with torch.inference_mode():
        torch.testing.assert_close(more(x).clip_logit, one(x).clip_logit, atol=1e-4, rtol=1e-4)


def old_names(path):
    """As NumPy 1 would have written it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):
                content = content.replace(b"numpy._core.", b"numpy.core.")
            archive.writestr(name, content)
    path.write_bytes(stream.getvalue())


@pytest.mark.parametrize("old", [False, True])
def test_counters_and_arrays_beside_the_weights_do_no_harm(tmp_path, old):
    """Published files may hold the state of their sampler as arrays."""
    weights = public_weights(n_classes=3)
    path = tmp_path / "a.pth"
    sampler = {"indexes": np.arange(5), "pointer": np.int64(3), "queue": [np.float64(0.5)]}
    write(path, weights, sampler=sampler)
    if old:
        old_names(path)
        assert b"numpy.core.multiarray" in path.read_bytes()
    assert torch.equal(cnn14(weights=str(path)).fc1.weight, weights["fc1.weight"])


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("wrap", [lambda bomb: bomb, lambda bomb: np.array([bomb, None])])
def test_objects_beside_the_weights_are_refused_and_not_run(tmp_path, wrap):
    flag = tmp_path / "ran"
    path = write(tmp_path / "a.pth", public_weights(), sampler=wrap(Bomb(flag)))
    with pytest.raises(CanopyError, match=r"a\.pth is no file of tensors"):
        cnn14(weights=path)
    assert not flag.exists()


@pytest.mark.slow
def test_another_network_of_the_kind_is_refused(tmp_path):
    weights = public_weights()
    more = {**weights, "pre_conv0.weight": torch.zeros(3)}
    with pytest.raises(CanopyError, match=r"has pre_conv0\.weight, which the model does not know"):
        cnn14(weights=write(tmp_path / "a.pth", more))
    less = {key: value for key, value in weights.items() if "conv_block6" not in key}
    with pytest.raises(CanopyError, match=r"has no weights for conv_block6\.conv1\.weight; "):
        cnn14(weights=write(tmp_path / "b.pth", less))
    path = write(tmp_path / "c.pth", weights)
    with pytest.raises(
        CanopyError, match=r"conv_block1\.conv1\.weight as \(6, 1, 3, 3\), the model"
    ):
        create_model("cnn14", {"weights": path}, 3, 64)


def test_attention_can_say_no_in_cnn14():
    """Cells of logit -10 give a window of 5e-5; logits, no sigmoid inside.

    Pins defect 23 of earlier systems: attention could not say that a class is absent.
    Pins defect 26 of earlier systems: scores went through the sigmoid more than once.
    """
    model = cnn14().eval()
    torch.nn.init.zeros_(model.att_block.cla.weight)
    torch.nn.init.constant_(model.att_block.cla.bias, -10.0)
    with torch.inference_mode():
        output = model(natural_log(32 * 32))
    assert output.frame_logit.shape[-1] == 32
    torch.testing.assert_close(output.frame_logit, torch.full((2, 3, 32), -10.0))
    probability = torch.sigmoid(output.clip_logit)
    torch.testing.assert_close(
        probability, torch.full_like(probability, 4.54e-5), rtol=1e-2, atol=0
    )


def test_attention_is_bounded_as_published(tmp_path):
    weights = public_weights(n_classes=3)
    weights["att_block.att.weight"] *= 1e4
    model = cnn14(weights=write(tmp_path / "a.pth", weights)).eval()
    x = natural_log()
    cells, attention = public_forward(weights, 10 * torch.log10(torch.exp(x)).transpose(2, 3))
    with torch.inference_mode():
        found = model(x).clip_logit
    torch.testing.assert_close(found, (attention * cells).sum(dim=-1), atol=1e-4, rtol=1e-4)
    # Two cells at the bound share the weight, which an unbounded softmax would give to one.
    assert ((attention > 0.05).sum(dim=-1) > 1).any()
