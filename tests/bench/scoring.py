"""Scoring many detections with intervals: processor seconds, and memory.

2,000 recordings of a minute, 24 classes, 5 events and 20 detections of each in every recording:
240,000 events, 960,000 detections, 1,000 resamples of every measure at three overlaps.
"""

import resource
import time

import numpy as np

from local.scoring.metrics.bootstrap import resample_counts
from local.scoring.metrics.event_statistics import EventOptions, event_statistics
from local.scoring.metrics.matching import EventList
from local.scoring.metrics.measured import measure, resample_table

N_RECORDINGS, N_CLASSES, LENGTH_S = 2000, 24, 60.0


def random_events(n_each: int, rng: np.random.Generator) -> EventList:
    """`n_each` events of every class in every recording."""
    cells = np.indices((N_RECORDINGS, N_CLASSES, n_each)).reshape(3, -1)
    onset = rng.uniform(0, LENGTH_S - 3, cells.shape[1])
    length = rng.uniform(0.5, 3, cells.shape[1])
    return EventList(cells[0], cells[1], onset, onset + length, rng.random(cells.shape[1]))


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    true, found = random_events(5, rng), random_events(20, rng)
    durations = np.full(N_RECORDINGS, LENGTH_S)
    start = time.process_time()
    cut = found.take(found.score >= 0.5)
    statistics = event_statistics(true, cut, found, durations, N_CLASSES, EventOptions())
    matched = time.process_time()
    counts = resample_table(resample_counts(N_RECORDINGS, rng, 1000), N_RECORDINGS)
    measure(statistics, counts, np.ones(N_RECORDINGS))
    done = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"matching and counting: {matched - start:.1f} s of one core")
    print(f"1,000 resamples: {done - matched:.1f} s of one core")
    print(f"memory: {peak:.0f} MB")


if __name__ == "__main__":
    main()
