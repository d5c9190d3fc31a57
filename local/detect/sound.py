"""Sound to detect in: which files there are, and any of them as blocks of samples.

What libsndfile reads is read as everywhere else (`audio`). Other containers go through ffmpeg where
it is installed.
"""

import json
import logging
import os
import selectors
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local.config import AudioConfig
from local.features.audio import (
    RATES,
    SOUND_SUFFIXES,
    SoundError,
    as_configured,
    probe,
    stream_audio,
)
from local.features.silence import SilenceFinder
from local.io.errors import CanopyError
from local.io.files import PASSING_FAULTS, disk_fault

# Endings that ffmpeg is asked to read.
FOREIGN = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mkv", ".mov", ".avi", ".wv", ".ape", ".amr")
_ENDINGS = SOUND_SUFFIXES + FOREIGN
# Seconds after which a decoder that gives nothing is taken to hang.
SILENT_S = 300.0
_BLOCK_BYTES, _PIPE_BYTES = 2**20, 2**16
_MAX_CHANNELS = 1024
# Characters of a decoder's complaint that a message quotes.
_MAX_REASON = 200
# What comes of taking words, or thousands of digits, for numbers.
_NO_NUMBERS = (ValueError, OverflowError, RecursionError)

log = logging.getLogger("canopy")


@dataclass(frozen=True)
class SoundFile:
    """A file to detect in: `name` tells it from the others, as its path below what was given."""

    path: Path
    name: str

    @property
    def recording_id(self) -> str:
        """The name without the ending."""
        return str(Path(self.name).with_suffix(""))


def printable(text: str) -> str:
    """Text that can be written as UTF-8: bytes of a file name that are none become %NN."""
    return "".join(
        f"%{ord(mark) - 0xDC00:02X}" if 0xDC80 <= ord(mark) <= 0xDCFF else mark for mark in text
    )


def find_sounds(paths: list[Path], ignore: Path | None = None) -> list[SoundFile]:
    """The files given, and all sound files in and below the folders given, in order of name.

    Parameters
    ----------
    ignore : folder that is passed over (where outputs are written).
    """
    found: dict[str, SoundFile] = {}
    passed_over = None if ignore is None else ignore.resolve()
    for path in paths:
        if path.is_dir():
            chosen = _inside(path, passed_over)
            if not chosen:
                raise CanopyError(
                    f"{path}: no sound file in this folder or below it; name a folder of "
                    "recordings, or the files themselves"
                )
        elif path.exists():
            chosen = [(str(path.resolve()), SoundFile(path, path.name))]
        else:
            raise CanopyError(f"{path}: no such file or folder; correct the path")
        for place, sound in chosen:
            found.setdefault(place, sound)
    return _told_apart(list(found.values()))


def _inside(folder: Path, passed_over: Path | None) -> list[tuple[str, SoundFile]]:
    """Sound files in and below a folder, in order of name, each with where it truly lies.

    Archives hold millions: the disk is asked for no more than the names in each folder.
    """
    found: list[tuple[str, SoundFile]] = []

    def look(place: str, name: str) -> None:
        if passed_over is not None and os.path.join(real, name) == str(passed_over):
            return
        try:
            with os.scandir(place) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except PermissionError:
            log.warning("%s cannot be looked into and is passed over", place)
            return
        for entry in entries:
            inner = os.path.join(name, entry.name)
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                look(entry.path, inner)
            elif entry.name.lower().endswith(_ENDINGS) and entry.is_file():
                lies = os.path.join(real, inner)
                if entry.is_symlink():
                    lies = os.path.realpath(entry.path)
                    if passed_over is not None and passed_over in Path(lies).parents:
                        continue
                found.append((lies, SoundFile(Path(entry.path), inner)))

    real = str(folder.resolve())
    if passed_over is None or passed_over not in folder.resolve().parents:
        look(str(folder), "")
    return found


def _told_apart(sounds: list[SoundFile]) -> list[SoundFile]:
    """Names that several files share become their whole paths."""
    times = Counter(sound.recording_id for sound in sounds)
    clashing = [sound for sound in sounds if times[sound.recording_id] > 1]
    if not clashing:
        return sounds
    full = {id(sound): sound.path.resolve().as_posix().lstrip("/") for sound in clashing}
    # Files that differ in their ending alone keep it inside the name.
    stems = [str(Path(name).with_suffix("")) for name in full.values()]
    keep = {name for name, n in Counter(stems).items() if n > 1}
    renamed = []
    for sound in sounds:
        name = full.get(id(sound), sound.name)
        if str(Path(name).with_suffix("")) in keep:
            name = f"{name}{Path(name).suffix}"
        renamed.append(SoundFile(sound.path, name))
    return renamed


@dataclass(frozen=True)
class OpenSound:
    """A file that can be read: its seconds, and its samples in blocks at the configured rate.

    silence : has looked through what the blocks so far were made of, and maybe through more.
    """

    duration: float
    blocks: Iterator[np.ndarray]
    silence: SilenceFinder


def duration_of(path: Path) -> float:
    """Seconds by the header; a `CanopyError` says why a file cannot be read."""
    if path.suffix.lower() in FOREIGN:
        return _ffprobe(path)[2]
    return probe(path).duration


def open_sound(path: Path, config: AudioConfig, block_s: float) -> OpenSound:
    """Open any sound file for one reading from start to end."""
    if path.suffix.lower() in FOREIGN:
        rate, channels, duration = _ffprobe(path)
        silence, decoded = SilenceFinder(rate), _ffmpeg_blocks(path, rate, channels)
        blocks = as_configured(path, decoded, rate, channels, config, silence=silence)
    else:
        info = probe(path)
        duration, silence = info.duration, SilenceFinder(info.sample_rate)
        blocks = stream_audio(path, config, block_s, silence=silence)
    return OpenSound(duration, read_ahead(blocks), silence)


def read_ahead(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same blocks; each is read in a thread of its own while the one before it is used.

    Decoders and networks both let go of the interpreter while they compute, so a disk or a decoder
    that takes its time is waited for only where it takes longer than the network. What reading
    raises is raised in its place. Two blocks are held at most.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        coming = thread.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, blocks, None)
            yield block


# ---------------------------------------------------------------------------------------- ffmpeg


def _tool(name: str, path: Path) -> str:
    found = shutil.which(name)
    if found is None:
        raise CanopyError(
            f"{path}: {path.suffix} files need {name}, which is not installed; install ffmpeg, or "
            "convert the recording to FLAC"
        )
    return found


def _ffprobe(path: Path) -> tuple[int, int, float]:
    """Sample rate, channels and seconds of the first sound track."""
    if not path.is_file():
        raise CanopyError(f"{path}: no such file; correct the path")
    command = [_tool("ffprobe", path), "-v", "error", "-select_streams", "a:0", "-of", "json"]
    command += ["-show_entries", "stream=sample_rate,channels:format=duration", f"file:{path}"]
    reason = f"no answer within {SILENT_S:g} s"
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=SILENT_S
        )
        reason = _last_line(result.stderr)
        told = json.loads(result.stdout)
        stream = told["streams"][0]
        rate, channels = int(stream["sample_rate"]), int(stream["channels"])
        duration = float(told["format"].get("duration", "nan"))
    except (subprocess.TimeoutExpired, LookupError, TypeError, AttributeError, *_NO_NUMBERS):
        raise SoundError(
            f"{path}: ffprobe finds no sound in it ({reason}); replace it by a WAV or FLAC file or "
            "remove it"
        ) from None
    except OSError as error:
        raise _not_started(path, "ffprobe", error) from None
    if not (RATES[0] <= rate <= RATES[1] and 1 <= channels <= _MAX_CHANNELS):
        raise SoundError(f"{path}: ffprobe tells {rate} Hz and {channels} channels; convert it")
    return rate, channels, duration if duration >= 0 else float("nan")


def _not_started(path: Path, name: str, error: OSError) -> CanopyError:
    if error.errno in PASSING_FAULTS:
        return disk_fault(path, error)
    return SoundError(f"{path}: {name} cannot be run ({error.strerror}); install ffmpeg anew")


def _ffmpeg_blocks(path: Path, rate: int, channels: int) -> Iterator[np.ndarray]:
    """Blocks (n, channels) as ffmpeg decodes them; it says nothing unless the file is damaged."""
    command = [_tool("ffmpeg", path), "-v", "error", "-nostdin", "-i", f"file:{path}"]
    command += ["-map", "0:a:0", "-f", "f32le", "-c:a", "pcm_f32le"]
    # What ffprobe told, so that no sample is taken for one of another channel.
    command += ["-ar", str(rate), "-ac", str(channels), "pipe:1"]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise _not_started(path, "ffmpeg", error) from None
    n_read, held, width = 0, bytearray(), 4 * channels
    with process:
        try:
            for data in _output_of(process):
                held += data
                if len(held) >= max(_BLOCK_BYTES, width) or not data:
                    n_whole = len(held) // width * width
                    block = np.frombuffer(held[:n_whole], dtype="<f4").reshape(-1, channels)
                    del held[:n_whole]
                    n_read += len(block)
                    if len(block):
                        yield block
            if held or n_read == 0:
                raise _DamagedError(f"it ends with {len(held)} of the {width} bytes of a sample")
        except _DamagedError as fault:
            done_s = (n_read + len(held) // width) / rate
            raise SoundError(
                f"{path}: damaged or truncated after {done_s:.3f} s ({fault}); copy the recording "
                "again or remove it",
                "damaged",
            ) from None
        finally:
            process.kill()


class _DamagedError(Exception):
    """Why a decoder's output is not that of a whole file."""


def _output_of(process: subprocess.Popen) -> Iterator[bytes]:
    """What a process writes, in pieces, and b"" at its end.

    Both its pipes are read as they fill, so that it never waits for us. Its first complaint, an end
    with a code other than 0, and silence for `SILENT_S` end it.
    """
    with selectors.DefaultSelector() as pipes:
        for pipe in (process.stdout, process.stderr):
            pipes.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
        while pipes.get_map():
            ready = pipes.select(SILENT_S)
            if not ready:
                raise _DamagedError(f"the decoder gave nothing for {SILENT_S:g} s")
            for key, _ in ready:
                data = os.read(key.fd, _PIPE_BYTES)
                if not data:
                    pipes.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    yield data
                elif data.strip():
                    raise _DamagedError(_last_line(data))
    try:
        code = process.wait(SILENT_S)
    except subprocess.TimeoutExpired:
        raise _DamagedError(f"the decoder did not end within {SILENT_S:g} s") from None
    if code:
        raise _DamagedError(f"the decoder ended with code {code}")
    yield b""


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return "".join(filter(str.isprintable, lines[-1]))[:_MAX_REASON] if lines else "no reason given"
