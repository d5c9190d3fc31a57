"""The three tables: every fault names file, line, value and remedy."""

import numpy as np
import pandas as pd
import pytest

from local.io.errors import CanopyError
from local.data.tables import (
    CLASS_COLUMNS,
    EVENT_COLUMNS,
    Tables,
    check_source,
    check_tables,
    read_table,
    read_tables,
    tables_digest,
    write_tables,
)

RECORDINGS = """recording_id,path,subset,duration,sample_rate,channels,group
r1,train/r1.flac,train,60.0,48000,1,siteA
r2,train/r2.flac,train,12.5,48000,2,siteB
t1,test/t1.flac,test,60.0,48000,1,siteC
"""
EVENTS = """recording_id,label,onset,offset,low_freq,high_freq,polarity,weight,source
r1,x,1.0,2.5,500,3000,1,1,tp
r1,y,0,60.05,,,-1,1,fp
r2,x,12.0,12.5,,,1,0.5,pseudo:cycle1
"""
CLASSES = """label,name,low_freq,high_freq
x,Xenops,400,4000
y,Ypsilon,,
"""


@pytest.fixture
def folder(tmp_path):
    """Tables that are in order."""
    for name, text in (("recordings", RECORDINGS), ("events", EVENTS), ("classes", CLASSES)):
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


def change(folder, table, old, new):
    path = folder / f"{table}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_reading(folder):
    tables = read_tables(folder)
    assert tables.labels == ["x", "y"]
    assert tables.subset("train")["recording_id"].tolist() == ["r1", "r2"]
    assert tables.subset("test", "unlabelled")["recording_id"].tolist() == ["t1"]
    assert tables.recordings["duration"].tolist() == [60.0, 12.5, 60.0]
    assert tables.events["polarity"].tolist() == [1, -1, 1]
    assert np.isnan(tables.events["low_freq"].iloc[1])


def test_ids_and_labels_that_look_like_numbers_stay_text(folder):
    """Hexadecimal ids such as 00e12 and labels such as NA are text."""
    for table in ("recordings", "events"):
        path = folder / f"{table}.csv"
        path.write_text(path.read_text().replace("r1,", "00012e4,"))
    for table in ("classes", "events"):
        path = folder / f"{table}.csv"
        path.write_text(path.read_text().replace("x,", "NA,"))
    tables = read_tables(folder)
    assert tables.recordings["recording_id"].iloc[0] == "00012e4"
    assert tables.labels[0] == "NA"


FAULTS = [
    ("recordings", "r2,train", "r1,train", "line 3: recording_id 'r1' stands twice.*unique"),
    ("recordings", "r2,train", "R1,train", "line 3: recording_id 'R1' stands twice"),
    ("recordings", "r2,train", "../r2,train", r"line 3: recording_id '\.\./r2' cannot name a file"),
    ("recordings", "r2,train", ",train", "line 3: recording_id '' cannot name a file"),
    ("recordings", ",test,60.0", ",tset,60.0", "line 4: subset is 'tset', expected .*train, test"),
    ("recordings", "siteB", " ", "line 3: group is empty; give the site"),
    ("recordings", ",12.5,", ",0,", r"line 3: duration of r2 is 0\.0, expected more than 0"),
    ("recordings", ",12.5,", ",,", "line 3: duration of r2 is nan"),
    ("recordings", ",12.5,", ",inf,", "line 3: duration is 'inf', expected a number"),
    ("recordings", "48000,2", "48 kHz,2", "line 3: sample_rate is '48 kHz', expected a number"),
    ("recordings", ",2,siteB", ",0,siteB", "line 3: channels of r2 is 0"),
    ("events", "r2,x", "r9,x", "line 4: recording_id 'r9' is not among the 3 recordings; mend"),
    ("events", "r1,y", "r1,z", "line 3: label 'z' is not among the 2 classes; mend .* or add"),
    ("events", "1.0,2.5,", "2.5,1.0,", r"line 2: onset 2\.5 and offset 1\.0 of r1: expected 0 <="),
    ("events", "1.0,2.5,", "1.0,1.0,", r"line 2: onset 1\.0 and offset 1\.0"),
    ("events", "1.0,2.5,", "-0.1,2.5,", r"line 2: onset -0\.1"),
    ("events", "1.0,2.5,", ",2.5,", "line 2: onset nan"),
    (
        "events",
        "12.0,12.5,",
        "12.0,12.7,",
        r"line 4: offset 12\.7 lies after the end of r2 \(12\.500",
    ),
    ("events", ",,-1,1,fp", ",,0,1,fp", r"line 3: polarity is 0\.0, expected 1 \(sounds\) or -1"),
    ("events", "0.5,pseudo", "0,pseudo", r"line 4: weight is 0\.0, expected more than 0"),
    ("events", "0.5,pseudo", "1.5,pseudo", r"line 4: weight is 1\.5"),
    ("events", "500,3000", "3000,500", r"line 2: low_freq 3000\.0 is not below high_freq 500\.0"),
    ("events", "1.0,2.5", "one,2.5", "line 2: onset is 'one', expected a number"),
    ("classes", "y,Ypsilon", "x,Ypsilon", "line 3: label 'x' twice"),
    ("classes", "y,Ypsilon", ",Ypsilon", "line 3: label '' is empty"),
]


@pytest.mark.parametrize(("table", "old", "new", "message"), FAULTS)
def test_each_fault_is_named_with_its_file_and_line(folder, table, old, new, message):
    change(folder, table, old, new)
    with pytest.raises(CanopyError, match=rf"{table}\.csv {message}") as caught:
        read_tables(folder)
    assert "\n" not in str(caught.value)


def test_more_rows_of_the_same_fault_are_counted(folder):
    path = folder / "recordings.csv"
    path.write_text(path.read_text().replace(",train,", ",trian,"))
    with pytest.raises(CanopyError, match=r"line 2: subset .* \(and 1 more rows like it\)"):
        read_tables(folder)


def test_a_box_may_end_just_after_the_file(folder):
    """Annotation programs round to their pixel: a tenth of a second is borne, more is not."""
    assert read_tables(folder).events["offset"].max() == 60.05


def test_an_empty_line_does_not_shift_the_lines_of_errors(folder):
    path = folder / "classes.csv"
    path.write_text(CLASSES + "z,Zeta,high,\n\n\n")
    with pytest.raises(CanopyError, match=r"classes\.csv line 4: low_freq is 'high'"):
        read_tables(folder)
    path.write_text(CLASSES + "\n\n")
    assert read_tables(folder).labels == ["x", "y"]
    path.write_text(CLASSES.replace("y,Yps", "\ny,Yps"))
    with pytest.raises(CanopyError, match=r"classes\.csv line 3: label '' is empty"):
        read_tables(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable as CSV .*expected columns label, name"),
        ("label,name\nx,y\n", "column low_freq, high_freq is missing; found label, name"),
        (CLASSES.replace(",", "|"), "column label, name, low_freq, high_freq is missing"),
        (CLASSES + "z,Z,1,2,3\n", "not readable as CSV .*line 4"),
        # A comma at the end of every row: pandas alone would shift all columns by one.
        (CLASSES.replace("4000\n", "4000,\n").replace(",,\n", ",,,\n"), "not readable as CSV"),
        ('label,name,low_freq,high_freq\n"x,X,1,2\n', "not readable as CSV"),
        ("label,name,low_freq,label\nx,X,1,2\n", "column 'label' stands twice"),
    ],
)
def test_what_is_no_such_csv(tmp_path, text, message):
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(CanopyError, match=rf"classes\.csv: {message}") as caught:
        read_table(tmp_path / "classes.csv", CLASS_COLUMNS)
    assert "\n" not in str(caught.value)


def test_missing_file_and_wrong_encoding(tmp_path):
    with pytest.raises(CanopyError, match=r"events\.csv: no such table; run stage 0 first"):
        read_table(tmp_path / "events.csv", EVENT_COLUMNS)
    (tmp_path / "classes.csv").write_bytes(CLASSES.replace("Xenops", "Xénops").encode("latin-1"))
    with pytest.raises(CanopyError, match=r"classes\.csv: not readable as UTF-8 text"):
        read_table(tmp_path / "classes.csv", CLASS_COLUMNS)
    (tmp_path / "classes.csv").write_bytes(b"\xef\xbb\xbf" + CLASSES.encode())
    assert read_table(tmp_path / "classes.csv", CLASS_COLUMNS)["label"].tolist() == ["x", "y"]


def test_no_events_at_all_is_no_fault(folder):
    (folder / "events.csv").write_text(EVENTS.splitlines()[0] + "\n")
    assert len(read_tables(folder).events) == 0


def test_faulty_tables_are_not_written(folder, tmp_path):
    tables = read_tables(folder)
    doubled = pd.concat([tables.recordings, tables.recordings], ignore_index=True)
    out = tmp_path / "out"
    with pytest.raises(CanopyError, match="stands twice"):
        write_tables(out, Tables(doubled, tables.events, tables.classes), tmp_path)
    assert not out.exists()
    check_tables(tables)


def test_tables_of_another_data_folder_are_refused(folder, tmp_path):
    out = tmp_path / "out"
    check_source(out, tmp_path / "one")  # nothing made yet
    write_tables(out, read_tables(folder), tmp_path / "one")
    check_source(out, tmp_path / "one")
    check_source(out, tmp_path / "two" / ".." / "one")
    with pytest.raises(CanopyError, match=r"was made from .*one, not from .*two; .*--dumpdir"):
        check_source(out, tmp_path / "two")


def test_digest_follows_content(folder):
    before = tables_digest(folder, "recordings", "classes")
    change(folder, "events", "500,3000", "500,3001")
    assert tables_digest(folder, "recordings", "classes") == before
    change(folder, "classes", "Xenops", "Xeme")
    assert tables_digest(folder, "recordings", "classes") != before
    with pytest.raises(CanopyError, match=r"nothing\.csv: no such table"):
        tables_digest(folder, "nothing")
