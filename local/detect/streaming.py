"""One recording of any length: samples, frames, windows, scores, spans, each as it comes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import expit

from local.detect.detectors import Detector
from local.detect.sound import OpenSound, open_sound
from local.features.silence import SilenceFinder, widened
from local.inference.sliding import SILENT_LOGIT, Chunk, slide
from local.io.errors import CanopyError
from local.labels.spans import SpanFinder, SpanRule

# Decoded at once: what stays in the cache until its frames are made. Every block costs seeks.
BLOCK_S = 8.0
# Frames joined before windows are read from them.
_JOINED_FRAMES = 512


class FrameStream:
    """Frames that arrive in pieces, held only as long as a reader may ask for them.

    Parameters
    ----------
    pieces : features (*axes, k), in order.
    readers : numbers of those who read.
    finder : looks through the samples that the pieces are made of. stretch : how many times as long
        they are played.
    """

    def __init__(
        self,
        pieces: Iterator[np.ndarray],
        readers: Iterable[int],
        finder: SilenceFinder | None = None,
        stretch: float = 1.0,
    ) -> None:
        self._finder, self._stretch = finder, stretch
        self.n_known, self.ended = 0, False
        self._pieces = pieces
        self._held: np.ndarray | None = None
        self._first = 0
        self._cursors = dict.fromkeys(readers, 0)

    def reach(self, n: int) -> None:
        """Wait until at least `n` frames are known, or the end is."""
        while self.n_known < n and not self.ended:
            arrived: list[np.ndarray] = []
            n_arrived = 0
            while n_arrived < _JOINED_FRAMES:
                piece = next(self._pieces, None)
                if piece is None:
                    self.ended = True
                    break
                arrived.append(piece.T)
                n_arrived += piece.shape[-1]
            if n_arrived:
                kept = [] if self._held is None else [self._held]
                # Time first, so that neighbouring frames are neighbours in memory.
                self._held = np.concatenate([*kept, *arrived])
                self.n_known += n_arrived

    def read(self, start: int, stop: int) -> np.ndarray:
        """(*axes, k) float32 of the frames [start, stop), as far as they exist."""
        if self._held is None or start < self._first:
            raise ValueError(f"frame {start} is not held any more")
        return self._held[start - self._first : min(stop, self.n_known) - self._first].T

    def silence(self, after_s: float) -> np.ndarray:
        """(k, 2) seconds of the digital silence so far that ends after `after_s`."""
        if self._finder is None:
            return np.zeros((0, 2))
        spans = self._finder.spans_s(after_s / self._stretch)
        return widened(spans, self._finder.end_s if self.ended else np.inf) * self._stretch

    def release(self, reader: int, before: int) -> None:
        """Reader number `reader` will ask for no frame before `before` any more."""
        self._cursors[reader] = before
        spent = min(self._cursors.values()) - self._first
        # By more than a little, as what is left is copied.
        if self._held is not None and spent >= _JOINED_FRAMES:
            self._held, self._first = self._held[spent:].copy(), self._first + spent


class ScoresError(CanopyError):
    """Scores that are no numbers: most likely a fault of the model, which may not be borne."""


def score_stream(detector: Detector, open_anew: Callable[[], OpenSound]) -> Iterator[Chunk]:
    """Logits of one recording over time.

    Parameters
    ----------
    open_anew : opens it from its start, (n_i,) float32 samples in blocks of any length.
    """
    streams: dict[float, FrameStream] = {}

    def frames(stretch: float) -> FrameStream:
        if stretch not in streams:
            readers = [i for i, view in enumerate(detector.views) if view.stretch == stretch]
            sound = open_anew()
            blocks = sound.blocks
            if stretch != 1.0:
                from local.features.time_stretch import stretch_stream

                blocks = stretch_stream(blocks, stretch, detector.config.features.n_fft)
            streams[stretch] = FrameStream(
                detector.engine.features(blocks), readers, sound.silence, stretch
            )
        return streams[stretch]

    yield from slide(
        *([frames], detector.views, detector.engine.scorers),
        *(len(detector.labels), detector.step, detector.config),
    )


@dataclass
class Found:
    """What was found in one recording; `label` is the index of a class, scores are logits.

    highest : (C,) highest score of each class anywhere. silent_s : seconds of digital silence, in
    which nothing is found.
    """

    duration: float
    highest: np.ndarray
    onset: list[float] = field(default_factory=list)
    offset: list[float] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    silent_s: float = 0.0

    def probability(self) -> np.ndarray:
        """(n,) scores of the spans as probabilities."""
        return expit(np.asarray(self.score, dtype=np.float64))


def find_events(
    detector: Detector,
    path: Path,
    rules: list[SpanRule],
    shift: np.ndarray | None = None,
    watch: Callable[[float, np.ndarray], None] | None = None,
    block_s: float = BLOCK_S,
) -> Found:
    """Spans of all classes in one file.

    Parameters
    ----------
    rules : one a class, thresholds as logits.
    shift : (C,) added to the logits first.
    watch : called with the seconds done so far and the (C, k) logits of further cells.
    """
    sound = open_sound(path, detector.config.audio, block_s)
    openings = [sound]

    def open_anew() -> OpenSound:
        # A view of a stretched recording reads the file a second time.
        return openings.pop() if openings else open_sound(path, detector.config.audio, block_s)

    found = Found(sound.duration, np.full(len(detector.labels), -np.inf))
    finders = [SpanFinder(rule, detector.hop_s, detector.start_s) for rule in rules]
    n_cells = 0
    for chunk in score_stream(detector, open_anew):
        logits = chunk.frames.astype(np.float64)
        if np.isnan(logits).any():
            raise ScoresError(
                f"{path}: its scores are NaN, so the model is broken or the samples are beyond all "
                "scale; train the model again, or remove the file"
            )
        found.silent_s += detector.hop_s * int((logits < SILENT_LOGIT + 1).all(axis=0).sum())
        if shift is not None:
            logits += shift[:, None]
        n_cells += logits.shape[1]
        if logits.shape[1]:
            np.maximum(found.highest, logits.max(axis=1), out=found.highest)
        for label, finder in enumerate(finders):
            spans = finder.add(logits[label]) + (finder.finish() if chunk.last else [])
            for span in spans:
                found.onset.append(span.onset)
                found.offset.append(np.fmin(span.offset, sound.duration))
                found.label.append(label)
                found.score.append(span.score)
        if watch is not None:
            watch(n_cells * detector.hop_s, logits)
    return found
