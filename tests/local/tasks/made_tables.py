"""Tables of made-up annotation: calls of given lengths, gaps, bands and rates."""

import numpy as np
import pandas as pd

from local.data.tables import EVENT_COLUMNS, RECORDING_COLUMNS, Tables


def calls_of(label, duration, gap, n, band=(1000.0, 4000.0), *, spread=0.2, seed=0):
    """(label, durations (n,), gaps (n,), band) of calls in a row."""
    rng = np.random.default_rng(seed)
    lengths = duration * rng.uniform(1 - spread, 1 + spread, n)
    return label, lengths, gap * rng.uniform(1 - spread, 1 + spread, n), band


def made_tables(*kinds, rates=(32000,), n_recordings=6, subset="train"):
    """Tables in which each kind of `calls_of` is dealt to all recordings, one after another."""
    recordings, events = [], []
    for r in range(n_recordings):
        at = 0.5
        for label, lengths, gaps, band in kinds:
            for length, gap in zip(lengths[r::n_recordings], gaps[r::n_recordings], strict=True):
                low, high = band if band is not None else (np.nan, np.nan)
                events.append((f"r{r}", label, at, at + length, low, high, 1.0, 1.0, "made"))
                at += length + gap
        rate = rates[r % len(rates)]
        recordings.append((f"r{r}", f"r{r}.wav", subset, at + 0.5, float(rate), 1.0, f"g{r}"))
    labels = sorted({kind[0] for kind in kinds})
    classes = pd.DataFrame({"label": labels, "name": labels})
    return Tables(
        pd.DataFrame(recordings, columns=list(RECORDING_COLUMNS)),
        pd.DataFrame(events, columns=list(EVENT_COLUMNS)),
        classes.assign(low_freq=np.nan, high_freq=np.nan),
    )
