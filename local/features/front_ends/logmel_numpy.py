"""Log-mel spectrograms by NumPy and SciPy, for detection that starts without PyTorch."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft
from scipy.sparse import csr_array

from local.config import FeatureConfig
from local.features.framing import stream_frames
from local.features.mel import hann_window, mel_filters

# Frames transformed at once, which stay in the cache; always as many, so that blocks of samples do
# not matter.
_FRAMES = 128


def stream_log_mel(
    blocks: Iterable[np.ndarray], config: FeatureConfig, sample_rate: int
) -> Iterator[np.ndarray]:
    """Features (n_mels, k_i) of a recording that arrives in blocks (n_i,)."""
    window = hann_window(config)
    # Sparse, as few bins belong to a filter, and so not in the hands of a BLAS, whose threads spin
    # in the way of the network's: two cores took longer than one.
    filters = csr_array(mel_filters(config, sample_rate).astype(np.float32))
    for piece, n_frames in stream_frames(blocks, config.n_fft, config.hop_length, _FRAMES):
        framed = sliding_window_view(piece, config.n_fft)[:: config.hop_length][:n_frames]
        for first in range(0, n_frames, _FRAMES):
            yield log_mel(framed[first : first + _FRAMES], window, filters, config.floor)


def log_mel(frames: np.ndarray, window: np.ndarray, filters: csr_array, floor: float) -> np.ndarray:
    """Features (n_mels, k) of the samples of frames (k, n_fft), seen through a window (n_fft,)."""
    spectrum = rfft(frames * window, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(np.maximum(filters @ power.T, np.float32(floor)))
