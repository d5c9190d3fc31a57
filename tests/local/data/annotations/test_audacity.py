"""Audacity label tracks, with and without frequencies."""

import math

import pandas as pd
import pytest
from event_tables import event_rows
from hypothesis import HealthCheck, given, settings

from local.data.annotations.shared import ReadOptions
from local.data.annotations.formats import read_annotations
from local.data.annotations.audacity import read_audacity, write_audacity
from local.io.errors import CanopyError
from local.data.tables import EVENT_COLUMNS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rec1.txt"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=event_rows(recordings=("rec1",), own_columns=False))
def test_events_come_back_as_they_were(tmp_path, events):
    write_audacity(tmp_path / "rec1.txt", events)
    back = read_audacity(tmp_path / "rec1.txt")
    pd.testing.assert_frame_equal(back, events.assign(source=back["source"]))


def test_labels_with_and_without_frequencies(path):
    path.write_text("0.5\t1.25\tfrog\n\\\t100.0\t900.5\n2.0\t3.0\tbird song\n4\t5\n")
    events = read_audacity(path)
    assert list(events.columns) == list(EVENT_COLUMNS)
    assert set(events["recording_id"]) == {"rec1"}
    assert events["label"].tolist() == ["frog", "bird song", ""]
    assert events[["onset", "offset"]].to_numpy().tolist() == [[0.5, 1.25], [2, 3], [4, 5]]
    assert events["high_freq"].iloc[0] == 900.5
    assert events["high_freq"].iloc[1:].isna().all()
    assert read_audacity(path, ReadOptions(label="any"))["label"].tolist()[2] == "any"


def test_an_undefined_frequency_is_unknown(path):
    path.write_text("0\t1\tfrog\n\\\t-1.000000\t900.0\n")
    events = read_audacity(path)
    assert math.isnan(events["low_freq"].iloc[0])
    assert events["high_freq"].iloc[0] == 900.0
    write_audacity(path, events)
    assert path.read_text() == "0\t1\tfrog\n\\\t-1\t900\n"


def test_a_label_at_a_point_in_time(path):
    path.write_text("1.5\t1.5\tclick\n2.5\tclack\n")
    events = read_audacity(path)
    assert events["onset"].tolist() == events["offset"].tolist() == [1.5, 2.5]
    assert events["label"].tolist() == ["click", "clack"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_line_ends_make_no_difference(path, encoding, end):
    path.write_bytes(f"0\t1\tKäuzchen{end}\\\t1\t2{end}".encode(encoding))
    assert read_audacity(path)["label"].tolist() == ["Käuzchen"]


def test_an_empty_track_has_no_events(path):
    path.write_text("")
    assert list(read_audacity(path).columns) == list(EVENT_COLUMNS)
    assert len(read_audacity(path)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t1\tfrog\nsoon\t2\tbird\n", r"line 2: 'soon\\t2\\tbird' is no Audacity label"),
        ("0 1 frog\n", r"line 1: '0 1 frog' is no Audacity label"),
        ("\\\t1\t2\n", r"line 1: a row of frequencies without a label above it"),
        ("0\t1\tx\n\\\t1\t2\n\\\t1\t2\n", r"line 3: a row of frequencies without a label"),
        ("0\t1\tx\n\\\t1\n", r"line 2: .* is no row of frequencies"),
        ("2\t1\tx\n", r"line 1: onset 2 and offset 1"),
        ("0\t1\tx\n\\\t9\t2\n", r"line 1: low_freq 9 and high_freq 2"),
    ],
)
def test_each_fault_names_its_line(path, text, message):
    path.write_text(text)
    with pytest.raises(CanopyError, match=message) as caught:
        read_audacity(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recording_id": ["a", "b"]}, r"rows of 2 recordings"),
        ({"polarity": [1, -1]}, r"1 rows say that a class is absent"),
        ({"label": ["a\nb", "c"]}, r"holds a tab or a line end, which an Audacity"),
    ],
)
def test_what_a_track_cannot_hold_is_refused(path, changes, message):
    events = pd.DataFrame({"recording_id": "a", "label": "x", "onset": [0.0, 1.0], "offset": 2.0})
    with pytest.raises(CanopyError, match=message):
        write_audacity(path, events.assign(**changes))
    assert not path.exists()


def test_the_real_track_comes_back_line_by_line(real, tmp_path):
    events = read_annotations(real / "spinetail.txt")
    assert events["label"].value_counts().to_dict() == {"SP": 14, "CRER": 4}
    assert events.loc[0, ["onset", "offset"]].tolist() == [0.101385, 0.36752]
    assert events.loc[0, ["low_freq", "high_freq"]].tolist() == [6441.064453, 12296.577148]
    write_audacity(tmp_path / "spinetail.txt", events)
    ours = (tmp_path / "spinetail.txt").read_text().splitlines()
    theirs = (real / "spinetail.txt").read_text().splitlines()
    assert [line.split("\t")[0][:4] for line in ours] == [
        line.split("\t")[0][:4] for line in theirs
    ]
    pd.testing.assert_frame_equal(read_annotations(tmp_path / "spinetail.txt"), events)


def test_crowsetta_reads_the_same(real, tmp_path):
    crowsetta = pytest.importorskip("crowsetta", reason="crowsetta is not installed")
    ours = read_annotations(real / "spinetail.txt")
    write_audacity(tmp_path / "ours.txt", ours)
    for path in (real / "spinetail.txt", tmp_path / "ours.txt"):
        boxes = crowsetta.formats.bbox.AudBBox.from_file(path).to_bbox()
        theirs = [(box.label, box.onset, box.offset, box.low_freq, box.high_freq) for box in boxes]
        columns = ["label", "onset", "offset", "low_freq", "high_freq"]
        assert theirs == list(ours[columns].itertuples(index=False, name=None))
