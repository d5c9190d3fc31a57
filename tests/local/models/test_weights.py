"""First weights: what is taken over, what is listed, what is refused."""

import logging
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from local.io.errors import CanopyError
from local.models import create_model, fit_hint, without_pretrained
from local.models.checkpoint import load_model, model_state, save_checkpoint

BANDS, CLASSES = 32, 3
LABELS = ["a", "b", "c"]
SMALL = "mobilenetv3_small_050"
FAMILIES = {
    "crnn": {"channels": [4, 6], "pool": [[2, 2], [2, 2]], "gru": 5},
    "cnn14": {"channels": [2, 3, 4, 4, 5, 6]},
    "timm": {"backbone": SMALL},
    "transformer": {"width": 16, "n_blocks": 1, "n_heads": 2},
    "conformer": {"width": 16, "n_blocks": 1, "n_heads": 2, "kernel": 3},
}

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


@pytest.mark.slow
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_of_a_file_are_in_the_backbone(tmp_path, pictures, kind, in_channels):
    """All are loaded; the first layer is summed over colours for one channel."""
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


@pytest.mark.slow
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
    assert without_pretrained({**params, "pretrained": True}) == {"backbone": SMALL}


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
    with pytest.raises(CanopyError, match=r"weights\.pt is no file of tensors") as fault:
        create_model("timm", {"backbone": SMALL, "weights": str(path)}, CLASSES, BANDS)
    if how != "pickle":
        # PyTorch's own words are a page that ends with how to run it all the same.
        assert "holds an object of " in str(fault.value)
        assert "weights_only" not in str(fault.value)
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


@pytest.mark.slow
def test_weights_of_another_network_are_refused(tmp_path, pictures):
    """Never a silent start from random weights.

    Pins defect 28 of earlier systems: pretrained weights were left out without a word.
    """
    strange = {f"trunk.{key}": value for key, value in pictures.items()}
    params = {"backbone": SMALL, "weights": write_weights(tmp_path, strange, "safetensors")}
    with pytest.raises(CanopyError, match="weights"):
        create_model("timm", params, CLASSES, BANDS)
    wrong = {key: torch.zeros(3) for key in pictures}
    params = {"backbone": SMALL, "weights": write_weights(tmp_path, wrong, "safetensors")}
    with pytest.raises(CanopyError, match=f"does not fit {SMALL}"):
        create_model("timm", params, CLASSES, BANDS)


@pytest.mark.parametrize("name", ["model", "state_dict"])
def test_weights_may_stand_beside_counters(tmp_path, pictures, name):
    path = tmp_path / "a.pt"
    torch.save({name: pictures, "epoch": 3}, path)
    model = create_model("timm", {"backbone": SMALL, "weights": str(path)}, CLASSES, BANDS)
    key = "blocks.1.0.conv_dw.weight"
    torch.testing.assert_close(model.backbone.state_dict()[key], pictures[key])


@pytest.mark.parametrize("content", [{"epoch": 3, "a": torch.zeros(2)}, [torch.zeros(2)], {}])
def test_a_checkpoint_of_more_than_tensors_is_told(tmp_path, content):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(CanopyError, match="more than tensors by name"):
        create_model("timm", {"backbone": SMALL, "weights": str(path)}, CLASSES, BANDS)


def test_a_key_that_the_backbone_never_had_is_refused(tmp_path, pictures):
    more = {**pictures, "blocks.9.strange": torch.zeros(2)}
    path = write_weights(tmp_path, more, "safetensors")
    with pytest.raises(CanopyError, match=rf"has blocks\.9\.strange, which {SMALL} does not know"):
        create_model("timm", {"backbone": SMALL, "weights": path}, CLASSES, BANDS)


def test_layers_of_the_file_that_are_not_used_are_listed(tmp_path, pictures, caplog):
    path = write_weights(tmp_path, pictures, "safetensors")
    with caplog.at_level(logging.INFO, "canopy"):
        model = create_model("timm", {"backbone": SMALL, "weights": path}, CLASSES, BANDS)
    used = set(model.backbone.state_dict())
    unused = [key for key in pictures if key not in used]
    assert {"classifier.weight", "conv_head.weight"} <= set(unused)
    line = next(line for line in caplog.messages if "not taken over" in line)
    assert line.split("not taken over: ")[1].split(", ") == sorted(unused)


def test_the_file_of_another_backbone_names_its_own(tmp_path):
    other = timm.create_model("resnet18", pretrained=False).state_dict()
    params = {"backbone": SMALL, "weights": write_weights(tmp_path, other, "pt")}
    with pytest.raises(CanopyError, match="nearest fit is timm with backbone resnet18") as error:
        create_model("timm", params, CLASSES, BANDS)
    assert "has conv1.weight" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_network_the_error_says_which_file_to_put_where(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    params = {"backbone": "efficientnet_b0", "pretrained": True}
    with pytest.raises(CanopyError) as error:
        create_model("timm", params, CLASSES, BANDS)
    message = str(error.value)
    assert "model.safetensors of timm/efficientnet_b0.ra_in1k" in message
    assert "efficientnet_b0_ra-3dd342df.pth" in message
    assert "model.params.weights" in message
    assert "\n" not in message


def test_a_backbone_without_published_weights_is_told():
    bare = next(n for n in timm.list_models() if not timm.is_model_pretrained(n))
    with pytest.raises(CanopyError, match=f"timm has no pretrained weights of {bare}"):
        create_model("timm", {"backbone": bare, "pretrained": True}, CLASSES, BANDS)


# -------------------------------------------------------------------- weights of the same family


def save_trained(folder, name, n_classes, n_bands, params=None):
    torch.manual_seed(3)
    params = FAMILIES[name] if params is None else params
    model = create_model(name, params, n_classes, n_bands)
    model.train()(torch.randn(4, 1, n_bands, 96))
    recipe = {"name": name, "params": params, "n_classes": n_classes, "n_bands": n_bands}
    labels = [f"s{i}" for i in range(n_classes)]
    save_checkpoint(folder / "best.pt", model_state(model, {**recipe, "labels": labels}))
    return model.state_dict()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trained_model_is_a_start_for_other_classes(tmp_path, caplog, name):
    """The trunk is taken over to the bit, the class layers are new and listed."""
    trained = save_trained(tmp_path, name, 5, BANDS)
    params = {**FAMILIES[name], "weights": str(tmp_path / "best.pt")}
    torch.manual_seed(0)
    with caplog.at_level(logging.INFO, "canopy"):
        model = create_model(name, params, CLASSES, BANDS)
    own = model.state_dict()
    fresh = [key for key in own if not torch.equal(own[key], trained[key])]
    assert fresh
    assert all(key.startswith(model.head_prefixes) for key in fresh)
    line = next(line for line in caplog.messages if "made anew" in line)
    assert set(fresh) <= set(line.split("made anew: ")[1].split(", "))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trained_model_is_a_start_with_the_same_classes(tmp_path, name):
    trained = save_trained(tmp_path, name, CLASSES, BANDS)
    params = {**FAMILIES[name], "weights": str(tmp_path / "best.pt")}
    own = create_model(name, params, CLASSES, BANDS).state_dict()
    assert all(torch.equal(own[key], value) for key, value in trained.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_weights_of_another_family_are_refused(tmp_path, name):
    other = "crnn" if name != "crnn" else "transformer"
    # At their default sizes, by which the nearest fit is known.
    save_trained(tmp_path, other, 2, 64, params={})
    params = {**FAMILIES[name], "weights": str(tmp_path / "best.pt")}
    with pytest.raises(CanopyError, match=f"nearest fit is {other}; ") as error:
        create_model(name, params, CLASSES, BANDS)
    assert "\n" not in str(error.value)


def test_what_fits_nothing_is_told():
    model = create_model("crnn", FAMILIES["crnn"], CLASSES, BANDS)
    assert "fits no model known here" in fit_hint(model, {"a": torch.zeros(1)})
    own = create_model("crnn", {**FAMILIES["crnn"], "gru": 7}, CLASSES, BANDS).state_dict()
    assert "this model with other parameters" in fit_hint(model, own)
