"""Digital silence: where no sample of a recording differs from the one before."""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

# Shorter stretches are no silence: quiet sound of few bits stands still as well.
_SHORTEST_S = 0.1
# Stretches begin at a multiple of so many samples.
_PIECE_S = 0.002


class SilenceFinder:
    """Stretches of at least 0.1 s of constant samples in a recording that arrives in blocks.

    They begin up to 4 ms late; they end exactly. What the blocks are does not matter. It looks at
    samples as they are decoded, at the rate of the file: a resampler makes numbers of equal samples
    that differ by rounding, and by more beside a step. One thread may add while another asks.
    """

    def __init__(self, sample_rate: int) -> None:
        self._piece = max(1, round(_PIECE_S * sample_rate))
        self._shortest = _SHORTEST_S * sample_rate
        self._sample_rate = sample_rate
        self._lock = threading.Lock()
        self._rest: np.ndarray | None = None  # (C, n) of the piece that is not whole yet
        self._n = 0  # samples of whole pieces
        self._first: int | None = None  # sample where the stretch begins that goes on
        self._found: list[tuple[int, int]] = []

    def pass_on(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks (n_i,) or (n_i, n_channels); each is looked through first."""
        for block in blocks:
            self.add(block.T)
            yield block

    def add(self, block: np.ndarray) -> None:
        """Look through further samples (n,) or (n_channels, n)."""
        with self._lock:
            self._add(np.atleast_2d(block))

    def _add(self, samples: np.ndarray) -> None:
        if self._rest is not None:
            # Only the piece that begins in a block before is copied.
            lacking = self._piece + 1 - self._rest.shape[1]
            self._look(np.concatenate([self._rest, samples[:, :lacking]], axis=1))
            if samples.shape[1] < lacking:
                return
            samples = samples[:, lacking - 1 :]
        self._look(samples)

    def _look(self, samples: np.ndarray) -> None:
        """Samples (C, n) from the beginning of a piece on; what makes no whole piece is kept."""
        # Of each piece the first sample of the next one must be there.
        n = max(0, (samples.shape[1] - 1) // self._piece)
        used = n * self._piece
        if n:
            still = _still(samples[:, : used + 1], n)
            for piece in np.flatnonzero(np.diff(still, prepend=self._first is not None)).tolist():
                begin = piece * self._piece
                if self._first is None:
                    self._first = self._n + begin
                    continue
                end = self._n + begin + _n_equal(samples[:, begin : begin + self._piece])
                if end - self._first >= self._shortest:
                    self._found.append((self._first, end))
                self._first = None
        self._n += used
        self._rest = samples[:, used:].copy()

    @property
    def end_s(self) -> float:
        """Seconds of what was added so far."""
        return (self._n + (0 if self._rest is None else self._rest.shape[1])) / self._sample_rate

    def spans_s(self, after_s: float = -np.inf) -> np.ndarray:
        """(k, 2) seconds of the stretches so far that end after `after_s`; one may go on."""
        with self._lock:
            found = self._stretches(after_s)
        return np.array(found, dtype=np.float64).reshape(-1, 2) / self._sample_rate

    def _stretches(self, after_s: float) -> list[tuple[int, int]]:
        known = bisect_right(self._found, after_s * self._sample_rate, key=lambda span: span[1])
        found = self._found[known:]
        if self._first is not None and self._rest is not None:
            end = self._n + _n_equal(self._rest)
            if end - self._first >= self._shortest:
                found.append((self._first, end))
        return found


def settled(spans: np.ndarray, end_s: float) -> np.ndarray:
    """Those of spans (k, 2) that are known as silence from the samples before `end_s` alone.

    Who has read on, or all, goes by the same ones.
    """
    return spans[np.maximum(spans[:, 0], 0) <= end_s - _SHORTEST_S - 2 * _PIECE_S]


def widened(spans: np.ndarray, end_s: float) -> np.ndarray:
    """Spans (k, 2) that reach a recording's first or last moment, made to reach beyond it."""
    if len(spans) == 0:
        return spans
    starts = np.where(spans[:, 0] <= 0, -np.inf, spans[:, 0])
    return np.stack([starts, np.where(spans[:, 1] >= end_s - 1e-6, np.inf, spans[:, 1])], axis=1)


def write_spans(spans: np.ndarray) -> str:
    """Spans (k, 2) in seconds as text: "0-1.5 3-4"."""
    return " ".join(f"{start:.10g}-{end:.10g}" for start, end in spans)


def read_spans(text: str) -> np.ndarray:
    """What `write_spans` wrote."""
    spans = [[float(part) for part in span.split("-")] for span in text.split()]
    return np.array(spans, dtype=np.float64).reshape(-1, 2)


def _still(samples: np.ndarray, n: int) -> np.ndarray:
    """(n,) bool: in which of n pieces all samples, and the next one, are equal: (C, n * k + 1)."""
    first = samples[:, :: (samples.shape[1] - 1) // n]
    still = (first[:, 1:] == first[:, :-1]).all(axis=0)
    # Few are left to be looked at sample by sample.
    rows = np.flatnonzero(still)
    if len(rows):
        pieces = samples[:, :-1].reshape(len(samples), n, -1)[:, rows]
        still[rows] = (pieces == pieces[..., :1]).all(axis=(0, 2))
    return still


def _n_equal(samples: np.ndarray) -> int:
    """How many samples (C, n), n >= 1, from the first on are as it is."""
    equal = (samples == samples[:, :1]).all(axis=0)
    return len(equal) if equal.all() else int(np.argmin(equal))
