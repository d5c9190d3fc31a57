"""The order of `--set` decides nothing, whatever is set and over whichever file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.config import load_config

FILES = {
    "empty": "",
    "crnn": "model: {params: {gru: 3, dropout: 0.2}}",
    "timm": "model: {name: timm, params: {backbone: b1, hidden: 5}}\ntrain: {lr: 0.1}",
}
VALUES = {
    "seed": [1, 2],
    "model.name": ["timm", "crnn", "cnn14"],
    "model.params.backbone": ["b0", "b2"],
    "model.params.gru": [0, 8],
    "model.params.more.depth": [1, 2],
    "model.init": ["a.pt", None],
    "train.lr": [0.5, 0.25],
    "inference.tta.flip": [True, False],
    "inference.pool.method": ["topk", "max"],
    "loss.positive_weight.a": [2.0, 3.0],
    "prepare.name": ["x", None],
    "prepare.params.y": [[1], [2, 3]],
}


@st.composite
def settings_of_one_run(draw) -> dict:
    """{key: value} of any of the keys above."""
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, min_size=1))
    return {key: draw(st.sampled_from(VALUES[key])) for key in keys}


def written(draw, key: str, value: object) -> str:
    """`a.b.c=value`, or the same with the last keys inside of the value: `a={b: {c: value}}`."""
    parts = key.split(".")
    n_outside = draw(st.integers(1, len(parts)))
    for part in reversed(parts[n_outside:]):
        value = {part: value}
    return f"{'.'.join(parts[:n_outside])}={json.dumps(value)}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@given(st.sampled_from(sorted(FILES)), settings_of_one_run(), st.data())
def test_options_of_different_keys_commute(files, file, values, data):
    path = files / f"{file}.yaml"
    options = [written(data.draw, key, value) for key, value in values.items()]
    config = load_config(path, options)
    assert load_config(path, data.draw(st.permutations(options))) == config


@given(st.sampled_from(sorted(FILES)), settings_of_one_run(), st.data())
def test_of_one_key_the_last_option_holds(files, file, values, data):
    path = files / f"{file}.yaml"
    last = [written(data.draw, key, value) for key, value in values.items()]
    before = [f"{key}={json.dumps(data.draw(st.sampled_from(VALUES[key])))}" for key in values]
    assert load_config(path, before + last) == load_config(path, last)


@given(st.sampled_from(sorted(FILES)), settings_of_one_run())
def test_options_say_what_a_file_over_the_same_base_says(files, file, values):
    options = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    child: dict = {"base": f"{file}.yaml"}
    for key, value in values.items():
        *outside, last = key.split(".")
        inner = child
        for part in outside:
            inner = inner.setdefault(part, {})
        inner[last] = value
    (files / "child.yaml").write_text(json.dumps(child))
    assert load_config(files / "child.yaml") == load_config(files / f"{file}.yaml", options)
