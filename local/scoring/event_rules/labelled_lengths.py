"""Least durations of events and gaps to close that labelled calls suggest."""

import math

import numpy as np

from local.data.annotated import Annotated

# Of the shortest twentieth of calls, and of the shortest tenth of gaps.
_OF_CALLS = (0.2, 0.4, 0.6, 0.8)
_OF_GAPS = (0.0, 0.2, 0.4, 0.7)
# Where there are neither: seconds.
_CALL_S = 0.2
# Labels of a class that weigh as much as those of all.
_EVEN = 5


def event_lengths(annotated: Annotated) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Least durations and gaps to close of one rule for all classes, rising, in seconds.

    No gap is closed that is longer than 0.7 of the middle call of the class of the shortest ones:
    what parts two calls of 10 s may be a breath, what parts two of .1 s is silence.
    """
    call = annotated.least("durations", 0.05) or _CALL_S
    middle = annotated.least("durations", 0.5) or _CALL_S
    gap = annotated.least("gaps", 0.1)
    gap = middle if gap is None else min(gap, middle)
    return _multiples(call, _OF_CALLS), _multiples(gap, _OF_GAPS)


def class_lengths(annotated: Annotated) -> dict[str, tuple[float, float]]:
    """By label, seconds that an event of the class lasts at least, and of gaps to close in it.

    An event lasts 0.6 of the shortest twentieth of the calls of its class; gaps are closed up to
    0.4 of the shortest tenth of its gaps, or of its middle call where that is less or gaps are
    none. Few labels are drawn to those of all classes (of the class where a length is least), on a
    scale of logarithms: n of them weigh n / (n + 5). Of gaps it is their share of the middle call
    that is drawn, so that classes of long and of short calls can tell each other something.
    """
    call = annotated.least("durations", 0.05) or _CALL_S
    middle = annotated.least("durations", 0.5) or _CALL_S
    shares = {label: _gap_share(annotated, label) for label in annotated.labels}
    told = [share for label, share in shares.items() if len(annotated.gaps.get(label, ())) >= _EVEN]
    share = min(told, default=min(shares.values(), default=1.0))
    lengths = {}
    for label in annotated.labels:
        calls = annotated.durations.get(label, np.zeros(0))
        n_calls, n_gaps = len(calls), len(annotated.gaps.get(label, ()))
        own = np.quantile(calls, (0.05, 0.5)).tolist() if n_calls else (call, middle)
        gap = _drawn(shares[label], share, n_gaps) * _drawn(own[1], middle, n_calls)
        least = _OF_CALLS[len(_OF_CALLS) // 2] * _drawn(own[0], call, n_calls)
        lengths[label] = tidy(least), tidy(_OF_GAPS[len(_OF_GAPS) // 2] * gap)
    return lengths


def _gap_share(annotated: Annotated, label: str) -> float:
    """The shortest tenth of a class's gaps as a share of its middle call, 1 at most."""
    gaps = annotated.gaps.get(label, np.zeros(0))
    if len(gaps) == 0:
        return 1.0
    return min(1.0, float(np.quantile(gaps, 0.1) / np.quantile(annotated.durations[label], 0.5)))


def _drawn(own: float, common: float, n: int) -> float:
    """A length of a class as n labels tell it, drawn to that of all classes."""
    weight = n / (n + _EVEN)
    return float(own**weight * common ** (1 - weight))


def _multiples(length: float, shares: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(dict.fromkeys(tidy(share * length) for share in shares))


def tidy(value: float) -> float:
    """A number rounded to two digits."""
    if value <= 0:
        return 0.0
    digits = 1 - math.floor(math.log10(value))
    return round(value, digits)


def tidy_below(value: float) -> float:
    """A number above 0 rounded down to two digits."""
    digits = 1 - math.floor(math.log10(value))
    # What is two digits already stays, though it may not be a whole number of its last one.
    return round(math.floor(value * 10.0**digits * (1 + 1e-9)) / 10.0**digits, digits)


def said(value: float, unit: str) -> str:
    """A quantity in words: two digits and its unit."""
    if unit == "s" and value < 0.1:
        return f"{tidy(value * 1000):g} ms"
    if unit == "Hz" and value >= 1000:
        return f"{tidy(value / 1000):g} kHz"
    return f"{tidy(value):g} {unit}"
