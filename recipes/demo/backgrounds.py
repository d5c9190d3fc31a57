"""Backgrounds that differ by recording site: coloured noise, rain, wind, insects, hum.

A site is drawn once (`draw_site`) and keeps its colour, its insects and its mains hum; the weather
is drawn for each recording.
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, rfft, rfftfreq


@dataclass(frozen=True)
class Insect:
    """A stridulating insect: a carrier gated in pulses, the pulses grouped in chirps."""

    carrier_hz: float
    pulse_hz: float
    chirp_hz: float
    duty: float
    level_db: float


@dataclass(frozen=True)
class Site:
    """What the microphone hears at one place when nothing calls."""

    name: str
    slope_db: float  # per octave above 100 Hz
    humps: tuple[tuple[float, float, float], ...]  # (centre Hz, width in octaves, gain dB)
    level_dbfs: float
    insects: tuple[Insect, ...]
    hum_hz: float  # 0: none
    hum_db: float
    p_rain: float
    wind_db: float


def draw_site(name: str, rate: int, rng: np.random.Generator) -> Site:
    """A site at random; `rate` in hertz bounds its insects."""
    top = 0.45 * rate
    humps = tuple(
        (
            float(np.exp(rng.uniform(np.log(250), np.log(min(9000, top))))),
            float(rng.uniform(0.3, 1.2)),
            float(rng.uniform(2, 9)),
        )
        for _ in range(rng.integers(1, 4))
    )
    insects = tuple(
        Insect(
            carrier_hz=float(rng.uniform(min(3500, 0.6 * top), min(14000, top))),
            pulse_hz=float(rng.uniform(15, 70)),
            chirp_hz=float(rng.uniform(0.3, 3)),
            duty=float(rng.uniform(0.3, 1.0)),
            level_db=float(rng.uniform(-16, -6)),
        )
        for _ in range(rng.integers(0, 4))
    )
    return Site(
        name=name,
        slope_db=float(rng.uniform(-5.5, -1.5)),
        humps=humps,
        level_dbfs=float(rng.uniform(-44, -34)),
        insects=insects,
        hum_hz=float(rng.choice([50.0, 60.0, 100.0, 120.0])) if rng.random() < 0.4 else 0.0,
        hum_db=float(rng.uniform(-22, -12)),
        p_rain=float(rng.uniform(0.0, 0.4)),
        wind_db=float(rng.uniform(-14, -2)),
    )


def render_background(site: Site, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """`n` samples (float32, full scale 1) of the site under the weather of the hour."""
    base = _unit(_coloured(n, rate, lambda f: _site_gain_db(site, f), rng))
    for insect in site.insects:
        if rng.random() < 0.7:
            base += _gain(insect.level_db) * _insect(insect, n, rate, rng)
    if site.hum_hz:
        base += _gain(site.hum_db) * _hum(site.hum_hz, n, rate, rng)
    base += _gain(site.wind_db + rng.uniform(-10, 4)) * _wind(n, rate, rng)
    if rng.random() < site.p_rain:
        base += _gain(rng.uniform(-12, 0)) * rain(n, rate, rng)
    level = site.level_dbfs + rng.uniform(-2, 2)
    return (_gain(level) * _unit(base)).astype(np.float32)


def tilted(wave: np.ndarray, rate: int, slope_db: float) -> np.ndarray:
    """The samples (n,) as a recorder hears them that adds `slope_db` an octave above 1 kHz.

    Below 1 kHz it takes as much away; at most 24 dB of either.
    """
    octaves = np.log2(np.maximum(rfftfreq(len(wave), 1 / rate), 1.0) / 1000.0)
    gain_db = np.clip(slope_db * octaves, -24.0, 24.0)
    return irfft(rfft(wave) * 10 ** (gain_db / 20), len(wave)).astype(np.float32)


def _gain(level_db: float) -> np.float32:
    return np.float32(10 ** (level_db / 20))


def _unit(wave: np.ndarray) -> np.ndarray:
    return wave / np.float32(np.sqrt(np.mean(wave**2, dtype=np.float64)) + 1e-12)


def _site_gain_db(site: Site, frequency: np.ndarray) -> np.ndarray:
    octaves = np.log2(np.maximum(frequency, 100.0) / 100.0)
    gain = site.slope_db * octaves
    for centre, width, height in site.humps:
        distance = (octaves - np.log2(max(centre, 100.0) / 100.0)) / width
        gain = gain + height * np.exp(-0.5 * distance**2)
    return gain


def _coloured(n: int, rate: int, gain_db, rng: np.random.Generator) -> np.ndarray:
    """Stationary Gaussian noise whose spectrum follows `gain_db(frequency in Hz)`."""
    bins = n // 2 + 1
    spectrum = rng.standard_normal(2 * bins, dtype=np.float32).view(np.complex64)
    # The curve is smooth: evaluated on a coarse grid, interpolated to the bins.
    grid = np.concatenate([[0.0], np.geomspace(5.0, rate / 2, 400)])
    amplitude = np.interp(rfftfreq(n, 1 / rate), grid, 10 ** (gain_db(grid) / 20))
    spectrum *= amplitude.astype(np.float32)
    return irfft(spectrum, n)


def _slow(n: int, rate: int, rate_hz: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random curve (standard normal at its support points) that turns at `rate_hz`."""
    points = max(4, int(np.ceil(n / rate * rate_hz)) + 2)
    return np.interp(
        np.linspace(0, points - 1, n), np.arange(points), rng.standard_normal(points)
    ).astype(np.float32)


def _insect(insect: Insect, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(n, dtype=np.float64) / rate
    wander = 0.004 * _slow(n, rate, 2.0, rng)
    phase = 2 * np.pi * np.cumsum(insect.carrier_hz * (1.0 + wander)) / rate
    tone = np.sin(np.remainder(phase, 2 * np.pi).astype(np.float32))
    pulses = np.remainder(insect.pulse_hz * time, 1.0).astype(np.float32)
    gate = np.sin(np.pi * np.minimum(pulses / 0.6, 1.0)) ** 2
    chirp = np.remainder(insect.chirp_hz * time + rng.random(), 1.0).astype(np.float32)
    edge = np.clip((insect.duty - chirp) * 40, 0, 1) * np.clip(chirp * 40, 0, 1)
    return _unit(tone * gate * (edge if insect.duty < 0.95 else 1.0))


def _hum(base_hz: float, n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    # Exactly periodic within a second (whole hertz): one second is made and repeated.
    time = np.arange(rate) / rate
    wave = sum(
        np.sin(2 * np.pi * (k * base_hz * time + rng.random())) / k
        for k in range(1, 6)
        if k * base_hz < 0.45 * rate
    )
    return np.resize(_unit(wave), n).astype(np.float32)


def _wind(n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    rumble = _coloured(n, rate, lambda f: -9.0 * np.log2(np.maximum(f, 30.0) / 30.0), rng)
    return _unit(rumble * np.exp(0.7 * _slow(n, rate, 0.5, rng)))


def rain(n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A hiss that swells and falls, and single drops near the microphone."""
    hiss = _coloured(n, rate, lambda f: -6.0 * np.abs(np.log2(np.maximum(f, 50) / 3000)), rng)
    hiss = _unit(hiss) * np.exp(0.3 * _slow(n, rate, 0.3, rng))
    n_drops = rng.poisson(rng.uniform(2, 25) * n / rate)
    time = np.arange(int(0.008 * rate)) / rate
    pitch = rng.uniform(800, min(6000, 0.4 * rate), n_drops)[:, None]
    drops = np.sin(2 * np.pi * pitch * time) * np.exp(-time / 0.0015)
    drops *= rng.gamma(1.5, 2.0, n_drops)[:, None]
    start = rng.integers(0, n - len(time), n_drops)[:, None]
    wave = hiss.astype(np.float32)
    np.add.at(wave, start + np.arange(len(time)), drops.astype(np.float32))
    return _unit(wave)
