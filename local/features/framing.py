"""Frames of a centred short-time transform over a signal that arrives in blocks."""

from collections.abc import Iterable, Iterator

import numpy as np


def frames_in(n_samples: int, size: int, hop: int) -> int:
    """Whole frames of `size` samples, `hop` apart, in so many samples."""
    return 0 if n_samples < size else (n_samples - size) // hop + 1


def mirrored_places(n: int, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n samples stand for the `half` before the first and the `half` after the last.

    The signal is read to and fro without end, about its first and last sample.
    """
    period = max(1, 2 * (n - 1))
    before, after = (np.arange(-half, 0) % period, np.arange(n, n + half) % period)
    if n == 1:
        return before * 0, after * 0
    return np.minimum(before, period - before), np.minimum(after, period - after)


def stream_frames(
    blocks: Iterable[np.ndarray], size: int, hop: int, multiple: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces of the mirrored signal, and how many frames to make of each.

    Parameters
    ----------
    blocks
        Consecutive samples (n_i,), of any lengths, at least one sample in all.
    size, hop
        Of the transform, in samples.
    multiple
        All pieces but the last hold a multiple of so many frames.

    Yields
    ------
    tuple
        (m,) float32 samples, m >= size, that begin where the piece's first frame does, and the
        number of frames; in all they are 1 + n // hop.
    """
    rest: np.ndarray = np.zeros(0, dtype=np.float32)
    skip = 0  # samples still to be passed over when the hop is longer than a frame
    for piece in _mirrored(blocks, size // 2):
        rest = np.concatenate([rest, piece[skip:]])
        skip = max(0, skip - len(piece))
        ready = frames_in(len(rest), size, hop) // multiple * multiple
        if ready:
            yield rest, ready
            skip += max(0, ready * hop - len(rest))
            rest = rest[ready * hop :]
    last = frames_in(len(rest), size, hop)
    if last:
        yield rest, last


def _mirrored(blocks: Iterable[np.ndarray], half: int) -> Iterator[np.ndarray]:
    """The signal in pieces, with `half` mirrored samples before and after it."""
    arriving = (np.asarray(block, dtype=np.float32) for block in blocks)
    head: np.ndarray = np.zeros(0, dtype=np.float32)
    for block in arriving:
        head = np.concatenate([head, block])
        if len(head) > half:
            break
    if len(head) == 0:
        raise ValueError("no samples in the stream")
    yield head[mirrored_places(len(head), half)[0]]
    yield head
    recent = head
    for block in arriving:
        yield block
        # Mirroring the end needs half + 1 samples, whatever blocks they came in.
        recent = np.concatenate([recent, block[-half - 1 :]])[-half - 1 :]
    yield recent[mirrored_places(len(recent), half)[1]]
