"""Sound files: cut, forged, of every depth, width and rate, and what is no sound at all."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from local.config import AudioConfig
from local.features.audio import load_audio, probe
from local.stages.quality.sound_faults import survey
from tests.badfiles.kinds import MIB, Kind, changed, cut, endless, here, pipe, put

RATE = 16_000
N = 4000


def wave(channels: int = 1, n: int = N) -> np.ndarray:
    return 0.1 * np.random.default_rng(7).standard_normal((n, channels))


def sound(name: str, subtype: str | None = None, rate: int = RATE, **options: Any) -> Callable:
    samples = options.pop("samples", None)
    samples = wave(**options) if samples is None else samples

    def make(folder: Path) -> Path:
        soundfile.write(folder / name, samples, rate, subtype=subtype)
        return folder / name

    return make


def read(path: Path) -> np.ndarray:
    """All that reads sound: header, samples at another rate, and the survey of `validate`."""
    found = survey(path)
    info = probe(path)
    samples = load_audio(path, AudioConfig(sample_rate=8000))
    assert len(samples) == -(-info.frames * 8000 // info.sample_rate) or len(samples) > 0
    if any(one.severity == "error" for one in found.findings):
        raise AssertionError(f"read, but surveyed as {found.findings[0]}")
    return load_audio(path, AudioConfig(sample_rate=info.sample_rate))


def like(channels: int = 1, n: int = N, tolerance: float = 2e-7) -> Callable:
    expected = wave(channels, n).mean(axis=1)
    return lambda got: len(got) == n and float(np.abs(got - expected).max()) <= tolerance


def patch(at: int, form: str, value: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        piece = struct.pack(form, value)
        return content[:at] + piece + content[at + len(piece) :]

    return change


def flac_length(value: int) -> Callable[[bytes], bytes]:
    """The 36 bits of STREAMINFO that count samples: the last 4 bits of byte 21, and 22 to 25."""

    def change(content: bytes) -> bytes:
        high, low = content[21] & 0xF0 | value >> 32, value & 0xFFFFFFFF
        return content[:21] + bytes([high]) + struct.pack(">I", low) + content[26:]

    return change


def flip(share: float) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        at = int(len(content) * share)
        return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]

    return change


def bad_number(value: float) -> np.ndarray:
    samples = wave()
    samples[1234] = value
    return samples


def two_hours(folder: Path) -> Path:
    """A WAV of two hours at 8 kHz that takes one block of the disk."""
    path, size = folder / "long.wav", 2 * 3600 * 8000 * 2
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16_000, 2, 16)
    head += b"data" + struct.pack("<I", size)
    with open(path, "wb") as stream:
        stream.write(head)
        stream.truncate(44 + size)
    return path


def silence_bomb(folder: Path) -> Path:
    """An hour of silence in few bytes."""
    path = folder / "bomb.flac"
    with soundfile.SoundFile(path, "w", 48_000, 1, "PCM_16") as stream:
        for _ in range(60):
            stream.write(np.zeros(48_000 * 60, dtype=np.int16))
    return path


def surveyed(path: Path) -> list[str]:
    found = survey(path)
    return [one.fault for one in found.findings] + [f"{found.duration:g}"]


WAV = sound("a.wav", "PCM_16")
FLAC = sound("a.flac", "PCM_16")
OGG = sound("a.ogg")
GONE = "truncated"
NO_AUDIO = "not readable as audio"

REFUSED = [
    *[(f"wav cut at byte {end}", cut(WAV, end), NO_AUDIO) for end in (4, 12, 30)],
    ("wav cut after its header", cut(WAV, 44), "holds no samples"),
    ("wav cut in half", cut(WAV, N), GONE),
    ("wav without its last byte", cut(WAV, -1), GONE),
    *[(f"flac cut at byte {end}", cut(FLAC, end), NO_AUDIO) for end in (4, 20)],
    ("flac cut after its header", cut(FLAC, 42), "a.flac"),
    ("flac cut in half", cut(FLAC, N), "a.flac"),
    ("flac without its last bytes", cut(FLAC, -9), "a.flac"),
    ("flac with a flipped byte", changed(FLAC, flip(0.5)), "a.flac"),
    ("ogg cut in half", cut(OGG, 1800), "a.ogg"),
    ("aiff cut in half", cut(sound("a.aiff", "PCM_16"), N), GONE),
    ("zero length", put("a.wav", b""), "empty file"),
    ("wrong magic", changed(WAV, lambda content: b"RIFX" + content[4:]), "a.wav"),
    ("text", put("a.wav", "recording_id,label\n" * 50), NO_AUDIO),
    ("a picture", put("a.flac", b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(2000)), NO_AUDIO),
    ("noise", put("a.mp3", np.random.default_rng(0).bytes(5000)), "a.mp3"),
    ("no samples", sound("a.wav", "PCM_16", n=0), "holds no samples"),
    ("a folder", here, "cannot be opened"),
    ("a pipe", pipe, "pipe or a device"),
    ("a device", endless, "pipe or a device"),
    ("missing", lambda folder: folder / "gone.wav", "no such file"),
    ("NUL in the name", lambda folder: folder / "a\0b.wav", "no file can be named"),
    ("NaN", sound("a.wav", "FLOAT", samples=bad_number(np.nan)), "is NaN"),
    ("infinity", sound("a.wav", "FLOAT", samples=bad_number(np.inf)), "is infinite"),
    ("minus infinity", sound("a.wav", "DOUBLE", samples=bad_number(-np.inf)), "is infinite"),
    ("wav that promises 1 GB", changed(WAV, patch(40, "<I", 10**9)), GONE),
    ("wav of 0 Hz", changed(WAV, patch(24, "<I", 0)), "a.wav"),
    ("wav of 1 Hz", changed(WAV, patch(24, "<I", 1)), "header says 1 Hz"),
    ("wav of 4 GHz", changed(WAV, patch(24, "<I", 2**32 - 1)), "a.wav"),
    ("wav of 0 channels", changed(WAV, patch(22, "<H", 0)), "a.wav"),
    ("wav of 65535 channels", changed(WAV, patch(22, "<H", 65_535)), "a.wav"),
    ("wav of 0 bits", changed(WAV, patch(34, "<H", 0)), "a.wav"),
    ("wav of an unknown code", changed(WAV, patch(20, "<H", 0x7777)), "a.wav"),
    ("flac that promises 2^36 samples", changed(FLAC, flac_length(2**36 - 1)), "promises"),
    ("flac that promises twice its samples", changed(FLAC, flac_length(2 * N)), "a.flac"),
    ("flac without a length", changed(FLAC, flac_length(0)), "a.flac"),
]

HANDLED = [
    ("8 bit", sound("a.wav", "PCM_U8"), like(tolerance=2**-6)),
    ("16 bit", WAV, like(tolerance=2**-15)),
    ("24 bit", sound("a.wav", "PCM_24"), like(tolerance=2**-22)),
    ("32 bit", sound("a.wav", "PCM_32"), like()),
    ("32 bit float", sound("a.wav", "FLOAT"), like()),
    ("64 bit float", sound("a.wav", "DOUBLE"), like()),
    ("mu-law", sound("a.wav", "ULAW"), like(tolerance=0.02)),
    ("flac of 24 bit", sound("a.flac", "PCM_24"), like(tolerance=2**-22)),
    *[
        (f"{channels} channels", sound("a.wav", "FLOAT", channels=channels), like(channels))
        for channels in (1, 2, 3, 4, 8, 64)
    ],
    *[
        (f"{rate} Hz", sound("a.wav", "FLOAT", rate), like())
        for rate in (4000, 8000, 44_100, 96_000, 250_000, 384_000, 500_000)
    ],
    ("1 sample", sound("a.wav", "FLOAT", n=1), like(n=1)),
    (
        "wav with letters behind it",
        changed(WAV, lambda c: c + b"LIST\4\0\0\0abcd"),
        like(1, N, 1e-4),
    ),
    ("wav that promises less", changed(WAV, patch(40, "<I", N)), lambda got: len(got) == N // 2),
    ("wav of open length", changed(WAV, patch(40, "<I", 2**32 - 1)), like(tolerance=2**-15)),
    ("samples of 1e38", sound("a.wav", "FLOAT", samples=1e38 * wave()), lambda got: len(got) == N),
]

KINDS = [Kind(f"sound: {name}", make, read, refused=part) for name, make, part in REFUSED]
KINDS += [Kind(f"sound: {name}", make, read, check=check) for name, make, check in HANDLED]
KINDS += [
    Kind("sound: 2 hours", two_hours, surveyed, check=lambda got: got == ["silent", "7200"]),
    Kind(
        "sound: an hour of silence in few bytes",
        silence_bomb,
        surveyed,
        check=lambda got: got == ["silent", "3600"],
        memory=80 * MIB,
    ),
]
