"""Mel filters and the window of the front end: their numbers, and whether they can work."""

import numpy as np

from local.config import FeatureConfig
from local.io.errors import CanopyError

# Weights of the filters: more would take memory by gigabytes.
_MAX_WEIGHTS = 2**26


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
    2595 log10(1 + f / 700); or `linear`: all of one width, mel being another word for hertz. Each
    triangle is divided by half its width in hertz.
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
            f"audio.sample_rate {sample_rate}; lower it or raise the rate"
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
    weights = config.n_mels * (config.n_fft // 2 + 1)
    if weights > _MAX_WEIGHTS:
        raise CanopyError(
            f"features.n_mels {config.n_mels} filters over features.n_fft {config.n_fft} have "
            f"{weights} weights, at most {_MAX_WEIGHTS} are taken; lower one of the two"
        )
    empty = np.flatnonzero(mel_filters(config, sample_rate).max(axis=1) == 0)
    if len(empty):
        raise CanopyError(
            f"{len(empty)} of the {config.n_mels} mel filters are empty at sample rate "
            f"{sample_rate} (the first is filter {empty[0]}); lower features.n_mels "
            f"{config.n_mels}, or raise features.n_fft {config.n_fft} or features.f_min_hz "
            f"{config.f_min_hz:g}"
        )


def hann_window(config: FeatureConfig) -> np.ndarray:
    """Periodic Hann window of win_length (n_fft when null), centred in n_fft samples."""
    length = config.win_length or config.n_fft
    left = (config.n_fft - length) // 2
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)
    return np.pad(hann, (left, config.n_fft - length - left)).astype(np.float32)


# Slaney's scale: 3 mel in 200 Hz up to 1 kHz (15 mel), then 27 mel for every factor 6.4.
_SLANEY_HZ_PER_MEL = 200.0 / 3.0
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_KNEE_MEL = _SLANEY_KNEE_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: float, scale: str) -> float:
    if scale == "linear":
        return hz
    if scale == "htk":
        return float(2595.0 * np.log10(1.0 + hz / 700.0))
    if hz < _SLANEY_KNEE_HZ:
        return hz / _SLANEY_HZ_PER_MEL
    return float(_SLANEY_KNEE_MEL + np.log(hz / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP)


def _mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "linear":
        return mel
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = _SLANEY_KNEE_HZ * np.exp(_SLANEY_LOG_STEP * (mel - _SLANEY_KNEE_MEL))
    return np.where(mel < _SLANEY_KNEE_MEL, mel * _SLANEY_HZ_PER_MEL, above)
