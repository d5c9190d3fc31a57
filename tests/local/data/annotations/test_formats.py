"""Any format in, any format out."""

import pandas as pd
import pytest
from event_tables import event_rows
from hypothesis import HealthCheck, given, settings

from local.data.annotations.formats import (
    FORMATS,
    guess_format,
    read_annotations,
    write_annotations,
)
from local.data.annotations.shared import ReadOptions, table_stem
from local.data.annotations.rainforest import write_rainforest
from local.io.errors import CanopyError
from local.data.tables import EVENT_COLUMNS

EVENTS = pd.DataFrame(
    {
        "recording_id": ["a", "b", "a"],
        "label": ["s1", "s2", "s2"],
        "onset": [0.5, 1.0, 3.0],
        "offset": [1.5, 2.0, 4.0],
        "low_freq": 100.0,
        "high_freq": 900.0,
        "polarity": 1,
        "weight": 1.0,
        "source": "tp",
    }
)


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_of_any_format_holds_the_same_events(tmp_path, name):
    paths = write_annotations(tmp_path, EVENTS, name)
    assert {guess_format(path) for path in paths} == {name}
    told = ReadOptions(polarity=1)
    back = pd.concat([read_annotations(path, options=told) for path in paths])
    columns = list(EVENT_COLUMNS[:-1])
    order = ["recording_id", "onset"]
    pd.testing.assert_frame_equal(
        back[columns].sort_values(order, ignore_index=True),
        EVENTS[columns].sort_values(order, ignore_index=True),
    )


def test_recordings_without_events_get_an_empty_table(tmp_path):
    paths = write_annotations(tmp_path, EVENTS, "raven", recordings=["c", "a"])
    assert [path.name[0] for path in paths] == ["c", "a", "b"]
    assert len(read_annotations(paths[0])) == 0


def test_what_is_there_is_not_overwritten(tmp_path):
    write_annotations(tmp_path, EVENTS, "plain")
    with pytest.raises(CanopyError, match=r"events\.csv is there already .* --force"):
        write_annotations(tmp_path, EVENTS, "plain")
    write_annotations(tmp_path, EVENTS.iloc[:1], "plain", force=True)
    assert len(read_annotations(tmp_path / "events.csv")) == 1


@pytest.mark.parametrize("name", ["../a", "con", "", "."])
def test_a_name_that_no_file_may_have_is_refused(tmp_path, name):
    with pytest.raises(CanopyError, match="no file can be named after it"):
        write_annotations(tmp_path / "x", EVENTS.assign(recording_id=name), "audacity")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=event_rows())
def test_rainforest_comes_back_as_it_was(tmp_path, events):
    events["label"] = "s" + pd.Series(range(len(events))).astype(str)
    events = events.assign(weight=1.0, polarity=-1, source="fp")
    events["recording_id"] = events["recording_id"].astype(object)
    write_rainforest(tmp_path / "fp.csv", events)
    back = read_annotations(tmp_path / "fp.csv", "rainforest", ReadOptions(polarity=-1))
    if len(events):
        pd.testing.assert_frame_equal(back[list(EVENT_COLUMNS)], events, check_exact=True)
    assert back["songtype_id"].tolist() == [1] * len(events)


def test_rainforest_keeps_song_types_and_further_columns(tmp_path):
    frame = EVENTS.assign(songtype_id=[1, 4, 1], note=["", "x", ""])
    write_rainforest(tmp_path / "tp.csv", frame)
    with pytest.raises(CanopyError, match=r"confirmed or rejected; say it as polarity 1 or -1"):
        read_annotations(tmp_path / "tp.csv")
    back = read_annotations(tmp_path / "tp.csv", options=ReadOptions(polarity=1))
    assert back["songtype_id"].tolist() == [1, 4, 1]
    assert back["note"].tolist() == ["", "x", ""]


def test_what_rainforest_cannot_hold_is_refused(tmp_path):
    with pytest.raises(CanopyError, match=r"label 'frog' has no species number"):
        write_rainforest(tmp_path / "tp.csv", EVENTS.assign(label="frog"))
    with pytest.raises(CanopyError, match=r"confirmed and rejected rows cannot stand in one"):
        write_rainforest(tmp_path / "tp.csv", EVENTS.assign(polarity=[1, -1, 1]))


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("rec1.Table.1.selections.txt", "rec1"),
        ("rec.2024.selections.txt", "rec.2024"),
        ("rec1.txt", "rec1"),
        ("rec1.wav.txt", "rec1"),
        ("rec1.WAV.Table.2.selections.txt", "rec1"),
        ("rec1.BirdNET.selection.table.txt", "rec1"),
        ("rec1.BirdNET.results.csv", "rec1"),
        ("rec 1.csv", "rec 1"),
        (".txt", ".txt"),
    ],
)
def test_the_recording_that_a_table_is_named_after(name, recording):
    assert table_stem(f"/some/folder.wav/{name}") == recording


def test_a_format_that_is_none(tmp_path):
    (tmp_path / "x.csv").write_text("label,onset,offset\n")
    for call in (
        lambda: read_annotations(tmp_path / "x.csv", "excel"),
        lambda: write_annotations(tmp_path, EVENTS, "excel"),
    ):
        with pytest.raises(CanopyError, match=r"format 'excel' is unknown; choose one of raven"):
            call()
