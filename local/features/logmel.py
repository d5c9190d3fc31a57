"""Natural-log mel power spectrograms, the same for stage 0, training on the fly and detection.

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
from local.errors import CanopyError

# Frames transformed at once. CPU: 128 frames of 2048 samples are 1 MB, the second-level cache; 64
# to 256 measure alike. CUDA: enough to fill the device, and a small part of its memory.
_CPU_FRAMES = 128
_CUDA_FRAMES = 4096
# Filters applied by one product; 16 measured best of 8 to 64 for 128 filters on 1025 bins.
_BANDS_PER_GROUP = 16


def mel_edges(config: FeatureConfig, sample_rate: int) -> np.ndarray:
    """Corners of the mel filters in hertz, (n_mels + 2,): band b spans [b] to [b + 2]."""
    f_max = config.f_max_hz if config.f_max_hz is not None else sample_rate / 2
    mels = np.linspace(
        _hz_to_mel(config.f_min_hz, config.mel_scale),
        _hz_to_mel(f_max, config.mel_scale),
        config.n_mels + 2,
    )
    return _mel_to_hz(mels, config.mel_scale)


def mel_filters(config: FeatureConfig, sample_rate: int) -> np.ndarray:
    """Triangular mel filters of unit area, float64 of shape (n_mels, n_fft // 2 + 1).

    Slaney, "Auditory Toolbox" (1998): linear below 1 kHz, logarithmic above; or `htk`:
    2595 log10(1 + f / 700). Each triangle is divided by half its width in hertz.
    """
    edges = mel_edges(config, sample_rate)[:, None]
    bins = np.fft.rfftfreq(config.n_fft, 1.0 / sample_rate)[None, :]
    widths = np.diff(edges, axis=0)
    rising = (bins - edges[:-2]) / widths[:-1]
    falling = (edges[2:] - bins) / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return triangles * 2.0 / (edges[2:] - edges[:-2])


def check_filters(config: FeatureConfig, sample_rate: int) -> None:
    """Refuse a front end that cannot work at `sample_rate`: odd n_fft, band edges, empty filters.

    Raises
    ------
    CanopyError
        Names the keys of section `features`, what was found, and the mend.
    """
    nyquist = sample_rate / 2
    f_max = config.f_max_hz if config.f_max_hz is not None else nyquist
    if config.n_fft % 2:
        raise CanopyError(
            f"features.n_fft is {config.n_fft}, odd; choose an even number, best a power of two"
        )
    if f_max > nyquist:
        raise CanopyError(
            f"features.f_max_hz {f_max:g} is above the Nyquist frequency {nyquist:g} of "
            f"sample rate {sample_rate}; lower it or raise the rate"
        )
    if config.f_min_hz >= f_max:
        raise CanopyError(
            f"features.f_min_hz {config.f_min_hz:g} is not below the upper edge {f_max:g}; lower it"
        )
    if config.win_length is not None and config.win_length > config.n_fft:
        raise CanopyError(
            f"features.win_length {config.win_length} is longer than features.n_fft "
            f"{config.n_fft}; shorten it"
        )
    empty = np.flatnonzero(mel_filters(config, sample_rate).max(axis=1) == 0)
    if len(empty):
        raise CanopyError(
            f"{len(empty)} of the {config.n_mels} mel filters are empty at sample rate "
            f"{sample_rate} (the first is filter {empty[0]}); lower features.n_mels "
            f"{config.n_mels}, or raise features.n_fft {config.n_fft} or features.f_min_hz "
            f"{config.f_min_hz:g}"
        )


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
        self.register_buffer("window", _window(config), persistent=False)
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
        return self._transform(wave.float(), _frames_in(wave[0], self.n_fft, self.hop_length))

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
    size, hop, multiple = front_end.n_fft, front_end.hop_length, front_end.frames_at_once
    device = front_end.window.device
    rest = torch.zeros(0, device=device)
    skip = 0  # samples still to be passed over when the hop is longer than a frame
    for piece in _mirrored(blocks, size // 2, device):
        rest = torch.cat([rest, piece[skip:]])
        skip = max(0, skip - len(piece))
        ready = _frames_in(rest, size, hop) // multiple * multiple
        if ready:
            yield front_end._transform(rest[None], ready)[0]
            skip += max(0, ready * hop - len(rest))
            rest = rest[ready * hop :]
    last = _frames_in(rest, size, hop)
    if last:
        yield front_end._transform(rest[None], last)[0]


def _frames_in(signal: torch.Tensor, size: int, hop: int) -> int:
    return 0 if len(signal) < size else (len(signal) - size) // hop + 1


def _mirrored(
    blocks: Iterable[np.ndarray | torch.Tensor], half: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """The signal in pieces, with `half` mirrored samples before and after it."""
    arriving = (torch.as_tensor(block, dtype=torch.float32, device=device) for block in blocks)
    head = torch.zeros(0, device=device)
    for block in arriving:
        head = torch.cat([head, block])
        if len(head) > half:
            break
    if len(head) == 0:
        raise ValueError("no samples in the stream")
    yield _mirrors(head, half)[0]
    yield head
    recent = head
    for block in arriving:
        yield block
        # Mirroring the end needs half + 1 samples, whatever blocks they came in.
        recent = torch.cat([recent, block[-half - 1 :]])[-half - 1 :]
    yield _mirrors(recent, half)[1]


def _mirrors(wave: torch.Tensor, half: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `half` samples before and after (..., n), mirrored about the first and the last one."""
    n = wave.shape[-1]
    before = torch.arange(-half, 0, device=wave.device)
    after = torch.arange(n, n + half, device=wave.device)
    return wave[..., _reflect(before, n)], wave[..., _reflect(after, n)]


def _reflect(index: torch.Tensor, n: int) -> torch.Tensor:
    """Where position `index` of an endless to-and-fro reading of n samples lies in them."""
    period = max(1, 2 * (n - 1))
    index = index.remainder(period)
    return torch.minimum(index, period - index) if n > 1 else torch.zeros_like(index)


def _window(config: FeatureConfig) -> torch.Tensor:
    """Periodic Hann window of win_length (n_fft when null), centred in n_fft samples."""
    length = config.win_length or config.n_fft
    left = (config.n_fft - length) // 2
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)
    return torch.from_numpy(np.pad(hann, (left, config.n_fft - length - left)).astype(np.float32))


# Slaney's scale: 3 mel in 200 Hz up to 1 kHz (15 mel), then 27 mel for every factor 6.4.
_SLANEY_HZ_PER_MEL = 200.0 / 3.0
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_KNEE_MEL = _SLANEY_KNEE_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return float(2595.0 * np.log10(1.0 + hz / 700.0))
    if hz < _SLANEY_KNEE_HZ:
        return hz / _SLANEY_HZ_PER_MEL
    return float(_SLANEY_KNEE_MEL + np.log(hz / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP)


def _mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = _SLANEY_KNEE_HZ * np.exp(_SLANEY_LOG_STEP * (mel - _SLANEY_KNEE_MEL))
    return np.where(mel < _SLANEY_KNEE_MEL, mel * _SLANEY_HZ_PER_MEL, above)
