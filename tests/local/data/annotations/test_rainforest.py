"""The rainforest format becomes events without losing or inventing anything."""

import pandas as pd
import pytest

from local.data.annotations.rainforest import RAINFOREST_COLUMNS, read_rainforest
from local.io.errors import CanopyError
from local.data.tables import EVENT_COLUMNS, check_events

HEADER = ",".join(RAINFOREST_COLUMNS)
ROWS = """003bec244,14,1,44.544,2531.25,45.1307,5531.25
006ab765f,23,1,39.9615,7235.15,46.0452,11283.4
003bec244,14,4,1.0,2531.25,2.0,5531.25
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "train_tp.csv").write_text(f"{HEADER}\n{ROWS}")
    return tmp_path / "train_tp.csv"


def test_rows_become_events_in_their_order(path):
    events = read_rainforest(path, 1, "tp")
    assert list(events.columns) == [*EVENT_COLUMNS, "species_id", "songtype_id"]
    assert events["recording_id"].tolist() == ["003bec244", "006ab765f", "003bec244"]
    assert events["label"].tolist() == ["s14", "s23", "s14"]
    assert events["onset"].tolist() == [44.544, 39.9615, 1.0]
    assert events["offset"].tolist() == [45.1307, 46.0452, 2.0]
    assert events["low_freq"].tolist() == [2531.25, 7235.15, 2531.25]
    assert events["high_freq"].tolist() == [5531.25, 11283.4, 5531.25]
    assert events["songtype_id"].tolist() == [1, 1, 4]
    assert set(events["weight"]) == {1.0}
    durations = pd.Series({"003bec244": 60.0, "006ab765f": 60.0})
    check_events(events, durations, [f"s{i}" for i in range(24)], path)


@pytest.mark.parametrize(("polarity", "source"), [(1, "tp"), (-1, "fp")])
def test_polarity_is_explicit(path, polarity, source):
    """A column says it, not the name of a file.

    Pins defect 13 of earlier systems: rejected rows were read as confirmed ones.
    Pins defect 39 of earlier systems: a file's name said where a row came from.
    """
    events = read_rainforest(path, polarity, source)
    assert set(events["polarity"]) == {polarity}
    assert set(events["source"]) == {source}


def test_columns_may_stand_in_any_order(path, tmp_path):
    frame = pd.read_csv(path, dtype=str)
    other = tmp_path / "other.csv"
    frame[list(RAINFOREST_COLUMNS[::-1])].to_csv(other, index=False)
    pd.testing.assert_frame_equal(read_rainforest(other, 1, "tp"), read_rainforest(path, 1, "tp"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",23,1,", ",,1,", "line 3: species_id is nan, expected a whole number"),
        (",23,1,", ",2.5,1,", r"line 3: species_id is 2\.5, expected a whole number"),
        (",23,1,", ",frog,1,", "line 3: species_id is 'frog', expected a number"),
        (",14,4,", ",14,,", "line 4: songtype_id is nan, expected a whole number"),
        ("39.9615", "soon", "line 3: t_min is 'soon', expected a number"),
    ],
)
def test_each_fault_names_its_line(path, old, new, message):
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CanopyError, match=rf"train_tp\.csv {message}"):
        read_rainforest(path, 1, "tp")


def test_a_missing_column_is_named(path):
    path.write_text(path.read_text().replace("t_max", "t_end"))
    with pytest.raises(CanopyError, match=r"train_tp\.csv: column t_max is missing; found .*t_end"):
        read_rainforest(path, 1, "tp")


def test_no_events_have_the_columns_and_types_of_some(path):
    some = read_rainforest(path, 1, "tp")[list(EVENT_COLUMNS)]
    path.write_text(HEADER + "\n")
    none = read_rainforest(path, 1, "tp")[list(EVENT_COLUMNS)]
    assert list(none.columns) == list(EVENT_COLUMNS)
    assert len(none) == 0
    both = pd.concat([some, none], ignore_index=True)
    assert both["onset"].dtype == float
    assert len(both) == 3


def test_a_header_alone_is_an_empty_table(path):
    path.write_text(HEADER + "\n")
    assert len(read_rainforest(path, -1, "fp")) == 0
