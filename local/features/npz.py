"""The npz of one recording: written whole, read in crops without touching the rest.

Members: `feats` (*axes, T) float16 or float32, or `wave` (n,) int16; and the scalars
`sample_rate`, `hop_length` (1 for waveforms), `duration` in seconds and `schema`. `wave` may lie
beside `feats`, for augmentation: then the file counts as features, and the waveform is read by
`read_wave`. A dump of recordings that are played faster or slower has a folder of its own beside
the plain one (`stretched_folder`), with times and durations in its own, stretched time. Nothing is
compressed, and `feats` is stored in Fortran order, frame after frame, so that a crop in time is one
contiguous stretch of the file. `numpy.load` reads these files as any other npz. A file may also lie
in a pack, byte for byte (`pack_files`): a place is a path, or a file's stretch of a pack.
"""

import io
import os
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from local.features.pack_files import Packed, Place, Window
from local.io.archives import UNREADABLE, StoredArray, open_archive, stored_arrays
from local.io.errors import CanopyError
from local.io.files import write_npz
from local.io.limits import regular_size

# Raised when the meaning or the layout of the members changes; older dumps are then refused.
SCHEMA = 1

_DTYPES = {"feats": ("float16", "float32"), "wave": ("int16",)}
_SCALARS = ("sample_rate", "hop_length", "duration", "schema")
_MAX_AXES = 8
# Full scale of 16-bit sound: libsndfile divides by it, so whole numbers come back exactly.
_FULL_SCALE = 32768.0


@dataclass(frozen=True)
class FeatureInfo:
    """What a feature file says of itself.

    `n_frames` counts frames of `hop_length` samples (samples themselves for waveforms), `axes` are
    the lengths of the axes before time, () for a waveform; `sample_rate` is that of the samples
    behind the features, `duration` is the recording's in seconds.
    """

    n_frames: int
    axes: tuple[int, ...]
    sample_rate: int
    hop_length: int
    duration: float
    schema: int


@dataclass(frozen=True)
class _Layout:
    """Where the arrays of a file lie, and by what the file is recognised as unchanged.

    `wave` is that of the waveform that lies beside features, if one does.
    """

    info: FeatureInfo
    dtype: np.dtype
    fortran: bool
    offset: int
    stamp: tuple[int, int, int]
    wave: "_Layout | None" = None


def stretched_folder(folder: Path, factor: float) -> Path:
    """Where the dump lies whose recordings last `factor` times as long; `folder` itself for 1."""
    return folder if factor == 1.0 else folder.with_name(f"{folder.name}_x{factor:g}")


def wave_to_int16(wave: np.ndarray) -> np.ndarray:
    """Floating-point samples to 16 bits, rounded; what lies outside [-1, 1) is clipped."""
    return np.clip(np.rint(wave * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def wave_to_float(wave: np.ndarray) -> np.ndarray:
    """16-bit samples to float32 in [-1, 1), the inverse of `wave_to_int16`."""
    return wave.astype(np.float32) / np.float32(_FULL_SCALE)


def write_features(
    path: Path | str,
    array: np.ndarray,
    *,
    sample_rate: int,
    hop_length: int,
    duration: float,
    wave: np.ndarray | None = None,
) -> None:
    """Write the features or the waveform of one recording, whole or not at all.

    Parameters
    ----------
    path
        The npz to write.
    array
        (*axes, T) float16 or float32, written as `feats`; or (*axes, n) int16, written as `wave`.
    sample_rate, hop_length
        In hertz and samples; `hop_length` is 1 for a waveform.
    duration
        Of the recording, in seconds.
    wave
        (n,) int16, the waveform behind features, where it is kept.
    """
    member = next((name for name, of in _DTYPES.items() if array.dtype.name in of), None)
    if member is None or array.ndim == 0 or array.size == 0:
        raise ValueError(
            f"{path}: expected (*axes, T) float16, float32 or int16, not empty, found "
            f"{array.dtype} of shape {array.shape}"
        )
    arrays = {member: np.asfortranarray(array)}
    if wave is not None:
        arrays["wave"] = wave
    write_npz(
        path,
        **arrays,
        sample_rate=np.int64(sample_rate),
        hop_length=np.int64(hop_length),
        duration=np.float64(duration),
        schema=np.int64(SCHEMA),
    )


class FeatureReader:
    """Random access to many feature files.

    The place of the array in each file is found once and remembered while the file stays the same
    (inode, size and time of change), so that a crop costs one open and one read. No file is kept
    open, nothing is shared between processes, and the object may be sent to workers.
    """

    def __init__(self) -> None:
        self._layouts: dict[str | Packed, _Layout] = {}

    def read_header(self, place: Place) -> FeatureInfo:
        """What the file says of itself.

        Raises
        ------
        CanopyError
            Missing or damaged file, compressed or unknown members, another schema, or sizes that
            contradict each other.
        """
        with self._open(place) as stream:
            return self._layout(place, stream).info

    def read_crop(self, place: Place, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop) of a file: (*axes, stop - start), or (stop - start,) of a waveform.

        The array is new, writable and of the stored type, float16, float32 or int16 (see
        `FrontEnd.restore`); features lie frame after frame in memory.

        Raises
        ------
        CanopyError
            As `read_header`; or the frames are not all there.
        """
        with self._open(place) as stream:
            layout = self._layout(place, stream)
            if not 0 <= start <= stop <= layout.info.n_frames:
                raise CanopyError(
                    f"{place}: frames {start} to {stop} were asked for but it has "
                    f"{layout.info.n_frames}; its manifest is older than the file, run stage "
                    "preprocess again"
                )
            return _read(place, stream, layout, start, stop)

    def n_samples(self, place: Place) -> int:
        """Samples of the waveform that lies beside the features.

        Raises
        ------
        CanopyError
            As `read_header`; or the file has none.
        """
        with self._open(place) as stream:
            return self._wave(place, stream).info.n_frames

    def read_wave(self, place: Place, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop) of the waveform beside the features, (stop - start,) int16.

        Raises
        ------
        CanopyError
            As `n_samples`; or the samples are not all there.
        """
        with self._open(place) as stream:
            layout = self._wave(place, stream)
            if not 0 <= start <= stop <= layout.info.n_frames:
                n = layout.info.n_frames
                raise _fault(place, f"samples {start} to {stop} were asked for, it has {n}")
            return _read(place, stream, layout, start, stop)

    def _wave(self, place: Place, stream: Any) -> _Layout:
        wave = self._layout(place, stream).wave
        if wave is None:
            raise _fault(place, "no waveform lies beside its features")
        return wave

    def _open(self, place: Place) -> Any:
        path = place.path if isinstance(place, Packed) else place
        try:
            if _key(place) not in self._layouts:
                regular_size(path)  # opening a pipe might never end
            # Unbuffered: a buffer would read ahead what no crop asked for.
            return open(path, "rb", buffering=0)
        except OSError as error:
            raise _fault(place, f"cannot be opened ({error.strerror})") from None

    def _layout(self, place: Place, stream: Any) -> _Layout:
        status = os.fstat(stream.fileno())
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        layout = self._layouts.get(_key(place))
        if layout is None or layout.stamp != stamp:
            layout = _find_layout(place, stream, stamp)
            self._layouts[_key(place)] = layout
        return layout


def read_header(place: Place) -> FeatureInfo:
    """`FeatureReader.read_header` for a single use."""
    return FeatureReader().read_header(place)


def read_crop(place: Place, start: int, stop: int) -> np.ndarray:
    """`FeatureReader.read_crop` for a single use; keep a reader for many crops."""
    return FeatureReader().read_crop(place, start, stop)


def _key(place: Place) -> str | Packed:
    return place if isinstance(place, Packed) else os.fspath(place)


def _read(place: Place, stream: Any, layout: _Layout, start: int, stop: int) -> np.ndarray:
    info = layout.info
    if not layout.fortran and info.axes:
        # Not ours, but legal: each band is a stretch of its own.
        shape = (*info.axes, info.n_frames)
        stored = np.memmap(stream, layout.dtype, "r", layout.offset, shape)
        return np.array(stored[..., start:stop], order="F")
    width = prod(info.axes)
    stream.seek(layout.offset + start * width * layout.dtype.itemsize)
    crop = np.empty((stop - start) * width, layout.dtype)
    left = crop.view(np.uint8)
    while len(left):
        n = stream.readinto(left)
        if not n:
            raise _fault(place, f"ends inside the frames {start} to {stop}")
        left = left[n:]
    return crop.reshape((*info.axes, stop - start), order="F")


def _fault(place: Place, found: str) -> CanopyError:
    return CanopyError(f"{place}: {found}; run stage preprocess again to write it anew")


def _find_layout(place: Place, stream: Any, stamp: tuple[int, int, int]) -> _Layout:
    """Where the arrays lie, from the archive's directory and the headers in it."""
    first, size = (place.offset, place.size) if isinstance(place, Packed) else (0, stamp[1])
    if first + size > stamp[1]:
        raise _fault(place, "reaches beyond the end of the pack, it is truncated")
    try:
        with io.BufferedReader(Window(stream.fileno(), first, size)) as window:
            with open_archive(window) as archive:
                arrays = stored_arrays(archive)
            scalars = {name: _scalar(place, window, arrays, name) for name in _SCALARS}
    except UNREADABLE as error:
        raise _fault(place, f"not readable as an npz ({' '.join(str(error).split())})") from None
    _check_scalars(place, scalars)
    # `feats`, `wave`, or both in this order.
    layouts = [
        _array_layout(place, name, arrays[name], scalars, stamp, first)
        for name in _DTYPES
        if name in arrays
    ]
    if not layouts:
        raise _fault(place, "expected a member feats or wave, found 0")
    return replace(layouts[0], wave=layouts[1]) if len(layouts) > 1 else layouts[0]


def _array_layout(
    place: Place,
    member: str,
    array: StoredArray,
    scalars: dict[str, float | int],
    stamp: tuple[int, int, int],
    first: int,
) -> _Layout:
    _check_array(place, member, array.shape, array.dtype)
    info = FeatureInfo(
        n_frames=array.shape[-1],
        axes=array.shape[:-1],
        sample_rate=int(scalars["sample_rate"]),
        hop_length=int(scalars["hop_length"]),
        duration=float(scalars["duration"]),
        schema=int(scalars["schema"]),
    )
    return _Layout(info, array.dtype, array.fortran, first + array.start, stamp)


def _scalar(
    place: Place, window: BinaryIO, arrays: dict[str, StoredArray], name: str
) -> float | int:
    array = arrays.get(name)
    if array is None:
        raise _fault(place, f"has no member {name}")
    if array.shape != () or array.dtype.kind not in "iuf":
        raise _fault(place, f"member {name} is no scalar number")
    window.seek(array.start)
    return np.frombuffer(window.read(array.dtype.itemsize), array.dtype)[0].item()


def _check_scalars(place: Place, scalars: dict[str, float | int]) -> None:
    if scalars["schema"] != SCHEMA:
        raise _fault(place, f"has schema {scalars['schema']}, this version reads {SCHEMA}")
    for name in ("sample_rate", "hop_length", "duration"):
        value = scalars[name]
        whole = name == "duration" or float(value).is_integer()
        if not (isfinite(value) and value > 0 and whole):
            raise _fault(place, f"{name} is {value}")


def _check_array(place: Place, member: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.name not in _DTYPES[member] or not dtype.isnative:
        allowed = " or ".join(_DTYPES[member])
        raise _fault(place, f"member {member} has type {dtype}, expected {allowed}")
    if not 1 <= len(shape) <= _MAX_AXES or min(shape) < 1:
        raise _fault(place, f"member {member} has shape {shape}")
