"""What a training step is said to cost."""

import pytest
import torch

from local.models import create_model
from local.models.task_contract import Trial
from local.training.profiling import kept_bytes, profile_step
from tests.scripts import caller, fault_of

TINY = {"channels": [4, 6], "pool": [[2, 2], [2, 2]], "gru": 5}


def test_parts_are_those_of_the_model_and_no_more_than_the_whole():
    model = create_model("crnn", TINY, 2, 16).train()
    before = {key: value.clone() for key, value in model.named_parameters()}
    trial = Trial(model, torch.randn(2, 1, 16, 64), lambda output: output.clip_logit.sum(), "")
    found = profile_step(trial, None, 2)
    assert list(found.seconds) == ["forward", "backward", "optimiser"]
    assert set(found.parts) == {name for name, _ in model.named_children()}
    assert 0 < found.parts["blocks"] < found.seconds["forward"]
    assert found.kept_bytes > 0
    assert found.peak_bytes >= 0
    for key, value in model.named_parameters():
        torch.testing.assert_close(value, before[key], atol=1e-6, rtol=0)
        assert not value._backward_hooks
    assert not any(part._forward_hooks for part in model.modules())


def test_what_is_kept_grows_with_the_batch():
    model = create_model("crnn", TINY, 2, 16).train()
    one, four = (kept_bytes(model, torch.randn(n, 1, 16, 64)) for n in (1, 4))
    assert one * 3 < four < one * 5


@pytest.mark.parametrize("kind", ["logmel", "wave"])
def test_the_script(kind, tmp_path, capsys):
    profile = caller("profile_step", capsys)
    conf = tmp_path / "conf.yaml"
    model = "name: crnn, params: {channels: [2], pool: [[2, 2]], gru: 0}"
    if kind == "wave":
        model = "name: sincnet, params: {context_ms: 40, n_filters: 3, dense: [4]}"
    conf.write_text(
        f"audio: {{sample_rate: 16000}}\nfeatures: {{kind: {kind}}}\nmodel: {{{model}}}\n"
        "window: {length_s: 0.3}\n"
    )
    ran = profile("--conf", conf, "--batch-size", 2, "--steps", 1, "--threads", 1)
    assert ran.code == 0
    text = ran.out
    assert "2 windows of 0.3" in text
    assert all(word in text for word in ("forward", "backward", "optimiser", "peak memory"))
    assert "none.yaml" in fault_of(profile("--conf", tmp_path / "none.yaml"))
