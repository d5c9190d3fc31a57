"""How long a large corpus takes on a cluster where machines fail: the schedule, played through.

Workers (a GPU, or a core) take shares of the sound from one queue. Their nodes fail at random, as
often as the mean time between failures says, each with all its workers; their shares go back to the
queue and go on behind the last recording that was finished. What each time comes out is drawn again
from the seed.
"""

import bisect
import heapq
import math
from dataclasses import dataclass

import numpy as np

from local.io.errors import CanopyError


@dataclass(frozen=True)
class Workload:
    """The work. Hours are of sound; gb_per_hour of it, as it lies on the disk.

    kept_gb_per_hour : what detection leaves of an hour.
    """

    hours: float
    n_shards: int
    recording_hours: float
    gb_per_hour: float
    kept_gb_per_hour: float


@dataclass(frozen=True)
class Machines:
    """Who works. rate: hours of sound an hour of one worker. Times in hours, cost of a worker-hour.

    spread : standard deviation of the logarithm of workers' speed. mtbf_hours : of one node;
    infinity for none that fails. max_retries : further tries of a share. bandwidth_gb_s : of the
    shared disk, for all together; infinity where it is no limit. per_node : workers of a node,
    which fail together. tb_month : cost of a TB on the disk for a month.
    """

    n_workers: int
    rate: float
    spread: float
    mtbf_hours: float
    repair_hours: float
    requeue_hours: float
    start_hours: float
    max_retries: int
    bandwidth_gb_s: float
    cost: float
    per_node: int = 1
    tb_month: float = 0.0


@dataclass(frozen=True)
class ForecastResult:
    """One course of events. n_failures: shares that were interrupted."""

    wall_hours: float
    busy_hours: float
    lost_hours: float
    n_failures: int
    n_given_up: int


def check(load: Workload, fleet: Machines) -> None:
    """Refuse numbers that mean nothing."""
    positive = {"--hours": load.hours, "--rate": fleet.rate, "--mtbf": fleet.mtbf_hours}
    positive |= {"--recording-hours": load.recording_hours, "--bandwidth": fleet.bandwidth_gb_s}
    for name, value in positive.items():
        if not value > 0:
            raise CanopyError(f"{name} is {value:g}, expected more than 0")
    for name, count in _counts(load, fleet):
        if count < 1:
            raise CanopyError(f"{name} is {count}, expected 1 or more")


def _counts(load: Workload, fleet: Machines) -> tuple[tuple[str, int], ...]:
    return (
        ("--shards", load.n_shards),
        ("--workers", fleet.n_workers),
        ("--per-node", fleet.per_node),
    )


class _Node:
    """When a node fails: it works for a random time, is repaired, and so on."""

    def __init__(self, fleet: Machines, rng: np.random.Generator) -> None:
        self._fleet, self._rng = fleet, rng
        self._failures: list[float] = []

    def failure_after(self, hour: float) -> float:
        """The first failure that comes after an hour at which it works."""
        if math.isinf(self._fleet.mtbf_hours):
            return math.inf
        while not self._failures or self._failures[-1] <= hour:
            up = self._failures[-1] + self._fleet.repair_hours if self._failures else 0.0
            self._failures.append(up + self._rng.exponential(self._fleet.mtbf_hours))
        return self._failures[bisect.bisect_right(self._failures, hour)]

    def works_from(self, hour: float) -> float:
        """The hour itself, or when it is repaired."""
        self.failure_after(hour)
        before = bisect.bisect_right(self._failures, hour) - 1
        if before < 0:
            return hour
        return max(hour, self._failures[before] + self._fleet.repair_hours)


def fed_rate(load: Workload, fleet: Machines) -> float:
    """Rate of one worker when all read at once: its own, or its part of the disk's."""
    if load.gb_per_hour <= 0 or math.isinf(fleet.bandwidth_gb_s):
        return fleet.rate
    return min(fleet.rate, fleet.bandwidth_gb_s * 3600 / load.gb_per_hour / fleet.n_workers)


def play(load: Workload, fleet: Machines, rng: np.random.Generator) -> ForecastResult:
    """One course of events from the first share to the last."""
    rate = fed_rate(load, fleet)
    speeds = rate * np.exp(rng.normal(0.0, fleet.spread, fleet.n_workers))
    size = load.hours / load.n_shards
    nodes = [_Node(fleet, rng) for _ in range(-(-fleet.n_workers // fleet.per_node))]
    # Shares by the hour from which they may be taken; workers by the hour in which they are free.
    waiting = [(0.0, share) for share in range(load.n_shards)]
    free = [(0.0, worker) for worker in range(fleet.n_workers)]
    left, tries = dict.fromkeys(range(load.n_shards), size), dict.fromkeys(range(load.n_shards), 0)
    wall = busy = lost = 0.0
    n_failures = n_given_up = 0
    while waiting:
        now, worker = heapq.heappop(free)
        node = nodes[worker // fleet.per_node]
        if node.works_from(now) > now:
            heapq.heappush(free, (node.works_from(now), worker))
            continue
        ready, share = heapq.heappop(waiting)
        begin = node.works_from(max(ready, now))
        needs = fleet.start_hours + left[share] / speeds[worker]
        fails = node.failure_after(begin) - begin
        busy += min(needs, fails)
        if fails >= needs:
            wall = max(wall, begin + needs)
            heapq.heappush(free, (begin + needs, worker))
            continue
        n_failures += 1
        tries[share] += 1
        scored = max(0.0, fails - fleet.start_hours) * speeds[worker]
        kept = math.floor(scored / load.recording_hours) * load.recording_hours
        lost += fails - kept / speeds[worker]
        left[share] -= kept
        heapq.heappush(free, (begin + fails + fleet.repair_hours, worker))
        if tries[share] > fleet.max_retries:
            n_given_up += 1
            wall = max(wall, begin + fails)
        else:
            heapq.heappush(waiting, (begin + fails + fleet.requeue_hours, share))
    return ForecastResult(wall, busy, lost, n_failures, n_given_up)


def forecast(load: Workload, fleet: Machines, seed: int, n_courses: int) -> dict[str, float]:
    """Medians and the 5th and 95th percentile of `n_courses` courses of events.

    Of what failures cost, which are few, the means.
    """
    check(load, fleet)
    courses = [
        play(load, fleet, np.random.default_rng([seed, number])) for number in range(n_courses)
    ]
    walls = np.array([course.wall_hours for course in courses])
    busy = float(np.median([course.busy_hours for course in courses]))
    rate = fed_rate(load, fleet)
    tb = [load.hours * gb / 1000 for gb in (load.gb_per_hour, load.kept_gb_per_hour)]
    return {
        "ideal wall hours": load.hours / fleet.n_workers / fleet.rate,
        "wall hours": float(np.median(walls)),
        "wall hours, 5th percentile": float(np.quantile(walls, 0.05)),
        "wall hours, 95th percentile": float(np.quantile(walls, 0.95)),
        "worker-hours": busy,
        "worker-hours lost to failures": float(np.mean([c.lost_hours for c in courses])),
        "shares interrupted": float(np.mean([c.n_failures for c in courses])),
        "shares given up": float(np.mean([c.n_given_up for c in courses])),
        "rate of a worker, fed by the disk": rate,
        "share of the time that workers work": busy / fleet.n_workers / float(np.median(walls)),
        "read, GB/s": fleet.n_workers * rate * load.gb_per_hour / 3600,
        "sound, TB": tb[0],
        "kept, TB": tb[1],
        "cost": busy * fleet.cost,
        "disk cost a month": sum(tb) * fleet.tb_month,
    }


def bottleneck(load: Workload, fleet: Machines, found: dict[str, float]) -> str:
    """What holds the work up most, in words."""
    if fed_rate(load, fleet) < fleet.rate:
        return "the shared disk: fewer workers take as long, sound copied to nodes beforehand less"
    hours_a_share = load.hours / load.n_shards / fleet.rate
    if load.n_shards < fleet.n_workers:
        return "too few shares: workers stand idle; give more of them"
    if found["share of the time that workers work"] < 0.85:
        return f"the last shares, of {hours_a_share:.2g} h each: smaller ones even the end out"
    if fleet.start_hours > 0.05 * hours_a_share:
        return f"the start of {load.n_shards} tasks: fewer, larger shares spend less on it"
    return "the workers: more of them are that much faster"
