"""bin/score.py as a user runs it, and its numbers."""

import json

import numpy as np
import pandas as pd
import pytest

from local.io.files import write_npz
from local.scoring.metrics.clip_metrics import chance_score, constant_row_score
from local.scoring.metrics.lwlrap import lwlrap
from tests.scripts import caller, fault_of, in_a_shell

TRUTH = "recording_id,a,b,c\nx,1,0,0\ny,0,1,1\nz,0,0,0\n"
# Rows and columns in another order.
SCORES = "recording_id,c,a,b\nz,0.1,0.2,0.3\ny,0.9,0.5,0.1\nx,0.2,0.9,0.1\n"


@pytest.fixture
def score(capsys):
    return caller("score", capsys)


@pytest.fixture
def files(tmp_path):
    truth, scores = tmp_path / "truth.csv", tmp_path / "scores.csv"
    truth.write_text(TRUTH, encoding="utf-8")
    scores.write_text(SCORES, encoding="utf-8")
    return truth, scores


def rows_of(path, **wanted):
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_score_prints_and_writes(score, files, tmp_path):
    truth, scores = files
    out = tmp_path / "out" / "score.json"
    done = score("--submission", scores, "--truth", truth, "--json", out, "--n-bootstrap", 50)
    assert (done.code, done.err) == (0, "")
    expected = lwlrap([[1, 0, 0], [0, 1, 1]], [[0.9, 0.1, 0.2], [0.5, 0.1, 0.9]])
    (row,) = rows_of(out, measure="lwlrap", scope="average", name="micro")
    assert row["value"] == pytest.approx(expected) == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert f"{expected:.4f}" in done.out
    assert row["low"] <= expected <= row["high"]
    whole = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    assert row["chance"] == pytest.approx(chance_score(whole))
    assert row["constant_row"] == pytest.approx(constant_row_score(whole))
    facts = json.loads(out.read_text(encoding="utf-8"))
    assert (facts["n_recordings"], facts["n_without_positive"]) == (3, 1)
    (of_b,) = rows_of(out, measure="lwlrap", scope="class", name="b")
    assert (of_b["n_events"], of_b["value"]) == (1, pytest.approx(2 / 3))
    for word in ("chance", "constant row", "95 % interval", "1 without a positive"):
        assert word in done.out
    again = tmp_path / "again.json"
    score("--submission", scores, "--truth", truth, "--json", again, "--n-bootstrap", 50)
    assert again.read_bytes() == out.read_bytes()


def test_classes_without_data_are_shown_as_such(score, files):
    truth, scores = files
    truth.write_text(TRUTH.replace("x,1", "x,0"), encoding="utf-8")
    done = score("--submission", scores, "--truth", truth, "--n-bootstrap", 0)
    assert done.code == 0
    assert "no data" in done.out
    assert "95 %" not in done.out


@pytest.mark.parametrize(
    ("which", "text", "message"),
    [
        (1, SCORES.replace("x,0.2", "w,0.2"), "lacks 1 recording, the first x"),
        (1, SCORES + "w,0,0,0\n", "1 recording, the first w"),
        (1, SCORES + "x,0,0,0\n", "x stands twice"),
        (1, SCORES.replace("c,a,b", "c,a,d"), "lacks 1 class column, the first b"),
        (1, SCORES.replace("0.5", "nan"), "recording y, column a holds 'nan'"),
        (0, TRUTH.replace("y,0,1,1", "y,0,1,2"), "recording y, column c holds 2"),
    ],
)
def test_faults_are_one_line_and_exit_1(score, files, which, text, message):
    files[which].write_text(text, encoding="utf-8")
    assert message in fault_of(score("--submission", files[1], "--truth", files[0]))


@pytest.mark.parametrize("extra", [["--level", "f1"], ["--n-bootstrap", "-1"], ["--what"]])
def test_wrong_options_exit_2(score, files, extra):
    ran = score("--submission", files[1], "--truth", files[0], *extra)
    assert ran.code == 2
    assert extra[0] in ran.err


@pytest.mark.slow
def test_exit_code_of_the_process_is_that_of_main(files):
    done = in_a_shell("score", "--submission", "none.csv", "--truth", files[0])
    assert done == (1, "", "error: none.csv: no such file; check the path\n")


RECORDINGS = (
    "recording_id,duration,subset,group\nx,10,test,g1\ny,10,test,g1\nz,10,test,g2\nw,10,train,g2\n"
)
EVENTS = "recording_id,label,onset,offset\nx,a,1,2\nx,b,4,6\ny,a,3,4\nw,a,1,2\n"
FOUND = (
    "recording_id,label,onset,offset,score\n"
    "x,a,1.1,2.0,0.9\nx,b,4,5,0.6\ny,a,8,9,0.7\nz,b,1,2,0.4\n"
)


@pytest.fixture
def events(tmp_path):
    """Options that score detections against events, and the folder of the files."""
    for name, text in (("recordings", RECORDINGS), ("events", EVENTS), ("found", FOUND)):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    options = ["--truth", tmp_path / "events.csv", "--recordings", tmp_path / "recordings.csv"]
    return [*options, "--subset", "test"], tmp_path


def test_detections_against_events(score, events):
    options, folder = events
    out = folder / "out.json"
    more = ["--system", f"one={folder}/found.csv", "--json", out, "--csv", folder / "o.csv"]
    ran = score(*options, *more, "--metric", "iou 0.5 F1")
    assert ran.code == 0

    def value(measure, name, **wanted):
        (row,) = rows_of(out, measure=measure, name=name, **wanted)
        return row["value"]

    # a: one of two found, one wrong; b: one of one; z scores below the threshold.
    assert value("iou 0.5 F1", "a") == pytest.approx(0.5)
    assert value("iou 0.5 F1", "b") == 1.0
    assert value("iou 0.5 F1", "micro") == pytest.approx(2 / 3)
    assert value("collar F1", "a") == pytest.approx(0.5)
    assert value("overlap AP", "b") == 1.0
    assert value("clip F1", "a") == 1.0
    # One false alarm in 30 s is 120 an hour; the first hit comes before it.
    assert value("overlap recall at 10/h", "a") == 0.5
    assert "iou 0.5 F1 of each class" in ran.out
    table = pd.read_csv(folder / "o.csv")
    assert len(table) == len(rows_of(out))


def test_events_have_all_figures_and_the_worst_class_is_named(score, events):
    options, folder = events
    out = folder / "out.json"
    ran = score(*options, "--system", f"one={folder}/found.csv", "--json", out)

    def value(measure, name):
        (row,) = rows_of(out, measure=measure, name=name)
        return row["value"]

    # a: 1.1 to 2.0 of 1 to 2, and one detection too many in 30 s; b: 4 to 5 of 4 to 6.
    assert value("median IoU", "a") == pytest.approx(0.9)
    assert value("median IoU", "micro") == pytest.approx(0.7)
    assert value("median IoU", "macro") == pytest.approx(0.7)
    assert value("false alarms per hour", "a") == pytest.approx(120)
    assert value("false alarms per hour", "b") == 0
    assert value("false alarms per hour", "micro") == pytest.approx(120)
    assert value("false alarms per hour", "macro") == pytest.approx(60)
    for measure in ("overlap F1", "overlap precision", "overlap recall", "iou 0.5 F1"):
        (row,) = rows_of(out, measure=measure, name="macro")
        assert row["low"] <= row["value"] <= row["high"]
        assert measure in ran.out
    assert "worst class by overlap F1: a, 0.5000 (2 true events)" in ran.out
    assert "1 detections of one score below --threshold 0.5" in ran.out
    # Those of recordings that are not scored are none of them.
    (folder / "more.csv").write_text(FOUND + "w,a,1,2,0.1\nw,a,3,4,0.2\n", encoding="utf-8")
    more = score(*options, "--system", f"one={folder}/more.csv", "--json", out).out
    assert "1 detections of one score below --threshold 0.5" in more
    measured = rows_of(out, measure="psds1", name="macro")
    assert ("PSDS is not measured" in ran.out) == (not measured)
    without = score(*options, "--system", f"one={folder}/found.csv", "--json", out, "--psds")
    assert without.code == 0
    assert not rows_of(out, measure="psds1")
    assert "PSDS" not in without.out
    every = score(*options, "--system", f"one={folder}/found.csv", "--threshold", "0").out
    assert "below --threshold" not in every


def test_empty_tables_and_empty_classes_have_figures(score, events):
    options, folder = events
    (folder / "found.csv").write_text(FOUND.splitlines()[0] + "\n", encoding="utf-8")
    (folder / "classes.csv").write_text("label,name\na,a\nb,b\nnever,never\n", encoding="utf-8")
    out = folder / "out.json"
    system = ["--system", f"one={folder}/found.csv", "--json", out]
    wide = ["--classes", folder / "classes.csv"]
    assert score(*options, *system, *wide).code == 0
    (f1,) = rows_of(out, measure="overlap F1", name="macro")
    assert f1["value"] == 0  # of a and b; `never` has no value
    assert rows_of(out, measure="overlap F1", name="never")[0]["value"] is None
    assert rows_of(out, measure="overlap precision", name="micro")[0]["value"] is None
    assert rows_of(out, measure="median IoU", name="micro")[0]["value"] is None
    assert rows_of(out, measure="false alarms per hour", name="micro")[0]["value"] == 0
    # No true event at all: what is found is wrong.
    (folder / "found.csv").write_text(FOUND, encoding="utf-8")
    (folder / "events.csv").write_text(EVENTS.splitlines()[0] + "\n", encoding="utf-8")
    assert score(*options, *system, *wide).code == 0
    assert rows_of(out, measure="overlap F1", name="micro")[0]["value"] == 0
    assert rows_of(out, measure="overlap recall", name="micro")[0]["value"] is None
    assert rows_of(out, measure="false alarms per hour", name="micro")[0]["value"] == 360
    assert "nothing to score" in fault_of(score(*options, *system))


def test_scores_that_are_no_numbers_are_refused(score, events):
    options, folder = events
    text = FOUND.replace("0.9", "nan")
    (folder / "found.csv").write_text(text, encoding="utf-8")
    message = "line 2: score is 'nan', expected a number"
    assert message in fault_of(score(*options, "--system", f"one={folder}/found.csv"))
    frames = np.full((2, 60), np.nan, dtype=np.float32)
    write_npz(
        folder / "test.npz",
        recording_id=np.array(["x", "y", "z"]),
        label=np.array(["a", "b"]),
        clip_logit=np.zeros((3, 2), dtype=np.float32),
        window_logit=np.zeros((3, 2), dtype=np.float32),
        frame_logit=frames,
        frame_offset=np.array([0, 20, 40, 60]),
        frame_hop_s=np.float64(0.5),
        frame_start_s=np.float64(0),
    )
    message = "member frame_logit holds NaN"
    assert message in fault_of(score(*options, "--system", f"net={folder}/test.npz"))


def test_several_systems_are_compared_in_pairs(score, events):
    options, folder = events
    (folder / "worse.csv").write_text(FOUND.replace("x,a,1.1", "z,a,1.1"), encoding="utf-8")
    systems = ["--system", f"one={folder}/found.csv", "--system", f"two={folder}/worse.csv"]
    out = folder / "out.json"
    groups = ["--by-group", "--cluster", "--n-bootstrap", "50"]
    shown = score(*options, *systems, *groups, "--json", out).out
    (one,) = rows_of(out, measure="overlap F1", name="micro", system="one")
    (two,) = rows_of(out, measure="overlap F1", name="micro", system="two")
    assert one["difference"] is None
    assert two["difference"] == pytest.approx(two["value"] - one["value"]) == pytest.approx(-1 / 3)
    assert two["difference_low"] <= two["difference"] <= two["difference_high"]
    assert "to the first" in shown
    assert {row["name"] for row in rows_of(out, scope="group")} == {"g1", "g2"}


def test_scores_over_time_are_read_from_npz(score, events):
    options, folder = events
    frames = np.full((2, 60), -5.0, dtype=np.float32)
    frames[0, 2:4] = 3  # x, a: 1 to 2 s at half a second a cell
    frames[1, 8:12] = 3
    write_npz(
        folder / "test.npz",
        recording_id=np.array(["x", "y", "z"]),
        label=np.array(["a", "b"]),
        clip_logit=np.array([[3.0, 3], [-5, -5], [-5, -5]], dtype=np.float32),
        window_logit=np.zeros((3, 2), dtype=np.float32),
        frame_logit=frames,
        frame_offset=np.array([0, 20, 40, 60]),
        frame_hop_s=np.float64(0.5),
        frame_start_s=np.float64(0),
    )
    out = folder / "out.json"
    assert score(*options, "--system", f"net={folder}/test.npz", "--json", out).code == 0
    assert rows_of(out, measure="iou 0.5 recall", name="micro")[0]["value"] == pytest.approx(2 / 3)
    assert rows_of(out, measure="iou 0.5 precision", name="micro")[0]["value"] == 1
    assert rows_of(out, measure="clip recall", name="a")[0]["value"] == 0.5


def test_partial_truth_counts_known_spans_only(score, events):
    options, folder = events
    text = (
        "recording_id,label,onset,offset,polarity\nx,a,1,2,1\ny,a,3,4,1\ny,a,8,9,-1\nz,a,5,6,-1\n"
    )
    (folder / "events.csv").write_text(text, encoding="utf-8")
    (folder / "found.csv").write_text(FOUND.replace(",b,", ",a,"), encoding="utf-8")
    out = folder / "out.json"
    system = ["--system", f"one={folder}/found.csv", "--json", out]
    assert score(*options, *system).code == 0
    assert {row["level"] for row in rows_of(out)} == {"span"}
    # Scores 0.9 and 0 of confirmed spans against 0.7 and 0 of rejected ones.
    (row,) = rows_of(out, measure="span auroc", name="a")
    assert row["value"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert rows_of(out, measure="span precision", name="a")[0]["value"] == 0.5
    assert "is partial" in fault_of(score(*options, *system, "--level", "event"))


@pytest.mark.parametrize(
    ("which", "old", "new", "message"),
    [
        ("found", "x,b", "x,q", "label 'q' is not among the 2 labels scored"),
        ("found", "z,b", "v,b", "recording 'v' is not among the 3 recordings scored"),
        ("found", ",offset,", ",end,", "column offset is missing"),
        ("found", "0.9", "high", "line 2: score is 'high', expected a number"),
        ("found", "8,9", "9,8", "line 4: onset 9.0 and offset 8.0 of y"),
        ("recordings", "duration", "length", "column duration is missing"),
        ("recordings", "test", "other", "no recording of subset 'test'"),
        ("events", "x,a", "v,a", "recording 'v' is not among"),
    ],
)
def test_faults_of_event_tables_are_one_line(score, events, which, old, new, message):
    options, folder = events
    path = folder / f"{which}.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert message in fault_of(score(*options, "--system", f"one={folder}/found.csv"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--system", "found.csv"], "give a name and a file"),
        (["--system", "one=none.csv"], "none.csv: no such file"),
        (["--metric", "f7"], "unknown measure 'f7'"),
        (["--collar", "0"], "--collar is 0"),
        (["--iou", "1.5"], "--iou is 1.5"),
        (["--by-group", "--group", "site"], "no column site"),
    ],
)
def test_faults_of_values_are_one_line(score, events, extra, message):
    options, folder = events
    assert message in fault_of(score(*options, "--system", f"two={folder}/found.csv", *extra))
