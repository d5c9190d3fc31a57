"""Annotations from one format to another, as a user calls it."""

import pandas as pd
import pytest

from local.data.annotations.formats import read_annotations
from local.data.annotations.raven import write_raven
from tests.scripts import caller, fault_of


@pytest.fixture
def convert(capsys):
    return caller("convert", capsys)


@pytest.fixture
def tables(tmp_path):
    """Two Raven tables, one of them empty, in folders."""
    events = pd.DataFrame(
        {"recording_id": "a", "label": ["frog", "bird"], "onset": [0.5, 2.0], "offset": [1.0, 3.0]}
    ).assign(low_freq=100.0, high_freq=900.5, distance=["near", ""])
    write_raven(tmp_path / "in/x/a.Table.1.selections.txt", events)
    write_raven(tmp_path / "in/b.Table.1.selections.txt", events.iloc[:0])
    return tmp_path / "in"


def test_raven_to_audacity_and_back(convert, tables, tmp_path):
    code, out, err = convert("--from", "raven", "--to", "audacity", tables, "--out", tmp_path / "l")
    assert code == 0
    assert out.startswith("2 files read, 2 rows, 2 files written")
    assert err == "audacity cannot hold distance: left out\n"
    assert (tmp_path / "l/b.txt").read_text() == ""
    assert (tmp_path / "l/a.txt").read_text() == (
        "0.5\t1\tfrog\n\\\t100\t900.5\n2\t3\tbird\n\\\t100\t900.5\n"
    )
    options = ("--from", "audacity", "--to", "raven", tmp_path / "l", "--out", tmp_path / "r")
    assert convert(*options)[0] == 0
    back = read_annotations(tmp_path / "r/a.Table.1.selections.txt")
    first = read_annotations(tables / "x/a.Table.1.selections.txt")
    same = ["recording_id", "label", "onset", "offset", "low_freq", "high_freq"]
    pd.testing.assert_frame_equal(back[same], first[same])
    code, _, err = convert(*options)
    assert code == 1
    assert "is there already (2 such files)" in err
    assert convert(*options, "--force")[0] == 0


def test_a_spreadsheet_with_columns_of_its_own(convert, tmp_path):
    (tmp_path / "x.csv").write_text("wav;von;bis;wer\ns/a.wav;0,5;1,5;frog\n")
    options = ("--from", "plain", "--to", "plain", tmp_path / "x.csv", "--out", tmp_path / "out")
    code, _, err = convert(*options)
    assert code == 1
    assert "no column onset; found wav, von, bis, wer" in err
    names = [f"--columns={pair}" for pair in ("onset=von", "offset=bis", "path=wav")]
    code, _, err = convert(*options, *names, "--column", "wer")
    assert (code, err) == (0, "")
    events = read_annotations(tmp_path / "out/events.csv")
    assert events[["recording_id", "label", "onset"]].to_numpy().tolist() == [["a", "frog", 0.5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "onset"], "--columns is ['onset'], expected OURS=THEIRS"),
        (["--from", "rainforest"], "no files ending in .csv"),
        (["--from", "rainforest", "tp.csv"], "say it as polarity 1 or -1"),
        (["--column", "Who"], "no column 'Who' for the labels"),
    ],
)
def test_faults_are_told_in_one_line(convert, tables, tmp_path, options, message):
    if "tp.csv" in options:
        (tmp_path / "tp.csv").write_text(
            "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
        )
        tables, options = tmp_path / "tp.csv", options[:2]
    ran = convert("--to", "plain", tables, "--out", tmp_path / "out", *options)
    assert message in fault_of(ran)
    assert not (tmp_path / "out").exists()
