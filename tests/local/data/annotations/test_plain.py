"""Plain CSV: our own table, and whatever a spreadsheet saves."""

import pandas as pd
import pytest
from event_tables import event_rows
from hypothesis import HealthCheck, given, settings

from local.data.annotations.shared import ReadOptions
from local.data.annotations.plain import read_plain, write_plain
from local.io.errors import CanopyError
from local.data.tables import EVENT_COLUMNS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rec1.csv"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=event_rows())
def test_events_come_back_as_they_were(tmp_path, events):
    write_plain(tmp_path / "events.csv", events)
    pd.testing.assert_frame_equal(read_plain(tmp_path / "events.csv"), events)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings_make_no_difference(path, separator, encoding):
    rows = [["file", "start", "end", "species"], ["a/b c.wav", "0.5", "1.5", "Käuzchen"]]
    text = "\r\n".join(separator.join(row) for row in [*rows, []])
    path.write_bytes(text.encode(encoding))
    events = read_plain(path)
    assert events["recording_id"].tolist() == ["b c"]
    assert events["path"].tolist() == ["a/b c.wav"]
    assert events["label"].tolist() == ["Käuzchen"]
    assert events[["onset", "offset"]].to_numpy().tolist() == [[0.5, 1.5]]


def test_a_decimal_comma_beside_semicolons(path):
    path.write_text("onset;offset;label\n0,5;1,25;frog\n")
    assert read_plain(path)[["onset", "offset"]].to_numpy().tolist() == [[0.5, 1.25]]
    path.write_text('onset,offset,label\n"0,5","1,25",frog\n')
    with pytest.raises(CanopyError, match=r"line 2: onset is '0,5', expected a number with a dec"):
        read_plain(path)


def test_columns_that_are_named(path):
    path.write_text("von,bis,wer\n1,2,frog\n")
    options = ReadOptions(columns={"onset": "von", "offset": "bis"}, column="wer")
    events = read_plain(path, options)
    assert events["recording_id"].tolist() == ["rec1"]
    assert events["label"].tolist() == ["frog"]
    with pytest.raises(CanopyError, match=r"no column onset; found von, bis, wer; say which"):
        read_plain(path)
    with pytest.raises(CanopyError, match=r"no column 'vom' for onset; found von"):
        read_plain(path, ReadOptions(columns={"onset": "vom"}))
    with pytest.raises(CanopyError, match=r"columns names 'start', expected one of recording_id"):
        read_plain(path, ReadOptions(columns={"start": "von"}))


def test_one_label_for_all_rows(path):
    path.write_text("onset,offset\n1,2\n")
    with pytest.raises(CanopyError, match=r"no column for the labels; found onset, offset"):
        read_plain(path)
    assert read_plain(path, ReadOptions(label="usv"))["label"].tolist() == ["usv"]


def test_numbers_without_a_header_are_onset_and_offset(path):
    path.write_text("0.058,0.066\n0.1,0.25\n")
    events = read_plain(path, ReadOptions(label="usv"))
    assert events[["onset", "offset"]].to_numpy().tolist() == [[0.058, 0.066], [0.1, 0.25]]
    path.write_text("0.058,0.066,usv\n")
    assert read_plain(path)["label"].tolist() == ["usv"]


def test_further_columns_come_back(path):
    path.write_text('label,onset,offset,note\n"frog, big",1,2,"said ""loud"""\n')
    events = read_plain(path)
    assert events["label"].tolist() == ["frog, big"]
    assert events["note"].tolist() == ['said "loud"']
    write_plain(path, events)
    pd.testing.assert_frame_equal(read_plain(path), events)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"empty file"),
        ("onset,offset,label\n1,,frog\n", r"line 2: offset is '', expected a number"),
        ("onset,offset,label\n\n1,2,a\n1,2,a,b\n", r"line 4: 4 fields under 3 column names"),
        ("onset,offset,label\n2,1,frog\n", r"line 2: onset 2 and offset 1"),
        ("onset,onset,label\n2,1,frog\n", r"column 'onset' stands twice"),
        ("onset,offset,label,polarity\n1,2,a,0\n", r"line 2: polarity is 0, expected 1"),
        ("onset,offset,label,\n1,2,a,b\n", r"column 4 has no name"),
    ],
)
def test_each_fault_names_its_line(path, text, message):
    path.write_text(text)
    with pytest.raises(CanopyError, match=message) as caught:
        read_plain(path)
    assert "\n" not in str(caught.value)


def test_the_columns_are_those_of_events(path):
    path.write_text("label,onset,offset\nfrog,1,2\n")
    write_plain(path, read_plain(path))
    assert path.read_text().splitlines()[0] == ",".join(EVENT_COLUMNS)
