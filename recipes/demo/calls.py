"""Procedural species: 24 of them, two with two song types.

A song is a sequence of notes in a band. Each note follows a pitch path; the phrase may drift, turn
between two pitches, quicken, buzz, quaver or carry harmonics. Durations and bands are those of the
competition's annotation boxes (0.59-7.92 s, 94 Hz-13.7 kHz), the sounds are inventions. Some
species are close on purpose: 1, 16, 18 and 21 share a band, so do 13 and 15, 5, 7 and 23.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Song:
    """One song type of one species. Pitch is told as a share of the band: 0 `low`, 1 `high`."""

    species: int
    songtype: int
    name: str
    duration: float  # seconds, of the median individual
    low: float  # hertz
    high: float  # hertz
    notes: int
    duty: float  # share of a note's slot that sounds
    path: tuple[float, ...]  # pitch along a note, evenly spaced support points
    drift: float = 0.0  # pitch of the last note less that of the first
    alternate: float = 0.0  # pitch of odd notes less that of even ones
    accel: float = 1.0  # length of the last slot over that of the first
    harmonics: int = 1
    attack: float = 0.15  # share of a note in which it rises, and falls
    decay: float = 0.0  # nepers lost along a note: clicks and plucked notes
    tremolo_hz: float = 0.0
    tremolo: float = 0.0  # depth, 0 to 1
    vibrato_hz: float = 0.0
    vibrato: float = 0.0  # depth, share of the band
    linewidth_hz: float = 0.0  # width of a line: 0 whistles, 100 is harsh


SONGS = (
    Song(0, 1, "falling couplet", 0.79, 5906, 8250, 2, 0.8, (0.6, 0.5, 0.4), drift=-0.5),
    Song(1, 1, "upward chirp", 0.90, 3844, 5625, 1, 1.0, (0.08, 0.15, 0.9)),
    Song(2, 1, "whoops", 1.78, 469, 3000, 5, 0.7, (0.1, 0.8), attack=0.3),
    Song(3, 1, "low note, high note", 0.74, 1031, 2813, 2, 0.75, (0.4, 0.42, 0.55), drift=0.7),
    Song(4, 1, "rising whistles", 1.86, 2344, 4219, 3, 0.85, (0.3, 0.4, 0.6), drift=0.35),
    Song(5, 1, "quickening trill", 2.35, 4781, 11250, 18, 0.6, (0.85, 0.2), accel=0.4),
    Song(
        *(6, 1, "long croaks", 2.14, 563, 4406, 4, 0.7, (0.02, 0.06, 0.03)),
        harmonics=7,
        tremolo_hz=45,
        tremolo=0.7,
    ),
    Song(
        *(7, 1, "climbing buzz", 3.14, 4688, 11438, 26, 0.65, (0.4, 0.6, 0.4)),
        drift=0.5,
        linewidth_hz=120,
    ),
    Song(
        *(8, 1, "slow clicks", 4.12, 3750, 5531, 11, 0.12, (0.6, 0.4)),
        attack=0.05,
        decay=3,
    ),
    Song(9, 1, "wandering phrase", 3.56, 844, 5719, 6, 0.75, (0.3, 0.7, 0.4), alternate=0.35),
    Song(10, 1, "falling sweeps", 2.44, 947, 10853, 8, 0.7, (0.95, 0.3, 0.05)),
    Song(11, 1, "slurred couplet", 1.14, 1809, 5685, 2, 0.85, (0.25, 0.8, 0.4), drift=-0.25),
    Song(
        *(12, 1, "quickening coos", 3.14, 563, 3281, 7, 0.55, (0.25, 0.35, 0.25)),
        drift=0.3,
        accel=0.5,
        harmonics=2,
    ),
    Song(
        *(13, 1, "quavering hoot", 0.62, 94, 1406, 1, 1.0, (0.22, 0.32, 0.22)),
        harmonics=3,
        tremolo_hz=28,
        tremolo=0.8,
    ),
    Song(14, 1, "click burst", 0.59, 2531, 6469, 7, 0.35, (0.85, 0.2), attack=0.05, decay=2),
    Song(15, 1, "three coos", 3.34, 94, 1125, 3, 0.6, (0.2, 0.4, 0.3), harmonics=2),
    Song(16, 4, "steady trill", 1.83, 3094, 4594, 30, 0.6, (0.4, 0.6)),
    Song(
        *(17, 1, "two-pitch whistles", 6.45, 1313, 3938, 10, 0.7, (0.48, 0.55, 0.5)),
        alternate=0.5,
        vibrato_hz=6,
        vibrato=0.03,
    ),
    Song(
        *(17, 4, "harsh calls", 2.61, 1313, 7406, 4, 0.7, (0.05, 0.12, 0.05)),
        harmonics=4,
        linewidth_hz=80,
    ),
    Song(18, 1, "rising trill", 0.69, 3188, 5063, 9, 0.7, (0.45, 0.55), drift=0.7),
    Song(
        *(19, 1, "rattle", 1.55, 281, 2813, 14, 0.5, (0.06, 0.03)),
        harmonics=8,
        attack=0.05,
        decay=2,
    ),
    Song(
        *(20, 1, "nasal beeps", 3.44, 1313, 6094, 12, 0.6, (0.1, 0.12, 0.1)),
        harmonics=4,
        tremolo_hz=90,
        tremolo=0.5,
    ),
    Song(21, 1, "climbing notes", 1.09, 3281, 4125, 6, 0.65, (0.45, 0.55), drift=0.75),
    Song(
        *(22, 1, "thin chatter", 1.61, 10688, 13688, 12, 0.5, (0.4, 0.8, 0.3)),
        alternate=0.25,
        linewidth_hz=40,
    ),
    Song(
        *(23, 1, "shivering trills", 6.08, 7235, 11283, 4, 0.8, (0.3, 0.7)),
        tremolo_hz=18,
        tremolo=1.0,
        vibrato_hz=18,
        vibrato=0.15,
    ),
    Song(23, 4, "sweep and fall", 7.92, 6460, 11628, 14, 0.55, (0.1, 0.95, 0.55), attack=0.1),
)

N_SPECIES = 1 + max(song.species for song in SONGS)

# Spread of individuals (standard deviation of the logarithm): a pitch within about 6 % and a
# tempo within about 15 % of the species' own.
_PITCH_SPREAD = 0.03
_TEMPO_SPREAD = 0.07


@dataclass(frozen=True)
class Call:
    """One rendered call. `wave` is float32 of unit mean power over `duration` seconds.

    The wave may be longer than `duration`: what follows is its reverberation.
    """

    wave: np.ndarray
    duration: float
    low: float
    high: float


@dataclass(frozen=True)
class Individual:
    """What distinguishes one caller from the next of its species."""

    pitch: float = 1.0
    tempo: float = 1.0
    reverb_s: float = 0.0  # time in which the reverberation falls by 60 dB; 0 is dry
    reverb_level: float = 0.0  # energy of the tail over that of the direct sound


def highest_hz(species: int) -> float:
    """Upper edge of the band of a species over its song types."""
    return max(song.high for song in SONGS if song.species == species)


def draw_individual(rng: np.random.Generator) -> Individual:
    """A caller at random: pitch, tempo, distance and place."""
    return Individual(
        pitch=float(np.exp(np.clip(_PITCH_SPREAD * rng.standard_normal(), -0.06, 0.06))),
        tempo=float(np.exp(np.clip(_TEMPO_SPREAD * rng.standard_normal(), -0.15, 0.15))),
        reverb_s=float(rng.uniform(0.1, 0.6)),
        reverb_level=float(rng.uniform(0.0, 0.6)),
    )


def lookalike(song: Song, rng: np.random.Generator) -> Song:
    """A song of no class that resembles `song`: another band and another tempo."""
    up = rng.random() < 0.5
    pitch = rng.uniform(1.15, 1.3) if up else rng.uniform(0.7, 0.85)
    tempo = rng.uniform(1.35, 1.7) if rng.random() < 0.5 else rng.uniform(0.55, 0.75)
    return replace(
        song, duration=song.duration / tempo, low=song.low * pitch, high=song.high * pitch
    )


def render(
    song: Song,
    individual: Individual,
    rate: int,
    max_duration: float,
    rng: np.random.Generator,
) -> Call:
    """Sound of `song` sung by `individual` at `rate` hertz.

    A phrase longer than `max_duration` seconds is sung with fewer notes, a single note quicker.
    """
    notes, duration = song.notes, song.duration / individual.tempo
    if duration > max_duration:
        notes = max(1, int(notes * max_duration / duration))
        duration = min(max_duration, duration * notes / song.notes)
    n = max(1, round(duration * rate))
    low = song.low * individual.pitch
    high = min(song.high * individual.pitch, 0.495 * rate)
    index, along, envelope = _notes(song, notes, n, rng)
    pitch = _pitch(song, notes, index, along, n, rate)
    frequency = low + np.clip(pitch, 0.0, 1.0) * (high - low)
    wave = envelope * _tone(song, frequency, high, rate, rng)
    wave *= 1.0 / np.sqrt(np.mean(wave**2) + 1e-20)
    wave = _reverberate(wave.astype(np.float32), individual, rate, rng)
    # Once more, because reverberation adds to what the box holds.
    wave /= np.float32(np.sqrt(np.mean(wave[:n] ** 2)))
    return Call(wave, n / rate, low, high)


def _notes(
    song: Song, notes: int, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Note number, position along it (0 to 1) and envelope of each of `n` samples."""
    slots = np.geomspace(1.0, song.accel, notes) * np.exp(0.04 * rng.standard_normal(notes))
    # The last slot ends with its note, so that the box is tight.
    slots[-1] *= song.duty
    edges = np.concatenate([[0.0], np.cumsum(slots)]) / slots.sum()
    position = np.arange(n) / n
    index = np.searchsorted(edges, position, side="right") - 1
    lengths = np.diff(edges) * np.where(np.arange(notes) == notes - 1, 1.0, song.duty)
    along = (position - edges[index]) / lengths[index]
    ramp = np.clip(np.minimum(along, 1.0 - along) / song.attack, 0.0, 1.0)
    envelope = np.sin(0.5 * np.pi * ramp) ** 2 * np.exp(-song.decay * np.clip(along, 0.0, 1.0))
    envelope *= np.exp(0.15 * rng.standard_normal(notes))[index]
    return index, np.clip(along, 0.0, 1.0), envelope


def _pitch(
    song: Song, notes: int, index: np.ndarray, along: np.ndarray, n: int, rate: int
) -> np.ndarray:
    """Pitch of each sample as a share of the band (not yet clipped)."""
    pitch = np.interp(along, np.linspace(0.0, 1.0, len(song.path)), song.path)
    if notes > 1:
        pitch += song.drift * (index / (notes - 1) - 0.5)
    pitch += song.alternate * ((index % 2) - 0.5)
    if song.vibrato:
        pitch += song.vibrato * np.sin(2 * np.pi * song.vibrato_hz * np.arange(n) / rate)
    return pitch


def _tone(
    song: Song, frequency: np.ndarray, high: float, rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Tone of the given instantaneous frequency with its harmonics inside the band."""
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    if song.linewidth_hz:
        # A random walk of the phase widens each line to a Lorentzian of this full width.
        step = np.sqrt(2 * np.pi * song.linewidth_hz / rate)
        phase += np.cumsum(step * rng.standard_normal(len(phase)))
    phase = np.remainder(phase, 2 * np.pi).astype(np.float32)
    wave = np.zeros(len(phase), dtype=np.float32)
    for k in range(1, song.harmonics + 1):
        inside = (k * frequency <= high).astype(np.float32)
        wave += inside * np.sin(k * phase) / np.float32(np.sqrt(k))
    if song.tremolo:
        beat = np.sin(2 * np.pi * song.tremolo_hz * np.arange(len(phase)) / rate)
        wave *= (1.0 - song.tremolo * (0.5 + 0.5 * beat)).astype(np.float32)
    return wave


def _reverberate(
    wave: np.ndarray, individual: Individual, rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Add the tail of an exponentially decaying diffuse field."""
    from scipy.signal import fftconvolve

    if individual.reverb_s <= 0 or individual.reverb_level <= 0:
        return wave
    n = int(0.5 * individual.reverb_s * rate)
    decay = np.exp(-6.9 * np.arange(n) / (individual.reverb_s * rate))
    tail = (rng.standard_normal(n) * decay).astype(np.float32)
    tail *= np.sqrt(individual.reverb_level / np.sum(tail**2))
    wet = fftconvolve(wave, tail).astype(np.float32)
    wet[: len(wave)] += wave
    return wet
