"""What another mouse, microphone or room would make of a recording, its calls with it.

A change takes a `Sound` and draws, and gives another `Sound`. Levels of what is added are decibels
above the recording's own floor: the power in a hertz, at the median of the silence between its
calls, over 20 to 110 kHz. The floor of a silent recording is that of white noise of 16 bits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from scipy.ndimage import uniform_filter
from scipy.signal import istft, resample_poly, stft

from local.io.files import atomic_path

BAND_HZ = (20_000.0, 110_000.0)
_WINDOW, _HOP = 512, 128
# Ends of calls are marked by eye, so silence begins a little beside them.
_BESIDE_S = 0.004
# Where the power about a cell exceeds the floor by so much, a call is heard in it.
_HEARD = 10**0.3
_STEP_OF_16_BITS = 2.0**-15


@dataclass(frozen=True)
class Sound:
    """Samples (n,) of full scale 1, their rate, and calls (E, 2): onset and offset in seconds."""

    wave: np.ndarray
    rate: int
    calls: np.ndarray


Change = Callable[[Sound, np.random.Generator], Sound]


def write_sound(path: Path, sound: Sound) -> None:
    """Write it in 16 bits, cut at full scale."""
    with atomic_path(path) as temporary:
        bounded = np.clip(sound.wave, -1.0, 1.0 - _STEP_OF_16_BITS)
        soundfile.write(temporary, bounded, sound.rate, "PCM_16", format="WAV")


def spectra(sound: Sound) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hertz (K,), complex spectra (K, T), their times (T,), and which lie in no call (T,) bool."""
    hertz, times, spectrum = stft(
        sound.wave, sound.rate, nperseg=_WINDOW, noverlap=_WINDOW - _HOP, boundary="even"
    )
    silent = np.ones(len(times), dtype=bool)
    for onset, offset in sound.calls:
        silent &= (times < onset - _BESIDE_S) | (times > offset + _BESIDE_S)
    return hertz, spectrum, times, silent if silent.any() else ~silent


def floor_of(sound: Sound) -> tuple[np.ndarray, np.ndarray]:
    """Hertz (K,) and mean power of a cell of the silence (K,), as `spectra` scales it.

    The power of noise is exponentially distributed: its mean is its median over log 2.
    """
    hertz, spectrum, _, silent = spectra(sound)
    floor = np.median(np.abs(spectrum[:, silent]) ** 2, axis=1) / np.log(2)
    return hertz, np.maximum(floor, _white_power(_STEP_OF_16_BITS**2 / 12, sound.rate))


def _white_power(variance: float, rate: int) -> float:
    """Mean power of a cell of white noise, as scipy.signal.stft scales it."""
    window = np.hanning(_WINDOW + 1)[:-1]
    return float(variance * (window**2).sum() / window.sum() ** 2)


def _deviation(sound: Sound, above_db: float) -> float:
    """Standard deviation of white noise so far above the floor."""
    hertz, floor = floor_of(sound)
    inside = (hertz >= BAND_HZ[0]) & (hertz <= BAND_HZ[1])
    level = floor[inside].mean() * 10 ** (above_db / 10)
    return float(np.sqrt(level / _white_power(1.0, sound.rate)))


def _shaped(n: int, rate: int, rng: np.random.Generator, gain: Callable) -> np.ndarray:
    """Noise (n,) whose spectrum has the amplitude `gain` of hertz; where that is 1, white."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(n, 1.0 / rate)), n)


# --------------------------------------------------------------------------------------- levels


def lower_calls(sound: Sound, _: np.random.Generator, down_db: float) -> Sound:
    """Calls fainter by so much, the noise as it is.

    In marked spans, where the smoothed power exceeds the floor, a cell keeps the floor and
    10^(-down_db / 10) of what it has above it.
    """
    hertz, spectrum, _, silent = spectra(sound)
    _, floor = floor_of(sound)
    power = np.abs(spectrum) ** 2
    heard = uniform_filter(power, (3, 3)) > _HEARD * floor[:, None]
    heard &= ~silent & (hertz >= BAND_HZ[0] / 2)[:, None]
    left = floor[:, None] + np.maximum(0.0, power - floor[:, None]) * 10 ** (-down_db / 10)
    gain = np.where(heard, np.sqrt(np.minimum(1.0, left / np.maximum(power, 1e-30))), 1.0)
    _, wave = istft(
        spectrum * gain, sound.rate, nperseg=_WINDOW, noverlap=_WINDOW - _HOP, boundary=True
    )
    return replace(sound, wave=wave[: len(sound.wave)])


def recorder(
    sound: Sound, _: np.random.Generator, gain_db: float = 0.0, offset: float = 0.0, bits: int = 16
) -> Sound:
    """Another level, a constant added, fewer bits; what passes full scale is clipped."""
    scale = 2.0 ** (bits - 1)
    wave = np.clip(sound.wave * 10 ** (gain_db / 20) + offset, -1.0, 1.0 - 1.0 / scale)
    return replace(sound, wave=np.round(wave * scale) / scale)


def tilt(sound: Sound, rng: np.random.Generator, most_db: float) -> Sound:
    """The answer of another microphone: a smooth curve over frequency, up to so much up or down."""
    n = len(sound.wave)
    hertz = np.fft.rfftfreq(n, 1.0 / sound.rate)
    knots = np.linspace(0.0, sound.rate / 2, 7)
    gain_db = np.interp(hertz, knots, rng.uniform(-most_db, most_db, 7))
    wave = np.fft.irfft(np.fft.rfft(sound.wave) * 10 ** (gain_db / 20), n)
    return replace(sound, wave=wave)


def play(sound: Sound, _: np.random.Generator, factor: float) -> Sound:
    """Played so many times as long: longer and lower calls, or shorter and higher ones."""
    ratio = Fraction(factor).limit_denominator(20)
    wave = resample_poly(sound.wave, ratio.numerator, ratio.denominator)
    return replace(sound, wave=wave, calls=sound.calls * float(ratio))


# ---------------------------------------------------------------------------------------- noises


def noise(sound: Sound, rng: np.random.Generator, above_db: float, slope: float = 0.0) -> Sound:
    """Noise whose power goes with frequency to the power of `slope`; -1 is pink."""
    middle = float(np.sqrt(np.prod(BAND_HZ)))

    def gain(hertz: np.ndarray) -> np.ndarray:
        return (np.maximum(hertz, 1_000.0) / middle) ** (slope / 2)

    added = _shaped(len(sound.wave), sound.rate, rng, gain)
    return replace(sound, wave=sound.wave + _deviation(sound, above_db) * added)


def swell(sound: Sound, rng: np.random.Generator, above_db: float) -> Sound:
    """White noise that comes and goes within a second or so, from silence to twice the power."""
    n = len(sound.wave)
    phase = 2 * np.pi * (rng.uniform(0.5, 1.5) * np.arange(n) / sound.rate + rng.random())
    level = np.sqrt(1 + np.sin(phase)) * _deviation(sound, above_db)
    return replace(sound, wave=sound.wave + level * rng.standard_normal(n))


def hiss(sound: Sound, rng: np.random.Generator, above_db: float, width_hz: float) -> Sound:
    """Noise in one band that lies anywhere in that of the calls."""
    low = rng.uniform(BAND_HZ[0], BAND_HZ[1] - width_hz)

    def gain(hertz: np.ndarray) -> np.ndarray:
        return ((hertz >= low) & (hertz <= low + width_hz)).astype(float)

    added = _shaped(len(sound.wave), sound.rate, rng, gain)
    return replace(sound, wave=sound.wave + _deviation(sound, above_db) * added)


def lines(
    sound: Sound, rng: np.random.Generator, above_db: float, n: int = 3, pulsed: bool = False
) -> Sound:
    """Electrical lines: steady tones that stand so far out of the floor in 1 kHz.

    With `pulsed` each is there for half of every two seconds or so, which no call does.
    """
    time = np.arange(len(sound.wave)) / sound.rate
    share = 1_000.0 / (sound.rate / 2)
    added = np.zeros(len(time))
    for _ in range(n):
        hertz = rng.uniform(*BAND_HZ)
        tone = np.sqrt(2 * share) * np.sin(2 * np.pi * (hertz * time + rng.random()))
        if pulsed:
            tone *= np.sin(2 * np.pi * (time * rng.uniform(0.4, 0.8) + rng.random())) > 0
        added += tone
    return replace(sound, wave=sound.wave + _deviation(sound, above_db) * added)


def clicks(sound: Sound, rng: np.random.Generator, above_db: float, rate_hz: float) -> Sound:
    """Knocks of the cage and the cable: bursts of noise that die away within 0.1 to 2 ms."""
    wave = sound.wave.copy()
    level = _deviation(sound, above_db)
    for start in rng.integers(0, len(wave), rng.poisson(rate_hz * len(wave) / sound.rate)):
        decay = np.exp(rng.uniform(np.log(1e-4), np.log(2e-3))) * sound.rate
        n = min(round(5 * decay), len(wave) - start)
        burst = rng.standard_normal(n) * np.exp(-np.arange(n) / decay)
        wave[start : start + n] += level * 10 ** (rng.uniform(-10, 0) / 20) * burst
    return replace(sound, wave=wave)


def movement(sound: Sound, rng: np.random.Generator, above_db: float, rate_hz: float) -> Sound:
    """An animal in its bedding: noise of 5 to 60 ms, loudest at audible frequencies."""
    wave = sound.wave.copy()
    level = _deviation(sound, above_db)
    for start in rng.integers(0, len(wave), rng.poisson(rate_hz * len(wave) / sound.rate)):
        n = min(round(rng.uniform(0.005, 0.06) * sound.rate), len(wave) - start)
        corner = rng.uniform(5_000.0, 40_000.0)
        burst = _shaped(n, sound.rate, rng, lambda hertz, at=corner: 1 / (1 + (hertz / at) ** 2))
        wave[start : start + n] += level * np.sin(np.pi * (np.arange(n) + 0.5) / n) * burst
    return replace(sound, wave=wave)


def any_of_them(sound: Sound, rng: np.random.Generator) -> Sound:
    """What a copy for training is made by: fainter calls, another microphone, one or two noises.

    Swelling noise, hiss, pulsed lines, few bits and clipping are left for `TRIED` alone.
    """
    if rng.random() < 0.3:
        sound = play(sound, rng, rng.uniform(0.75, 1.3))
    if rng.random() < 0.7:
        sound = lower_calls(sound, rng, rng.uniform(3, 12))
    if rng.random() < 0.5:
        sound = tilt(sound, rng, 8.0)
    noises: list[Change] = [
        partial(noise, above_db=rng.uniform(-3, 6), slope=rng.uniform(-1.5, 0.5)),
        partial(lines, above_db=rng.uniform(5, 25), n=int(rng.integers(1, 4))),
        partial(clicks, above_db=rng.uniform(15, 35), rate_hz=rng.uniform(3, 30)),
        partial(movement, above_db=rng.uniform(15, 35), rate_hz=rng.uniform(1, 6)),
    ]
    for number in rng.permutation(len(noises))[: rng.integers(1, 3)]:
        sound = noises[number](sound, rng)
    return sound


# Changes that `robustness.py` tries, by name.
TRIED: dict[str, Change] = {
    "as it is": partial(recorder),
    "calls 3 dB down": partial(lower_calls, down_db=3),
    "calls 6 dB down": partial(lower_calls, down_db=6),
    "calls 9 dB down": partial(lower_calls, down_db=9),
    "calls 12 dB down": partial(lower_calls, down_db=12),
    "white noise +0 dB": partial(noise, above_db=0),
    "white noise +6 dB": partial(noise, above_db=6),
    "white noise +10 dB": partial(noise, above_db=10),
    "pink noise +6 dB": partial(noise, above_db=6, slope=-1),
    "blue noise +6 dB": partial(noise, above_db=6, slope=1),
    "swelling noise +6 dB": partial(swell, above_db=6),
    "hiss of 30 kHz +10 dB": partial(hiss, above_db=10, width_hz=30_000),
    "three lines +20 dB": partial(lines, above_db=20),
    "three pulsed lines +15 dB": partial(lines, above_db=15, pulsed=True),
    "20 clicks/s +30 dB": partial(clicks, above_db=30, rate_hz=20),
    "movement 4/s +30 dB": partial(movement, above_db=30, rate_hz=4),
    "another microphone, 10 dB": partial(tilt, most_db=10),
    "gain -30 dB, 16 bits": partial(recorder, gain_db=-30),
    "8 bits, 2 % offset": partial(recorder, bits=8, offset=0.02),
    "gain +15 dB, clipped": partial(recorder, gain_db=15),
    "played 1.2 times as long": partial(play, factor=1.2),
    "played 0.8 times as long": partial(play, factor=0.8),
}
