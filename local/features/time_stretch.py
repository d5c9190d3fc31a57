"""Time stretch of waveforms: longer or shorter by a factor, at the same pitch.

A phase vocoder (Flanagan and Golden 1966, as torchaudio has it): the short-time spectrum is read
slower or faster and its phases are carried on. Sample s of the recording is found at s * factor, to
within a fraction of the transform's window. As with any plain vocoder, bins of one call come out of
phase with each other, which costs it up to some 3 dB.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import torch
import torchaudio.functional

# Samples stretched at once, and how many transforms' lengths neighbouring pieces share and fade
# over: memory stays small, and a recording of half a minute is one piece.
_PIECE_SAMPLES = 2**20
_SHARED_WINDOWS = 4


def stretch(wave: torch.Tensor, factor: float, n_fft: int) -> torch.Tensor:
    """Waveforms (..., n) that last `factor` times as long: (..., round(n * factor)).

    `n_fft` is the length of the transform in samples, `features.n_fft` where features are made.
    """
    if factor == 1.0:
        return wave
    window, advance = _tools(n_fft, wave.device)
    flat = wave.reshape(-1, wave.shape[-1])
    hop = n_fft // 4
    spectrum = torch.stft(flat, n_fft, hop, window=window, pad_mode="constant", return_complex=True)
    spectrum = torchaudio.functional.phase_vocoder(spectrum, 1.0 / factor, advance)
    length = round(wave.shape[-1] * factor)
    # A last frame may end before the length does: what is missing is the fading of a window.
    reached = (spectrum.shape[-1] - 1) * hop
    out = torch.istft(spectrum, n_fft, hop, window=window, length=min(length, max(reached, 1)))
    out = torch.nn.functional.pad(out, (0, length - out.shape[-1]))
    return out.reshape(*wave.shape[:-1], length)


@lru_cache(maxsize=8)
def _tools(n_fft: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Hann window, and the phase each bin gains in a hop, (n_fft // 2 + 1, 1)."""
    window = torch.hann_window(n_fft, device=device)
    advance = torch.linspace(0, torch.pi * (n_fft // 4), n_fft // 2 + 1, device=device)
    return window, advance[:, None]


def stretch_stream(blocks: Iterable[np.ndarray], factor: float, n_fft: int) -> Iterator[np.ndarray]:
    """`stretch` of a recording that arrives in blocks (n_i,) float32: pieces of the longer one.

    Pieces share a stretch of sound and are faded into each other, so phases need not agree; their
    places are counted from the beginning, so they do not drift.
    """
    shared = _SHARED_WINDOWS * n_fft
    rest: np.ndarray = np.zeros(0, np.float32)
    tail: np.ndarray = np.zeros(0, np.float32)
    taken = 0
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) > _PIECE_SAMPLES + shared:
            piece = _faded(tail, _stretched(rest[: _PIECE_SAMPLES + shared], factor, n_fft))
            length = round((taken + _PIECE_SAMPLES) * factor) - round(taken * factor)
            yield piece[:length]
            tail = piece[length:]
            rest = rest[_PIECE_SAMPLES:]
            taken += _PIECE_SAMPLES
    length = round((taken + len(rest)) * factor) - round(taken * factor)
    if length:
        last = _faded(tail, _stretched(rest, factor, n_fft))
        yield np.pad(last, (0, max(0, length - len(last))))[:length]


def _stretched(wave: np.ndarray, factor: float, n_fft: int) -> np.ndarray:
    return stretch(torch.from_numpy(wave), factor, n_fft).numpy()


def _faded(tail: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """`piece`, its beginning faded in over the end of the one before."""
    n = min(len(tail), len(piece))
    if n == 0:
        return piece
    rise = (np.arange(n, dtype=np.float32) + 0.5) / n
    start = tail[:n] * (1 - rise) + piece[:n] * rise
    return np.concatenate([start, piece[n:]])
