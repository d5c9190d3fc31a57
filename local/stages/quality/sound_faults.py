"""One recording, decoded and measured: what is wrong with its file and its sound."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from local.features.audio import SoundError, probe, stream_channels
from local.io.errors import CanopyError

# Peak below which a recording is silent: -80 dB of full scale.
_SILENT_PEAK = 1e-4
# So many equal samples in a row at full scale are a flat top, not a peak.
_FLAT_TOP = 3
_CLIPPED_SHARE = 1e-4
# Full scale as 16-bit files reach it.
_FULL_SCALE = 32767 / 32768
# A mean so far from 0 is a fault of the recorder's input.
_OFFSET = 0.05


@dataclass(frozen=True)
class Finding:
    """One fault: its kind, `error` or `warning`, where it is, and a sentence."""

    fault: str
    severity: str
    where: str
    detail: str


@dataclass
class Survey:
    """What one recording's sound is like. `digest` is of the samples at 16 bits, so that the same
    sound in another container has the same; "" where it could not be read to its end.
    """

    where: str
    digest: str = ""
    duration: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, fault: str, severity: str, detail: str) -> None:
        """Note a fault of this recording."""
        self.findings.append(Finding(fault, severity, self.where, detail))


# ---------------------------------------------------------------------------------------- one file


def survey(path: Path | str) -> Survey:
    """Decode a recording and measure it, block by block; whatever is wrong becomes a finding."""
    found = Survey(str(path))
    try:
        info = probe(path)
        found.duration, found.sample_rate = info.duration, info.sample_rate
        found.channels = info.channels
        levels = _Levels(info.channels)
        digest = hashlib.sha256(f"{info.sample_rate} {info.channels}".encode())
        for block in stream_channels(path):
            levels.update(block)
            finite = np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0)
            digest.update(np.clip(np.rint(finite * 32768), -32768, 32767).astype("<i2").tobytes())
        found.digest = digest.hexdigest()
        levels.report(found)
    except SoundError as error:
        found.add(error.kind, "error", str(error))
    except CanopyError as error:
        found.add("unreadable", "error", str(error))
    return found


class _Levels:
    """Running measures of each channel."""

    def __init__(self, channels: int) -> None:
        self._n = self._n_bad = self._n_flat = self._n_over = 0
        self._low = np.full(channels, np.inf)
        self._high = np.full(channels, -np.inf)
        self._sum = np.zeros(channels)

    def update(self, block: np.ndarray) -> None:
        """Take in a block (n, channels)."""
        finite = np.isfinite(block)
        self._n += len(block)
        self._n_bad += int((~finite).sum())
        if not finite.all():
            block = np.where(finite, block, np.float32(0))
        self._low = np.minimum(self._low, block.min(axis=0))
        self._high = np.maximum(self._high, block.max(axis=0))
        self._sum += block.sum(axis=0, dtype=np.float64)
        loud = np.abs(block)
        self._n_over += int((loud > 1.0).sum())
        self._n_flat += _flat_samples(loud >= _FULL_SCALE)

    def report(self, found: Survey) -> None:
        """What these measures say."""
        peak = np.maximum(np.abs(self._low), np.abs(self._high))
        n_samples = self._n * len(peak)
        if self._n_bad:
            found.add(
                "non-finite",
                "error",
                f"{self._n_bad} of {n_samples} samples are NaN or infinite; export it again",
            )
        constant = self._low == self._high
        if constant.all():
            silent = bool((peak < _SILENT_PEAK).all())
            detail = f"every sample is {self._low[0]:g}; the recorder was not listening"
            found.add("silent" if silent else "constant", "warning", detail)
            return
        if constant.any():
            dead = int(np.argmax(constant))
            found.add("dead channel", "warning", f"channel {dead} never changes; leave it out")
        if (peak < _SILENT_PEAK).all():
            found.add("silent", "warning", f"its peak is {peak.max():.2g} of full scale")
        if self._n_over:
            found.add(
                "over full scale",
                "warning",
                f"{self._n_over} samples lie outside [-1, 1], the largest {peak.max():.4g}",
            )
        elif self._n_flat > _CLIPPED_SHARE * n_samples:
            share = 100 * self._n_flat / n_samples
            found.add("clipped", "warning", f"{share:.3g} % of its samples are cut off at the top")
        offset = float(np.abs(self._sum / max(1, self._n)).max())
        if offset > _OFFSET:
            found.add("offset", "warning", f"its mean is {offset:.3g} of full scale, not 0")


def _flat_samples(loud: np.ndarray) -> int:
    """Samples within runs of at least `_FLAT_TOP` where `loud` (n, channels) holds."""
    if not loud.any():
        return 0
    edge = np.zeros((1, loud.shape[1]), dtype=np.int8)
    steps = np.diff(np.concatenate([edge, loud.astype(np.int8), edge]), axis=0).T
    starts, ends = np.nonzero(steps == 1)[1], np.nonzero(steps == -1)[1]
    lengths = ends - starts
    return int(lengths[lengths >= _FLAT_TOP].sum())
