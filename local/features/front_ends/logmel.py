"""Natural-log mel power spectrograms: the facts, and which of three ways computes them.

`logmel_torch` computes for stage 0, for augmentation and for detection with PyTorch, on any device.
Two more ways give the same numbers to within rounding, where it cannot be: `logmel_numpy` for
detection without PyTorch (taking the graph's own layers there is three to five times as slow), and
`logmel_onnx` for graphs, which know no fast transform (the standard's own operator takes 1.1 to 6.5
times as long as its matrix products, and errs by more than 1e-4 where n_fft is no power of two).
All take window and filters from `mel`; a test holds them against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from local.features.front_ends.front_end import FrontEnd, register
from local.features.mel import check_filters, mel_edges, mel_filters

if TYPE_CHECKING:
    import torch

    from local.features.front_ends.logmel_torch import LogMel


@register
class LogMelFrontEnd(FrontEnd):
    """log(max(mel power, floor)) of frames centred on multiples of the hop."""

    kind = "logmel"
    keys = (
        *("n_fft", "win_length", "hop_length", "n_mels", "f_min_hz", "f_max_hz", "mel_scale"),
        *("floor", "dtype"),
    )
    level = "log_power"
    begin = -0.5

    def check(self) -> None:
        """Refuse bands beyond Nyquist, empty filters, filters that fill the memory."""
        check_filters(self.features, self.audio.sample_rate)

    @property
    def axes(self) -> tuple[int, ...]:
        """Mel bands."""
        return (self.features.n_mels,)

    @property
    def fill(self) -> float:
        """The floor."""
        return float(np.log(self.features.floor))

    def n_frames(self, n_samples: int) -> int:
        """Frame t is centred on sample t * hop_length."""
        return 1 + n_samples // self.hop_length

    def n_samples(self, n_frames: int) -> int:
        """A transform's length around the first and the last centre."""
        return (n_frames - 1) * self.hop_length + self.features.n_fft

    @property
    def n_before(self) -> int:
        """Half a transform."""
        return self.features.n_fft // 2

    def band_edges_hz(self) -> np.ndarray:
        """(n_mels, 2) feet of the triangular filters."""
        edges = mel_edges(self.features, self.audio.sample_rate)
        return np.stack([edges[:-2], edges[2:]], axis=1)

    def band_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """The filters, and the frequencies of the transform."""
        hertz = np.fft.rfftfreq(self.features.n_fft, 1.0 / self.audio.sample_rate)
        return mel_filters(self.features, self.audio.sample_rate), hertz

    def stream(
        self, blocks: Iterable[np.ndarray], device: str | torch.device = "cpu"
    ) -> Iterator[np.ndarray]:
        """Frame after frame in memory; on a CPU bit by bit those of the whole recording."""
        from local.features.front_ends.logmel_torch import stream_features

        for features in stream_features(blocks, self._on(device)):
            yield features.cpu().numpy()

    def stream_numpy(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """By NumPy and SciPy."""
        from local.features.front_ends.logmel_numpy import stream_log_mel

        yield from stream_log_mel(blocks, self.features, self.audio.sample_rate)

    def excerpt(self, wave: torch.Tensor) -> torch.Tensor:
        """Frames of (B, m) samples, on their device."""
        return self._on(wave.device).frames(wave)

    def onnx_module(self) -> torch.nn.Module:
        """Matrix products."""
        from local.features.front_ends.logmel_onnx import ProductLogMel

        return ProductLogMel(self.features, self.audio.sample_rate)

    @cached_property
    def _modules(self) -> dict[str, LogMel]:
        return {}

    def _on(self, device: str | torch.device) -> LogMel:
        from local.features.front_ends.logmel_torch import LogMel

        if str(device) not in self._modules:
            module = LogMel(self.features, self.audio.sample_rate).to(device)
            self._modules[str(device)] = module
        return self._modules[str(device)]

    def describe(self) -> str:
        """For people."""
        features = self.features
        return (
            f"log-mel, {features.n_mels} bands from {features.f_min_hz:g} to "
            f"{features.f_max_hz or self.audio.sample_rate / 2:g} Hz, transform {features.n_fft}, "
            f"hop {features.hop_length}"
        )
