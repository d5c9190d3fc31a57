"""The log-mel front end of matrix products alone, for graphs that run without PyTorch.

The same numbers as `logmel_torch.LogMel` makes of an excerpt. A transform of n = n1 * n2 samples is
written as n2 products of n1 samples and one of n2 (Cooley and Tukey 1965): for 2048 samples a tenth
of the work of a plain product, and several times as fast as ONNX Runtime's own transform.
"""

import numpy as np
import torch
from torch import nn

from local.config import FeatureConfig
from local.features.mel import hann_window, mel_filters


def best_factor(n: int) -> int:
    """The divisor n1 of n that costs the fewest products."""

    def cost(n1: int) -> int:
        n2, half = n // n1, n1 // 2 + 1
        return 2 * n2 * n1 * half + half * (2 * n2) ** 2

    return min((n1 for n1 in range(1, n + 1) if n % n1 == 0), key=cost)


class ProductLogMel(nn.Module):
    """(B, n) samples that bring their own surroundings -> (B, n_mels, 1 + (n - n_fft) // hop).

    Parameters
    ----------
    config, sample_rate
        As for `LogMel`, whose window and filters it takes.
    """

    places: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    mel: torch.Tensor

    def __init__(self, config: FeatureConfig, sample_rate: int) -> None:
        super().__init__()
        n = config.n_fft
        self.n_fft, self.hop_length, self.floor = n, config.hop_length, config.floor
        window = hann_window(config).astype(np.float64)
        n1 = best_factor(n)
        n2, half = n // n1, n1 // 2 + 1
        self._n2, self._half = n2, half
        a, b, k1, k2 = np.arange(n1), np.arange(n2), np.arange(half), np.arange(n2)
        # Sample n2 * a + b; frequency k1 + n1 * k2. The first product carries the twiddle factors
        # and the window along.
        turns = a[None, :, None] * k1 / n1 + b[:, None, None] * k1 / n
        first = np.exp(-2j * np.pi * turns) * window.reshape(n1, n2).T[:, :, None]
        second = np.exp(-2j * np.pi * np.outer(b, k2) / n2)
        # Real parts, then imaginary ones, in rows and in columns.
        second = np.block([[second.real, second.imag], [-second.imag, second.real]])
        frequency = k1[:, None] + n1 * k2[None, :]
        bins = np.minimum(frequency, n - frequency)
        # Some bins turn up as their mirror image as well; each then counts in half.
        share = 1.0 / np.bincount(bins.ravel(), minlength=n // 2 + 1)[bins]
        mel = mel_filters(config, sample_rate).T[bins] * share[..., None]
        self._keep("places", n2 * a[None, :] + b[:, None])
        self._keep("first", np.concatenate([first.real, first.imag], axis=2).astype(np.float32))
        self._keep("second", second.astype(np.float32))
        self._keep("mel", mel.reshape(half * n2, -1).astype(np.float32))

    def _keep(self, name: str, value: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """See the class."""
        n_frames = (wave.shape[1] - self.n_fft) // self.hop_length + 1
        starts = torch.arange(n_frames, device=wave.device) * self.hop_length
        # (n2, n_frames, n1): what each first product sees.
        frames = wave[:, self.places[:, None, :] + starts[None, :, None]]
        x = torch.matmul(frames, self.first)
        x = x.reshape(-1, self._n2, n_frames, 2, self._half)
        x = x.permute(0, 2, 4, 3, 1).reshape(-1, n_frames, self._half, 2 * self._n2)
        x = torch.matmul(x, self.second)
        x = x * x
        power = x[..., : self._n2] + x[..., self._n2 :]
        mel = torch.matmul(power.reshape(-1, n_frames, self._half * self._n2), self.mel)
        return mel.clamp(min=self.floor).log().transpose(1, 2)
