"""Detection by ONNX Runtime alone, without PyTorch.

A published graph takes a waveform. It is cut here where its features are, and the features are made
by a fast transform: frames that neighbouring windows share once, and not once a window.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx.utils import Extractor

from local.config import Config
from local.detect.publish.folder import CLIP, FEATURES, FRAME, INPUT, RUNTIME_ERRORS
from local.features.front_ends.front_end import WAVEFORM
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError, first_line

# A fused x * sigmoid(x) takes no blocked layout, so each convolution beside one reorders its input
# and output: EfficientNet-B0 takes 19 % longer with it.
_SLOWER = ["QuickGeluFusion"]


class OnnxEngine:
    """The front end, and the networks of published graphs.

    Parameters
    ----------
    paths : graphs of one front end.
    n_threads : cores to compute on.
    """

    def __init__(self, paths: list[Path], config: Config, n_threads: int) -> None:
        self._front_end = front_end_of(config)
        entry = INPUT if self._front_end.input == WAVEFORM else FEATURES
        graphs = [_load(path) for path in paths]
        if entry == FEATURES:
            graphs = [_behind_front(*pair) for pair in zip(graphs, paths, strict=True)]
        self.scorers = [
            OnnxScorer(_session(graph, n_threads, path), entry)
            for graph, path in zip(graphs, paths, strict=True)
        ]

    def features(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Samples as they come -> features (*axes, k)."""
        return self._front_end.stream_numpy(blocks)


class OnnxScorer:
    """A network as the sliding windows call it."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str) -> None:
        self._session, self._name = session, name

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, *axes, T) -> frame logits (B, C, T'), clip logits (B, C)."""
        frame, clip = self._session.run([FRAME, CLIP], {self._name: x})
        return frame, clip


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except (OSError, ValueError, RuntimeError, DecodeError) as error:
        raise CanopyError(
            f"{path}: not readable as ONNX ({first_line(error)}); export the model again"
        ) from None


def _behind_front(graph: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The part of a graph that takes features."""
    try:
        return Extractor(graph).extract_model([FEATURES], [FRAME, CLIP])
    except (LookupError, ValueError, RuntimeError) as error:
        raise CanopyError(
            f"{path}: has not the parts of a published graph ({first_line(error)}); export the "
            "model again"
        ) from None


def _session(graph: onnx.ModelProto, n_threads: int, path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3
    # Idle threads of one session would spin on the cores that the next one, or the decoder, needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(
            graph.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_SLOWER,
        )
    except RUNTIME_ERRORS as error:
        raise CanopyError(
            f"{path}: ONNX Runtime refuses it ({first_line(error)}); export the model again"
        ) from None
