"""What the page takes for a detection."""

import numpy as np
import pytest
from scipy.special import expit, logit

from local.inference.score_files import load_scores, save_scores
from local.inference.scores import Scores
from local.io.files import file_digest, write_json
from local.report.collect import _event_scores, event_rules
from local.scoring.event_rules.rule_file import RULE
from local.stages.experiment import Experiment

RULES = {"threshold": 0.6, "low_threshold": 0.3, "min_duration": 0.2, "max_gap": 0.1}


@pytest.fixture
def scored(toy):
    """An experiment with out-of-fold scores of its train recordings: an experiment, the scores."""
    experiment = Experiment(toy().run)
    names, labels = experiment.ids("train"), experiment.tables.labels
    rng = np.random.default_rng(0)
    frames = [rng.normal(size=(len(labels), 30)).astype("f4") for _ in names]
    window = np.array([frame.max(axis=1) for frame in frames])
    path = experiment.run.cycle(0) / "oof.npz"
    path.parent.mkdir(parents=True)
    save_scores(path, Scores(names, labels, frames, window, 0.2, 0.0), window, True)
    return experiment, load_scores(path)[0]


def test_detections_are_made_by_the_fitted_rule(scored):
    experiment, oof = scored
    run = experiment.run
    told = {"rule": RULES, "made_from": file_digest(run.cycle(0) / "oof.npz")}
    write_json(run.exp / RULE, told)
    threshold, rules = event_rules(experiment, oof, 0)
    np.testing.assert_allclose(threshold, logit(0.6))
    assert len(threshold) == len(oof.labels)
    assert (rules.threshold, rules.low_threshold) == (0.6, 0.3)
    assert (rules.min_duration_s, rules.max_gap_s) == (0.2, 0.1)


@pytest.mark.parametrize("made_from", [None, "other scores"])
def test_without_a_rule_of_these_scores_by_thresholds_on_known_rows(scored, made_from):
    experiment, oof = scored
    if made_from is not None:
        write_json(experiment.run.exp / RULE, {"rule": RULES, "made_from": made_from})
    threshold, rules = event_rules(experiment, oof, 0)
    assert rules == experiment.run.config.relabel
    assert threshold.shape == (len(oof.labels),)
    assert not np.allclose(expit(threshold), 0.6)


def test_events_by_class_are_those_of_the_submitted_cycle(toy):
    names = ("true", "found")
    rows = {f"n_{what}_per_class": [1] for what in names} | {"labels": ["a"], "n": 2}
    figures = {"test_events": rows | {"measures": {}, "worst": None}}
    cycles = [{"cycle": cycle, "events": figures} for cycle in (0, 1)]
    for submitted in (0, 1):
        results = {"cycles": cycles, "submitted": {"cycle": submitted}}
        told = _event_scores(Experiment(toy().run), results)
        assert [one.cycle for one in told if one.classes] == [submitted]
