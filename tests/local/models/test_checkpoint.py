"""Checkpoints come back to the bit, and damaged or foreign ones do no harm."""

import errno
import logging
import os

import numpy as np
import pytest
import torch

from local.io.errors import CanopyError, MachineError
from local.models import create_model
from local.models.checkpoint import (
    load_checkpoint,
    load_initial,
    load_last,
    load_model,
    load_weights,
    model_state,
    save_checkpoint,
    save_last,
)

LABELS = ["a", "b", "c", "d", "e", "f"]
PARAMS = {"channels": [4], "pool": [[2, 2]], "gru": 0}


def make_state(value=0.0):
    return {
        "weights": {"w": torch.full((50, 50), value), "n": torch.tensor(3)},
        "history": [{"epoch": 1, "loss": 0.5, "valid": float("nan")}],
        "progress": {"epoch": 1, "best": -float("inf")},
        "name": "fold0",
    }


def save_model(path, labels=LABELS):
    torch.manual_seed(0)
    model = create_model("crnn", PARAMS, len(labels), 8).eval()
    recipe = {"name": "crnn", "params": PARAMS, "n_classes": len(labels), "n_bands": 8}
    save_checkpoint(path, model_state(model, {**recipe, "labels": labels}))
    return model


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "a.pt", make_state(1.5))
    state = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(state["weights"]["w"], torch.full((50, 50), 1.5))
    assert state["history"][0]["loss"] == 0.5
    assert np.isnan(state["history"][0]["valid"])
    assert state["progress"] == {"epoch": 1, "best": -float("inf")}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_equal_states_are_equal_files(tmp_path):
    for name in ("a.pt", "another.pt"):
        save_checkpoint(tmp_path / name, make_state())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


def test_a_fault_while_saving_keeps_the_earlier_one(tmp_path):
    class Unpicklable:
        def __reduce__(self):
            raise OSError("no space left")

    save_checkpoint(tmp_path / "a.pt", make_state(1.0))
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path / "a.pt", {"x": Unpicklable()})
    assert float(load_checkpoint(tmp_path / "a.pt")["weights"]["w"][0, 0]) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


# --------------------------------------------------------------------------------- last, previous


def value_of(state):
    return float(state["weights"]["w"][0, 0])


def test_the_last_two_are_kept(tmp_path):
    assert load_last(tmp_path) is None
    for value in (1.0, 2.0, 3.0):
        save_last(tmp_path, make_state(value))
    assert value_of(load_last(tmp_path)) == 3.0
    assert value_of(load_checkpoint(tmp_path / "previous.pt")) == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def truncate(content):
    return content[: len(content) // 2]


def flip(content):
    """One bit of a weight: torch alone would read it."""
    middle = content.index(np.float32(2.0).tobytes() * 4) + 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [truncate, flip, lambda content: b"", lambda content: b"text"])
def test_a_damaged_last_falls_back_to_the_previous_with_a_warning(tmp_path, caplog, damage):
    save_last(tmp_path, make_state(1.0))
    save_last(tmp_path, make_state(2.0))
    last = tmp_path / "last.pt"
    last.write_bytes(damage(last.read_bytes()))
    with caplog.at_level(logging.WARNING, "canopy"):
        assert value_of(load_last(tmp_path)) == 1.0
    assert "last.pt" in caplog.text
    assert "earlier checkpoint" in caplog.text
    # The next save must not put the damaged one in the place of the good one.
    save_last(tmp_path, make_state(5.0))
    assert value_of(load_checkpoint(tmp_path / "last.pt")) == 5.0
    assert value_of(load_checkpoint(tmp_path / "previous.pt")) == 1.0


def test_killed_between_rename_and_write_goes_on_from_the_previous(tmp_path):
    save_last(tmp_path, make_state(1.0))
    (tmp_path / "last.pt").rename(tmp_path / "previous.pt")
    assert value_of(load_last(tmp_path)) == 1.0


def test_nothing_usable_is_a_start_from_the_beginning(tmp_path):
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"text")
    assert load_last(tmp_path) is None


# ---------------------------------------------------------------------------------------- refusals


def test_missing(tmp_path):
    with pytest.raises(CanopyError, match=r"best\.pt: no such checkpoint; train this fold first"):
        load_checkpoint(tmp_path / "best.pt")


@pytest.mark.parametrize("content", [{"schema": 99}, {"state_dict": {}}, [1, 2]])
def test_a_foreign_file_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CanopyError, match=r"a\.pt: checkpoint schema .*, this version reads 1"):
        load_checkpoint(tmp_path / "a.pt")


def load_or_message(path):
    try:
        return load_checkpoint(path)
    except CanopyError as error:
        return str(error)


def test_any_damage_is_told_in_one_sentence(tmp_path):
    """Cut and changed at random: refused, or the same state; never another exception."""
    path = tmp_path / "a.pt"
    save_checkpoint(path, make_state(1.0))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    n_refused = 0
    for trial in range(120):
        content = bytearray(whole)
        if trial % 3 == 0:
            content = content[: rng.integers(len(whole))]
        else:
            for place in rng.integers(len(whole) if trial % 3 == 1 else 1500, size=4):
                content[place] = rng.integers(256)
        path.write_bytes(content)
        outcome = load_or_message(path)
        if isinstance(outcome, str):
            n_refused += 1
            assert "a.pt" in outcome
            assert "\n" not in outcome
        else:
            assert torch.equal(outcome["weights"]["w"], torch.full((50, 50), 1.0))
    assert n_refused > 100


# ------------------------------------------------------------------------------------------ models


def test_a_model_comes_back_ready_for_use(tmp_path):
    model = save_model(tmp_path / "best.pt")
    again = load_model(tmp_path / "best.pt", LABELS)
    assert not again.training
    x = torch.randn(2, 1, 8, 20)
    with torch.inference_mode():
        assert torch.equal(model(x).clip_logit, again(x).clip_logit)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b", "c", "d", "f", "e"], "class 5, e there and f here"),
        (["a", "b"], "6 classes, the tables have 2; .* class 3, c there and nothing here"),
        ([*LABELS, "g"], "class 7, nothing there and g here"),
    ],
)
def test_other_classes_or_another_order_are_refused(tmp_path, labels, message):
    save_model(tmp_path / "best.pt")
    with pytest.raises(CanopyError, match=rf"best\.pt: trained for .*{message}"):
        load_model(tmp_path / "best.pt", labels)


def test_a_start_of_other_classes_or_another_order_is_refused(tmp_path):
    model = save_model(tmp_path / "best.pt")
    weights = load_initial(tmp_path / "best.pt", LABELS)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    with pytest.raises(CanopyError, match="class 5, e there and f here"):
        load_initial(tmp_path / "best.pt", ["a", "b", "c", "d", "f", "e"])
    save_last(tmp_path, make_state())
    with pytest.raises(CanopyError, match=r"model\.init: .*last\.pt: holds no model"):
        load_initial(tmp_path / "last.pt", LABELS)


def test_a_training_state_is_no_model(tmp_path):
    save_last(tmp_path, make_state())
    with pytest.raises(CanopyError, match=r"last\.pt: holds no model"):
        load_model(tmp_path / "last.pt", LABELS)


@pytest.mark.slow
def test_weights_must_fit_key_by_key(tmp_path):
    """Nothing is skipped, nothing is passed over."""
    model = save_model(tmp_path / "best.pt")
    weights = model.state_dict()
    key = "head.classes.weight"
    missing = {name: value for name, value in weights.items() if name != key}
    with pytest.raises(CanopyError, match=f"x: has no weights for {key}"):
        load_weights(model, missing, "x")
    with pytest.raises(CanopyError, match="has weights more that the model does not know"):
        load_weights(model, {**weights, "more": torch.zeros(1)}, "x")
    with pytest.raises(CanopyError, match=rf"{key} is \(6, 9, 1\), the model wants \(6, 4, 1\)"):
        load_weights(model, {**weights, key: torch.zeros(6, 9, 1)}, "x")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "cnn14"])
def test_weights_of_another_architecture_name_the_key_and_the_nearest_fit(tmp_path, name):
    model = save_model(tmp_path / "best.pt")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    other = create_model(name, {}, len(LABELS), 8 if name == "transformer" else 64).state_dict()
    first = next(key for key in before if key not in other or other[key].shape != before[key].shape)
    with pytest.raises(CanopyError, match=f"nearest fit is {name}; ") as error:
        load_weights(model, other, "x")
    assert str(error.value).startswith(f"x: has no weights for {first}; ")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EACCES])
def test_a_fault_of_the_machine_sets_no_checkpoint_aside(tmp_path, monkeypatch, number):
    """Else a flaky network disk would cost the training, one good state after the other."""
    save_last(tmp_path, make_state())

    def fail(*given, **more):
        raise OSError(number, os.strerror(number), str(tmp_path / "last.pt"))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(MachineError, match=r"last\.pt: .*mend that"):
            load_last(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert load_last(tmp_path) is not None


def test_want_of_memory_sets_no_checkpoint_aside(tmp_path, monkeypatch):
    save_last(tmp_path, make_state())

    def fail(*given, **more):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(MachineError, match="no memory to read it"):
            load_last(tmp_path)
    assert load_last(tmp_path) is not None
