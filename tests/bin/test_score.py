"""bin/score.py as a user runs it, and its numbers."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.metrics import lwlrap

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bin/score.py"

TRUTH = "recording_id,a,b,c\nx,1,0,0\ny,0,1,1\nz,0,0,0\n"
# Rows and columns in another order.
SCORES = "recording_id,c,a,b\nz,0.1,0.2,0.3\ny,0.9,0.5,0.1\nx,0.2,0.9,0.1\n"


@pytest.fixture(scope="module")
def main():
    """The script's main, for what needs no process of its own."""
    spec = importlib.util.spec_from_file_location("score_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def score(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture
def files(tmp_path):
    truth, scores = tmp_path / "truth.csv", tmp_path / "scores.csv"
    truth.write_text(TRUTH, encoding="utf-8")
    scores.write_text(SCORES, encoding="utf-8")
    return truth, scores


def test_score_prints_and_writes(files, tmp_path):
    truth, scores = files
    out = tmp_path / "out" / "score.json"
    done = score("--submission", scores, "--truth", truth, "--json", out, "--n-bootstrap", 50)
    assert (done.returncode, done.stderr) == (0, "")
    expected = lwlrap([[1, 0, 0], [0, 1, 1]], [[0.9, 0.1, 0.2], [0.5, 0.1, 0.9]])
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["value"] == pytest.approx(expected) == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert f"{expected:.4f}" in done.stdout
    assert result["low"] <= expected <= result["high"]
    assert (result["n_recordings"], result["n_without_positive"]) == (3, 1)
    assert result["classes"][1] == {"label": "b", "n_positive": 1, "value": pytest.approx(2 / 3)}
    for word in ("chance", "constant row", "95 % interval", "1 without a positive"):
        assert word in done.stdout
    again = tmp_path / "again.json"
    score("--submission", scores, "--truth", truth, "--json", again, "--n-bootstrap", 50)
    assert again.read_bytes() == out.read_bytes()


def test_classes_without_data_are_shown_as_such(files):
    truth, scores = files
    truth.write_text(TRUTH.replace("x,1", "x,0"), encoding="utf-8")
    done = score("--submission", scores, "--truth", truth, "--n-bootstrap", 0)
    assert done.returncode == 0
    assert "no data" in done.stdout
    assert "interval" not in done.stdout


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
def test_faults_are_one_line_and_exit_1(main, capsys, files, which, text, message):
    files[which].write_text(text, encoding="utf-8")
    assert main(["--submission", str(files[1]), "--truth", str(files[0])]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("extra", [["--metric", "f1"], ["--n-bootstrap", "-1"], ["--what"]])
def test_wrong_options_exit_2(main, capsys, files, extra):
    with pytest.raises(SystemExit) as caught:
        main(["--submission", str(files[1]), "--truth", str(files[0]), *extra])
    assert caught.value.code == 2
    assert extra[0] in capsys.readouterr().err


def test_exit_code_of_the_process_is_that_of_main(files):
    done = score("--submission", "none.csv", "--truth", files[0])
    assert done.returncode == 1
    assert done.stderr == "error: none.csv: no such file; check the path\n"


def test_help():
    done = score("--help")
    assert done.returncode == 0
    assert "--submission" in done.stdout
