"""What augmentation needs to know of the front end."""

from dataclasses import dataclass

import numpy as np
import torch

from local.config import Config
from local.features.logmel import LogMel
from local.features.mel import mel_edges, mel_filters

# Neighbouring bins of a Hann-windowed transform of noise share their power: so many bins of it
# count as one.
_BINS_AS_ONE = 1.5


@dataclass(frozen=True)
class FrontEnd:
    """Times, and for log-mel windows the spectra of noise and the way from waveforms.

    Attributes
    ----------
    hop_s : seconds between input frames (samples for waveform input).
    sample_rate, n_fft : of waveforms and their transform.
    log_mel : waveform to features, on the device; None where no waveform is augmented.
    band_width : (F,) hertz that each band stands for, so that power adds up over bands.
    noise_mean : (2, F) mean power of white and of pink noise in each band, in any one unit.
    noise_shape : (2, F) that power is a mean of about so many independent exponential draws.
    """

    hop_s: float
    sample_rate: int
    n_fft: int
    log_mel: LogMel | None = None
    band_width: torch.Tensor | None = None
    noise_mean: torch.Tensor | None = None
    noise_shape: torch.Tensor | None = None

    @classmethod
    def of(cls, config: Config, device: torch.device | str = "cpu") -> "FrontEnd":
        """The front end of a configuration; nothing is built that it does not augment with."""
        features, augment = config.features, config.augment
        plain = cls(config.hop_s, config.audio.sample_rate, features.n_fft)
        if (
            features.kind != "logmel"
            or augment.wave_p + augment.noise_p + augment.background_p == 0
        ):
            return plain
        rate = config.audio.sample_rate
        edges = mel_edges(features, rate)
        mean, shape = _noise(config)
        arrays = [(edges[2:] - edges[:-2]) / 2, mean, shape]
        width, mean, shape = (torch.tensor(a, dtype=torch.float32, device=device) for a in arrays)
        log_mel = LogMel(features, rate).to(device) if augment.wave_p > 0 else None
        return cls(plain.hop_s, rate, features.n_fft, log_mel, width, mean, shape)


def _noise(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """(2, F) mean power of noise in mel bands, and how many draws it is the mean of.

    The power of a bin is exponentially distributed about the spectrum S, 1 for white and 1 / f for
    pink noise; a band is the sum of w S over bins: mean sum(w S), variance sum((w S)^2).
    """
    rate = config.audio.sample_rate
    filters = mel_filters(config.features, rate)
    hertz = np.fft.rfftfreq(config.features.n_fft, 1.0 / rate)
    spectra = np.stack([np.ones_like(hertz), 1.0 / np.maximum(hertz, hertz[1])])
    weighted = filters[None] * spectra[:, None]
    mean = weighted.sum(axis=2)
    return mean, np.maximum(1.0, mean**2 / (weighted**2).sum(axis=2) / _BINS_AS_ONE)
