"""False alarms at every threshold: runs of cells that reach it and hold no cell of a positive row.

A run that holds a cell of a row is a detection of its call, however far it reaches beyond the box.
How far that is changes with the threshold, so each cell beside a row is given the highest threshold
at which its run still reaches the row: the least score from it to the row's nearest cell.
"""

from collections.abc import Sequence

import numpy as np

# Points at which the curve is kept.
_POINTS = 400


def alarm_curve(
    tracks: Sequence[np.ndarray], inside: Sequence[np.ndarray], hours: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rising thresholds (k,), and the false alarms an hour at or above each (k,).

    A run begins at every cell that reaches the threshold while its left neighbour does not, so the
    number of runs is that of cells that reach it less that of neighbours that both do. Of both,
    those whose run holds a cell of a row are taken off.

    Parameters
    ----------
    tracks : (n,) scores of each recording. inside : (n,) bool each, the cells of positive rows.
    hours : of all recordings.
    """
    reached = [_reached(track, mine) for track, mine in zip(tracks, inside, strict=True)]
    free = [
        track[(track > least) & ~mine]
        for track, least, mine in zip(tracks, reached, inside, strict=True)
    ]
    cells = np.sort(_joined(free))
    if len(cells) == 0:
        # Where no cell is ever part of an alarm, there is none at any threshold.
        cells = np.sort(_joined([one[~mine] for one, mine in zip(tracks, inside, strict=True)]))
    if len(cells) == 0 or hours <= 0:
        return np.zeros(0), np.zeros(0)
    # Denser towards the top, where few alarms are left.
    ranks = np.unique(np.geomspace(1, len(cells), _POINTS).astype(np.int64))
    thresholds = np.unique(cells[len(cells) - ranks])
    runs = np.zeros(len(thresholds), dtype=np.int64)
    for track, least in zip(tracks, reached, strict=True):
        both = np.minimum(track[1:], track[:-1])
        # Of two cells of one run either both reach the row or none does.
        both_reach = np.minimum(np.maximum(least[1:], least[:-1]), both)
        runs += _n_between(least, track, thresholds) - _n_between(both_reach, both, thresholds)
    return thresholds, runs / hours


def _reached(track: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(n,) highest threshold at which each cell's run holds a cell of a row; -inf for none."""
    if not inside.any():
        return np.full(len(track), -np.inf)
    result = np.where(inside, track, -np.inf)
    edges = np.flatnonzero(np.diff(inside, prepend=True, append=True)).tolist()
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if start > 0:
            behind = np.minimum.accumulate(track[start - 1 : end])[1:]
            np.maximum(result[start:end], behind, out=result[start:end])
        if end < len(track):
            before = np.minimum.accumulate(track[start : end + 1][::-1])[:0:-1]
            np.maximum(result[start:end], before, out=result[start:end])
    return result


def _n_between(low: np.ndarray, high: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(k,) how many of pairs low <= high have a threshold above low and at most high."""
    apart = low < high
    low, high = np.sort(low[apart]), np.sort(high[apart])
    return np.searchsorted(low, thresholds) - np.searchsorted(high, thresholds)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)
