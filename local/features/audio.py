"""Sound files in, one channel of float32 samples at one rate out.

`probe` reads a header, `load_audio` a whole recording, `load_part` some seconds of one and
`stream_audio` the same samples in blocks, so that a recording of days needs no more memory than one
block. Decoding is libsndfile's (WAV,
FLAC, OGG, MP3, AIFF and more), resampling is soxr's. Whatever is wrong with a file becomes a
`CanopyError` that names it: a damaged recording must never pass as a shorter or a quieter one.
"""

import math
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
from local.features.silence import SilenceFinder
from local.io.errors import CanopyError
from local.io.files import PASSING_FAULTS, disk_fault
from local.io.limits import regular_size

# libsndfile says 2**63 - 1 frames when a header leaves the length open (FLAC written to a pipe).
_UNKNOWN_FRAMES = 2**62
# Writers that cannot go back to correct a WAV header leave a size near one of these in it (sox
# 0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF), which says nothing about the true length.
_OPEN_SIZES = (2**31, 2**32)
_OPEN_SIZE_MARGIN = 65_536
# How libsndfile's log tells that a chunk is shorter than it claims: WAV, AIFF and Wave64.
_SHORT_CHUNK = re.compile(r"\b(?:data|SSND|riff)\s*:\s*(\d+) \(should be (\d+)\)")
# Rates between those of seismometers and of the fastest ultrasound recorders; a header that names
# another would make a short file swell when it is resampled.
RATES = (100, 4_000_000)
# The most silence that a byte of a compressed file can stand for: constant FLAC frames of 65,535
# samples in 11 bytes are the tightest; a header that promises more lies.
_MAX_FRAMES_PER_BYTE = 8192
# Days of many channels. More in one file is a fault of its header, or a file to be divided.
_MAX_SAMPLES = 2**35
# Decoded at once, before and after resampling and over all channels: 16 MB.
_MAX_BLOCK_SAMPLES = 2**22
# Containers in which libsndfile finds any sample at once and exactly.
_SEEKABLE = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC")
# Decoded around a part: longer than the resampler's filter at any rate that calls are heard at.
_LEAD_S = 0.5
# An Ogg page is at most 65,307 bytes, so the last one begins within this many bytes of the end.
_OGG_TAIL = 65_536


# Endings, in lower case, of the files in a folder that are taken for sound: those libsndfile reads.
SOUND_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".w64", ".rf64"),
    *(".caf", ".au", ".snd"),
)


class SoundError(CanopyError):
    """A fault of one sound file. `kind` is one of missing, unreadable, empty, truncated, damaged,
    header, non-finite, rate and channel.
    """

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


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


def stream_audio(
    path: Path | str,
    config: AudioConfig,
    block_s: float,
    n_channels: int = 1,
    silence: SilenceFinder | None = None,
) -> Iterator[np.ndarray]:
    """Decode a recording in blocks of about `block_s` seconds: float32 arrays of shape (n,).

    Joined, the blocks are the samples of `load_audio`, whatever the block length: the resampler
    keeps its state from block to block. Faults are told as by `load_audio`, but those inside the
    data only when their block is reached. With `n_channels` above 1 the blocks are (n_channels, n),
    the file must have so many, and `audio.channel` does not matter. `silence`, of the file's own
    rate, looks through the samples before they are resampled.
    """
    if not block_s > 0:
        raise ValueError(f"block_s must be positive, found {block_s}")
    return _stream(Path(path), config, block_s, n_channels, silence)


def load_part(path: Path | str, config: AudioConfig, start_s: float, end_s: float) -> np.ndarray:
    """Decode the seconds [start_s, end_s) of a recording, as far as it reaches: float32 (n,).

    The samples that `load_audio` has there; where the rate is changed, to within rounding. In WAV,
    FLAC and AIFF files what lies before is passed over, in others it is decoded; what lies behind
    is never read.
    """
    path = Path(path)
    with _open(path) as sound:
        _check_rate(path, sound.samplerate, config)
        _check_channel(path, sound.channels, config)
        rate_in, rate_out = sound.samplerate, config.sample_rate
        # Where a sample of either rate falls on one of the other, some way before.
        unit = rate_in // math.gcd(rate_in, rate_out)
        first = max(0, math.floor((start_s - _LEAD_S) * rate_in)) // unit * unit
        if sound.format not in _SEEKABLE:
            first = 0
        end = min(sound.frames, math.ceil((end_s + _LEAD_S) * rate_in))
        first = min(first, sound.frames)
        sound.seek(first)
        block = _block_frames(sound, rate_out, None)
        blocks = _read_blocks(path, sound, block, first, end)
        samples = _chosen(path, blocks, rate_in, config, first)
        if rate_in != rate_out:
            samples = _resample(samples, rate_in, rate_out)
        joined = np.concatenate([np.zeros(0, dtype=np.float32), *samples])
    before = first * rate_out // rate_in
    return joined[round(start_s * rate_out) - before : max(0, round(end_s * rate_out) - before)]


def stream_channels(path: Path | str) -> Iterator[np.ndarray]:
    """Decode a recording as it is, block by block: float32 of shape (n, channels), its own rate.

    Numbers that are not finite are passed on; all other faults are told as by `load_audio`.
    """
    path = Path(path)
    with _open(path) as sound:
        # A sixteenth of what may be decoded: who measures samples needs several copies of them.
        frames = max(1, _block_frames(sound, sound.samplerate, None) // 16)
        for block in _read_blocks(path, sound, frames):
            yield block.reshape(len(block), sound.channels)


def _stream(
    path: Path,
    config: AudioConfig,
    block_s: float | None,
    n_channels: int = 1,
    silence: SilenceFinder | None = None,
) -> Iterator[np.ndarray]:
    with _open(path) as sound:
        block = _block_frames(sound, config.sample_rate, block_s)
        blocks = _read_blocks(path, sound, block)
        rate, channels = sound.samplerate, sound.channels
        yield from as_configured(path, blocks, rate, channels, config, n_channels, silence)


def as_configured(
    path: Path,
    blocks: Iterator[np.ndarray],
    rate: int,
    channels: int,
    config: AudioConfig,
    n_channels: int = 1,
    silence: SilenceFinder | None = None,
) -> Iterator[np.ndarray]:
    """Decoded blocks (n,) or (n, channels) at `rate` -> blocks at the configured rate.

    Of the configured channel (n,), or with `n_channels` above 1 of all of them (n_channels, n).
    `silence`, of this rate, looks through them first.

    Raises
    ------
    SoundError
        The rate is to be refused or the channel is not there; of a block, when it comes: a sample
        is NaN or infinite.
    """
    _check_rate(path, rate, config)
    _check_channel(path, channels, config, n_channels)
    samples = _chosen(path, blocks, rate, config if n_channels == 1 else None)
    if silence is not None:
        samples = silence.pass_on(samples)
    if rate != config.sample_rate:
        samples = _resample(samples, rate, config.sample_rate, n_channels)
    return (part.T for part in samples)  # of one channel the same


def _block_frames(sound: soundfile.SoundFile, rate_out: int, block_s: float | None) -> int:
    """Frames to decode at once: what was asked for, as far as memory is bounded by it."""
    swell = max(sound.channels, rate_out / sound.samplerate)
    most = max(1, int(_MAX_BLOCK_SAMPLES / swell))
    return most if block_s is None else min(most, max(1, round(block_s * sound.samplerate)))


def _chosen(
    path: Path,
    blocks: Iterator[np.ndarray],
    rate: int,
    config: AudioConfig | None,
    first: int = 0,
) -> Iterator[np.ndarray]:
    """Blocks (n,) of the configured channel, or of all (n, channels) without one; finite.

    `first` is the place of the first sample in the file.
    """
    done = first
    for decoded in blocks:
        chosen = decoded if config is None else _choose_channel(decoded, config)
        _check_finite(path, chosen, done, rate)
        done += len(decoded)
        yield chosen


def _read_blocks(
    path: Path, sound: soundfile.SoundFile, block: int, first: int = 0, end: int | None = None
) -> Iterator[np.ndarray]:
    """Blocks (n,) or (n, channels) as decoded; all samples that the header promises, or a fault."""
    done, end = first, sound.frames if end is None else end
    while done < end:
        try:
            decoded = sound.read(min(block, end - done), dtype="float32")
        except soundfile.SoundFileError as error:
            raise SoundError(
                f"{path}: damaged or truncated after {done / sound.samplerate:.3f} s "
                f"({_reason(error)}); copy the recording again or remove it",
                "damaged",
            ) from None
        if len(decoded) == 0:
            raise SoundError(
                f"{path}: truncated, the header promises {sound.frames} samples but the data end "
                f"after {done} ({done / sound.samplerate:.3f} s); copy the recording again or "
                "remove it",
                "truncated",
            )
        done += len(decoded)
        yield decoded


def _resample(
    blocks: Iterator[np.ndarray], rate_in: int, rate_out: int, n_channels: int = 1
) -> Iterator[np.ndarray]:
    resampler = soxr.ResampleStream(rate_in, rate_out, n_channels, dtype="float32", quality="HQ")
    for block in blocks:
        resampled = resampler.resample_chunk(block)
        if len(resampled):
            yield resampled
    # The filter's delay: what is left in it belongs to the end of the recording.
    nothing = np.zeros(0 if n_channels == 1 else (0, n_channels), dtype=np.float32)
    tail = resampler.resample_chunk(nothing, last=True)
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
        # As bytes, which also names that are no UTF-8 can be.
        sound = soundfile.SoundFile(os.fsencode(path))
    except soundfile.SoundFileError as error:
        raise SoundError(
            f"{path}: not readable as audio ({_reason(error)}); replace it by a WAV, FLAC, OGG or "
            "MP3 file or remove it",
            "unreadable",
        ) from None
    with sound:
        _check_header(path, sound)
        yield sound


def _check_readable(path: Path) -> None:
    try:
        size = regular_size(path)
        with open(path, "rb"):
            empty = size == 0
    except FileNotFoundError:
        raise SoundError(
            f"{path}: no such file; correct the path or remove its row from the table", "missing"
        ) from None
    except OSError as error:
        if error.errno in PASSING_FAULTS:
            raise disk_fault(path, error) from None
        raise SoundError(
            f"{path}: cannot be opened ({error.strerror}); name a readable sound file", "unreadable"
        ) from None
    if empty:
        raise SoundError(
            f"{path}: empty file (0 bytes); copy the recording again or remove it", "empty"
        )


def _check_header(path: Path, sound: soundfile.SoundFile) -> None:
    if sound.frames >= _UNKNOWN_FRAMES:
        raise SoundError(
            f"{path}: its header does not say how long it is; write it anew with a complete header "
            "(for FLAC: flac --force)",
            "header",
        )
    lowest, highest = RATES
    if not lowest <= sound.samplerate <= highest:
        raise SoundError(
            f"{path}: its header says {sound.samplerate} Hz, expected {lowest} to {highest}; write "
            "it anew with its true rate",
            "header",
        )
    most = min(_MAX_SAMPLES // sound.channels, _MAX_FRAMES_PER_BYTE * path.stat().st_size)
    if sound.frames > most:
        raise SoundError(
            f"{path}: its header promises {sound.frames} samples a channel, at most {most} can be "
            "in it; copy the recording again, or divide it",
            "header",
        )
    if sound.frames <= 0:
        raise SoundError(
            f"{path}: holds no samples; copy the recording again or remove it", "empty"
        )
    shortfall = _shortfall(path, sound)
    if shortfall:
        raise SoundError(
            f"{path}: truncated, {shortfall}; copy the recording again or remove it", "truncated"
        )


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
        raise SoundError(
            f"{path}: its sample rate is {found} Hz, audio.sample_rate is {config.sample_rate}; "
            "set audio.other_rates to resample, or audio.sample_rate to the rate of the files",
            "rate",
        )


def _check_channel(path: Path, channels: int, config: AudioConfig, n_channels: int = 1) -> None:
    if n_channels > 1:
        if channels != n_channels:
            raise SoundError(
                f"{path}: has {channels} channel{'s' if channels > 1 else ''}, features.kind needs "
                f"{n_channels}; remove it, or choose another kind",
                "channel",
            )
        return
    if isinstance(config.channel, int) and config.channel >= channels:
        raise SoundError(
            f"{path}: audio.channel is {config.channel} but the file has {channels} "
            f"channel{'s' if channels > 1 else ''} (counted from 0); choose 0 to {channels - 1}, "
            "first or mix",
            "channel",
        )


def _check_finite(path: Path, samples: np.ndarray, start: int, rate: int) -> None:
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite if samples.ndim == 1 else finite.all(axis=1)))
        kind = "NaN" if np.isnan(samples[first]).any() else "infinite"
        raise SoundError(
            f"{path}: sample {start + first} ({(start + first) / rate:.6f} s) is {kind}; "
            "export the recording again or remove it",
            "non-finite",
        )


def _reason(error: Exception) -> str:
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split()).rstrip(".: ") or type(error).__name__
