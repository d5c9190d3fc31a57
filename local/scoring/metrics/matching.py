"""Which detection answers which event: pairs that touch, and matchings that use each side once.

Everything works on whole collections at once: pairs are looked up by sorted keys, so that a million
detections take seconds.

Three rules make a matching of the pairs that meet a criterion (an IoU, a collar):

- `largest_matching`: as many pairs as possible (Hopcroft and Karp 1973, as in sed_eval's
  `event_matching_type="optimal"`). The count does not depend on the order of rows.
- `closest_matching`: as many pairs, and of all such matchings one of the highest sum of IoU. Needed
  where it counts which pairs are matched.
- `matching_by_score`: detections in order of falling score each take the free event they overlap
  best (Everingham et al. 2010, Lin et al. 2014). Needed where every threshold counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching

from local.labels.grid import ROUNDING_S

# An IoU this little below the limit still reaches it.
_IOU_SLACK = 1e-9
# An IoU exceeds the limit when it is more than this above it.
_IOU_EXCESS = 1e-6
# Pairs looked at together: working memory of some 100 MB.
_BLOCK_PAIRS = 1 << 20
_LOOKUP_MARGIN_S = 1e-3
# Of the table of a group of events: 200 MB.
_DENSE_CELLS = 1 << 24


@dataclass(frozen=True)
class EventList:
    """Events of N recordings and C classes as arrays of length E, in any order.

    recording, label: indices from 0. onset, offset: seconds, onset < offset. score: the higher the
    surer; one value for all where there are none.
    """

    recording: np.ndarray
    label: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    score: np.ndarray

    @classmethod
    def of(cls, events: pd.DataFrame, recording_ids: list[str], labels: list[str]) -> "EventList":
        """Rows of a table of events; those of other recordings and classes are left out.

        Scores that are not known count as 0.
        """
        recording = pd.Index(recording_ids).get_indexer(events["recording_id"])
        label = pd.Index(labels).get_indexer(events["label"])
        kept = (recording >= 0) & (label >= 0)
        score = events["score"] if "score" in events else pd.Series(0.0, index=events.index)
        numbers = (events["onset"], events["offset"], score.fillna(0.0))
        columns = (column.to_numpy(np.float64)[kept] for column in numbers)
        return cls(recording[kept], label[kept], *columns)

    def __len__(self) -> int:
        return len(self.recording)

    def take(self, rows: np.ndarray) -> "EventList":
        """The events chosen by a mask or by indices."""
        return EventList(
            self.recording[rows],
            self.label[rows],
            self.onset[rows],
            self.offset[rows],
            self.score[rows],
        )

    def counts(self, n_recordings: int, n_classes: int) -> np.ndarray:
        """(N, C) number of events."""
        cells = np.bincount(self.recording * n_classes + self.label, None, n_recordings * n_classes)
        return cells.reshape(n_recordings, n_classes).astype(np.float64)


@dataclass(frozen=True)
class Pairs:
    """P pairs of a true and a detected event (row numbers of each) of one recording and class."""

    true: np.ndarray
    found: np.ndarray
    iou: np.ndarray

    def reaching(self, iou: float) -> "Pairs":
        """The pairs whose IoU is at least `iou`; at 0, every pair that overlaps."""
        return self._take(self.iou >= iou - _IOU_SLACK)

    def exceeding(self, iou: float) -> "Pairs":
        """The pairs whose IoU is more than `iou`; at 0, every pair that overlaps."""
        return self._take(self.iou >= iou + (_IOU_EXCESS if iou > 0 else -_IOU_SLACK))

    def _take(self, keep: np.ndarray) -> "Pairs":
        return Pairs(self.true[keep], self.found[keep], self.iou[keep])


def overlapping_pairs(true: EventList, found: EventList) -> Pairs:
    """All pairs of one recording and class that share time, with their intersection over union."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    longest = float((found.offset - found.onset).max()) if len(found) else 0.0
    first, last = true.onset - longest, true.offset
    for i, j in _near_pairs(true, found, first, last):
        shared = np.minimum(true.offset[i], found.offset[j])
        shared = shared - np.maximum(true.onset[i], found.onset[j])
        keep = shared > ROUNDING_S  # events that touch do not overlap
        i, j, shared = i[keep], j[keep], shared[keep]
        lengths = true.offset[i] - true.onset[i] + found.offset[j] - found.onset[j]
        parts.append((i, j, shared / (lengths - shared)))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def collar_pairs(
    true: EventList,
    found: EventList,
    collar_s: float,
    offset_share: float = 0.5,
    use_offset: bool = True,
) -> Pairs:
    """Pairs whose bounds agree, by the rule of sed_eval's event-based measures.

    |onset - true onset| <= collar_s, and with `use_offset` |offset - true offset| <= max(collar_s,
    offset_share * true length) (Mesaros, Heittola and Virtanen 2016), forgiving what differs by
    rounding. Their `iou` is 0.
    """
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for i, j in _near_pairs(true, found, true.onset - collar_s, true.onset + collar_s):
        keep = np.abs(true.onset[i] - found.onset[j]) <= collar_s + ROUNDING_S
        if use_offset:
            allowed = np.maximum(collar_s, offset_share * (true.offset[i] - true.onset[i]))
            keep &= np.abs(true.offset[i] - found.offset[j]) <= allowed + ROUNDING_S
        parts.append((i[keep], j[keep]))
    i, j = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(i, j, np.zeros(len(i)))


def _near_pairs(
    true: EventList, found: EventList, first: np.ndarray, last: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of pairs of one recording and class where the found onset is in [first, last]."""
    if not len(true) or not len(found):
        return
    n_classes = int(max(true.label.max(), found.label.max())) + 1
    # Recording, class and onset in one number, so that one search finds a run of detections.
    span = max(float(last.max()), float(found.onset.max())) + 1
    span += max(0.0, -float(first.min())) + 1
    key = (found.recording * n_classes + found.label) * span
    order = np.argsort(key + found.onset, kind="stable")
    places = (key + found.onset)[order]
    base = (true.recording * n_classes + true.label) * span
    begins = np.searchsorted(places, base + np.maximum(first, 0) - _LOOKUP_MARGIN_S, "left")
    ends = np.searchsorted(places, base + last + _LOOKUP_MARGIN_S, "right")
    lengths = np.maximum(ends - begins, 0)
    totals = np.cumsum(lengths)
    start = 0
    while start < len(true):
        done = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, done + _BLOCK_PAIRS, "right")))
        n_each = lengths[start:stop]
        i = np.repeat(np.arange(start, stop), n_each)
        # The k-th pair of the block is the (k - pairs before its true event)-th of the run.
        shift = begins[start:stop] - (totals[start:stop] - n_each - done)
        j = order[np.arange(len(i)) + np.repeat(shift, n_each)]
        same = (true.recording[i] == found.recording[j]) & (true.label[i] == found.label[j])
        yield i[same], j[same]
        start = stop


def largest_matching(pairs: Pairs, n_true: int, n_found: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of true and of found events of a matching with as many pairs as possible."""
    if len(pairs.true) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ones = np.ones(len(pairs.true), dtype=np.int8)
    graph = csr_array((ones, (pairs.true, pairs.found)), shape=(n_true, n_found))
    partner = maximum_bipartite_matching(graph, perm_type="column")
    matched = np.flatnonzero(partner >= 0)
    return matched, partner[matched].astype(np.int64)


def closest_matching(pairs: Pairs, n_true: int, n_found: int) -> np.ndarray:
    """Places in `pairs` of a largest matching, and among those of one whose IoUs sum to the most.

    By SciPy's `linear_sum_assignment`, one group of events that hang together after another; of a
    group of thousands, as no recording has, any largest matching.
    """
    n = len(pairs.true)
    if n == 0:
        return np.zeros(0, np.int64)
    ends = (pairs.true, n_true + pairs.found)
    graph = coo_array((np.ones(n, np.int8), ends), shape=(n_true + n_found,) * 2)
    group = connected_components(graph.tocsr(), directed=False)[1][pairs.true]
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return np.sort(np.concatenate([_closest_of(pairs, part) for part in parts]))


def _closest_of(pairs: Pairs, part: np.ndarray) -> np.ndarray:
    """The pairs of one connected group that are matched."""
    if len(part) == 1:
        return part
    true, i = np.unique(pairs.true[part], return_inverse=True)
    found, j = np.unique(pairs.found[part], return_inverse=True)
    if len(true) * len(found) > _DENSE_CELLS:
        ones = np.ones(len(part), np.int8)
        partner = maximum_bipartite_matching(csr_array((ones, (i, j))), perm_type="column")
        return part[partner[i] == j]
    # One pair more outweighs all that IoU can add.
    worth = np.zeros((len(true), len(found)))
    worth[i, j] = 1 + pairs.iou[part] / (len(part) + 1)
    place = np.full(worth.shape, -1)
    place[i, j] = part
    chosen = place[linear_sum_assignment(worth, maximize=True)]
    return chosen[chosen >= 0]


def count_matched(
    true: EventList, found: EventList, pairs: Pairs, n_recordings: int, n_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits by a largest matching of `pairs`, true events and found ones, (N, C) each."""
    matched, _ = largest_matching(pairs, len(true), len(found))
    lists = (true.take(matched), true, found)
    hit, n_true, n_found = (one.counts(n_recordings, n_classes) for one in lists)
    return hit, n_true, n_found


def matching_by_score(pairs: Pairs, true: EventList, found: EventList) -> np.ndarray:
    """(E,) bool: which found events are taken when those of higher score choose first.

    A found event takes the free true event with the highest IoU. Among equal scores the higher IoU
    goes first, then the earlier onset, so the order of rows plays no part.
    """
    i, j = pairs.true, pairs.found
    order = np.lexsort(
        (true.onset[i], found.offset[j], found.onset[j], -pairs.iou, -found.score[j])
    )
    i, j = i[order], j[order]
    taken = np.zeros(len(found), dtype=bool)
    # Choosing one after another in this order is the same as taking, again and again, every pair
    # that comes first for both of its ends.
    while len(i):
        rank = np.arange(len(i))
        best_true = np.full(len(true), len(i))
        best_found = np.full(len(found), len(i))
        np.minimum.at(best_true, i, rank)
        np.minimum.at(best_found, j, rank)
        chosen = (best_true[i] == rank) & (best_found[j] == rank)
        taken[j[chosen]] = True
        used = np.zeros(len(true), dtype=bool)
        used[i[chosen]] = True
        free = ~used[i] & ~taken[j]
        i, j = i[free], j[free]
    return taken
