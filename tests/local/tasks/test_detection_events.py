"""Events of test recordings against true ones, as stage 5 tells them."""

import json
import logging

import numpy as np
import pandas as pd
import pytest

from local.inference.score_files import save_scores
from local.inference.scores import Scores
from local.io.files import write_csv, write_json
from local.scoring.event_rules.span_rules import default_rules, events_of_run
from local.scoring.known_labels import known_evidence
from local.stages.experiment import Experiment
from local.tasks.detection_events import score_events, table_of_figures
from local.tasks.detection_results import train_part

LABELS, TESTED = ["a", "b", "c"], [f"t{row}" for row in range(6)]
HOP, START, N_CELLS = 0.2, -0.05, 30
COLUMNS = ["recording_id", "label", "onset", "offset"]
TRUE = pd.DataFrame(
    [("t0", "a", 1.0, 2.0), ("t1", "b", 1.0, 2.0), ("t1", "c", 3.0, 4.5), ("t4", "a", 0.5, 1.5)],
    columns=COLUMNS,
)


def heard(name: str, true: pd.DataFrame) -> np.ndarray:
    """(C, n) scores that are sure of the true events alone."""
    track = np.full((3, N_CELLS), -20, dtype=np.float32)
    for row in true[true["recording_id"] == name].itertuples():
        first, last = ((at - START) / HOP for at in (row.onset, row.offset))
        track[LABELS.index(row.label), round(first) : round(last)] = 20
    return track


@pytest.fixture
def scored(toy):
    """Function: cycles, kept frames, changes -> experiment whose last cycle hears all, no more."""

    def make(n_cycles=2, keep_frames=True, truth=TRUE, **changes):
        made = toy(score={"test_events": "events.csv", "n_bootstrap": 20}, **changes)
        experiment = Experiment(made.run)
        if truth is not None:
            write_csv(made.run.datadir / "events.csv", truth)
        rng = np.random.default_rng(0)
        for cycle in range(n_cycles):
            for kind, ids in (("oof", experiment.dump_ids), ("test", TESTED)):
                frames = [rng.normal(size=(3, N_CELLS)).astype(np.float32) for _ in ids]
                if kind == "test" and cycle == n_cycles - 1:
                    frames = [heard(name, TRUE) for name in ids]
                window = np.stack([one.max(axis=1) for one in frames])
                scores = Scores(list(ids), LABELS, frames, window, HOP, START)
                extra = {"used": np.ones((len(ids), 3), dtype=bool)} if kind == "oof" else {}
                path = made.run.cycle(cycle) / f"{kind}.npz"
                save_scores(path, scores, window, keep_frames, **extra)
        return experiment

    return make


@pytest.fixture
def said(caplog, monkeypatch):
    """The log, also after a stage began a file of its own."""
    caplog.set_level("INFO", "canopy")
    monkeypatch.setattr(logging.getLogger("canopy"), "handlers", [caplog.handler])
    return caplog


def results_of(n_cycles):
    return {"cycles": [{"cycle": cycle, "scores": {}} for cycle in range(n_cycles)]}


def test_every_cycle_has_the_figures_of_what_detection_would_give(scored, tmp_path):
    experiment, results = scored(), results_of(2)
    files = score_events(experiment, 1, results)
    assert [path.name for path in files] == ["test_events.csv"]
    first, last = (entry["events"]["test_events"] for entry in results["cycles"])
    assert last["labels"] == LABELS
    assert (last["n"], last["n_true"]) == (6, 4)
    for name in ("event_f1", "event_recall", "event_precision", "iou_0.5_f1"):
        assert last["measures"][name]["micro"]["value"] == 1, name
    assert first["measures"]["event_f1"]["micro"]["value"] < 1
    assert last["measures"]["false_alarms_per_hour"]["micro"]["value"] == 0
    assert last["measures"]["median_iou"]["micro"]["value"] > 0.8
    # The events that are written are those of the last cycle, by the rules of detection.
    oof, _ = train_part(experiment, 1)
    evidence = known_evidence(oof, experiment.tables.events, experiment.run.config)
    rules = default_rules(LABELS, experiment.run.config, evidence, None)
    frames = [heard(name, TRUE) for name in TESTED]
    scores = Scores(TESTED, LABELS, frames, np.zeros((6, 3)), HOP, START)
    kept = pd.read_csv(files[0])
    pd.testing.assert_frame_equal(kept, events_of_run(scores, rules), atol=1e-6)
    write_json(tmp_path / "results.json", results)
    back = json.loads((tmp_path / "results.json").read_text())
    assert back["cycles"][1]["events"]["test_events"]["worst"]["event_f1"] == 1.0
    lines = table_of_figures(results).splitlines()
    assert len(lines) == 1 + 2 * 3
    assert "false alarms an hour" in lines[0]
    assert "test, true events, micro" in lines[4]
    assert "1.000" in lines[4]
    assert lines[-1].strip().startswith("worst class by F1: a, 1.000 (2 of 2 true events found")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"truth": None}, ""),
        ({"keep_frames": False}, "keep_frames is off"),
        ({"truth": TRUE.assign(polarity=[1, 1, -1, 1])}, "so it is partial"),
    ],
)
def test_nothing_is_scored_where_it_would_mean_nothing_and_it_is_said(scored, said, changes, why):
    experiment, results = scored(**changes), results_of(2)
    assert score_events(experiment, 1, results) == []
    assert results == results_of(2)
    assert why in said.text
    assert table_of_figures(results) == ""


def test_true_rows_that_nobody_scored_are_passed_over_aloud(scored, said):
    more = pd.DataFrame([("gone", "a", 1, 2), ("t0", "q", 1, 2), ("t0", "q", 3, 4)])
    more.columns = COLUMNS
    experiment, results = scored(1, truth=pd.concat([TRUE, more])), results_of(1)
    score_events(experiment, 0, results)
    assert results["cycles"][0]["events"]["test_events"]["n_true"] == 4
    assert "1 rows of recordings that have no test score are passed over" in said.text
    assert (
        "2 rows of classes that the run does not know are passed over, the first of q" in said.text
    )


def told_by_column(experiment, results):
    """Figures of the test events where a and b are one column of the submission."""
    columns = pd.DataFrame({"label": LABELS, "column": ["bird", "bird", "frog"]})
    write_csv(experiment.run.tables / "submission_columns.csv", columns)
    score_events(experiment, 0, results)
    return results["cycles"][0]["events"]["test_events"]


def test_song_types_of_a_species_are_one_class_as_in_the_truth(scored):
    truth = TRUE.assign(label=TRUE["label"].replace({"a": "bird", "b": "bird", "c": "frog"}))
    # Both song types are heard in t1, one after the other: one event of the bird.
    experiment, results = scored(1, truth=truth), results_of(1)
    told = told_by_column(experiment, results)
    assert told["labels"] == ["bird", "frog"]
    assert told["n_true_per_class"].tolist() == [3, 1]
    assert told["n_found_per_class"].tolist() == [3, 1]
    assert told["measures"]["event_f1"]["micro"]["value"] == 1
    # What is written are the classes of detection.
    assert set(pd.read_csv(experiment.run.exp / "test_events.csv")["label"]) == set(LABELS)


def test_song_types_of_which_none_is_found_have_no_event(scored):
    truth = TRUE.assign(label=TRUE["label"].replace({"a": "bird", "b": "bird", "c": "frog"}))
    experiment, results = scored(1, truth=truth), results_of(1)
    frames = [np.full((3, N_CELLS), -20, dtype=np.float32) for _ in TESTED]
    scores = Scores(TESTED, LABELS, frames, np.full((6, 3), -20.0), HOP, START)
    save_scores(experiment.run.cycle(0) / "test.npz", scores, scores.window, True)
    told = told_by_column(experiment, results)
    assert told["n_found_per_class"].tolist() == [0, 0]
    assert told["measures"]["event_recall"]["micro"]["value"] == 0


def test_overlapping_events_of_song_types_are_joined(scored):
    both = pd.concat([TRUE, TRUE.iloc[:1].assign(label="b", onset=1.6, offset=3.0)])
    truth = pd.DataFrame([("t0", "bird", 1.0, 3.0)], columns=COLUMNS)
    experiment, results = scored(1, truth=truth), results_of(1)
    frames = [heard(name, both[both["label"] != "c"]) for name in TESTED]
    window = np.stack([one.max(axis=1) for one in frames])
    scores = Scores(TESTED, LABELS, frames, window, HOP, START)
    save_scores(experiment.run.cycle(0) / "test.npz", scores, window, True)
    told = told_by_column(experiment, results)
    # Of t0, t1 and t4; two of them have no bird by this truth.
    assert told["n_found_per_class"].tolist() == [3, 0]
    assert told["measures"]["event_recall"]["micro"]["value"] == 1
    assert told["measures"]["median_iou"]["micro"]["value"] > 0.85
