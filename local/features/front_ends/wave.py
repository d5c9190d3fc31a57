"""The samples themselves, for models that hear waveforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from local.features.front_ends.front_end import WAVEFORM, FrontEnd, register
from local.features.npz import wave_to_float, wave_to_int16
from local.io.errors import CanopyError

if TYPE_CHECKING:
    import torch


@register
class WaveFrontEnd(FrontEnd):
    """A frame is a sample, stored as 16 bits."""

    kind = "wave"
    keys = ()
    input = WAVEFORM
    level = "amplitude"

    @property
    def axes(self) -> tuple[int, ...]:
        """None before time."""
        return ()

    @property
    def hop_length(self) -> int:
        """A frame is a sample."""
        return 1

    @property
    def dtype(self) -> str:
        """16 bits."""
        return "int16"

    def check(self) -> None:
        """Refuse waveforms beside waveforms."""
        if self.features.keep_wave:
            raise CanopyError(
                "features.kind wave stores waveforms anyway; leave features.keep_wave out"
            )

    def store(self, features: np.ndarray) -> np.ndarray:
        """Samples within [-1, 1) to 16 bits, rounded."""
        return wave_to_int16(features)

    def restore(self, stored: np.ndarray) -> np.ndarray:
        """16 bits to float32 within [-1, 1)."""
        return wave_to_float(stored)

    def n_frames(self, n_samples: int) -> int:
        """A frame a sample."""
        return n_samples

    def n_samples(self, n_frames: int) -> int:
        """A sample a frame."""
        return n_frames

    def stream(
        self, blocks: Iterable[np.ndarray], device: str | torch.device = "cpu"
    ) -> Iterator[np.ndarray]:
        """The blocks."""
        yield from blocks

    def onnx_module(self) -> None:
        """None: models take samples."""

    def describe(self) -> str:
        """For people."""
        return "the waveform"
