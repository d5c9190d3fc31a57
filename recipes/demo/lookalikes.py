"""A spectral template matcher: where a recording resembles a class most although it is not there.

The competition's false positives are candidates of a template matcher that experts rejected. Here
the template of a song is the mean log spectrogram of some of its calls in their band, the match is
the normalised cross-correlation over time (1: same shape, whatever its level), and a rejected
candidate is the best peak that does not touch a true call of the class.
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from recipes.demo.calls import Call

# Decibels that a template reaches below its loudest cell, and a recording above its own median.
_RANGE_DB = 30.0
_N_BANDS = 128
# Seconds kept between a look-alike and a true call of its class: more than half a frame, so that
# spans rounded for the table cannot touch.
MARGIN_S = 0.1


@dataclass(frozen=True)
class FrontEnd:
    """Power spectrogram of `n_fft` samples every half of that, pooled to mel-like bands."""

    rate: int
    n_fft: int
    edges: np.ndarray  # first bin of each band, and the end of the last

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return self.n_fft // 2

    def bins(self, low: float, high: float) -> slice:
        """FFT bins whose centre lies in [low, high] hertz; at least one."""
        first = int(np.ceil(low * self.n_fft / self.rate))
        last = int(np.floor(high * self.n_fft / self.rate))
        return slice(first, max(last, first) + 1)

    def bands(self, low: float, high: float) -> slice:
        """Pooled bands that overlap [low, high] hertz; at least two."""
        bins = self.bins(low, high)
        first = int(np.searchsorted(self.edges, bins.start, side="right")) - 1
        last = int(np.searchsorted(self.edges, bins.stop, side="left"))
        first = max(0, min(first, len(self.edges) - 3))
        return slice(first, max(last, first + 2))

    def power(self, wave: np.ndarray) -> np.ndarray:
        """Power spectrogram (frames, bins) whose bins add up to the mean power of the wave."""
        window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)
        if len(wave) < self.n_fft:
            wave = np.pad(wave, (0, self.n_fft - len(wave)))
        frames = np.lib.stride_tricks.sliding_window_view(wave, self.n_fft)[:: self.hop]
        spectrum = rfft(frames * window, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        power *= 2.0 / (self.n_fft * np.sum(window**2))
        return power

    def pooled_db(self, power: np.ndarray) -> np.ndarray:
        """Decibels of the pooled bands, (bands, frames)."""
        widths = np.diff(self.edges)
        pooled = np.add.reduceat(power, self.edges[:-1], axis=1) / widths
        return (10.0 * np.log10(pooled + 1e-14)).T


@dataclass(frozen=True)
class Template:
    """Mean log spectrogram of a song: zero mean and unit norm, (bands of its band, frames)."""

    shape: np.ndarray
    bands: slice
    duration: float
    low: float
    high: float


def front_end(rate: int) -> FrontEnd:
    """A front end of about 21 ms windows for a sample rate in hertz."""
    n_fft = 2 ** round(np.log2(0.0213 * rate))
    mel = np.linspace(0.0, np.log1p(rate / 2 / 700.0), _N_BANDS + 1)
    edges = np.round(700.0 * np.expm1(mel) * n_fft / rate).astype(int)
    edges[-1] = n_fft // 2 + 1
    return FrontEnd(rate, n_fft, np.unique(edges))


def make_template(calls: list[Call], front: FrontEnd) -> Template:
    """Template of clean calls of one song: median length and band, mean log spectrogram."""
    duration = float(np.median([call.duration for call in calls]))
    low = float(np.median([call.low for call in calls]))
    high = float(np.median([call.high for call in calls]))
    bands = front.bands(low, high)
    n_frames = max(2, round(duration * front.rate / front.hop))
    pictures = []
    for call in calls:
        level = front.pooled_db(front.power(call.wave))[bands]
        level = np.clip(level - level.max() + _RANGE_DB, 0.0, None)[:, :n_frames]
        pictures.append(np.pad(level, ((0, 0), (0, n_frames - level.shape[1]))))
    shape = np.mean(pictures, axis=0)
    shape -= shape.mean()
    shape /= np.linalg.norm(shape) + 1e-12
    return Template(shape.astype(np.float32), bands, duration, low, high)


class Matcher:
    """One recording made ready for many templates."""

    def __init__(self, power: np.ndarray, front: FrontEnd, duration: float) -> None:
        level = front.pooled_db(power)
        level = np.clip(level - np.median(level, axis=1, keepdims=True), 0.0, _RANGE_DB)
        self._front, self._duration = front, duration
        self._level = level.astype(np.float32)
        self._n = level.shape[1]
        self._n_fft = next_fast_len(self._n + 1, real=True)
        self._spectrum = rfft(self._level, self._n_fft, axis=1)

    def score(self, template: Template) -> np.ndarray:
        """Normalised cross-correlation, -1 to 1, for each frame at which the template can start."""
        n_bands, length = template.shape.shape
        if length > self._n:
            return np.empty(0)
        kernel = rfft(template.shape, self._n_fft, axis=1).conj()
        product = np.sum(self._spectrum[template.bands] * kernel, axis=0)
        dot = irfft(product, self._n_fft)[: self._n - length + 1]
        part = self._level[template.bands].astype(np.float64)
        total = _moving_sum(part.sum(axis=0), length)
        square = _moving_sum((part**2).sum(axis=0), length)
        spread = np.sqrt(np.maximum(square - total**2 / (n_bands * length), 0.0))
        # A patch without any relief resembles nothing: 1 dB of spread a cell as a floor.
        return dot / np.maximum(spread, np.sqrt(n_bands * length))

    def best(
        self, template: Template, taken: list[tuple[float, float]], n: int
    ) -> list[tuple[float, float]]:
        """Up to `n` strongest matches (onset in s, score), disjoint and clear of `taken`."""
        score = self.score(template)
        step = self._front.hop / self._front.rate
        onset = np.arange(len(score)) * step
        score[onset + template.duration > self._duration] = -np.inf
        for start, end in taken:
            touches = (onset < end + MARGIN_S) & (onset + template.duration > start - MARGIN_S)
            score[touches] = -np.inf
        found = []
        while len(found) < n and len(score):
            peak = int(np.argmax(score))
            if not np.isfinite(score[peak]):
                break
            found.append((float(onset[peak]), float(score[peak])))
            score[np.abs(onset - onset[peak]) < template.duration] = -np.inf
        return found


def _moving_sum(values: np.ndarray, length: int) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[length:] - total[:-length]
