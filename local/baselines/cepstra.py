"""Cepstral coefficients of log band spectra, at any sample rate."""

import numpy as np
from scipy.fft import dct
from scipy.signal import savgol_filter

from local.features.store import FeatureStore
from local.io.errors import CanopyError
from local.labels.grid import grid_of, overlap

# Frames that a slope over time is fitted to, as is usual for speech.
_DELTA_FRAMES = 9


def mfcc(log_bands: np.ndarray, n_coefficients: int = 20, delta: bool = True) -> np.ndarray:
    """Cepstral coefficients (D, T) of natural-log band spectra (F, T), with their slopes below.

    The orthonormal DCT-II over bands, its first `n_coefficients`; slopes are those of straight
    lines through 9 frames (fewer in shorter spans), a frame being the unit of time. D is
    `n_coefficients`, or twice that with `delta`.
    """
    n_bands, n_frames = log_bands.shape
    if not 1 <= n_coefficients <= n_bands or n_frames == 0:
        raise ValueError(f"{n_coefficients} coefficients of {n_bands} bands x {n_frames} frames")
    cepstra = dct(np.asarray(log_bands, dtype=np.float64), norm="ortho", axis=0)[:n_coefficients]
    if not delta:
        return cepstra
    width = min(_DELTA_FRAMES, n_frames - 1 + n_frames % 2)
    slopes = np.zeros_like(cepstra)
    if width >= 3:
        slopes = savgol_filter(cepstra, width, polyorder=1, deriv=1, axis=1, mode="interp")
    return np.concatenate([cepstra, slopes])


def segment_frames(
    dump: FeatureStore, recording_id: str, onset: float, offset: float
) -> np.ndarray:
    """Log band spectra (F, T) of the frames that [onset, offset) seconds touch; at least one."""
    front_end = dump.front_end
    if front_end.band_edges_hz() is None or front_end.level != "log_power":
        raise CanopyError(
            f"{dump.folder}: holds {front_end.kind} features, cepstra need log band spectra; set "
            "features.kind to logmel"
        )
    grid = grid_of(dump.n_frames(recording_id), front_end.hop_s, front_end.begin)
    shared = overlap(onset, offset, grid.edges_s[:-1], grid.edges_s[1:])
    touched = np.flatnonzero(shared > 0)
    if len(touched) == 0:
        raise CanopyError(
            f"recording {recording_id}: span {onset:g} to {offset:g} s lies outside it; mend the "
            "events table"
        )
    return dump.crop(recording_id, int(touched[0]), int(touched[-1] - touched[0] + 1))
