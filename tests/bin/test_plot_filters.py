"""bin/plot_filters.py: a picture and a table of learned filters, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from local.models import create_model
from local.models.checkpoint import model_state, save_checkpoint
from tests.scripts import caller, fault_of

PARAMS = {
    "sincnet": {"sample_rate": 250_000, "n_filters": 9, "context_ms": 10.0, "dense": [4]},
    "crnn": {"channels": [4], "pool": [[2, 2]], "gru": 0},
}


@pytest.fixture
def plot_filters(capsys):
    return caller("plot_filters", capsys)


def checkpoint(folder, name):
    model = create_model(name, PARAMS[name], 1, 16)
    if name == "sincnet":
        with torch.no_grad():
            model.filters.band += 0.02
    recipe = {"name": name, "params": PARAMS[name], "n_classes": 1, "n_bands": 16, "labels": ["a"]}
    save_checkpoint(folder / "best.pt", model_state(model, recipe))
    return str(folder / "best.pt")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture_and_table(plot_filters, tmp_path, suffix):
    model = checkpoint(tmp_path, "sincnet")
    output, table = tmp_path / f"filters{suffix}", tmp_path / "edges.csv"
    ran = plot_filters("--model", model, "--output", output, "--csv", table)
    assert ran.code == 0
    if suffix == ".png":
        with Image.open(output) as picture:
            assert picture.width > 800
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    else:
        assert b"before training" in output.read_bytes()
    edges = pd.read_csv(table)
    assert len(edges) == 9
    np.testing.assert_allclose(edges["low_after_hz"], edges["low_before_hz"])
    widened = (edges["high_after_hz"] - edges["high_before_hz"])[:-2]
    np.testing.assert_allclose(widened, 0.02 * 250_000, rtol=1e-3)


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        ("best.pt", "a.png", "model crnn has no learned filters"),
        ("best.pt", "a.gif", "ends in .png or .svg"),
        ("b.pt", "a.png", "b.pt"),
    ],
)
def test_what_cannot_be_drawn(plot_filters, tmp_path, model, output, message):
    checkpoint(tmp_path, "crnn")
    ran = plot_filters("--model", tmp_path / model, "--output", tmp_path / output)
    assert message in fault_of(ran)
