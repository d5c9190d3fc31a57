"""A small published model that is sure of itself, and sounds for it to be sure of."""

import json

import numpy as np
import torch
from safetensors.torch import save_file

from local.config import Config
from local.detect.publish.folder import MODEL, SCHEMA, SECTIONS, write_sums
from local.detect.publish.onnx_graph import export_onnx
from local.io.files import write_json, write_text
from local.models import create_model

LABELS = ["a", "b", "c"]
RATE = 1000
SETTINGS = {
    "audio": {"sample_rate": RATE},
    "features": {"n_fft": 128, "hop_length": 50, "n_mels": 16, "f_min_hz": 0.0, "dtype": "float32"},
    "window": {"length_s": 1.6},
    "inference": {"window_frames": 32, "overlap_frames": 13, "batch_size": 3},
}
PARAMS = {"channels": [8, 8], "pool": [[2, 2], [2, 1]], "depth": 1, "gru": 4}


def make_model(seed):
    torch.manual_seed(seed)
    model = create_model("crnn", PARAMS, len(LABELS), 16)
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(8, 1, 16, 32) * 2 - 6)
        # Sure of itself, so that scores cross any threshold.
        model.head.classes.weight *= 12
    return model.eval()


def make_published(folder, n_networks=2, with_onnx=True, **changes):
    config = Config.model_validate({**SETTINGS, **changes})
    folder.mkdir()
    networks, names, any_length = [], [], True
    for fold in range(n_networks):
        model = make_model(fold)
        weights, graph = f"fold{fold}.safetensors", f"fold{fold}.onnx"
        save_file(model.state_dict(), folder / weights)
        names.append(weights)
        if with_onnx:
            any_length &= export_onnx(model, config, 32, folder / graph)
            names.append(graph)
        networks.append({"weights": weights, "onnx": graph if with_onnx else None})
    plain = config.model_dump(mode="json")
    classes = [["a", "first", 100.0, 200.0], ["b", "second", None, None], ["c", "third", 0.0, 9.0]]
    recipe = {"name": "crnn", "params": PARAMS, "n_classes": 3, "n_bands": 16, "labels": LABELS}
    sections = {name: plain[name] for name in SECTIONS if name != "model"}
    write_json(
        folder / MODEL,
        {
            **{"schema": SCHEMA, "canopy": "0", "classes": classes, "config": sections},
            **{"recipe": recipe, "step": 2, "window": 32, "any_length": any_length},
            **{"networks": networks, "evidence": None, "prior_shift": [1.0, 0.0, -1.0]},
        },
    )
    write_text(folder / "README.md", "# toy\n")
    write_sums(folder, [*names, MODEL, "README.md"])
    return folder


def put_ffmpeg(folder, wave, told=None, before="", after="", rate=RATE, n_bytes=None):
    """A stand-in for ffmpeg and ffprobe: tells one channel, gives `wave`, and runs shell lines.

    told : what ffprobe prints in place of the truth. before, after : run by ffmpeg around its
    output. n_bytes : so many of the output's bytes are given.
    """
    folder.mkdir()
    raw = folder / "raw"
    raw.write_bytes(wave.astype("<f4").tobytes()[:n_bytes])
    truth = {"streams": [{"sample_rate": str(rate), "channels": 1}]}
    truth["format"] = {"duration": str(len(wave) / rate)}
    (folder / "told").write_text(json.dumps(truth) if told is None else told)
    for name, lines in (
        ("ffprobe", f"cat {folder}/told"),
        ("ffmpeg", f"{before}\ncat {raw}\n{after}"),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)


def sound(seconds, seed=0, rate=RATE):
    """Noise that comes and goes, with whistles."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    level = 0.02 + 0.1 * (np.sin(2 * np.pi * t / 3.7) > 0.6)
    return (level * rng.standard_normal(len(t)) + 0.05 * np.sin(2 * np.pi * 170 * t)).astype("f4")
