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
from numpy.lib.stride_tricks import sliding_window_view
from onnx.utils import Extractor
from scipy.fft import rfft
from scipy.sparse import csr_array

from local.config import Config
from local.detect.publish.folder import CLIP, FEATURES, FRAME, INPUT, RUNTIME_ERRORS
from local.features.framing import stream_frames
from local.features.mel import hann_window, mel_filters
from local.io.errors import CanopyError, first_line

# Frames of the front end at once, which stay in the cache; always as many, so that blocks of
# samples do not matter.
_FRAMES = 128
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
        self._config = config
        self._has_front = config.features.kind == "logmel"
        graphs = [_load(path) for path in paths]
        if self._has_front:
            self._window = hann_window(config.features)
            # Sparse, as few bins belong to a filter, and so not in the hands of a BLAS, whose
            # threads spin in the way of the network's: two cores took longer than one.
            filters = mel_filters(config.features, config.audio.sample_rate)
            self._filters = csr_array(filters.astype(np.float32))
            graphs = [_behind_front(*pair) for pair in zip(graphs, paths, strict=True)]
        self.scorers = [
            OnnxScorer(_session(graph, n_threads, path), FEATURES if self._has_front else INPUT)
            for graph, path in zip(graphs, paths, strict=True)
        ]

    def features(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Samples as they come -> frames (k, n_mels) (samples (k,) for the waveform)."""
        if not self._has_front:
            yield from blocks
            return
        size, hop = self._config.features.n_fft, self._config.features.hop_length
        for piece, n_frames in stream_frames(blocks, size, hop, _FRAMES):
            framed = sliding_window_view(piece, size)[::hop][:n_frames]
            for first in range(0, n_frames, _FRAMES):
                yield self._log_mel(framed[first : first + _FRAMES])

    def _log_mel(self, frames: np.ndarray) -> np.ndarray:
        """(k, n_fft) samples -> (k, n_mels), as `features.LogMel` has it."""
        spectrum = rfft(frames * self._window, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        mel = (self._filters @ power.T).T
        return np.log(np.maximum(mel, np.float32(self._config.features.floor)))


class OnnxScorer:
    """A network as the sliding windows call it."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str) -> None:
        self._session, self._name = session, name

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, n_mels, T) or (B, n) -> frame logits (B, C, T'), clip logits (B, C)."""
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
