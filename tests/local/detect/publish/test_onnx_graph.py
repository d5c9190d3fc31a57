"""Graphs for ONNX Runtime: parity of all networks with their front end."""

import numpy as np
import onnxruntime
import pytest
import torch

from local.config import Config
from local.detect.publish.onnx_graph import GraphModule, check_parity, export_onnx
from local.features.front_ends.front_end_registry import front_end_of
from local.features.front_ends.logmel_torch import LogMel
from local.io.errors import CanopyError
from local.models import SedModel, SedOutput, create_model

N_BANDS = 64


@pytest.fixture
def config():
    features = {"n_fft": 512, "hop_length": 160, "n_mels": N_BANDS}
    return Config.model_validate({"audio": {"sample_rate": 16000}, "features": features})


MODELS = [
    ("crnn", {"channels": [8, 16], "pool": [[2, 2], [2, 2]], "gru": 16}),
    (
        "crnn",
        {
            **{"channels": [8, 16], "pool": [[4, 2], [2, 2]], "depth": 1, "gru": 8, "hidden": 8},
            **{"pcen": True, "level_norm": True, "level_channel": True},
            **{"smooth": True, "head": "max", "activity": True},
        },
    ),
    ("timm", {"backbone": "resnet10t"}),
    ("timm", {"backbone": "efficientnet_b0", "in_channels": 3, "frequency_coordinate": True}),
    ("cnn14", {"channels": [4, 4, 8, 8, 8, 16]}),
    ("transformer", {"n_blocks": 2, "width": 32, "feed_forward": 32}),
    ("conformer", {"n_blocks": 1, "width": 32, "n_heads": 2, "feed_forward": 32}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "params"), MODELS)
def test_onnx_runtime_scores_as_pytorch_does(tmp_path, config, name, params):
    torch.manual_seed(0)
    model = create_model(name, params, 5, N_BANDS)
    # Statistics of batch normalisation that are not those of a new model.
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 1, N_BANDS, 128) * 2 - 8)
    model.eval()
    window = 128
    any_length = export_onnx(model, config, window, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    front = LogMel(config.features, 16000)
    for batch in (1, 3):
        rng = np.random.default_rng(batch)
        wave = rng.normal(0, 0.05, (batch, front_end_of(config).n_samples(window))).astype(
            np.float32
        )
        with torch.no_grad():
            expected = model(front.frames(torch.from_numpy(wave)).unsqueeze(1))
        frame, clip = session.run(["frame_logit", "clip_logit"], {"waveform": wave})
        np.testing.assert_allclose(frame, expected.frame_logit.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(clip, expected.clip_logit.numpy(), rtol=0, atol=1e-4)
    assert (
        check_parity(GraphModule(model, config).eval(), window, tmp_path / "m.onnx", any_length)
        < 1e-4
    )


def test_a_network_that_scores_otherwise_is_refused(tmp_path, config):
    class Moody(SedModel):
        """Traced, its noise becomes another one."""

        step = 2

        def forward(self, x):
            cells = x[:, 0, :3, ::2] + torch.rand_like(x[:, 0, :3, ::2])
            return SedOutput(cells, cells.amax(-1), None, cells.mean(-1))

    with pytest.raises(CanopyError, match="differ from PyTorch's by"):
        export_onnx(Moody(), config, 64, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
