"""Calls as energy in a band that stands out of the noise: what a recorder's trigger does, mended.

Spectra are divided, frequency by frequency, by a noise floor that follows the recording. A frame's
score is the level of its loudest sub-band above that floor, in decibels; frames whose whitened
spectrum is flat (clicks, rain, a knock on the microphone) count as silent, since calls are narrow.
Events are made from the score by hysteresis, as from any model's.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from pydantic import Field, model_validator
from scipy.fft import rfft
from scipy.ndimage import uniform_filter, uniform_filter1d

from local.config import Section
from local.features.front_ends.front_end import WAVEFORM
from local.features.store import FeatureStore
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.labels.grid import FrameGrid, hop_seconds
from local.labels.spans import Span, frames_to_events

# Added to power, far below the last bit of 16-bit sound: digital silence has a finite level.
_TINY = 1e-12
_BLOCK_S = 1.0
# Decibels to natural logarithm: odds of a call are the power ratio over the one at the threshold.
_PER_DB = math.log(10.0) / 10.0


class EnergyParams(Section):
    """Parameters of the detector, in seconds, hertz and decibels."""

    # Band that calls lie in; null is half the sample rate.
    f_min_hz: float = Field(gt=0.0)
    f_max_hz: float | None = Field(default=None, gt=0.0)
    # Length of a transform, and from one frame to the next.
    window_s: float = Field(default=0.002, gt=0.0)
    hop_s: float = Field(default=0.001, gt=0.0)
    # A call's own width: energy is taken over sub-bands of this width, and over this long.
    width_hz: float = Field(default=4000.0, gt=0.0)
    smooth_s: float = Field(default=0.003, ge=0.0)
    # The floor is a quantile of the power in stretches of this length, a stretch and its two
    # neighbours together; calls must leave a frequency alone for more than that share of the time.
    floor_s: float = Field(default=2.0, gt=0.0)
    floor_quantile: float = Field(default=0.3, gt=0.0, lt=1.0)
    # Hysteresis: an event reaches `on_db` and goes on down to `off_db`.
    on_db: float = 7.0
    off_db: float = 4.0
    # Spectral flatness, geometric over arithmetic mean: of white noise -2.5 dB, of tones far less.
    max_flatness_db: float = Field(default=-4.0, le=0.0)
    min_duration_s: float = Field(default=0.005, ge=0.0)
    max_gap_s: float = Field(default=0.012, ge=0.0)

    @model_validator(mode="after")
    def _in_order(self) -> "EnergyParams":
        if self.off_db > self.on_db:
            raise ValueError(f"off_db {self.off_db:g} is above on_db {self.on_db:g}")
        if self.hop_s > self.window_s:
            raise ValueError(f"hop_s {self.hop_s:g} is longer than window_s {self.window_s:g}")
        if self.f_max_hz is not None and self.f_max_hz <= self.f_min_hz:
            raise ValueError(f"f_max_hz {self.f_max_hz:g} is not above f_min_hz {self.f_min_hz:g}")
        return self


class EnergyDetector:
    """See the module.

    Frame i stands for [i, i + 1) * hop_s seconds, hop_s being whole samples; a rest that fills no
    frame is left out, and a recording shorter than a frame has one.

    Raises
    ------
    CanopyError
        Band or lengths that the sample rate cannot give.
    """

    def __init__(self, params: EnergyParams, sample_rate: int) -> None:
        self.params = params
        self.hop = max(1, round(params.hop_s * sample_rate))
        self.window = max(self.hop, round(params.window_s * sample_rate))
        self.hop_s = hop_seconds(self.hop, sample_rate)
        hertz = np.fft.rfftfreq(self.window, 1.0 / sample_rate)
        f_max = params.f_max_hz or sample_rate / 2
        self._bins = (hertz >= params.f_min_hz) & (hertz <= f_max)
        if f_max > sample_rate / 2 or self._bins.sum() < 3:
            raise CanopyError(
                f"band {params.f_min_hz:g} to {f_max:g} Hz has {self._bins.sum()} frequencies at "
                f"sample rate {sample_rate} and window_s {params.window_s:g}, which reach up to "
                f"{sample_rate / 2:g} Hz; choose another band or a longer window"
            )
        self._taper = np.hanning(self.window + 2)[1:-1].astype(np.float32)
        self._n_width = max(1, round(params.width_hz / hertz[1]))
        self._n_smooth = max(1, round(params.smooth_s / self.hop_s)) | 1
        self._n_stretch = max(self._n_smooth, round(params.floor_s / self.hop_s))
        # Power of noise is exponentially distributed: its quantile as a share of its mean.
        self._quantile_share = -math.log1p(-params.floor_quantile)

    def scores(self, wave: np.ndarray) -> np.ndarray:
        """(n,) decibels of a whole recording."""
        return np.concatenate(list(self.stream([wave])))

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Scores of a recording that arrives in blocks, the same whatever their lengths.

        Memory holds four stretches of `floor_s`; scores come one to two of them late.
        """
        before: np.ndarray | None = None
        here: np.ndarray | None = None
        for after in self._stretches(blocks):
            if here is not None:
                yield self._score(before, here, after)
            before, here = here, after
        if here is not None:
            yield self._score(before, here, None)

    def _stretches(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Power (n_stretch, K) of consecutive frames; the last stretch may be shorter."""
        waiting: list[np.ndarray] = []
        n_waiting = 0
        for power in self._powers(blocks):
            waiting.append(power)
            n_waiting += len(power)
            while n_waiting >= self._n_stretch:
                joined = np.concatenate(waiting)
                yield joined[: self._n_stretch]
                waiting, n_waiting = [joined[self._n_stretch :]], n_waiting - self._n_stretch
        if n_waiting:
            yield np.concatenate(waiting)

    def _powers(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Power in the band of all frames that are complete, piece by piece."""
        before = (self.window - self.hop) // 2
        rest: np.ndarray = np.zeros(before, dtype=np.float32)
        n_samples = n_done = 0
        for block in blocks:
            n_samples += len(block)
            rest = np.concatenate([rest, np.asarray(block, dtype=np.float32)])
            n_ready = max(0, (len(rest) - self.window) // self.hop + 1)
            if n_ready:
                yield self._power(rest, n_ready)
                n_done += n_ready
                rest = rest[n_ready * self.hop :]
        if n_samples == 0:
            raise ValueError("no samples in the stream")
        n_left = max(1, n_samples // self.hop) - n_done
        if n_left > 0:
            yield self._power(np.pad(rest, (0, self.window + self.hop)), n_left)

    def _power(self, signal: np.ndarray, n_frames: int) -> np.ndarray:
        """(n_frames, K) from the first sample of `signal` on."""
        frames = np.lib.stride_tricks.sliding_window_view(signal, self.window)[:: self.hop]
        spectrum = rfft(frames[:n_frames] * self._taper, axis=1)[:, self._bins]
        return spectrum.real**2 + spectrum.imag**2 + np.float32(_TINY)

    def _score(
        self, before: np.ndarray | None, here: np.ndarray, after: np.ndarray | None
    ) -> np.ndarray:
        """Scores (len(here),) of one stretch between its neighbours."""
        around = [part for part in (before, here, after) if part is not None]
        floor = np.quantile(np.concatenate(around), self.params.floor_quantile, axis=0)
        margin = self._n_smooth // 2
        edges = [
            np.zeros_like(here[:0]) if before is None else before[len(before) - margin :],
            here,
            np.zeros_like(here[:0]) if after is None else after[:margin],
        ]
        white = np.concatenate(edges) / (floor / self._quantile_share)
        inside = slice(len(edges[0]), len(edges[0]) + len(here))
        bands = uniform_filter(white, (self._n_smooth, self._n_width), mode="nearest")
        level = 10.0 * np.log10(bands.max(axis=1)[inside])
        geometric, arithmetic = (
            uniform_filter1d(mean, self._n_smooth, mode="nearest")[inside]
            for mean in (np.exp(np.log(white).mean(axis=1)), white.mean(axis=1))
        )
        flat = 10.0 * np.log10(geometric / arithmetic) > self.params.max_flatness_db
        return np.where(flat, 0.0, np.maximum(0.0, level)).astype(np.float32)

    def events(self, scores: np.ndarray) -> list[Span]:
        """Spans of calls; their scores are decibels above the floor."""
        params = self.params
        return frames_to_events(
            scores,
            FrameGrid(len(scores), self.hop_s),
            params.on_db,
            params.off_db,
            params.min_duration_s,
            params.max_gap_s,
        )

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Scores as logits: 0 at `on_db`, the odds being the power ratio over that one."""
        return ((scores - self.params.on_db) * _PER_DB).astype(np.float32)


def energy_scores(
    dump: FeatureStore, recording_ids: list[str], label: str, params: EnergyParams
) -> Scores:
    """Scores of recordings as a model would give them, from a dump of waveforms.

    One class, `label`; a recording's own score is its highest frame's.
    """
    if dump.front_end.input != WAVEFORM:
        raise CanopyError(
            f"{dump.folder}: holds {dump.front_end.kind} features, the energy detector reads "
            "waveforms; set features.kind to wave"
        )
    rate = dump.config.audio.sample_rate
    detector = EnergyDetector(params, rate)
    frames = []
    for name in recording_ids:
        n = dump.n_frames(name)
        edges = [*range(0, n, round(_BLOCK_S * rate)), n]
        blocks = (dump.crop(name, start, end - start) for start, end in pairwise(edges))
        scores = np.concatenate(list(detector.stream(blocks)))
        frames.append(detector.logits(scores)[None])
    highest = np.array([logit.max(axis=1) for logit in frames], dtype=np.float32).reshape(-1, 1)
    return Scores(recording_ids, [label], frames, highest, detector.hop_s, 0.0)
