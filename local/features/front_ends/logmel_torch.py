"""Log-mel spectrograms by PyTorch: of whole recordings, batches and streams, on any device.

The definition is that of librosa's `feature.melspectrogram` with `center=True`,
`pad_mode="reflect"`, `power=2` and Slaney-normalised filters, followed by log(max(mel, floor)).
Speed on a CPU comes from two things: frames are transformed in blocks that stay in the cache, where
a whole complex spectrogram would not; and the mel filters, each of which covers few frequency bins,
are applied in groups of neighbours as small dense products.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from local.config import FeatureConfig
from local.features.framing import frames_in, mirrored_places, stream_frames
from local.features.mel import check_filters, hann_window, mel_filters

# Frames transformed at once. CPU: 128 frames of 2048 samples are 1 MB, the second-level cache; 64
# to 256 measure alike. CUDA: enough to fill the device, and a small part of its memory.
_CPU_FRAMES = 128
_CUDA_FRAMES = 4096
# Filters applied by one product; 16 measured best of 8 to 64 for 128 filters on 1025 bins.
_BANDS_PER_GROUP = 16


class LogMel(torch.nn.Module):
    """Waveform to log-mel spectrogram on whatever device the module and the waveform are.

    It has no parameters and its buffers stay out of checkpoints. Computation is float32 without
    gradients, also inside autocast. With a CUDA product precision below "highest" (TF32), values
    move by up to about 1e-3.

    Parameters
    ----------
    config
        Section `features` with `kind: logmel`; checked by `check_filters`.
    sample_rate
        Of the waveforms, in hertz.
    """

    window: torch.Tensor

    def __init__(self, config: FeatureConfig, sample_rate: int) -> None:
        super().__init__()
        check_filters(config, sample_rate)
        self.n_fft = config.n_fft
        self.hop_length = config.hop_length
        self.n_mels = config.n_mels
        self.sample_rate = sample_rate
        self.floor = config.floor
        self.register_buffer("window", torch.from_numpy(hann_window(config)), persistent=False)
        self._groups: list[tuple[slice, slice]] = []
        filters = mel_filters(config, sample_rate)
        for first in range(0, config.n_mels, _BANDS_PER_GROUP):
            self._add_group(filters, slice(first, min(first + _BANDS_PER_GROUP, config.n_mels)))

    def _add_group(self, filters: np.ndarray, bands: slice) -> None:
        """Keep the part of the filters `bands` that is not zero, every bin's row doubled.

        Doubled, because the spectrum is used as interleaved squares of real and imaginary parts:
        the product then adds the two, which is cheaper than forming the power first.
        """
        used = np.flatnonzero(filters[bands].any(axis=0))
        bins = slice(int(used[0]), int(used[-1]) + 1)
        matrix = np.repeat(filters[bands, bins].T, 2, axis=0).astype(np.float32)
        self.register_buffer(
            f"mel_{len(self._groups)}", torch.from_numpy(matrix.copy()), persistent=False
        )
        self._groups.append((bands, slice(2 * bins.start, 2 * bins.stop)))

    def n_frames(self, n_samples: int) -> int:
        """Number of frames of a recording: frame t is centred on sample t * hop_length."""
        return 1 + n_samples // self.hop_length

    @property
    def frames_at_once(self) -> int:
        """Frames transformed at once on the module's device."""
        return _CUDA_FRAMES if self.window.is_cuda else _CPU_FRAMES

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Log-mel spectrogram of one waveform or a batch of equal length.

        Parameters
        ----------
        wave
            Floating point, (n,) or (B, n), n >= 1. At the ends it is mirrored about its first and
            last sample, as often as n_fft // 2 samples need; a single sample is repeated.

        Returns
        -------
        torch.Tensor
            float32, (n_mels, 1 + n // hop_length) or (B, n_mels, 1 + n // hop_length): a transposed
            view, in memory frame after frame.
        """
        if wave.ndim not in (1, 2) or wave.shape[-1] == 0 or not wave.is_floating_point():
            raise ValueError(
                f"expected floating-point samples of shape (n,) or (B, n), n >= 1, found "
                f"{wave.dtype} of shape {tuple(wave.shape)}"
            )
        batch = wave.float()[None] if wave.ndim == 1 else wave.float()
        left, right = _mirrors(batch, self.n_fft // 2)
        padded = torch.cat([left, batch, right], dim=-1)
        features = self._transform(padded, self.n_frames(batch.shape[-1]))
        return features[0] if wave.ndim == 1 else features

    def frames(self, wave: torch.Tensor) -> torch.Tensor:
        """Frames of an excerpt that brings its own surroundings: nothing is mirrored.

        Parameters
        ----------
        wave
            Floating point, (B, m), m >= n_fft: n_fft // 2 samples before the first frame's centre
            and as many after the last one's.

        Returns
        -------
        torch.Tensor
            float32, (B, n_mels, 1 + (m - n_fft) // hop_length).
        """
        return self._transform(wave.float(), frames_in(wave.shape[1], self.n_fft, self.hop_length))

    @torch.no_grad()
    def _transform(self, padded: torch.Tensor, n_frames: int) -> torch.Tensor:
        """First `n_frames` frames of the mirrored signal (B, m) as (B, n_mels, n_frames)."""
        frames = padded.unfold(-1, self.n_fft, self.hop_length)
        out = padded.new_empty(len(padded), n_frames, self.n_mels)
        step = max(1, self.frames_at_once // len(padded))
        with torch.autocast(padded.device.type, enabled=False):
            for start in range(0, n_frames, step):
                block = frames[:, start : min(start + step, n_frames)]
                out[:, start : start + step] = self._block(block).view(*block.shape[:2], -1)
        return out.transpose(1, 2)

    def _block(self, frames: torch.Tensor) -> torch.Tensor:
        """Log-mel values (rows, n_mels) of frames (B, k, n_fft), rows = B * k."""
        spectrum = torch.fft.rfft((frames * self.window).reshape(-1, self.n_fft))
        squares = torch.view_as_real(spectrum).flatten(1)
        squares.mul_(squares)
        mel = squares.new_empty(len(squares), self.n_mels)
        for index, (bands, columns) in enumerate(self._groups):
            torch.mm(squares[:, columns], getattr(self, f"mel_{index}"), out=mel[:, bands])
        return mel.clamp_(min=self.floor).log_()


def stream_features(
    blocks: Iterable[np.ndarray | torch.Tensor], front_end: LogMel
) -> Iterator[torch.Tensor]:
    """Frames of a recording that arrives in blocks, the same as `front_end` gives for the whole.

    Parameters
    ----------
    blocks
        Consecutive float32 samples (n_i,), of any lengths, at least one sample in all.
    front_end
        Its device does the work.

    Yields
    ------
    torch.Tensor
        (n_mels, k_i) float32; joined along time they are 1 + n // hop_length frames. On a CPU they
        equal those of the whole recording bit by bit, since frames meet in the same blocks.
    """
    device = front_end.window.device
    samples = (block.cpu().numpy() if torch.is_tensor(block) else block for block in blocks)
    pieces = stream_frames(samples, front_end.n_fft, front_end.hop_length, front_end.frames_at_once)
    for piece, n_frames in pieces:
        yield front_end._transform(torch.from_numpy(piece).to(device)[None], n_frames)[0]


def _mirrors(wave: torch.Tensor, half: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `half` samples before and after (..., n), mirrored about the first and the last one."""
    before, after = (
        torch.from_numpy(places).to(wave.device) for places in mirrored_places(wave.shape[-1], half)
    )
    return wave[..., before], wave[..., after]
