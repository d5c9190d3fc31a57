"""Bounds on what comes from outside: exactly at the bound it passes, beyond it is refused."""

import pandas as pd
import pytest

from local.io import limits
from local.io.errors import CanopyError


def test_sizes_at_and_beyond_the_bound(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert limits.check_size(path, 10, "thing") == 10
    with pytest.raises(CanopyError, match="has 10 bytes, a thing may have at most 9"):
        limits.check_size(path, 9, "thing")


@pytest.mark.parametrize("text", ["a", "r_1", "2024-01-01T00.00", "x" * 200, "a..b", "conical"])
def test_good_ids(text):
    assert limits.safe_name(text, "id") == text


@pytest.mark.parametrize("text", ["Turdus sp.", "Nuthatch (song)", "é", "'I'iwi", "a, b", "=x"])
def test_good_labels(text):
    assert limits.label_fault(text) == ""


def test_names_that_stand_for_labels():
    assert limits.file_name("Turdus sp.") == "Turdus%20sp%2E"
    assert limits.file_name("../x") == "%2E.%2Fx"
    assert limits.file_name("con") == "%63on"
    assert limits.file_name("crow-2") == "crow-2"


def test_numbers_and_types_of_a_sheet_stay():
    frame = pd.DataFrame({"n": [-1.5, 2.0], "i": [1, -2], "t": ["-1.5", "=A1"], "o": [None, "@x"]})
    safe = limits.spreadsheet_safe(frame)
    assert safe["n"].tolist() == [-1.5, 2.0]
    assert safe.dtypes["i"] == frame.dtypes["i"]
    assert safe["t"].tolist() == ["-1.5", "'=A1"]
    assert safe["o"].tolist() == [None, "'@x"]
    assert limits.spreadsheet_plain(safe).equals(frame)
