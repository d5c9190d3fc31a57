"""npz files and checkpoints: forged sizes, objects, bombs, and files that are only half there."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from local.features.npz import FeatureReader, write_features
from local.inference.score_files import load_scores
from local.models.checkpoint import load_checkpoint, save_checkpoint
from local.models.pretrained import read_weights
from tests.badfiles.kinds import Bomb, Kind, changed, cut, endless, here, pipe, put

FEATS = np.asfortranarray(np.random.default_rng(0).normal(size=(8, 500)).astype(np.float32))


def features(folder: Path) -> Path:
    path = folder / "a.npz"
    write_features(path, FEATS, sample_rate=16_000, hop_length=160, duration=5.0)
    return path


def read_features(path: Path) -> np.ndarray:
    reader = FeatureReader()
    return reader.read_crop(path, 0, reader.read_header(path).n_frames)


SCORES = {
    "recording_id": np.array(["r1", "r2"]),
    "label": np.array(["a", "b", "c"]),
    "clip_logit": np.zeros((2, 3), np.float32),
    "window_logit": np.zeros((2, 3), np.float32),
    "frame_logit": np.zeros((3, 10), np.float32),
    "frame_offset": np.array([0, 4, 10]),
    "frame_hop_s": np.float64(0.1),
    "frame_start_s": np.float64(0.0),
}


def npz(compress: bool = False, without: str = "", base: dict = SCORES, **members: Any) -> Callable:
    def make(folder: Path) -> Path:
        arrays = {name: array for name, array in (base | members).items() if name != without}
        (np.savez_compressed if compress else np.savez)(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return make


def objects(folder: Path) -> Path:
    np.savez(folder / "a.npz", **(SCORES | {"label": np.array([Bomb(folder)], dtype=object)}))
    return folder / "a.npz"


def object_features(folder: Path) -> Path:
    scalars = {"sample_rate": 16_000, "hop_length": 160, "duration": 1.0, "schema": 1}
    np.savez(folder / "a.npz", feats=np.array([[Bomb(folder)]], dtype=object), **scalars)
    return folder / "a.npz"


def replace_all(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        assert len(old) == len(new)
        return content.replace(old, new)

    return change


def rezip(
    make: Callable[[Path], Path], change: Callable[[str, bytes], bytes], method: int = 0
) -> Callable[[Path], Path]:
    """The archive written anew, each member changed (and so with checksums that are right)."""

    def make_anew(folder: Path) -> Path:
        path = make(folder)
        with zipfile.ZipFile(path) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in members:
                archive.writestr(name, change(name, content))
        return path

    return make_anew


def header(shape: str, descr: str = "'<f4'", version: int = 1, pad: int = 0) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * pad + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def member(name: str, content: bytes) -> Callable[[str, bytes], bytes]:
    return lambda found, old: content if found == f"{name}.npy" else old


def directory_lies(content: bytes) -> bytes:
    """The end record says that the directory is 4 GB long."""
    at = content.rindex(b"PK\x05\x06")
    return content[: at + 12] + b"\xf0\xff\xff\xff" + content[at + 16 :]


def sizes_lie(content: bytes) -> bytes:
    """Both sizes of the last member say 2 GB."""
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 20] + 2 * struct.pack("<I", 2**31) + content[at + 28 :]


def twice(folder: Path) -> Path:
    path = npz()(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("label.npy", b"again")
    return path


HUGE = "(1000000, 1000000)"
NPZ_REFUSED = [
    ("objects", objects, "objects"),
    ("compressed", npz(compress=True), "compressed"),
    ("a bomb of zeros", npz(compress=True, clip_logit=np.zeros((3000, 3000))), "compressed"),
    ("a shape that is forged", rezip(npz(), member("clip_logit", header(HUGE))), "needs"),
    ("a shape below zero", rezip(npz(), member("clip_logit", header("(-1, 3)"))), "a.npz"),
    ("a shape of words", rezip(npz(), member("clip_logit", header("'x'"))), "a.npz"),
    ("a header that is code", rezip(npz(), member("label", header("__import__('os')"))), "a.npz"),
    ("a header of 4 GB", rezip(npz(), member("label", b"\x93NUMPY\2\0\xff\xff\xff\xff")), "a.npz"),
    ("a header that is deep", rezip(npz(), member("label", header("(" * 9000))), "a.npz"),
    ("an unknown version", rezip(npz(), member("label", b"\x93NUMPY\x09\0v\0")), "a.npz"),
    ("a void type", rezip(npz(), member("label", header("(2,)", "'V2000000000'"))), "a.npz"),
    ("a type that is no type", rezip(npz(), member("label", header("(2,)", "'q9'"))), "a.npz"),
    ("a member missing", npz(without="label"), "has no member label"),
    ("a frame time missing", npz(without="frame_hop_s"), "has no member frame_hop_s"),
    ("a member twice", twice, "stands twice"),
    ("another shape", npz(clip_logit=np.zeros((2, 4))), "has shape"),
    ("offsets that go back", npz(frame_offset=np.array([0, 11, 10])), "does not increase"),
    ("offsets beyond the end", npz(frame_offset=np.array([0, 4, 99])), "has shape"),
    ("numbers for labels", npz(label=np.arange(3)), "no lists of text"),
    ("text for logits", npz(clip_logit=np.full((2, 3), "x")), "clip_logit"),
    ("a directory that lies", changed(npz(), directory_lies), "a.npz"),
    ("sizes that lie", changed(npz(), sizes_lie), "a.npz"),
    ("empty", put("a.npz", b""), "a.npz"),
    ("text", put("a.npz", "recording_id\n" * 99), "a.npz"),
    ("a npy file", put("a.npz", header("(2,)") + bytes(8)), "a.npz"),
    ("a pipe", pipe, "pipe or a device"),
    ("a device", endless, "pipe or a device"),
    ("a folder", here, "not readable"),
    ("missing", lambda folder: folder / "gone.npz", "no such scores"),
    *[(f"cut at byte {end}", cut(npz(), end), "a.npz") for end in (3, 30, 500, 1500, -4)],
]
FEATURES_REFUSED = [
    ("objects", object_features, "objects"),
    ("a shape that is forged", changed(features, replace_all(b"(8, 500)", b"(8, 900)")), "needs"),
    ("sizes that lie", changed(features, sizes_lie), "a.npz"),
    ("a directory that lies", changed(features, directory_lies), "a.npz"),
    ("not its members", npz(), "has no member"),
    ("a pipe", pipe, "pipe or a device"),
    *[(f"cut at byte {end}", cut(features, end), "a.npz") for end in (3, 200, 9000, -4)],
]

# ------------------------------------------------------------------------------------- checkpoints


def state() -> dict[str, Any]:
    return {"model": {"w": torch.arange(12.0).reshape(3, 4)}, "epoch": 3, "name": "x"}


def checkpoint(folder: Path) -> Path:
    save_checkpoint(folder / "a.pt", state())
    return folder / "a.pt"


def saved(value: Callable[[Path], Any], legacy: bool = False) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "a.pt"
        torch.save(value(folder), path, _use_new_zipfile_serialization=not legacy)
        return path

    return make


def plain_pickle(folder: Path) -> Path:
    path = folder / "a.pt"
    path.write_bytes(pickle.dumps(Bomb(folder)))
    return path


def forge_numel(name: str, content: bytes) -> bytes:
    """The storage of 12 numbers is said to have 200."""
    if not name.endswith("data.pkl"):
        return content
    at = content.index(b"K\x0c", content.index(b"cpu"))
    return content[:at] + b"K\xc8" + content[at + 2 :]


def flip_number(content: bytes) -> bytes:
    at = content.index(np.arange(12, dtype=np.float32).tobytes())
    return content[: at + 9] + bytes([content[at + 9] ^ 1]) + content[at + 10 :]


def swelling(folder: Path) -> Path:
    """A few bytes that torch would turn into 8 GB of zeros."""
    path = checkpoint(folder)
    code = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01cbuiltins\nbytearray\nq\x02"
    code += b"\x8a\x05" + (8 * 10**9).to_bytes(5, "little") + b"\x85Rs."
    return rezip(lambda _: path, lambda n, c: code if n.endswith("data.pkl") else c)(folder)


def spread(folder: Path) -> Any:
    return {"schema": 1, "w": torch.zeros(1).expand(10**6, 10**6)}


def safetensors(folder: Path) -> Path:
    save_file({"w": torch.arange(12.0)}, folder / "a.safetensors")
    return folder / "a.safetensors"


def tensors_claim(content: bytes) -> bytes:
    return replace_all(b'"shape":[12]', b'"shape":[99]')(content)


def read_state(path: Path) -> Any:
    return load_checkpoint(path)


def same(got: Any) -> bool:
    return torch.equal(got["model"]["w"], state()["model"]["w"]) and got["epoch"] == 3


CHECKPOINTS_REFUSED = [
    ("a bomb", saved(Bomb)),
    ("a bomb inside a state", saved(lambda folder: {"schema": 1, "model": Bomb(folder)})),
    ("a bomb of the old format", saved(Bomb, legacy=True)),
    ("a bomb that is a plain pickle", plain_pickle),
    ("a whole model", saved(lambda folder: torch.nn.Linear(2, 2))),
    ("zero length", put("a.pt", b"")),
    ("text", put("a.pt", "weights " * 99)),
    ("json", put("a.pt", json.dumps({"schema": 1}))),
    ("a npz", lambda folder: npz()(folder).rename(folder / "a.pt")),
    ("another schema", saved(lambda folder: {"schema": 99})),
    ("a list", saved(lambda folder: [1, 2])),
    ("a flipped number", changed(checkpoint, flip_number)),
    ("compressed", rezip(checkpoint, lambda name, content: content, zipfile.ZIP_DEFLATED)),
    ("a forged storage", rezip(checkpoint, forge_numel)),
    ("8 GB in a few bytes", swelling),
    ("one number as 4 TB", saved(spread)),
    ("a directory that lies", changed(checkpoint, directory_lies)),
    ("sizes that lie", changed(checkpoint, sizes_lie)),
    ("a pipe", pipe),
    ("a folder", here),
    *[(f"cut at byte {end}", cut(checkpoint, end)) for end in (1, 100, 600, -30, -1)],
]
WEIGHTS_REFUSED = [
    ("a bomb", saved(Bomb)),
    ("a bomb of the old format", saved(Bomb, legacy=True)),
    ("8 GB in a few bytes", swelling),
    ("one number as 4 TB", saved(spread)),
    ("of the old format, cut", cut(saved(lambda folder: state()["model"], legacy=True), -20)),
    ("safetensors with a long header", changed(safetensors, lambda c: b"\xff" * 7 + c[7:])),
    (
        "safetensors with a header of 1 GB",
        changed(safetensors, lambda c: b"\0\0\0\x40\0\0\0\0" + c[8:]),
    ),
    ("safetensors that claim more", changed(safetensors, tensors_claim)),
    ("safetensors cut", cut(safetensors, -8)),
    ("safetensors of 3 bytes", cut(safetensors, 3)),
    ("safetensors with no header", put("a.safetensors", struct.pack("<Q", 4) + b"{]}x")),
    ("a pipe", pipe),
]


def weights(got: Any) -> bool:
    return torch.equal(got["w"].flatten(), torch.arange(12.0))


KINDS = [Kind(f"scores: {name}", make, load_scores, part) for name, make, part in NPZ_REFUSED]
KINDS += [
    Kind(f"features: {name}", make, read_features, part)
    for name, make, part in FEATURES_REFUSED
    if part
]
KINDS += [Kind(f"checkpoint: {name}", make, read_state, ";") for name, make in CHECKPOINTS_REFUSED]
KINDS += [Kind(f"weights: {name}", make, read_weights, ";") for name, make in WEIGHTS_REFUSED]
KINDS += [
    Kind("scores: as written", npz(), load_scores, check=lambda got: got[0].labels == list("abc")),
    Kind(
        "features: as written",
        features,
        read_features,
        check=lambda got: bool((got == FEATS).all()),
    ),
    Kind("checkpoint: as written", checkpoint, read_state, check=same),
    Kind("weights: safetensors", safetensors, read_weights, check=weights),
    Kind(
        "weights: of the old format",
        saved(lambda folder: state()["model"], legacy=True),
        read_weights,
        check=weights,
    ),
]
