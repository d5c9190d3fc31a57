"""What augmentation needs to know of the features that it changes."""

from dataclasses import dataclass

import numpy as np
import torch

from local.config import Config
from local.features.front_ends.front_end import SPECTROGRAM, WAVEFORM, FrontEnd
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError

# Neighbouring bins of a Hann-windowed transform of noise share their power: so many bins of it
# count as one.
_BINS_AS_ONE = 1.5
# Keys of section `augment` that change spectra, with what leaves them out.
_SPECTRAL = {"stretch": None, "pitch_bands": 0, "freq_mask_spares_calls": False}
_NONE = torch.zeros(0)


@dataclass(frozen=True)
class InputKind:
    """The front end, and for spectra in bands of hertz what noise is in them.

    Attributes
    ----------
    band_width : (F,) hertz that each band stands for, so that power adds up over bands.
    noise_mean : (2, F) mean power of white and of pink noise in each band, in any one unit.
    noise_shape : (2, F) that power is a mean of about so many independent exponential draws.
    """

    front_end: FrontEnd
    band_width: torch.Tensor = _NONE
    noise_mean: torch.Tensor = _NONE
    noise_shape: torch.Tensor = _NONE

    @classmethod
    def of(cls, config: Config, device: torch.device | str = "cpu") -> "InputKind":
        """Of a configuration, checked; nothing is built that it does not augment with."""
        check_augment(config)
        front_end, augment = front_end_of(config), config.augment
        edges, weights = front_end.band_edges_hz(), front_end.band_weights()
        sounds = augment.noise_p + augment.background_p > 0 and front_end.level == "log_power"
        if edges is None or weights is None or not sounds:
            return cls(front_end)
        arrays = [(edges[:, 1] - edges[:, 0]) / 2, *_noise(*weights)]
        width, mean, shape = (torch.tensor(a, dtype=torch.float32, device=device) for a in arrays)
        return cls(front_end, width, mean, shape)

    @property
    def is_spectrogram(self) -> bool:
        """Whether windows are (B, K, F, T), and not samples."""
        return self.front_end.input == SPECTROGRAM

    @property
    def n_fft(self) -> int:
        """Length of the transform that shifts the pitch of waveforms."""
        return self.front_end.features.n_fft


def check_augment(config: Config) -> None:
    """Refuse augmentation that the features do not allow.

    Raises
    ------
    CanopyError
        Names the key, and what the front end would have to be.
    """
    front_end, augment = front_end_of(config), config.augment
    kind = f"features.kind {front_end.kind}"
    made_anew = front_end.keeps_wave and front_end.input == SPECTROGRAM
    if augment.wave_p > 0 and not (made_anew or front_end.input == WAVEFORM):
        raise CanopyError("augment.wave_p needs waveforms in the dump; set features.keep_wave")
    wrong = [key for key, off in _SPECTRAL.items() if getattr(augment, key) != off]
    if wrong and front_end.input != SPECTROGRAM:
        raise CanopyError(
            f"augment.{wrong[0]} works on spectrograms only, {kind} makes a {front_end.input}; "
            "leave it out"
        )
    no_bands = front_end.band_edges_hz() is None
    if augment.freq_mask_spares_calls and no_bands:
        raise CanopyError(
            f"augment.freq_mask_spares_calls needs bands in hertz, {kind} has none; leave it out"
        )
    powers = front_end.level == "amplitude" or (front_end.level == "log_power" and not no_bands)
    for key in ("gain_db", "noise_p", "background_p"):
        shown = front_end.level is not None if key == "gain_db" else powers
        if getattr(augment, key) > 0 and not shown:
            raise CanopyError(
                f"augment.{key} needs features that show how loud a sound is, {kind} makes none; "
                "set it to 0"
            )


def _noise(filters: np.ndarray, hertz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2, F) mean power of noise in bands, and how many draws it is the mean of.

    The power of a bin is exponentially distributed about the spectrum S, 1 for white and 1 / f for
    pink noise; a band is the sum of w S over bins: mean sum(w S), variance sum((w S)^2).
    """
    spectra = np.stack([np.ones_like(hertz), 1.0 / np.maximum(hertz, hertz[1])])
    weighted = filters[None] * spectra[:, None]
    mean = weighted.sum(axis=2)
    return mean, np.maximum(1.0, mean**2 / (weighted**2).sum(axis=2) / _BINS_AS_ONE)
