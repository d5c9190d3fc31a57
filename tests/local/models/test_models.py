"""Every registered model keeps the contract: shapes, gradients, evaluation, any length."""

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from local.checkpoint import load_model, model_state, save_checkpoint
from local.errors import CanopyError
from local.models import create_model, model_names, without_start
from local.models.base import SedModel, SedOutput
from local.models.heads import AttentionHead, FrequencyCoordinate, LevelNorm

BANDS, CLASSES = 32, 3
LABELS = ["a", "b", "c"]
TINY = {"channels": [4, 6], "pool": [[2, 2], [2, 2]], "gru": 5}
CASES = {
    "crnn": ("crnn", {}),
    "crnn-tiny": ("crnn", {**TINY, "depth": [2, 1], "activity": True, "level_norm": True}),
    "crnn-plain": ("crnn", {**TINY, "gru": 0, "depth": 1, "frequency_coordinate": False}),
    "resnet18": ("timm", {"backbone": "resnet18"}),
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
    "mobilenetv3_small_050": ("timm", {"backbone": "mobilenetv3_small_050"}),
}
SMALL = "mobilenetv3_small_050"


def build(case, seed=0) -> SedModel:
    name, params = CASES[case]
    torch.manual_seed(seed)
    return create_model(name, params, CLASSES, BANDS)


def windows(n_frames, size=2, seed=0):
    return torch.randn(size, 1, BANDS, n_frames, generator=torch.Generator().manual_seed(seed))


def test_every_registered_name_is_tried_here():
    """A new family must come with a case."""
    assert {name for name, _ in CASES.values()} == set(model_names())


@pytest.mark.parametrize("case", CASES)
def test_shapes_at_any_length(case):
    """T' = T // step (defect 27: one set of weights takes any window length)."""
    model = build(case).eval()
    wants_activity = CASES[case][1].get("activity", False)
    for n_frames in (64, 95, 131):
        with torch.inference_mode():
            output = model(windows(n_frames))
        cells = n_frames // model.step
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


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_gets_a_gradient(case):
    """Defect 4."""
    model = build(case).train()
    with torch.no_grad():
        # Residual branches may begin with a weight of 0, which lets nothing through at first.
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    output = model(windows(96, size=4))
    loss = output.frame_logit.square().mean() + output.clip_logit.square().mean()
    if output.activity_logit is not None:
        loss = loss + output.activity_logit.square().mean()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    moved = [name for name, p in model.named_parameters() if p.grad.abs().sum() > 0]
    assert len(moved) > 0.9 * len(list(model.parameters()))


@pytest.mark.parametrize("case", CASES)
def test_save_and_load_round_trip(case, tmp_path):
    """Weights, buffers and parameters of the model come back to the bit."""
    name, params = CASES[case]
    model = build(case)
    model.train()(windows(96, size=4))  # moves the statistics of the normalisation
    model.eval()
    recipe = {"name": name, "params": params, "n_classes": CLASSES, "n_bands": BANDS}
    save_checkpoint(tmp_path / "best.pt", model_state(model, {**recipe, "labels": LABELS}))
    again = load_model(tmp_path / "best.pt", LABELS)
    assert not again.training
    x = windows(96, seed=1)
    with torch.inference_mode():
        for one, other in zip(model(x), again(x), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("case", CASES)
def test_dropout_is_off_at_inference(case):
    """Defect 5: eval() reaches the whole tree; training does differ."""
    model = build(case).eval()
    assert not any(module.training for module in model.modules())
    x = windows(96)
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


@pytest.mark.parametrize("case", ["crnn-tiny", SMALL])
def test_a_cell_of_the_output_lies_over_its_input_frames(case):
    """What happens late in a window changes late cells more than early ones."""
    model = build(case).eval()
    x = windows(320, size=1)
    louder = x.clone()
    louder[..., 256:] += 3.0
    with torch.inference_mode():
        change = (model(louder).frame_logit - model(x).frame_logit).abs().mean(dim=(0, 1))
    assert int(change.argmax()) * model.step >= 256 - 2 * model.step


# --------------------------------------------------------------------------------------- the head


def silent_head(level):
    head = AttentionHead(4, CLASSES)
    torch.nn.init.zeros_(head.classes.weight)
    torch.nn.init.constant_(head.classes.bias, level)
    return head.eval()


def test_attention_can_say_no():
    """Defect 23: 32 frames of logit -10 give a clip probability of 5e-5, not near one half."""
    with torch.inference_mode():
        output = silent_head(-10.0)(torch.randn(2, 4, 32))
    torch.testing.assert_close(output.frame_logit, torch.full((2, CLASSES, 32), -10.0))
    probability = torch.sigmoid(output.clip_logit)
    torch.testing.assert_close(
        probability, torch.full_like(probability, 4.54e-5), rtol=1e-2, atol=0
    )


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
    """Defect 26: no non-linearity inside; twice the weights, twice the logits."""
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


# ------------------------------------------------------------------------------------- the errors


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("crn", {}, "model.name is 'crn', expected one of crnn, timm"),
        ("crnn", {"chanels": [4]}, "unknown key model.params.chanels; the nearest .* channels"),
        ("crnn", {"dropout": 1.0}, "model.params.dropout: .*less than 1, found 1.0"),
        ("crnn", {"channels": [4]}, "channels has 1 .*pool 4"),
        ("crnn", {**TINY, "pool": [[2, 2], [0, 2]]}, "must be 1 or more"),
        ("crnn", {**TINY, "depth": [1]}, "channels has 2 blocks.* depth 1"),
        ("timm", {"backbone": "resnet81"}, "backbone is 'resnet81', .* near: "),
    ],
)
def test_faults_of_the_parameters_are_told(name, params, message):
    with pytest.raises(CanopyError, match=message):
        create_model(name, params, CLASSES, BANDS)


# ---------------------------------------------------------------------------- weights from a file


@pytest.fixture(scope="module")
def pictures():
    """A network for pictures of three channels, as published weights are; made here, offline."""
    torch.manual_seed(7)
    return timm.create_model(SMALL, pretrained=False).state_dict()


def write_weights(folder, weights, kind):
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return str(path)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_of_a_file_are_in_the_backbone(tmp_path, pictures, kind, in_channels):
    """Defect 28: all are loaded; the first layer is summed over colours for one channel."""
    path = write_weights(tmp_path, pictures, kind)
    params = {"backbone": SMALL, "weights": path, "in_channels": in_channels}
    torch.manual_seed(0)
    own = create_model("timm", params, CLASSES, BANDS).backbone.state_dict()
    assert len(own) > 200
    for key, value in own.items():
        expected = pictures[key]
        if key == "conv_stem.weight" and in_channels == 1:
            expected = expected.sum(dim=1, keepdim=True)
        torch.testing.assert_close(value, expected, msg=key)


def test_weights_of_a_file_leave_the_rest_to_the_seed(tmp_path, pictures):
    params = {"backbone": SMALL, "weights": write_weights(tmp_path, pictures, "safetensors")}
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(create_model("timm", params, CLASSES, BANDS).head.classes.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_trained_model_needs_the_file_of_its_first_weights_no_more(tmp_path, pictures):
    params = {"backbone": SMALL, "weights": write_weights(tmp_path, pictures, "safetensors")}
    model = create_model("timm", params, CLASSES, BANDS)
    recipe = {"name": "timm", "params": params, "n_classes": CLASSES, "n_bands": BANDS}
    save_checkpoint(tmp_path / "best.pt", model_state(model, {**recipe, "labels": LABELS}))
    (tmp_path / "weights.safetensors").unlink()
    load_model(tmp_path / "best.pt", LABELS)
    assert without_start({**params, "pretrained": True}) == {"backbone": SMALL}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_of_objects_is_refused_and_not_run(tmp_path, how):
    path, flag = tmp_path / "weights.pt", tmp_path / "ran"
    content = {"conv_stem.weight": Bomb(flag)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(CanopyError, match=r"weights\.pt is no file of tensors"):
        create_model("timm", {"backbone": SMALL, "weights": str(path)}, CLASSES, BANDS)
    assert not flag.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", None, r"a\.safetensors is missing"),
        ("a.safetensors", b"nonsense" * 20, r"a\.safetensors is no file of tensors, or damaged"),
        ("a.pt", b"", r"a\.pt is no file of tensors, or damaged"),
    ],
)
def test_missing_and_damaged_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    params = {"backbone": SMALL, "weights": str(tmp_path / name)}
    with pytest.raises(CanopyError, match=message):
        create_model("timm", params, CLASSES, BANDS)


def test_weights_of_another_network_are_refused(tmp_path, pictures):
    """Defect 28: never a silent start from random weights."""
    strange = {f"trunk.{key}": value for key, value in pictures.items()}
    params = {"backbone": SMALL, "weights": write_weights(tmp_path, strange, "safetensors")}
    with pytest.raises(CanopyError, match="weights"):
        create_model("timm", params, CLASSES, BANDS)
    wrong = {key: torch.zeros(3) for key in pictures}
    params = {"backbone": SMALL, "weights": write_weights(tmp_path, wrong, "safetensors")}
    with pytest.raises(CanopyError, match=f"does not fit {SMALL}"):
        create_model("timm", params, CLASSES, BANDS)


def test_a_checkpoint_of_more_than_tensors_is_told(tmp_path, pictures):
    path = tmp_path / "a.pt"
    torch.save({"state_dict": pictures, "epoch": 3}, path)
    with pytest.raises(CanopyError, match="more than tensors by name"):
        create_model("timm", {"backbone": SMALL, "weights": str(path)}, CLASSES, BANDS)
