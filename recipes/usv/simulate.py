"""Calls that no recording here has, over the noise of one that is here.

Rodents of other strains whistle other shapes: rising, falling, arched, wavy, with jumps of pitch,
with an overtone, of 5 ms or a quarter of a second. The noise is made of a recording's own silence:
each frequency's median power there, with a phase of its own, so that nothing of its calls is left.
"""

import numpy as np
from scipy.signal import istft

from recipes.usv.changes import Sound, floor_of

SHAPES = ("flat", "sweep", "arch", "wave", "jump", "overtone", "short", "long")
# Seconds of a call by shape; all others.
_LENGTHS = {"short": (0.005, 0.012), "long": (0.12, 0.25)}
_LENGTH = (0.015, 0.1)
# The power of a call, its level, stands above that of the noise in a band so wide.
_LEVEL_HZ = 4_000.0


def simulated(
    sound: Sound,
    rng: np.random.Generator,
    seconds: float,
    level_db: tuple[float, float],
    shapes: tuple[str, ...] = SHAPES,
) -> Sound:
    """Calls of all shapes in turn, each at a level of its own, over the noise of `sound`."""
    wave = silence(sound, rng, round(seconds * sound.rate))
    hertz, floor = floor_of(Sound(wave, sound.rate, np.zeros((0, 2))))
    # Power of noise in 1 Hz: of white noise the cells of `floor` hold the rate over 1.5 windows.
    density = floor / (1.5 * hertz[1])
    calls = []
    place, number = rng.uniform(0.02, 0.2), int(rng.integers(len(shapes)))
    while True:
        shape = shapes[number % len(shapes)]
        length = rng.uniform(*_LENGTHS.get(shape, _LENGTH))
        if place + length > seconds:
            break
        n = round(length * sound.rate)
        call, pitch = make_call(shape, n, sound.rate, rng)
        start = round(place * sound.rate)
        power = 2 * np.interp(np.median(pitch), hertz, density) * _LEVEL_HZ
        gain = np.sqrt(power * 10 ** (rng.uniform(*level_db) / 10))
        wave[start : start + n] += gain * call[: len(wave) - start]
        calls.append((start / sound.rate, (start + n) / sound.rate))
        place += length + rng.uniform(0.02, 0.15) + (rng.random() < 0.15) * rng.uniform(0.2, 0.6)
        number += 1
    return Sound(wave, sound.rate, np.array(calls).reshape(-1, 2))


def silence(sound: Sound, rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """(n,) noise with the spectrum of a recording's silence."""
    hertz, floor = floor_of(sound)
    n_frames = n_samples // 128 + 8
    shape = len(hertz), n_frames
    cells = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    cells *= np.sqrt(floor / 2)[:, None]
    _, wave = istft(cells, sound.rate, nperseg=512, noverlap=384, boundary=True)
    wave = wave[:n_samples]
    # Neighbouring cells of free draws do not agree, and some of their power is lost.
    _, made = floor_of(Sound(wave, sound.rate, np.zeros((0, 2))))
    return wave * np.sqrt(np.median(floor / made))


def make_call(
    shape: str, n: int, rate: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) a call of mean power 1 and its pitch in hertz (n,)."""
    share = np.linspace(0.0, 1.0, n)
    pitch = rng.uniform(40e3, 85e3) * np.ones(n)
    span = rng.uniform(5e3, 25e3)
    if shape in ("sweep", "short"):
        pitch += span * (share - 0.5) * rng.choice([-1, 1])
    elif shape == "arch":
        pitch += span * (4 * share * (1 - share) - 0.5) * rng.choice([-1, 1])
    elif shape in ("wave", "long"):
        turns = n / rate * rng.uniform(15, 60)
        pitch += 0.3 * span * np.sin(2 * np.pi * (turns * share + rng.random()))
    elif shape == "jump":
        for place in rng.uniform(0.2, 0.8, rng.integers(1, 3)):
            pitch[round(place * n) :] += rng.uniform(8e3, 20e3) * rng.choice([-1, 1])
    pitch += rng.uniform(-2e3, 2e3) * share
    pitch = np.clip(pitch, 25e3, 115e3)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = np.sin(phase)
    if shape == "overtone":
        wave += rng.uniform(0.2, 0.6) * np.sin(2 * phase) * (pitch < 0.24 * rate)
    ramp = np.minimum(1.0, np.minimum(share, 1 - share) * n / (0.0015 * rate))
    wave *= ramp * (1 + 0.5 * np.sin(2 * np.pi * (share * rng.uniform(0.5, 3) + rng.random())))
    return wave / np.sqrt(np.mean(wave**2)), pitch
