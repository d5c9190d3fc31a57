"""A small data set of bat and rodent calls in the published one's own files.

Every emitter has a pitch, a timbre and a sweep of its own; every context has its own lengths of
syllables, pauses and bandwidth. Bats stack harmonics on falling sweeps from 9 to 20 kHz; rodents
(ids from 301) whistle one line between 45 and 75 kHz. What a file sounds like follows from the seed
and its number alone, so the number of processes does not matter.

A level of d decibels says that the power of a call's lowest line is d decibels above that of the
noise in the band which this line sweeps, `EDGE_HZ` wider at either end: what is elsewhere in the
spectrum hides no call.
"""

import csv
import io
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, sosfilt, welch

from local.io.files import atomic_path, read_json, write_json, write_text
from local.io.seeds import generator
from local.jobs.locks import lock_folder
from local.jobs.workers import run_all
from recipes.bats.reading import ANNOTATION_COLUMNS, ANNOTATIONS, FILE_INFO
from recipes.bats.settings import SimulateConfig

RATE = 250_000
MARKER = "simulated.json"
EDGE_HZ = 1_000.0
# Files, sessions, seconds of each, emitters.
_SIZES = {"tiny": (16, 4, 0.4, 4), "small": (160, 8, 1.2, 8)}


@dataclass(frozen=True)
class Manner:
    """How one calls in a context: seconds of syllables and pauses, factor of the sweep's width."""

    syllable_s: tuple[float, float]
    pause_s: tuple[float, float]
    sweep: float
    noisy: float


# Feeding, fighting, isolation, sleeping, and general, which no task learns by default.
MANNERS = {
    3: Manner((0.025, 0.05), (0.03, 0.08), 0.5, 0.0),
    4: Manner((0.06, 0.12), (0.02, 0.05), 1.0, 0.5),
    6: Manner((0.01, 0.02), (0.06, 0.12), 1.4, 0.0),
    12: Manner((0.04, 0.07), (0.1, 0.2), 0.2, 0.15),
    11: Manner((0.02, 0.06), (0.04, 0.1), 0.7, 0.2),
}


@dataclass(frozen=True)
class Planned:
    """One file: who calls in which context, where, and how loud."""

    file_id: int
    session: int
    name: str
    folder: str
    emitter: int
    context: int
    snr_db: float
    voices: tuple[tuple[int, int], ...]
    n_samples: int


def simulate(settings: SimulateConfig, datadir: Path, n_processes: int) -> bool:
    """Make the set unless it is there with the same settings; whether anything was made.

    Of two at once the second waits, and finds it made.
    """
    marker, made = datadir / MARKER, settings.model_dump(mode="json")
    if marker.is_file() and read_json(marker) == made:
        return False
    with lock_folder(datadir, "this simulation", wait_s=math.inf, keep=False):
        if marker.is_file() and read_json(marker) == made:
            return False
        _simulate(settings, datadir, n_processes)
        write_json(marker, made)
    return True


def _simulate(settings: SimulateConfig, datadir: Path, n_processes: int) -> None:
    (datadir / MARKER).unlink(missing_ok=True)
    plans = plan(settings)
    render = partial(render_file, datadir=datadir, seed=settings.seed)
    for _ in run_all(render, plans, n_processes):
        pass
    for number in range(4):
        _write(datadir / f"noise/noise{number}.wav", _weather(settings.seed, number, 2.0))
    faults = settings.faults
    write_text(datadir / FILE_INFO, file_info_text(plans, faults))
    write_text(datadir / ANNOTATIONS, annotations_text(plans, faults))


def plan(settings: SimulateConfig) -> list[Planned]:
    """All files of a set; every context and emitter in turn, levels and places by chance."""
    n_files, n_sessions, seconds, n_emitters = _SIZES[settings.size]
    bats = [201 + number for number in range(n_emitters - n_emitters // 4)]
    emitters = bats + [301 + number for number in range(n_emitters // 4)]
    contexts = sorted(MANNERS)
    plans = []
    for number in range(n_files):
        rng = generator(settings.seed, "bats plan", number)
        context = contexts[number % len(contexts)]
        n_samples = round(seconds * RATE * rng.uniform(0.8, 1.2))
        session = number % n_sessions
        plans.append(
            Planned(
                file_id=number + 1,
                session=session,
                name=f"1206{session + 1:02d}01{number // 60:02d}{number % 60:02d}{number:06d}.WAV",
                folder=f"files{101 + number % 2}",
                emitter=emitters[(number // len(contexts) + number) % len(emitters)],
                context=context,
                snr_db=float(rng.uniform(*settings.snr_db)),
                voices=_voices(MANNERS[context], n_samples, number, rng),
                n_samples=n_samples,
            )
        )
    return plans


def _voices(
    manner: Manner, n_samples: int, number: int, rng: np.random.Generator
) -> tuple[tuple[int, int], ...]:
    """Bouts of syllables; one file in eight begins with a voice, and one ends with one."""
    voices = []
    place = 0 if number % 8 == 0 else round(rng.uniform(0.02, 0.12) * RATE)
    while True:
        length = round(rng.uniform(*manner.syllable_s) * RATE)
        if place + length > n_samples:
            break
        voices.append((place, place + length))
        place += length + round(rng.uniform(*manner.pause_s) * RATE)
        if rng.random() < 0.2:
            place += round(rng.uniform(0.1, 0.25) * RATE)
    if number % 8 == 1:
        voices[-1] = voices[-1][0], n_samples
    return tuple(voices)


def render_file(planned: Planned, datadir: Path, seed: int) -> None:
    """Write one file's sound."""
    rng = generator(seed, "bats sound", planned.file_id)
    noise = _noise(planned.n_samples, rng)
    # Density of the noise (power/Hz), in steps of about 250 Hz.
    hertz, density = welch(noise, RATE, nperseg=min(1000, len(noise)))
    wave = noise.copy()
    for start, end in planned.voices:
        call, (low, high) = syllable(planned.emitter, planned.context, end - start, rng)
        inside = (hertz >= low - EDGE_HZ) & (hertz <= high + EDGE_HZ)
        power = density[inside].sum() * hertz[1]
        wave[start:end] += 10 ** (planned.snr_db / 20) * np.sqrt(power) * call
    _write(datadir / planned.folder / planned.name, wave)


def syllable(
    emitter: int, context: int, n_samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float]]:
    """(n,) the emitter's voice in the context's manner, and the band of its lowest line in hertz.

    The lowest line has mean power 1, the others have theirs beside it.
    """
    own = generator(emitter, "bats voice")
    manner = MANNERS[context]
    rodent = emitter >= 300
    base = own.uniform(45e3, 75e3) if rodent else own.uniform(9e3, 20e3)
    width = own.uniform(0.15, 0.45) * manner.sweep * (0.5 if rodent else 1.0)
    tilt = own.uniform(0.5, 1.0)
    share = np.linspace(0.0, 1.0, n_samples)
    bend = own.uniform(0.6, 1.8)
    pitch = base * rng.uniform(0.96, 1.04) * (1 + width * (0.5 - share**bend))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    wave = np.zeros(n_samples)
    lowest = 0.0
    for harmonic in range(1, 2 if rodent else 6):
        audible = pitch * harmonic < 0.48 * RATE
        wave += audible * tilt ** (harmonic - 1) * np.sin(harmonic * phase + rng.uniform(0, 6.28))
        if harmonic == 1:
            lowest = float((wave**2).mean())
    wave *= 1 + manner.noisy * rng.standard_normal(n_samples)
    edge = max(1, min(n_samples // 4, round(0.003 * RATE)))
    ramp = np.sin(0.5 * np.pi * (np.arange(edge) + 0.5) / edge)
    wave[:edge] *= ramp
    wave[-edge:] *= ramp[::-1]
    return wave / np.sqrt(lowest), (float(pitch.min()), float(pitch.max()))


def _noise(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """White noise, with a rumble below 5 kHz and now and then a click that is no call."""
    white = rng.standard_normal(n_samples)
    rumble = sosfilt(butter(2, 5_000, fs=RATE, output="sos"), rng.standard_normal(n_samples))
    wave = 0.01 * white + 0.02 * rumble
    for place in rng.integers(0, n_samples, rng.poisson(4 * n_samples / RATE)):
        click = rng.standard_normal(200) * np.exp(-np.arange(200) / 30)
        wave[place : place + 200] += 0.1 * click[: n_samples - place]
    return wave


def _weather(seed: int, number: int, seconds: float) -> np.ndarray:
    """Rain, as many clicks, or gusts of wind."""
    rng = generator(seed, "bats weather", number)
    n_samples = round(seconds * RATE)
    wave = _noise(n_samples, rng)
    if number % 2 == 0:
        drops = (rng.random(n_samples) < 0.002) * rng.standard_normal(n_samples)
        return wave + 0.2 * sosfilt(butter(1, [8e3, 60e3], "band", fs=RATE, output="sos"), drops)
    gusts = 1 + np.sin(2 * np.pi * rng.uniform(0.5, 2) * np.arange(n_samples) / RATE)
    return wave * gusts


def _write(path: Path, wave: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        peak = max(1.0, np.abs(wave).max() / 0.99)
        soundfile.write(temporary, wave / peak, RATE, subtype="PCM_16", format="WAV")


def file_info_text(plans: list[Planned], faults: bool) -> str:
    """FileInfo.csv with the damaged header of the published one, and its faults on request."""
    header = "FileID,Treatment ID,File name,File folder,Recording channel,Recording time"
    header += ",Voice start sample (1),Voice end sample (1),Voice start sam"
    rows: list[list[object]] = [list(header.split(","))]
    for one in plans:
        bounds = [sample for voice in one.voices for sample in voice]
        if faults and one is plans[1]:
            bounds[-1] += 500
        time = f"2012-06-{one.session + 1:02d} 01:10:47"
        rows.append([one.file_id, one.session % 3 + 1, one.name, one.folder, 1, time, *bounds])
    if faults:
        first, last = plans[0], plans[-1].file_id
        known = [1, first.name, first.folder, 1, "2012-06-01 01:10:47"]
        rows += [
            [last + 1, *known, 100, 200, 300],
            [last + 2, *known, 900, 200],
            [last + 3, *known, 10**9, 10**9 + 100],
            [last + 4, 1, "no_such_file.WAV", "files101", 1, "2012-06-01 01:10:47", 100, 200],
            [last + 5, *known],
            [last + 6, *known, "1o0", 200],
            [first.file_id, *known, 100, 200],
        ]
    return _text(rows)


def annotations_text(plans: list[Planned], faults: bool) -> str:
    """Annotations.csv: a row a file, two where the second half has another addressee."""
    rows: list[list[object]] = [list(ANNOTATION_COLUMNS)]
    for one in plans:
        emitter = -one.emitter if one.file_id % 11 == 0 else one.emitter
        half = one.n_samples // 2
        spans = [(0, half), (half, one.n_samples)] if one.file_id % 5 == 0 else [(0, one.n_samples)]
        for place, (start, end) in enumerate(spans):
            addressee = 210 + place if emitter > 0 else 0
            rows.append([one.file_id, emitter, addressee, one.context, 0, 0, 2, 3, start, end])
    if faults:
        rows += [[99_999, 201, 0, 3, 0, 0, 0, 0, 0, 100], [1, 201, 0, 3, 0, 0, 0, 0, 200, 100]]
    return _text(rows)


def _text(rows: list[list[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
