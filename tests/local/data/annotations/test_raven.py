"""Raven selection tables, as Raven writes them and as people change them."""

import numpy as np
import pandas as pd
import pytest
from event_tables import event_rows
from hypothesis import HealthCheck, given, settings

from local.data.annotations.shared import ReadOptions
from local.data.annotations.formats import read_annotations
from local.data.annotations.raven import read_raven, write_raven
from local.io.errors import CanopyError
from local.data.tables import EVENT_COLUMNS

HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
ROW = "{}\tSpectrogram 1\t1\t{}\t{}\t1000.0\t2000.0"


def table(path, *rows, columns="Annotation", end="\n", encoding="utf-8"):
    """A table file: each row is (number, begin, end, *fields of the further columns)."""
    lines = [f"{HEADER}\t{columns}"]
    lines += ["\t".join([ROW.format(*row[:3]), *map(str, row[3:])]) for row in rows]
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rec1.Table.1.selections.txt"


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=event_rows())
def test_events_come_back_as_they_were(tmp_path, events):
    write_raven(tmp_path / "all.txt", events)
    back = read_raven(tmp_path / "all.txt", ReadOptions(column="Annotation"))
    expected = events if len(events) else events.assign(source=back["source"])
    pd.testing.assert_frame_equal(back[list(EVENT_COLUMNS)], expected)


def test_a_selection_becomes_an_event_of_the_recording_that_the_table_is_named_after(path):
    events = read_raven(table(path, (1, 0.5, 1.25, "frog"), (2, 3, 4, "bird")))
    assert events["recording_id"].tolist() == ["rec1", "rec1"]
    assert events["label"].tolist() == ["frog", "bird"]
    assert events["onset"].tolist() == [0.5, 3.0]
    assert events["offset"].tolist() == [1.25, 4.0]
    assert events["low_freq"].tolist() == [1000.0, 1000.0]
    assert events["polarity"].tolist() == [1, 1]
    assert set(events["source"]) == {"raven"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_make_no_difference(path, encoding, end):
    table(path, (1, 0, 1, "Käuzchen"), end=end, encoding=encoding)
    assert read_raven(path)["label"].tolist() == ["Käuzchen"]


def test_an_encoding_that_must_be_told(path):
    table(path, (1, 0, 1, "Käuzchen"), encoding="cp1252")
    with pytest.raises(CanopyError, match=r"not readable as UTF-8 text"):
        read_raven(path)
    assert read_raven(path, ReadOptions(encoding="cp1252"))["label"].tolist() == ["Käuzchen"]


@pytest.mark.parametrize("name", ["Species", "annotation", "Label", "Common Name", "Call Type"])
def test_usual_columns_are_known_and_others_can_be_named(path, name):
    table(path, (1, 0, 1, "frog"), columns=name)
    assert read_raven(path)["label"].tolist() == ["frog"]
    table(path, (1, 0, 1, "frog"), columns="Who")
    assert read_raven(path, ReadOptions(column="Who"))["label"].tolist() == ["frog"]
    assert read_raven(path, ReadOptions(label="any"))["label"].tolist() == ["any"]


@pytest.mark.parametrize(
    ("columns", "column", "message"),
    [
        ("Who", None, r"no column known to hold labels; found Selection, .*, Who; name"),
        ("Who", "Whom", r"no column 'Whom' for the labels; found Selection"),
        ("Annotation\tSpecies", None, r"columns Annotation and Species could both hold"),
        ("Who\tWho", "Who", r"column 'Who' stands twice"),
    ],
)
def test_a_column_that_cannot_be_told(path, columns, column, message):
    table(path, (1, 0, 1, "frog", "x"), columns=columns)
    if "\t" not in columns:
        table(path, (1, 0, 1, "frog"), columns=columns)
    with pytest.raises(CanopyError, match=message) as caught:
        read_raven(path, ReadOptions(column=column))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((1, "1,5", 2, "frog"), r"line 2: Begin Time \(s\) is '1,5', expected a number with a dec"),
        ((1, "", 2, "frog"), r"line 2: Begin Time \(s\) is '', expected a number"),
        ((1, "nan", 2, "frog"), r"line 2: Begin Time \(s\) is 'nan'"),
        ((1, 3, 2, "frog"), r"line 2: onset 3 and offset 2; expected 0 <= onset <= offset"),
        ((1, -1, 2, "frog"), r"line 2: onset -1 and offset 2"),
        ((1, 1, 2, "frog", "more"), r"line 2: 9 fields under 8 column names"),
    ],
)
def test_each_fault_names_its_line(path, row, message):
    with pytest.raises(CanopyError, match=message):
        read_raven(table(path, row))


def test_a_file_that_is_no_table(path):
    path.write_text("some notes\n")
    with pytest.raises(CanopyError, match=r"column Begin Time \(s\) is missing"):
        read_raven(path)
    path.write_text("")
    with pytest.raises(CanopyError, match=r"empty file"):
        read_raven(path)
    with pytest.raises(CanopyError, match=r"none\.txt: cannot be read"):
        read_raven(path.with_name("none.txt"))


def test_waveform_and_spectrogram_rows_of_a_selection_are_one(path):
    lines = [HEADER + "\tSpecies"]
    for number, begin in ((1, 0), (2, 5)):
        lines.append(f"{number}\tWaveform 1\t1\t{begin}\t{begin + 1}\t0.0\t9000.0\tfrog")
        lines.append(f"{number}\tSpectrogram 1\t1\t{begin}\t{begin + 1}\t100.0\t900.0\tfrog")
    path.write_text("\n".join(lines))
    events = read_raven(path)
    assert events["onset"].tolist() == [0.0, 5.0]
    assert events["high_freq"].tolist() == [900.0, 900.0]
    write_raven(path, events, annotation_column="Species")
    assert [line.split("\t")[1] for line in path.read_text().splitlines()[1:]] == [
        "Waveform 1",
        "Spectrogram 1",
    ] * 2
    pd.testing.assert_frame_equal(read_raven(path), events)


def test_equal_boxes_in_one_view_stay_apart(path):
    events = read_raven(table(path, (1, 0, 1, "frog"), (1, 0, 1, "bird")))
    assert events["label"].tolist() == ["frog", "bird"]


def test_times_of_several_files_count_from_each_ones_start(path):
    columns = "Begin File\tBegin Path\tFile Offset (s)\tSpecies\tEnd File"
    table(
        path,
        (1, 10.5, 11.5, "a b.wav", "D:\\x\\a b.wav", 10.5, "frog", "a b.wav"),
        (2, 61.25, 62.5, "c.flac", "D:\\x\\c.flac", 1.25, "bird", "c.flac"),
        (3, 119.5, 121.0, "c.flac", "D:\\x\\c.flac", 59.5, "bird", "d.flac"),
        columns=columns,
    )
    events = read_raven(path)
    assert events["recording_id"].tolist() == ["a b", "c", "c"]
    assert events["onset"].tolist() == [10.5, 1.25, 59.5]
    assert events["offset"].tolist() == [11.5, 2.5, 61.0]
    assert events["path"].tolist() == ["D:\\x\\a b.wav", "D:\\x\\c.flac", "D:\\x\\c.flac"]
    assert events["End File"].tolist() == ["a b.wav", "c.flac", "d.flac"]
    write_raven(path.with_name("again.txt"), events, annotation_column="Species")
    again = pd.read_csv(path.with_name("again.txt"), sep="\t")
    first = pd.read_csv(path, sep="\t")
    pd.testing.assert_frame_equal(again[first.columns], first, check_dtype=False)
    pd.testing.assert_frame_equal(read_raven(path.with_name("again.txt")), events)


def test_several_files_without_offsets_must_be_explained(path):
    table(path, (1, 1, 2, "a.wav", "frog"), (2, 1, 2, "b.wav", "frog"), columns="Begin File\tLabel")
    with pytest.raises(CanopyError, match=r"2 sound files but no column File Offset \(s\)"):
        read_raven(path)
    events = read_raven(path, ReadOptions(times_in_file=True))
    assert events[["recording_id", "onset"]].to_numpy().tolist() == [["a", 1.0], ["b", 1.0]]


def test_a_sequence_is_written_with_the_recordings_durations(tmp_path):
    detections = pd.DataFrame(
        {
            "recording_id": ["a", "b"],
            "path": ["/data/a.wav", "/data/b.wav"],
            "label": ["frog", "frog"],
            "onset": [1.0, 2.0],
            "offset": [1.5, 2.5],
            "score": [0.91, 0.25],
        }
    )
    write_raven(tmp_path / "all.txt", detections, durations={"a": 60.0, "b": 30.0})
    written = pd.read_csv(tmp_path / "all.txt", sep="\t")
    assert written["Begin Time (s)"].tolist() == [1.0, 62.0]
    assert written["End Time (s)"].tolist() == [1.5, 62.5]
    assert written["File Offset (s)"].tolist() == [1.0, 2.0]
    assert written["Begin File"].tolist() == ["a.wav", "b.wav"]
    assert written["Begin Path"].tolist() == ["/data/a.wav", "/data/b.wav"]
    assert written["score"].tolist() == [0.91, 0.25]
    assert "Low Freq (Hz)" not in written


def test_further_columns_come_back(path):
    table(path, (1, 0, 1, "frog", "12 m", ""), columns="Annotation\tdistance\ttype")
    events = read_raven(path)
    assert events[["distance", "type"]].to_numpy().tolist() == [["12 m", ""]]
    before = path.read_text()
    write_raven(path, events)
    assert path.read_text().splitlines()[0] == before.splitlines()[0]
    pd.testing.assert_frame_equal(read_raven(path), events)


def test_what_a_table_cannot_hold_is_refused(path):
    events = read_raven(table(path, (1, 0, 1, "frog")))
    with pytest.raises(CanopyError, match=r"'a\\tb' holds a tab or a line end"):
        write_raven(path, events.assign(label="a\tb"))
    with pytest.raises(CanopyError, match=r"column 'Annotation' would stand twice"):
        write_raven(path, events.assign(Annotation="x"))
    assert read_raven(path)["label"].tolist() == ["frog"]


def test_the_real_tables(real, tmp_path):
    name = "MSD-0003_20180427_2minstart00"
    full = read_annotations(real / f"{name}.Table.1.selections.txt")
    assert set(full["recording_id"]) == {name}
    assert full["label"].value_counts().to_dict() == {"WOTH": 4, "EATO": 4, "LOWA": 1, "": 1}
    assert full["onset"].iloc[0] == 1.897648165999982
    write_raven(tmp_path / f"{name}.txt", full, annotation_column="Species")
    original = (real / f"{name}.Table.1.selections.txt").read_text().rstrip("\n").splitlines()
    # Raven leaves out trailing fields that are empty; numbers are the same to the last digit.
    for ours, theirs in zip(
        (tmp_path / f"{name}.txt").read_text().splitlines(), original, strict=True
    ):
        ours, theirs = ours.split("\t"), theirs.split("\t")
        theirs += [""] * (len(ours) - len(theirs))
        assert [a == b or float(a) == float(b) for a, b in zip(ours, theirs, strict=True)]
    assert len(read_annotations(real / "EmptyExample.Table.1.selections.txt")) == 0
    assert read_annotations(real / "raven_with_Annotation_col.txt")["label"].tolist() == ["CSWA"]


def test_crowsetta_reads_the_same(real, tmp_path):
    crowsetta = pytest.importorskip("crowsetta", reason="crowsetta is not installed")
    # Without its last row, which has no label: crowsetta refuses that.
    rows = (real / "MSD-0003_20180427_2minstart00.Table.1.selections.txt").read_text().splitlines()
    path = tmp_path / "theirs.txt"
    path.write_text("\n".join(rows[:-1]) + "\n")
    ours = read_annotations(path)
    write_raven(tmp_path / "ours.txt", ours)
    for theirs in (
        crowsetta.formats.bbox.Raven.from_file(path, annot_col="Species").to_bbox(),
        crowsetta.formats.bbox.Raven.from_file(tmp_path / "ours.txt").to_bbox(),
    ):
        assert [box.label for box in theirs] == ours["label"].tolist()
        numbers = [(box.onset, box.offset, box.low_freq, box.high_freq) for box in theirs]
        columns = ["onset", "offset", "low_freq", "high_freq"]
        # Its numbers are off by one in the last of their digits.
        assert np.array(numbers) == pytest.approx(ours[columns].to_numpy(), rel=1e-15)
