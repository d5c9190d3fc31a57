"""The one sliding-window path: frames of recordings in, scores over time out, as they come.

Recordings may be read from files of features or still be arriving; windows of any recordings, views
and lengths share batches; what is final of a recording is given out at once, so that memory does
not grow with its length. Which windows there are, their order and their batches depend on the
recordings alone, never on the pieces that they arrive in.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import expit

from local.config import Config
from local.features.front_ends.front_end import FrontEnd
from local.features.front_ends.front_end_registry import front_end_of
from local.features.silence import settled
from local.inference.scores import mean_logit
from local.inference.views import View
from local.labels.grid import FrameGrid, inside, to_frames
from local.labels.windows import Stitcher, n_cells, pad_short, stream_starts

# (B, *axes, T) float32 -> frame logits (B, C, T'), clip logits (B, C).
Scorer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


# Of cells and windows in which nothing sounds: the least that averages in probability tell apart.
SILENT_LOGIT = float(np.log(1e-15))
# Cells given out at once; fewer would cost more than the windows that they come from.
_CHUNK_CELLS = 512


class Frames(Protocol):
    """Frames of one recording, read forwards.

    n_known : frames that are certain to exist so far. ended : whether those are all.
    """

    n_known: int
    ended: bool

    def reach(self, n: int) -> None:
        """Wait until at least `n` frames are known, or the end is."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """(*axes, k) float32 of the frames [start, stop), as far as they exist."""

    def silence(self, after_s: float) -> np.ndarray:
        """(k, 2) seconds of digital silence in what is known, at least what ends after `after_s`.

        What reaches the recording's ends reaches beyond them.
        """

    def release(self, reader: int, before: int) -> None:
        """Reader number `reader` will ask for no frame before `before` any more."""


# What gives the frames of a recording that lasts so many times as long.
Recording = Callable[[float], Frames]


@dataclass(frozen=True)
class Chunk:
    """Cells of one recording that follow those of its chunk before.

    frames : (C, k) float32 logits. window : (C,) highest clip logit of any window, with the last
    chunk only.
    """

    row: int
    frames: np.ndarray
    window: np.ndarray | None = None

    @property
    def last(self) -> bool:
        """Whether the recording ends with this chunk."""
        return self.window is not None


def slide(
    recordings: Iterable[Recording],
    views: list[View],
    scorers: Sequence[Scorer],
    n_classes: int,
    step: int,
    config: Config,
) -> Iterator[Chunk]:
    """Score recordings with one model or with the mean, in probability, of several.

    Parameters
    ----------
    recordings : opened one after the other, each only when the one before has been read.
    scorers : models of the same classes and the same `step` of frames a cell.
    """
    laid: dict[int, list[_ScoreAccumulator]] = {}
    windows = _windows(recordings, views, step, config)
    for request, outputs in _run_batches(windows, scorers, config.inference.batch_size):
        if request.row not in laid:
            laid[request.row] = [_ScoreAccumulator(views, n_classes, step, config) for _ in scorers]
        parts = laid[request.row]
        for part, (frame_logit, clip_logit) in zip(parts, outputs, strict=True):
            part.add(request, frame_logit, clip_logit)
        done = parts[0].done
        if done:
            del laid[request.row]
        if done or parts[0].n_ready >= _CHUNK_CELLS:
            window = _mean([part.window() for part in parts]) if done else None
            yield Chunk(request.row, _mean([part.take() for part in parts]), window)


def _mean(parts: list[np.ndarray]) -> np.ndarray:
    return mean_logit(np.stack(parts)).astype(np.float32)


# --------------------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class _Request:
    """One window of one view of one recording.

    silent : (T',) cells of digital silence. n_frames, n_plain : frames of the view and of the plain
    recording, with the last window only.
    """

    row: int
    view: int
    start: int
    flip: bool
    crop: np.ndarray
    silent: np.ndarray
    n_frames: int = 0
    n_plain: int = 0


def _windows(
    recordings: Iterable[Recording], views: list[View], step: int, config: Config
) -> Iterator[_Request]:
    """Windows of all views in the order of their ends, recording by recording."""
    for row, recording in enumerate(recordings):
        # Each view's windows, tagged by where they end in plain time.
        looks = [
            _view_windows(row, position, view, recording, step, config)
            for position, view in enumerate(views)
        ]
        for _, request in heapq.merge(*looks, key=lambda tagged: tagged[0]):
            yield request


def _view_windows(
    row: int, position: int, view: View, recording: Recording, step: int, config: Config
) -> Iterator[tuple[float, _Request]]:
    source, front_end = recording(view.stretch), front_end_of(config)

    def n_frames() -> int:
        return max(1, to_frames(source.n_known / view.speed, 1.0))

    def goes_on_after(end: int) -> bool:
        while n_frames() <= end and not source.ended:
            source.reach(source.n_known + 1)
        return n_frames() > end

    shift = to_frames(view.shift_s, front_end.hop_s)
    starts = stream_starts(goes_on_after, n_frames, view.window, view.overlap, shift)
    for start, last in starts:
        crop, first = _look(source, start, view, front_end, config.window.short)
        cells = _grid(start, view, step, front_end)
        silent = inside(settled(source.silence(cells.start_s), cells.end_s), cells)
        source.release(position, first)
        if view.flip:
            # Cut to whole cells first, so that its cells turn into its cells.
            whole = crop.shape[-1] // step * step
            crop = np.concatenate([crop[..., :whole][..., ::-1], crop[..., whole:]], axis=-1)
        lengths: tuple[int, ...] = ()
        if last:
            plain = recording(1.0)
            while not plain.ended:
                plain.reach(plain.n_known + 1)
            lengths = (n_frames(), plain.n_known)
        end = (start + view.window) * view.speed / view.stretch
        yield end, _Request(row, position, start, view.flip, crop, silent, *lengths)
    source.release(position, source.n_known)


def _grid(start: int, view: View, step: int, front_end: FrontEnd) -> FrameGrid:
    """Cells of a window, in the time of the recording that the view looks at."""
    first_s = (start * view.speed + front_end.begin) * front_end.hop_s
    return FrameGrid(view.window // step, front_end.hop_s * step * view.speed, first_s)


def _look(
    source: Frames, start: int, view: View, front_end: FrontEnd, short: str
) -> tuple[np.ndarray, int]:
    """The input of one window as the view shows it, and the first frame it was made of."""
    fill = front_end.fill
    if view.speed == 1.0:
        first, stop = start, start + view.window
        source.reach(stop)
        crop = pad_short(source.read(first, stop), view.window, short, fill)
    else:
        # Frame i of the faster recording stands where frame i * speed stood.
        places = (start + np.arange(view.window)) * view.speed
        stop = int(np.ceil(places[-1])) + 2
        source.reach(stop)
        first = min(int(places[0]), max(0, source.n_known - 1))
        around = pad_short(source.read(first, stop), stop - first, short, fill)
        places = np.clip(places - first, 0, around.shape[-1] - 1)
        left = np.minimum(places.astype(np.int64), around.shape[-1] - 2)
        share = (places - left).astype(np.float32)
        crop = around[..., left] * (1 - share) + around[..., left + 1] * share
    return front_end.louder(crop, view.gain_db), first


def _run_batches(
    windows: Iterator[_Request], scorers: Sequence[Scorer], batch_size: int
) -> Iterator[tuple[_Request, list[tuple[np.ndarray, np.ndarray]]]]:
    """Windows of one length share batches; those of one view come back in their order."""
    waiting: dict[tuple[int, ...], list[_Request]] = {}
    for request in windows:
        batch = waiting.setdefault(request.crop.shape, [])
        batch.append(request)
        if len(batch) == batch_size:
            yield from _run_batch(waiting.pop(request.crop.shape), scorers)
    for batch in waiting.values():
        yield from _run_batch(batch, scorers)


def _run_batch(
    batch: list[_Request], scorers: Sequence[Scorer]
) -> Iterator[tuple[_Request, list[tuple[np.ndarray, np.ndarray]]]]:
    x = np.stack([request.crop for request in batch])
    outputs = [scorer(x) for scorer in scorers]
    for row, request in enumerate(batch):
        yield (
            request,
            [
                (frame[row, :, ::-1] if request.flip else frame[row], clip[row])
                for frame, clip in outputs
            ],
        )


# -------------------------------------------------------------------------------------- stitching


class _ScoreAccumulator:
    """What one model says of one recording: its views stitched, brought to one grid, averaged."""

    def __init__(self, views: list[View], n_classes: int, step: int, config: Config) -> None:
        self._method = config.inference.stitch
        self._step = step
        begin = front_end_of(config).begin
        self._stitchers = [Stitcher(n_classes, step, self._method) for _ in views]
        self._grids = [_PlainGrid(view, begin, step, n_classes) for view in views]
        self._best = [np.full(n_classes, -np.inf) for _ in views]
        self._ready: list[list[np.ndarray]] = [[] for _ in views]
        self._n_ready = np.zeros(len(views), dtype=np.int64)
        self._waiting = len(views)

    @property
    def done(self) -> bool:
        """Whether all windows of all views have come."""
        return self._waiting == 0

    @property
    def n_ready(self) -> int:
        """Cells that all views have."""
        return int(self._n_ready.min())

    def add(self, request: _Request, frame_logit: np.ndarray, clip_logit: np.ndarray) -> None:
        """One window's scores, (C, T') and (C,); cells of digital silence have none to speak of.

        A network may say anything of a constant input, in which there is nothing to normalise.
        """
        view = request.view
        if request.silent.any():
            frame_logit = np.where(request.silent, SILENT_LOGIT, frame_logit)
        if request.silent.all():
            clip_logit = np.full_like(clip_logit, SILENT_LOGIT)
        np.maximum(self._best[view], clip_logit, out=self._best[view])
        stitcher, grid = self._stitchers[view], self._grids[view]
        # Means are taken of probabilities; a maximum may be taken of logits as well.
        of_means = self._method == "mean"
        scores = expit(frame_logit.astype(np.float64)) if of_means else frame_logit
        self._keep(view, grid.add(self._logits(stitcher.add(scores, request.start))))
        if request.n_frames:
            rest = self._logits(stitcher.finish(request.n_frames))
            self._keep(view, grid.finish(rest, n_cells(request.n_plain, self._step)))
            self._waiting -= 1

    def _logits(self, stitched: np.ndarray) -> np.ndarray:
        if self._method == "max":
            return stitched
        clipped = np.clip(stitched, 1e-15, 1 - 1e-15)
        return np.log(clipped) - np.log1p(-clipped)

    def _keep(self, view: int, cells: np.ndarray) -> None:
        if cells.shape[1]:
            self._ready[view].append(cells)
            self._n_ready[view] += cells.shape[1]

    def take(self) -> np.ndarray:
        """(C, k) float32: the mean over views of the cells that all of them have."""
        n = self.n_ready
        if n == 0:
            return np.zeros((len(self._best[0]), 0), dtype=np.float32)
        parts = []
        for view, pieces in enumerate(self._ready):
            cells = np.concatenate(pieces, axis=1)
            parts.append(cells[:, :n])
            self._ready[view] = [cells[:, n:]] if cells.shape[1] > n else []
        self._n_ready -= n
        return mean_logit(np.stack(parts)).astype(np.float32)

    def window(self) -> np.ndarray:
        """(C,) the mean over views of the highest clip logit of any window."""
        return mean_logit(np.stack(self._best)).astype(np.float32)


class _PlainGrid:
    """Scores of a faster or slower view, brought back to the cells of plain time as they come.

    The first cell, of `step` frames, begins `begin` frames after the recording does.
    """

    def __init__(self, view: View, begin: float, step: int, n_classes: int) -> None:
        self._ratio = view.speed / view.stretch
        self._plain = self._ratio == 1.0 and view.stretch == 1.0
        self._moved = -begin * (1 - self._ratio) / step if view.stretch != 1.0 else 0.0
        self._cells: np.ndarray = np.zeros((n_classes, 0))
        self._first = 0  # of the cells held, on the view's grid
        self._next = 0  # plain cell

    def add(self, cells: np.ndarray) -> np.ndarray:
        """Further (C, k) cells of the view -> the plain cells that they decide."""
        if self._plain:
            return cells
        self._cells = np.concatenate([self._cells, cells], axis=1)
        if self._cells.shape[1] == 0:
            return self._cells
        # Plain cell j has its middle at j + 1/2.
        decided = int(np.floor(self._places()[-1] - 0.5)) + 1
        return self._up_to(decided)

    def finish(self, cells: np.ndarray, n_plain: int) -> np.ndarray:
        """The last cells of the view -> the rest of `n_plain` plain cells."""
        if self._plain:
            return cells
        before = self.add(cells)
        # What was decided beyond the end is not the recording's.
        surplus = max(0, self._next - n_plain)
        rest = self._up_to(n_plain)
        return np.concatenate([before[:, : before.shape[1] - surplus], rest], axis=1)

    def _places(self) -> np.ndarray:
        index = self._first + np.arange(self._cells.shape[1])
        return (index + 0.5) * self._ratio + self._moved

    def _up_to(self, end: int) -> np.ndarray:
        if end <= self._next:
            return self._cells[:, :0]
        centres = np.arange(self._next, end) + 0.5
        places = self._places()
        found = np.stack([np.interp(centres, places, scores) for scores in self._cells])
        self._next = end
        # The cell on the left of the next middle is the first that is needed again.
        spent = max(0, int(np.searchsorted(places, end + 0.5, side="right")) - 1)
        spent = min(spent, len(places) - 1)
        self._cells, self._first = self._cells[:, spent:], self._first + spent
        return found
