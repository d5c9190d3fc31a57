import numpy as np
import pytest

from local.report.text import number, printable, shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Eleutherodactylus coquí", "Eleutherodactylus coquí"),
        ("a\nb\tc", "a b c"),
        ("nul\x00", "nul�"),
        ("turned\u202egpj.exe", "turned�gpj.exe"),
        ("lone \ud800", "lone �"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_printable_keeps_letters_and_replaces_what_has_no_shape(text, shown):
    assert printable(text) == shown


def test_shorten_marks_a_cut_and_nothing_else():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), np.float32("nan")])
def test_missing_numbers_are_no_data(value):
    assert number(value) == "no data"


def test_numbers_are_rounded_and_grouped():
    assert number(0.87654) == "0.877"
    assert number(12345) == "12,345"
    assert number(np.int64(7), 0) == "7"
