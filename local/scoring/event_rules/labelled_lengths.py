"""Least durations of events and gaps to close that labelled calls suggest."""

import math

from local.data.annotated import Annotated

# Of the shortest twentieth of calls, and of the shortest tenth of gaps.
_OF_CALLS = (0.2, 0.4, 0.6, 0.8)
_OF_GAPS = (0.0, 0.2, 0.4, 0.7)
# Where there are neither: seconds.
_CALL_S = 0.2


def event_lengths(annotated: Annotated) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Least durations and gaps to close, rising, in seconds.

    No gap is closed that is longer than half of the shortest calls: what parts two calls of 10 s
    may be a breath, what parts two of .1 s is silence.
    """
    call = annotated.least("durations", 0.05) or _CALL_S
    middle = annotated.least("durations", 0.5) or _CALL_S
    gap = annotated.least("gaps", 0.1)
    gap = middle if gap is None else min(gap, middle)
    return _multiples(call, _OF_CALLS), _multiples(gap, _OF_GAPS)


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
