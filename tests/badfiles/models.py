"""Models of others: checkpoints that say how a network is built, and published folders."""

import hashlib
import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from local.config import Config
from local.models import create_model
from local.models.checkpoint import load_model, save_checkpoint
from tests.badfiles.kinds import Kind

PARAMS = {"channels": [4], "pool": [[2, 2]], "depth": 1, "gru": 0}
LABELS = ["a", "b"]
RECIPE = {"name": "crnn", "params": PARAMS, "n_classes": 2, "n_bands": 16, "labels": LABELS}


@cache
def weights() -> dict[str, torch.Tensor]:
    return create_model("crnn", PARAMS, 2, 16).state_dict()


# ------------------------------------------------------------------------------------ checkpoints


def built(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], Path]:
    """A checkpoint that is as it should be but for `change` of its state."""

    def make(folder: Path) -> Path:
        state = {"model": dict(weights()), "recipe": json.loads(json.dumps(RECIPE))}
        change(state)
        save_checkpoint(folder / "best.pt", state)
        return folder / "best.pt"

    return make


def recipe(**values: Any) -> Callable[[Path], Path]:
    return built(lambda state: state["recipe"].update(values))


def params(**values: Any) -> Callable[[Path], Path]:
    return built(lambda state: state["recipe"]["params"].update(values))


def every(change: Callable[[torch.Tensor], Any]) -> Callable[[Path], Path]:
    def changed(state: dict[str, Any]) -> None:
        state["model"] = {key: change(value) for key, value in state["model"].items()}

    return built(changed)


def as_used(path: Path) -> Any:
    return load_model(path, LABELS)


MODELS_REFUSED = [
    ("no recipe", built(lambda state: state.pop("recipe")), "no model that is ready"),
    ("no weights", built(lambda state: state.pop("model")), "no model that is ready"),
    ("a name of nothing", recipe(name="os.system"), "expected one of"),
    ("a name that is a list", recipe(name=["crnn"]), "recipe.name"),
    ("parameters that are a list", recipe(params=[1]), "recipe.params"),
    ("a parameter of nobody", params(evil=1), "unknown key"),
    ("a quarter of a billion channels", params(channels=[2**28]), "beyond any crnn"),
    ("channels of 90 GB", params(channels=[50_000, 50_000], pool=[[1, 1]] * 2), "numbers"),
    ("a million blocks", params(channels=[1] * 10**6), "beyond any crnn"),
    ("a billion layers", params(depth=10**9), "beyond any crnn"),
    ("a trillion classes", recipe(n_classes=10**12), "recipe.n_classes"),
    ("classes below zero", recipe(n_classes=-1), "recipe.n_classes"),
    ("other classes than named", recipe(labels=["a"]), "1 are named"),
    ("a label that climbs", recipe(labels=["../a", "b"]), "separator of folders"),
    ("a label that is an option", recipe(labels=["-rf", "b"]), "begins with a dash"),
    ("a label that turns text", recipe(labels=["a\u202eb", "b"]), "control character"),
    ("a label twice", recipe(labels=["a", "a"]), "stands twice"),
    ("bands without end", recipe(n_bands=2**40), "recipe.n_bands"),
    ("weights of text", every(lambda value: "x"), "are no numbers"),
    ("weights by number", built(lambda state: state["model"].update({5: torch.ones(1)})), "are no"),
    ("complex weights", every(lambda value: value.to(torch.complex64)), "are no numbers"),
    ("weights that are not numbers", every(lambda value: value * float("nan")), "not finite"),
]

# ------------------------------------------------------------------------------- published folders


def published(
    change: Callable[[dict[str, Any]], Any] = lambda told: None, **files: bytes
) -> Callable[[Path], Path]:
    """A folder with checksums that are right, whatever is in it."""

    def make(folder: Path) -> Path:
        config = Config(audio={"sample_rate": 8000}, features={"n_fft": 256, "n_mels": 16})
        told: Any = {
            "schema": 1,
            "canopy": "0",
            "classes": [["a", "a", None, None], ["b", "b", 100.0, 200.0]],
            "config": config.model_dump(mode="json"),
            "recipe": json.loads(json.dumps(RECIPE)),
            "step": 2,
            "window": 100,
            "any_length": True,
            "networks": [{"weights": "fold0.safetensors", "onnx": None}],
            "evidence": None,
            "prior_shift": [0.0, 1.0],
            "event_rule": None,
        }
        changed = change(told)
        text = changed if isinstance(changed, str) else json.dumps(told)
        content = {"model.json": text.encode(), "fold0.safetensors": save(weights())}
        content |= {name.replace("__", "."): value for name, value in files.items()}
        for name, value in content.items():
            (folder / name).write_bytes(value)
        sums = {name: hashlib.sha256(value).hexdigest() for name, value in content.items()}
        if "SHA256SUMS" not in files:
            lines = [f"{digest}  {name}\n" for name, digest in sums.items()]
            (folder / "SHA256SUMS").write_text("".join(lines))
        return folder

    return make


def put_in(*keys: Any, value: Any) -> Callable[[Path], Path]:
    """A published folder one of whose values is another."""

    def change(told: Any) -> None:
        for key in keys[:-1]:
            told = told[key]
        told[keys[-1]] = value

    return published(change)


def tensors(header: Any, data: bytes = b"") -> Callable[[Path], Path]:
    """A published folder with weights of one's own making."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return published(fold0__safetensors=struct.pack("<Q", len(text)) + text + data)


def tensor(shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def read_all(folder: Path) -> Any:
    """The folder, and its networks as detection loads them."""
    from local.detect.detectors import Request, describe

    models = describe(Request(paths=[folder], engine="torch"))
    return [network for model in models for network in model.load()]


FOLDERS_REFUSED = [
    ("deep JSON", published(lambda told: '{"schema": 1, "x": ' + "[" * 10**5), "model.json"),
    ("a list", published(lambda told: "[1]"), "schema"),
    ("no networks", put_in("networks", value=[]), "names no network"),
    ("networks that are text", put_in("networks", value="x"), "not as this version writes it"),
    ("weights elsewhere", put_in("networks", 0, "weights", value="../../x"), "does not list"),
    ("a configuration that is text", put_in("config", value="x"), "config"),
    ("a transform of a million", put_in("config", "features", "n_fft", value=2**20), "n_fft"),
    ("a hundred million filters", put_in("config", "features", "n_mels", value=10**8), "filters"),
    (
        "other bands",
        put_in("config", "features", "n_mels", value=17),
        "take 16 bands, and its configuration makes 17",
    ),
    ("windows of a trillion frames", put_in("window", value=2**40), "cannot be"),
    ("a step of nothing", put_in("step", value=0), "cannot be"),
    ("a step that is text", put_in("step", value="x"), "not as this version writes it"),
    ("other classes", put_in("classes", 0, 0, value="z"), "are not those of its networks"),
    ("a class without a name", put_in("classes", 0, value=["a"]), "model.json"),
    ("a shift of one number", put_in("prior_shift", value=[1.0]), "prior_shift"),
    ("a shift without end", put_in("prior_shift", value=[1e999, 0.0]), "prior_shift"),
    ("evidence that is none", put_in("evidence", value={"hours": 1}), "not as this version"),
    ("a rule that is none", put_in("event_rule", value={"threshold": 9}), "rule"),
    ("checksums of 3 MB", published(SHA256SUMS=b"x" * 3 * 2**20), "may have at most"),
    ("checksums of elsewhere", published(SHA256SUMS=b"0" * 64 + b"  ../x\n"), "is no checksum"),
    ("half written", published(**{"__unfinished": b""}), "not finished"),
    (
        "tensors that overlap",
        tensors({"a": tensor([4], 0, 16), "b": tensor([4], 8, 24)}, bytes(24)),
        "fold0.safetensors",
    ),
    ("tensors with a hole", tensors({"a": tensor([4], 8, 24)}, bytes(24)), "fold0.safetensors"),
    ("tensors backwards", tensors({"a": tensor([4], 16, 0)}, bytes(16)), "fold0.safetensors"),
    ("tensors below zero", tensors({"a": tensor([-4], 0, 16)}, bytes(16)), "fold0.safetensors"),
    ("tensors of 64 EB", tensors({"a": tensor([2**62, 4], 0, 16)}, bytes(16)), "fold0"),
    ("a header that is deep", tensors(b'{"a":' + b"[" * 10**5), "fold0.safetensors"),
]

KINDS = [Kind(f"model: {name}", make, as_used, part) for name, make, part in MODELS_REFUSED]
KINDS += [Kind(f"published: {name}", make, read_all, part) for name, make, part in FOLDERS_REFUSED]
KINDS += [
    Kind("model: as written", built(lambda s: None), as_used, check=lambda got: not got.training),
    Kind("published: as written", published(), read_all, check=lambda got: len(got) == 1),
]
