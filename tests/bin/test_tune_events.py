"""bin/tune_events.py: files of a run in, a rule and events out."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from local.data.folds import write_folds
from local.data.tables import EVENT_COLUMNS, RECORDING_COLUMNS, Tables, write_tables
from local.inference.score_files import save_scores
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.scoring.event_rules.rule_file import read_rule
from tests.scripts import load_script

HOP = 0.002


@pytest.fixture
def finished(tmp_path):
    """Three recordings of 0.5 s with calls at 0.1 and 0.3 s, one without any, one of test."""
    names = ["r0", "r1", "r2", "r3", "t0"]
    subsets = ["train"] * 4 + ["test"]
    recordings = pd.DataFrame({"recording_id": names, "subset": subsets, "group": names})
    recordings = recordings.assign(path=recordings["recording_id"] + ".wav")
    recordings = recordings.assign(duration=0.5, sample_rate=250_000.0, channels=1.0)
    events = pd.DataFrame(
        [(name, "call", at, at + 0.05, 1, "people") for name in names[:3] for at in (0.1, 0.3)],
        columns=["recording_id", "label", "onset", "offset", "polarity", "source"],
    ).assign(low_freq=np.nan, high_freq=np.nan, weight=1.0)
    classes = pd.DataFrame({"label": ["call"], "name": ["call"]})
    classes = classes.assign(low_freq=np.nan, high_freq=np.nan)
    tables = Tables(recordings[list(RECORDING_COLUMNS)], events[list(EVENT_COLUMNS)], classes)
    (tmp_path / "data").mkdir()
    write_tables(tmp_path / "tables", tables, tmp_path / "data")
    run = tmp_path / "run"
    folds = pd.DataFrame({"recording_id": names, "fold": [0, 1, 2, 0, 1]})
    write_folds(run / "folds.csv", folds)
    track = np.full(250, 0.02)
    for first in (50, 150):
        track[first : first + 25] = 0.9
    silent = np.full(250, 0.02)
    silent[10:12] = 0.95  # A click: shorter than any call.
    for kind, ids in (("oof", names[:4]), ("test", names[4:])):
        frames = [logit(silent if name == "r3" else track)[None].astype("f4") for name in ids]
        window = np.array([frame.max(axis=1) for frame in frames])
        scores = Scores(ids, ["call"], frames, window, HOP, 0.0)
        save_scores(run / "cycle0" / f"{kind}.npz", scores, window, True)
    return run


def call(run, *options):
    tables = run.parent / "tables"
    words = [run, "--tables", tables, "--out", run, "--n-bootstrap", 50, *options]
    return load_script("tune_events").main([str(word) for word in words])


def test_a_rule_events_and_what_they_reach(finished, capsys):
    assert call(finished) == 0
    told = json.loads((finished / "rule.json").read_text())
    assert [one["iou"] for one in told["f1"]] == [0.0, 0.5]
    for one in told["f1"]:
        assert (one["value"], one["low"], one["high"], one["fitted"]) == (1, 1, 1, 1)
    assert (told["n"], told["n_true"], told["n_found"]) == (4, 6, 6)
    assert sorted(told["rules_of_folds"]) == ["0", "1", "2"]
    # Two cells are 4 ms: only a longer least duration keeps the click out.
    assert told["rule"]["min_duration"] > 0.004
    oof = pd.read_csv(finished / "oof_events.csv")
    assert oof.groupby("recording_id").size().to_dict() == {"r0": 2, "r1": 2, "r2": 2}
    np.testing.assert_allclose(oof["onset"], [0.1, 0.3] * 3, atol=1e-9)
    test = pd.read_csv(finished / "test_events.csv")
    assert test["recording_id"].tolist() == ["t0", "t0"]
    out = capsys.readouterr().out
    assert "event F1, any overlap: 1.000 (1.000-1.000) by rules of the other folds" in out
    assert out.splitlines()[-1].startswith("--threshold ")


def test_options_bound_the_grid(finished):
    grid = ("--thresholds", 0.4, "--drops", 0, "--durations", 0.01, "--gaps", 0.005)
    assert call(finished, "--iou", 0.3, *grid) == 0
    told = json.loads((finished / "rule.json").read_text())
    assert told["rule"] == {
        "threshold": 0.4,
        "low_threshold": 0.4,
        "min_duration": 0.01,
        "max_gap": 0.005,
    }
    assert [one["iou"] for one in told["f1"]] == [0.3]


def test_a_rule_belongs_to_its_scores(finished, caplog):
    scores = finished / "cycle0" / "oof.npz"
    assert read_rule(finished, scores) is None
    call(finished)
    rule = read_rule(finished, scores)
    assert rule is not None
    assert rule.words().startswith(f"--threshold {rule.threshold:g} --low-threshold ")
    assert read_rule(finished, finished / "cycle0" / "test.npz") is None
    assert "fitted on other scores" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"low_threshold": 0.99}, "low_threshold 0.99 is above"),
        ({"max_gap": "wide"}, "max_gap"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_damaged_rule_is_refused_by_name(finished, change, words):
    call(finished)
    path = finished / "rule.json"
    told = json.loads(path.read_text())
    told["rule"] |= change
    path.write_text(json.dumps(told))
    with pytest.raises(CanopyError, match=words) as caught:
        read_rule(finished, finished / "cycle0" / "oof.npz")
    assert "rule.json" in str(caught.value)


def test_faults_are_told(finished):
    with pytest.raises(CanopyError, match="rising order"):
        call(finished, "--thresholds", 0.6, 0.4)
    write_csv(finished / "folds.csv", pd.DataFrame({"recording_id": ["r0"], "fold": [0]}))
    with pytest.raises(CanopyError):
        call(finished)
    (finished / "cycle0" / "oof.npz").unlink()
    with pytest.raises(CanopyError, match="run stages 2 and 3 first"):
        call(finished)
