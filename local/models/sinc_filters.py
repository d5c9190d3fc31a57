"""Band-pass filters whose edges are learned (SincNet, Ravanelli and Bengio 2018).

A filter is the difference of two ideal low-pass filters, cut to a Hamming window: two numbers, low
edge and band, in place of one number a tap. Frequencies are kept as shares of the sample rate, so
that one learning rate serves speech and ultrasound; the parameters say them in hertz.
"""

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from local.config import Section

Hertz = Annotated[float, Field(ge=0.0)]
Above0 = Annotated[float, Field(gt=0.0)]

# The published floors and outer edges belong to speech at this rate; at another one they keep
# their share of it.
_PUBLISHED_RATE = 16_000
_PUBLISHED_FLOOR_HZ = 50.0
_PUBLISHED_LOWEST_HZ = 30.0
_PUBLISHED_HIGHEST_BELOW_NYQUIST_HZ = 100.0
_PUBLISHED_FIRST_MEL = 80.0
# What is learned starts no closer to 0 than this share of its floor: |x| has no gradient there.
_START_ABOVE = 0.01


class SincParams(Section):
    """Parameters of a bank of sinc filters."""

    # Rate of the waveforms, which must be audio.sample_rate.
    sample_rate: Annotated[int, Field(ge=100)] = 16000
    n_filters: int = Field(default=80, ge=1)
    # Length in samples, odd; or in milliseconds (the nearest odd number of samples).
    kernel: int = Field(default=251, ge=3)
    kernel_ms: Above0 | None = None
    stride: int = Field(default=1, ge=1)
    # Where edges start: as published (mel over the whole band); evenly by mel or by hertz between
    # f_min_hz and f_max_hz, a filter spanning its neighbours' centres; or each band as given.
    spacing: Literal["published", "mel", "linear", "given"] = "mel"
    f_min_hz: Hertz | None = None
    f_max_hz: Above0 | None = None
    bands_hz: list[tuple[Hertz, Above0]] = Field(default=[])
    # Lowest low edge and narrowest band; null: 50 Hz at 16 kHz, in proportion at other rates.
    min_low_hz: Hertz | None = None
    min_band_hz: Above0 | None = None
    # Edges learn at this share of the optimiser's rate (with Adam, whose step is the rate, they
    # move by 250 Hz at 250 kHz and a rate of 0.001): they are kept divided by it.
    edge_rate: Above0 = 1.0

    @model_validator(mode="after")
    def _filters_fit(self) -> "SincParams":
        nyquist = self.sample_rate / 2
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}; an odd number has a middle")
        if (self.spacing == "given") != bool(self.bands_hz):
            raise ValueError("spacing: given goes with bands_hz, and only so")
        if self.bands_hz and len(self.bands_hz) != self.n_filters:
            raise ValueError(f"bands_hz has {len(self.bands_hz)} bands, n_filters {self.n_filters}")
        wrong = [band for band in self.bands_hz if not band[0] < band[1] <= nyquist]
        if wrong:
            raise ValueError(f"band {list(wrong[0])} is not low, high up to {nyquist:g} Hz")
        if not self.f_min < self.f_max <= nyquist:
            raise ValueError(
                f"filters from {self.f_min:g} to {self.f_max:g} Hz do not fit sample_rate "
                f"{self.sample_rate}"
            )
        if self.min_low + self.min_band >= nyquist:
            raise ValueError(
                f"min_low_hz {self.min_low:g} and min_band_hz {self.min_band:g} reach beyond half "
                f"of sample_rate {self.sample_rate}"
            )
        return self

    @property
    def taps(self) -> int:
        """Length of a filter in samples, odd."""
        if self.kernel_ms is None:
            return self.kernel
        return 2 * max(1, int(self.kernel_ms * 1e-3 * self.sample_rate / 2 + 1e-9)) + 1

    def _published(self, hertz: float) -> float:
        return hertz * self.sample_rate / _PUBLISHED_RATE

    @property
    def f_min(self) -> float:
        """Lower end of the filters in hertz."""
        return self._published(_PUBLISHED_LOWEST_HZ) if self.f_min_hz is None else self.f_min_hz

    @property
    def f_max(self) -> float:
        """Upper end of the filters in hertz."""
        below = self._published(_PUBLISHED_HIGHEST_BELOW_NYQUIST_HZ)
        return self.sample_rate / 2 - below if self.f_max_hz is None else self.f_max_hz

    @property
    def min_low(self) -> float:
        """Lowest low edge in hertz."""
        floor = self._published(_PUBLISHED_FLOOR_HZ)
        return floor if self.min_low_hz is None else self.min_low_hz

    @property
    def min_band(self) -> float:
        """Narrowest band in hertz."""
        floor = self._published(_PUBLISHED_FLOOR_HZ)
        return floor if self.min_band_hz is None else self.min_band_hz


def start_edges(params: SincParams) -> np.ndarray:
    """(n_filters, 2) hertz: low and high edge of each filter before training."""
    n = params.n_filters
    if params.spacing == "given":
        return np.array(params.bands_hz, dtype=np.float64)
    if params.spacing == "published":
        first, last = _PUBLISHED_FIRST_MEL, _to_mel(params.sample_rate / 2)
        centres = _from_mel(np.linspace(first, last, n))
        low = np.concatenate([[params.f_min], centres[:-1]])
        high = np.concatenate([centres[1:], [params.f_max]])
        # With few filters neighbours of the first may lie below its own lowest edge.
        return np.stack([np.minimum(low, high - 1.0).clip(0.0), high], axis=1)
    if params.spacing == "linear":
        corners = np.linspace(params.f_min, params.f_max, n + 2)
    else:
        corners = _from_mel(np.linspace(_to_mel(params.f_min), _to_mel(params.f_max), n + 2))
    return np.stack([corners[:-2], corners[2:]], axis=1)


def _to_mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def _from_mel(mel: np.ndarray) -> np.ndarray:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


class SincFilters(nn.Module):
    """A bank of band-pass filters; see the module and `SincParams`.

    Tap n from the middle of a filter with edges f1 < f2 (shares of the rate) is

        (sin 2 pi f2 n - sin 2 pi f1 n) / (2 pi n (f2 - f1)) * (0.54 - 0.46 cos(2 pi m / (L - 1)))

    with m from 0 the tap's number, and 1 in the middle: divided by twice the band, which is what
    the untapered filter is in its middle, its largest value. One half is computed, and mirrored.

    Attributes
    ----------
    low, band : (n_filters,) what is learned: by how much the low edge and the band pass their
        floors, as shares of the sample rate over `edge_rate`; signs do not matter.
    """

    angle: torch.Tensor
    window: torch.Tensor

    def __init__(self, params: SincParams) -> None:
        super().__init__()
        self.sample_rate = params.sample_rate
        self.stride = params.stride
        self.n_filters = params.n_filters
        self.taps = params.taps
        self.min_low = params.min_low / params.sample_rate
        self.min_band = params.min_band / params.sample_rate
        edges = start_edges(params) / params.sample_rate
        # A filter is its band about its middle, also where the floor makes it wider.
        band = np.maximum(edges[:, 1] - edges[:, 0], self.min_band)
        low = np.clip(edges.mean(axis=1) - band / 2, self.min_low, 0.5 - band)
        self.edge_rate = params.edge_rate
        self.low = nn.Parameter(_above(low, self.min_low) / self.edge_rate)
        self.band = nn.Parameter(_above(band, self.min_band) / self.edge_rate)
        self.register_buffer(
            "angle", 2.0 * math.pi * torch.arange(1, self.taps // 2 + 1), persistent=False
        )
        window = np.hamming(self.taps)[self.taps // 2 + 1 :]
        self.register_buffer("window", torch.tensor(window, dtype=torch.float32), persistent=False)

    def edges(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Low and high edge of each filter, (n_filters,) shares of the sample rate in [0, 0.5]."""
        low = (self.min_low + self.edge_rate * self.low.abs()).clamp(max=0.5 - self.min_band)
        return low, (low + self.min_band + self.edge_rate * self.band.abs()).clamp(max=0.5)

    def kernels(self) -> torch.Tensor:
        """(n_filters, taps) the filters, symmetric, in the parameters' own precision."""
        low, high = self.edges()
        # Sines of large arguments lose digits in half precision, so this is never autocast.
        with torch.autocast(self.low.device.type, enabled=False):
            sines = torch.sin(high[:, None] * self.angle) - torch.sin(low[:, None] * self.angle)
            side = sines / (self.angle * (high - low)[:, None]) * self.window
            return torch.cat([side.flip(1), torch.ones_like(low)[:, None], side], dim=1)

    def forward(self, x: torch.Tensor, same: bool = True) -> torch.Tensor:
        """(N, n) samples -> (N, n_filters, n'); n' = ceil(n / stride), or without padding less."""
        kernels = self.kernels()[:, None].to(x.dtype)
        padding = self.taps // 2 if same else 0
        return nn.functional.conv1d(x[:, None], kernels, stride=self.stride, padding=padding)


def _above(value: np.ndarray, floor: float) -> torch.Tensor:
    start = np.maximum(value - floor, _START_ABOVE * floor)
    return torch.tensor(start, dtype=torch.float32)


class FilterResponse(NamedTuple):
    """How filters answer: `hertz` (K,), `gain_db` (n_filters, K), `edges_hz` (n_filters, 2)."""

    hertz: np.ndarray
    gain_db: np.ndarray
    edges_hz: np.ndarray


def filter_response(filters: SincFilters, n_points: int = 1024) -> FilterResponse:
    """Frequency response of a bank as it is now, each filter 0 dB where it is largest.

    Filters come in the order of their middles, so that a picture before training and one after can
    be compared row by row only by eye; `SincFilters.edges` keeps the order of the parameters.
    """
    with torch.no_grad():
        kernels = filters.kernels().double().cpu().numpy()
        edges = torch.stack(filters.edges(), dim=1).double().cpu().numpy() * filters.sample_rate
    n_fft = max(2 * n_points, 2 ** math.ceil(math.log2(filters.taps)))
    gain = np.abs(np.fft.rfft(kernels, n_fft, axis=1))
    gain_db = 20 * np.log10(np.maximum(gain / gain.max(axis=1, keepdims=True), 1e-6))
    order = np.argsort(edges.mean(axis=1), kind="stable")
    hertz = np.fft.rfftfreq(n_fft, 1.0 / filters.sample_rate)
    return FilterResponse(hertz, gain_db[order], edges[order])
