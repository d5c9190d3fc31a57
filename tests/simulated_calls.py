"""Made-up recordings of calls with Raven tables, for what a recipe makes of a folder.

    python tests/simulated_calls.py song FOLDER      30 recordings, 8 voices, and `left_out` beside
    python tests/simulated_calls.py syllables FOLDER 60 songs of nine classes, and 20 new ones

Each syllable is a stack of harmonics with a sweep of its own; the voices differ in pitch, in tract
and in repertoire. Calls in a bout follow each other at the gaps that are asked for.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

HEADER = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    "Annotation"
)


@dataclass(frozen=True)
class Syllable:
    """One kind of call: fundamental and sweep in hertz, harmonics, duration, share of noise."""

    pitch: float
    sweep: float
    n_harmonics: int
    duration: float
    noise: float
    tract: float

    def sound(self, rate: int, rng: np.random.Generator) -> np.ndarray:
        """One rendition, of about the usual pitch and duration."""
        n = int(self.duration * rng.uniform(0.92, 1.08) * rate)
        t = np.arange(n) / n
        bend = self.sweep * (t - 0.5) + 0.03 * self.pitch * np.sin(2 * np.pi * 2 * t)
        phase = 2 * np.pi * np.cumsum(self.pitch * rng.uniform(0.98, 1.02) + bend) / rate
        sound = np.zeros(n)
        for k in range(1, self.n_harmonics + 1):
            if k * (self.pitch + abs(self.sweep)) < rate / 2.2:
                weight = np.exp(-0.5 * ((k * self.pitch - self.tract) / 2200) ** 2) + 0.05
                sound += weight * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
        sound /= np.sqrt(np.mean(sound**2)) + 1e-9
        sound = (1 - self.noise) * sound + self.noise * rng.standard_normal(n)
        edge = min(n // 4, int(0.006 * rate))
        envelope = np.ones(n)
        envelope[:edge] = np.sin(np.linspace(0, np.pi / 2, edge))
        envelope[-edge:] = envelope[:edge][::-1]
        return sound * envelope * (0.6 + 0.4 * np.sin(np.pi * t))


def repertoire(rng: np.random.Generator, n: int, durations: tuple[float, float]) -> list[Syllable]:
    """Syllables of one voice."""
    base, tract = rng.uniform(450, 800), rng.uniform(2500, 4500)
    return [
        Syllable(
            base * rng.uniform(0.8, 1.8),
            rng.uniform(-300, 300),
            int(rng.integers(5, 12)),
            rng.uniform(*durations),
            rng.uniform(0, 0.3),
            tract * rng.uniform(0.8, 1.3),
        )
        for _ in range(n)
    ]


def coloured_noise(n: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with frequency, of standard deviation 1."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.maximum(np.arange(len(spectrum)), 30.0) ** rng.uniform(0.2, 0.6)
    noise = np.fft.irfft(spectrum, n)
    return noise / noise.std()


def write_recording(
    path: Path,
    syllables: list[Syllable],
    labels: list[str],
    seconds: float,
    rng: np.random.Generator,
    *,
    rate: int = 32000,
    gaps: tuple[float, float] = (0.02, 0.03),
    pauses: tuple[float, float] = (0.2, 0.5),
    bout: tuple[int, int] = (5, 14),
    snr_db: tuple[float, float] = (8, 30),
) -> int:
    """One recording with its Raven table; how many calls it has."""
    sound, rows = np.zeros(int(seconds * rate)), []
    at = rng.uniform(0.1, pauses[1])
    left = int(rng.integers(*bout))
    order = rng.permutation(len(syllables))
    place = 0
    while True:
        kind = int(order[place % len(order)])
        call = syllables[kind].sound(rate, rng)
        start = int(at * rate)
        if start + len(call) > len(sound) - int(0.05 * rate):
            break
        sound[start : start + len(call)] += call * 10 ** (rng.uniform(-4, 4) / 20)
        low = syllables[kind].pitch * 0.8
        rows.append((start / rate, (start + len(call)) / rate, low, min(11000.0, rate / 2), kind))
        at = (start + len(call)) / rate + rng.uniform(*gaps)
        place, left = place + 1, left - 1
        if left <= 0:
            at, left = at + rng.uniform(*pauses), int(rng.integers(*bout))
    power = np.mean(sound**2)
    noise = coloured_noise(len(sound), rng) * np.sqrt(power / 10 ** (rng.uniform(*snr_db) / 10))
    sound = sound + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    level = 10 ** (rng.uniform(-18, -2) / 20)
    soundfile.write(path, level * sound / np.abs(sound).max(), rate, subtype="PCM_16")
    lines = [
        f"{n + 1}\tSpectrogram 1\t1\t{on:.4f}\t{off:.4f}\t{low:.1f}\t{high:.1f}\t{labels[kind]}"
        for n, (on, off, low, high, kind) in enumerate(rows)
    ]
    table = path.with_suffix(".Table.1.selections.txt")
    table.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return len(rows)


def make_song(folder: Path, seed: int = 0, n: int = 30, n_voices: int = 8) -> None:
    """`train`: recordings of all voices but one; `left_out`: those of that one. One class."""
    rng = np.random.default_rng(seed)
    voices = [repertoire(rng, 6, (0.06, 0.20)) for _ in range(n_voices)]
    for number in range(n):
        voice = number % n_voices
        part = "left_out" if voice == n_voices - 1 else "train"
        path = folder / part / f"voice{voice}_{number:02d}.wav"
        write_recording(path, voices[voice], ["song"] * 6, rng.uniform(2, 4), rng)


def make_syllables(folder: Path, seed: int = 0, n: int = 60, n_new: int = 20) -> None:
    """`train`: songs of one bird, nine classes of short syllables; `left_out`: new ones."""
    rng = np.random.default_rng(seed)
    syllables = repertoire(rng, 9, (0.05, 0.15))
    labels = list("abcdefghi")
    for number in range(n + n_new):
        part = "train" if number < n else "left_out"
        path = folder / part / f"song{number:03d}.wav"
        write_recording(path, syllables, labels, rng.uniform(1.5, 3), rng, gaps=(0.015, 0.04))


if __name__ == "__main__":
    {"song": make_song, "syllables": make_syllables}[sys.argv[1]](Path(sys.argv[2]))
