"""Shares of a stage's work for jobs of their own: `k/n`, evened out, the same wherever it is asked.

A share is a choice of recordings, no setting: what comes out of all shares together is, to the
byte, what one process makes.
"""

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass

from local.io.errors import CanopyError


@dataclass(frozen=True)
class Shard:
    """Share `k` of `n`, from 0 on."""

    k: int
    n: int

    @property
    def name(self) -> str:
        """The share in names of files."""
        return f"{self.k}of{self.n}"

    def of(self, weights: Sequence[float]) -> list[int]:
        """Which items are of this share, in their order; see `deal`."""
        return [item for item, share in enumerate(deal(weights, self.n)) if share == self.k]


def parse_shard(text: str | None) -> Shard | None:
    """Option `--shard K/N`, counted from 0; None when it was not given."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise CanopyError(f"--shard is {text!r}, expected K/N with K from 0 to N-1, as in 0/4")
    return Shard(int(match[1]), int(match[2]))


def deal(weights: Sequence[float], n: int) -> list[int]:
    """Share of each item: the heaviest first, each to the share that has least so far.

    The largest share is at most 4/3 - 1/(3n) of the best that could be (Graham 1969).
    """
    shares = [(0.0, share) for share in range(n)]
    dealt = [0] * len(weights)
    for item in sorted(range(len(weights)), key=lambda item: (-weights[item], item)):
        load, share = heapq.heappop(shares)
        dealt[item] = share
        # Items of no weight are dealt in turn as well.
        heapq.heappush(shares, (load + max(float(weights[item]), 1e-9), share))
    return dealt
