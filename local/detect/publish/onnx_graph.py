"""A model and its front end as one ONNX graph, checked against PyTorch before it is kept."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from local.config import Config
from local.detect.publish.folder import CLIP, FEATURES, FRAME, INPUT, RUNTIME_ERRORS
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError, MachineError, first_line
from local.io.files import atomic_path
from local.models import SedModel

OUTPUTS = (FRAME, CLIP)
OPSET = 17
# What scores of ONNX Runtime may differ by from PyTorch's, as logits.
TOLERANCE = 1e-4


class GraphModule(nn.Module):
    """Waveform -> frame logits, clip logits and the features between them."""

    def __init__(self, model: SedModel, config: Config) -> None:
        super().__init__()
        self.model = model
        self.front_end = front_end_of(config)
        self.front = self.front_end.onnx_module()

    def forward(self, wave: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, n) -> (B, C, T'), (B, C), (B, *axes, T)."""
        if self.front is None:
            output = self.model(wave)
            return output.frame_logit, output.clip_logit
        features = self.front(wave)
        # A copy of its own, so that the graph can be cut here.
        features = features + 0.0
        output = self.model(self.front_end.as_input(features))
        return output.frame_logit, output.clip_logit, features


def export_onnx(model: SedModel, config: Config, window: int, path: Path) -> bool:
    """Write the graph; windows of any length where the network allows, else of `window` frames.

    Returns
    -------
    Whether windows of other lengths may be given.

    Raises
    ------
    CanopyError
        The network cannot be written as ONNX, or ONNX Runtime's scores differ from PyTorch's.
    """
    whole = GraphModule(model, config).eval()
    for any_length in (True, False):
        try:
            with atomic_path(path) as temporary:
                _write(whole, window, temporary, any_length)
                check_parity(whole, window, temporary, any_length)
            return any_length
        except MachineError:
            raise
        except CanopyError:
            if not any_length:
                raise
    raise RuntimeError("unreachable")


def _write(whole: GraphModule, window: int, path: Path, any_length: bool) -> None:
    names = [*OUTPUTS, *([] if whole.front is None else [FEATURES])]
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in (INPUT, *names)}
    if any_length:
        axes[INPUT][1], axes[FRAME][2] = "samples", "cells"
        if FEATURES in axes:
            axes[FEATURES][1 + len(whole.front_end.axes)] = "frames"
    wave = _noise(2, whole.front_end.n_samples(window))
    with warnings.catch_warnings(), torch.no_grad(), _plain_attention():
        # It warns of every size that becomes a constant, which the check below would find out.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                *(whole, (wave,), str(path)),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_axes=axes,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise CanopyError(
                f"this model cannot be written as ONNX ({first_line(error)}); export without it "
                "(--no-onnx)"
            ) from None


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Encoder layers written out: their fused form is no ONNX operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.onnx.register_custom_op_symbolic("aten::expm1", _expm1, OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::expm1", OPSET)
        torch.backends.mha.set_fastpath_enabled(before)


def _expm1(graph: Any, value: Any) -> Any:
    """exp(x) - 1 as 2 exp(x/2) sinh(x/2), which keeps its digits near 0."""
    half = graph.op("Mul", value, graph.op("Constant", value_t=torch.tensor(0.5)))
    product = graph.op("Mul", graph.op("Exp", half), graph.op("Sinh", half))
    return graph.op("Mul", product, graph.op("Constant", value_t=torch.tensor(2.0)))


def check_parity(whole: GraphModule, window: int, path: Path, any_length: bool) -> float:
    """Largest difference of logits to PyTorch over batches and lengths; too large is refused."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = max(1, torch.get_num_threads())
    worst = 0.0
    step = whole.model.step
    windows = [window, window + 3 * step, max(step, window // 2)] if any_length else [window]
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        for batch, frames in [(1, window), *((3, frames) for frames in windows)]:
            wave = _noise(batch, whole.front_end.n_samples(frames), seed=frames)
            with torch.no_grad(), _plain_attention():
                expected = [value.numpy() for value in whole(wave)[:2]]
            found = session.run(list(OUTPUTS), {INPUT: wave.numpy()})
            for ours, theirs in zip(found, expected, strict=True):
                if ours.shape != theirs.shape:
                    raise CanopyError("shapes of ONNX Runtime's scores differ from PyTorch's")
                worst = max(worst, float(np.abs(ours - theirs).max()))
    except RUNTIME_ERRORS as error:
        raise CanopyError(
            f"ONNX Runtime cannot run this model ({first_line(error)}); export without it "
            "(--no-onnx)"
        ) from None
    if not worst <= TOLERANCE:
        raise CanopyError(
            f"scores of ONNX Runtime differ from PyTorch's by {worst:.2g}, more than {TOLERANCE}; "
            "export without it (--no-onnx)"
        )
    return worst


def _noise(batch: int, n: int, seed: int = 0) -> torch.Tensor:
    """Noise of changing level, as field recordings are."""
    rng = np.random.default_rng(seed)
    level = 10 ** rng.uniform(-3, -0.5, (batch, 1))
    return torch.from_numpy((rng.standard_normal((batch, n)) * level).astype(np.float32))
