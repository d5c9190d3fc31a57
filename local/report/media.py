"""Spectrograms as small PNG files and sounds as MP3, which every browser plays.

MP3 and not a newer codec: libsndfile writes the same bytes for the same samples, so a report made
twice is one and the same, and no browser refuses it.
"""

import io

import numpy as np
import soundfile
import soxr
from matplotlib import colormaps
from PIL import Image

# Rates that MPEG audio has; a sound is brought to the first that is not below its own.
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# What a person hears ends here; recordings above this rate play slower unless asked otherwise.
AUDIBLE_RATE = 48000
# 0 is libsndfile's largest file of a variable rate, 1 its smallest.
_COMPRESSION = 0.6
# More cells than this do not show on a page.
_MAX_COLUMNS, _MAX_ROWS = 900, 128
# Shades: enough to look smooth, few enough to compress well.
_N_SHADES = 64


def expansion_of(sample_rate: int, asked: float | None) -> float:
    """How many times slower a sound plays: as asked, or ten times above what can be heard."""
    if asked is not None:
        return asked
    return 10.0 if sample_rate > AUDIBLE_RATE else 1.0


def encode_sound(wave: np.ndarray, sample_rate: int, expansion: float = 1.0) -> bytes:
    """(n,) samples in [-1, 1] as MP3, played `expansion` times slower than recorded.

    Quiet recordings are made louder, to a peak of 0.9 and by at most 30 dB.
    """
    peak = float(np.abs(wave).max(initial=0.0))
    gain = min(0.9 / peak, 10**1.5) if peak > 0 else 1.0
    rate_in = sample_rate / expansion
    rate = next((rate for rate in _RATES if rate >= rate_in - 0.5), _RATES[-1])
    samples = np.asarray(wave, dtype=np.float32) * np.float32(gain)
    if rate != rate_in:
        samples = soxr.resample(samples, rate_in, rate)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        samplerate=rate,
        channels=1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=_COMPRESSION,
        bitrate_mode="VARIABLE",
    ) as sound:
        sound.write(np.clip(samples, -1, 1))
    return buffer.getvalue()


def pool(feats: np.ndarray, max_rows: int, max_columns: int) -> np.ndarray:
    """Shrink (n_mels, T) to at most that many cells: mean over rows, maximum over time.

    The maximum keeps calls that are shorter than a cell. Cells are as equal as they can be.
    """
    rows = np.linspace(0, feats.shape[0], min(feats.shape[0], max_rows) + 1).astype(int)
    columns = np.linspace(0, feats.shape[1], min(feats.shape[1], max_columns) + 1).astype(int)
    cells = np.add.reduceat(np.asarray(feats, dtype=np.float64), rows[:-1], axis=0)
    cells /= np.diff(rows)[:, None]
    return np.maximum.reduceat(cells, columns[:-1], axis=1)


def encode_picture(image: np.ndarray) -> bytes:
    """(n_mels, T) log-mel as a PNG, low frequencies at the bottom."""
    image = pool(np.where(np.isfinite(image), image, np.nan), _MAX_ROWS, _MAX_COLUMNS)
    low, high = 0.0, 1.0
    if not np.isnan(image).all():
        # The floor of silence and single clicks must not eat the range of the calls.
        low, high = np.nanpercentile(image, [5, 99.7])
    shades = np.clip((np.nan_to_num(image, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    index = np.round(shades * (_N_SHADES - 1)).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(index[::-1]))
    colours = colormaps["magma"](np.linspace(0, 1, _N_SHADES))[:, :3]
    picture.putpalette((colours * 255).round().astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
