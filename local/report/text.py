"""Words that others wrote, made fit to be drawn or printed: ids, labels, names."""

import math
import unicodedata

# No shape, not allowed in XML, or not a character at all.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn"}
# Formatting marks that real names need: zero-width joiner and non-joiner. The other ones can turn
# the direction of the text around them.
_NEEDED = {"\u200c", "\u200d"}


def printable(text: object) -> str:
    """The text with line breaks and tabs as spaces and unprintable characters as U+FFFD."""
    return "".join(_printable(char) for char in str(text))


def _printable(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Zl", "Zp") or char in "\t\n\r\v\f":
        return " "
    if char in _NEEDED or category not in _UNPRINTABLE:
        return char
    return "\N{REPLACEMENT CHARACTER}"


def shorten(text: object, length: int) -> str:
    """At most `length` printable characters; an ellipsis stands for what was cut."""
    plain = printable(text)
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def number(value: float | int | None, digits: int = 3) -> str:
    """A number as a person reads it; "no data" for None, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return "no data"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}"


def interval(low: float, high: float) -> str:
    """An interval as a person reads it; "no data" where an end is unknown."""
    ends = number(low), number(high)
    return "no data" if "no data" in ends else f"{ends[0]} – {ends[1]}"
