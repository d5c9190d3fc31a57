"""Sound files in, one channel of float32 samples at one rate out.

`probe` reads a header, `load_audio` a whole recording, `stream_audio` the same samples in blocks,
so that a recording of days needs no more memory than one block. Decoding is libsndfile's (WAV,
FLAC, OGG, MP3, AIFF and more), resampling is soxr's. Whatever is wrong with a file becomes a
`CanopyError` that names it: a damaged recording must never pass as a shorter or a quieter one.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from local.config import AudioConfig
from local.errors import CanopyError

# libsndfile says 2**63 - 1 frames when a header leaves the length open (FLAC written to a pipe).
_UNKNOWN_FRAMES = 2**62
# Writers that cannot go back to correct a WAV header leave a size near one of these in it (sox
# 0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF), which says nothing about the true length.
_OPEN_SIZES = (2**31, 2**32)
_OPEN_SIZE_MARGIN = 65_536
# How libsndfile's log tells that a chunk is shorter than it claims: WAV, AIFF and Wave64.
_SHORT_CHUNK = re.compile(r"\b(?:data|SSND|riff)\s*:\s*(\d+) \(should be (\d+)\)")
# An Ogg page is at most 65,307 bytes, so the last one begins within this many bytes of the end.
_OGG_TAIL = 65_536


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: `duration` in seconds, `frames` in samples per channel."""

    duration: float
    sample_rate: int
    channels: int
    frames: int


def probe(path: Path | str) -> AudioInfo:
    """Read the header of a sound file, without decoding it.

    Raises
    ------
    CanopyError
        The file is missing, empty, no audio, without samples, or visibly cut short (a WAV, AIFF or
        Ogg file that ends before its header or its pages say). Damage inside the compressed data
        of a FLAC or MP3 file shows only when it is decoded.
    """
    with _open(Path(path)) as sound:
        return AudioInfo(
            duration=sound.frames / sound.samplerate,
            sample_rate=sound.samplerate,
            channels=sound.channels,
            frames=sound.frames,
        )


def load_audio(path: Path | str, config: AudioConfig) -> np.ndarray:
    """Decode a whole recording: float32 of shape (n,), nominally in [-1, 1), at the set rate.

    Raises
    ------
    CanopyError
        As `probe`; besides: the data end early or are damaged, a sample is NaN or infinite, the
        configured channel is not there, or the rate differs and `audio.other_rates` is `refuse`.
    """
    blocks = list(_stream(Path(path), config, None))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def stream_audio(path: Path | str, config: AudioConfig, block_s: float) -> Iterator[np.ndarray]:
    """Decode a recording in blocks of about `block_s` seconds: float32 arrays of shape (n,).

    Joined, the blocks are the samples of `load_audio`, whatever the block length: the resampler
    keeps its state from block to block. Faults are told as by `load_audio`, but those inside the
    data only when their block is reached.
    """
    if not block_s > 0:
        raise ValueError(f"block_s must be positive, found {block_s}")
    return _stream(Path(path), config, block_s)


def _stream(path: Path, config: AudioConfig, block_s: float | None) -> Iterator[np.ndarray]:
    with _open(path) as sound:
        _check_rate(path, sound.samplerate, config)
        _check_channel(path, sound.channels, config)
        block = sound.frames if block_s is None else max(1, round(block_s * sound.samplerate))
        samples = _decode(path, sound, config, block)
        if sound.samplerate == config.sample_rate:
            yield from samples
        else:
            yield from _resample(samples, sound.samplerate, config.sample_rate)


def _decode(
    path: Path, sound: soundfile.SoundFile, config: AudioConfig, block: int
) -> Iterator[np.ndarray]:
    """Blocks of the chosen channel at the file's own rate, checked for length and finiteness."""
    done = 0
    while done < sound.frames:
        try:
            decoded = sound.read(min(block, sound.frames - done), dtype="float32")
        except soundfile.SoundFileError as error:
            raise CanopyError(
                f"{path}: damaged or truncated after {done / sound.samplerate:.3f} s "
                f"({_reason(error)}); copy the recording again or remove it"
            ) from None
        if len(decoded) == 0:
            raise CanopyError(
                f"{path}: truncated, the header promises {sound.frames} samples but the data end "
                f"after {done} ({done / sound.samplerate:.3f} s); copy the recording again or "
                "remove it"
            )
        chosen = _choose_channel(decoded, config)
        _check_finite(path, chosen, done, sound.samplerate)
        done += len(decoded)
        yield chosen


def _resample(blocks: Iterator[np.ndarray], rate_in: int, rate_out: int) -> Iterator[np.ndarray]:
    resampler = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")
    for block in blocks:
        resampled = resampler.resample_chunk(block)
        if len(resampled):
            yield resampled
    # The filter's delay: what is left in it belongs to the end of the recording.
    tail = resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
    if len(tail):
        yield tail


def _choose_channel(decoded: np.ndarray, config: AudioConfig) -> np.ndarray:
    """One channel out of (n,) or (n, channels); mono passes through without a copy."""
    if decoded.ndim == 1:
        return decoded
    if config.channel == "mix":
        return decoded.mean(axis=1)
    index = 0 if config.channel == "first" else config.channel
    return np.ascontiguousarray(decoded[:, index])


@contextmanager
def _open(path: Path) -> Iterator[soundfile.SoundFile]:
    """An open sound file whose header makes sense."""
    _check_readable(path)
    try:
        sound = soundfile.SoundFile(path)
    except soundfile.SoundFileError as error:
        raise CanopyError(
            f"{path}: not readable as audio ({_reason(error)}); replace it by a WAV, FLAC, OGG or "
            "MP3 file or remove it"
        ) from None
    with sound:
        _check_header(path, sound)
        yield sound


def _check_readable(path: Path) -> None:
    try:
        with open(path, "rb") as stream:
            empty = not stream.read(1)
    except FileNotFoundError:
        raise CanopyError(
            f"{path}: no such file; correct the path or remove its row from the table"
        ) from None
    except OSError as error:
        raise CanopyError(
            f"{path}: cannot be opened ({error.strerror}); name a readable sound file"
        ) from None
    if empty:
        raise CanopyError(f"{path}: empty file (0 bytes); copy the recording again or remove it")


def _check_header(path: Path, sound: soundfile.SoundFile) -> None:
    if sound.frames >= _UNKNOWN_FRAMES:
        raise CanopyError(
            f"{path}: its header does not say how long it is; write it anew with a complete header "
            "(for FLAC: flac --force)"
        )
    if sound.frames <= 0:
        raise CanopyError(f"{path}: holds no samples; copy the recording again or remove it")
    shortfall = _shortfall(path, sound)
    if shortfall:
        raise CanopyError(f"{path}: truncated, {shortfall}; copy the recording again or remove it")


def _shortfall(path: Path, sound: soundfile.SoundFile) -> str | None:
    """How the file falls short of its own container; libsndfile quietly shortens such files."""
    match = _SHORT_CHUNK.search(sound.extra_info)
    if match:
        declared, found = int(match[1]), int(match[2])
        left_open = any(abs(declared - size) <= _OPEN_SIZE_MARGIN for size in _OPEN_SIZES)
        if found < declared and not left_open:
            return f"the header promises {declared} bytes of sound but {found} are there"
    if sound.format == "OGG" and not _ogg_is_complete(path):
        return "its last page is missing"
    return None


def _ogg_is_complete(path: Path) -> bool:
    """Whether the last Ogg page ends the stream and is all there (RFC 3533, section 6)."""
    with open(path, "rb") as stream:
        stream.seek(-min(_OGG_TAIL, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        tail = stream.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    # Byte 5 holds the flags, byte 26 the number of segments, whose lengths follow.
    if len(page) < 27 or not page[5] & 0x04:
        return False
    body = 27 + page[26]
    return len(page) >= body and len(page) - body >= sum(page[27:body])


def _check_rate(path: Path, found: int, config: AudioConfig) -> None:
    if found != config.sample_rate and config.other_rates == "refuse":
        raise CanopyError(
            f"{path}: its sample rate is {found} Hz, audio.sample_rate is {config.sample_rate}; "
            "set audio.other_rates to resample, or audio.sample_rate to the rate of the files"
        )


def _check_channel(path: Path, channels: int, config: AudioConfig) -> None:
    if isinstance(config.channel, int) and config.channel >= channels:
        raise CanopyError(
            f"{path}: audio.channel is {config.channel} but the file has {channels} "
            f"channel{'s' if channels > 1 else ''} (counted from 0); choose 0 to {channels - 1}, "
            "first or mix"
        )


def _check_finite(path: Path, samples: np.ndarray, start: int, rate: int) -> None:
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite))
        kind = "NaN" if np.isnan(samples[first]) else "infinite"
        raise CanopyError(
            f"{path}: sample {start + first} ({(start + first) / rate:.6f} s) is {kind}; "
            "export the recording again or remove it"
        )


def _reason(error: Exception) -> str:
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split()).rstrip(".: ") or type(error).__name__
