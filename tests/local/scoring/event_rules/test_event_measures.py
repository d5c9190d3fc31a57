"""Measures of events against sed_eval, scikit-learn and sums by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from sklearn.metrics import average_precision_score

from local.config import Config, DataConfig, EventsConfig
from local.inference.scores import Scores
from local.scoring.event_rules.event_measures import (
    measure_events,
    measure_title,
    validation_measures,
)

HOP = 0.01
SETTINGS = EventsConfig(tune=True, collar_s=0.02, segment_s=0.1, thresholds=(0.2, 0.5))
COLUMNS = ["recording_id", "label", "onset", "offset"]


def scores_of(**tracks) -> Scores:
    frames = [logit(np.asarray(track))[None].astype(np.float32) for track in tracks.values()]
    return Scores(list(tracks), ["call"], frames, np.zeros((len(tracks), 1)), HOP, 0.0)


def track_of(**peaks) -> np.ndarray:
    """10 s with runs of 100 ms at those seconds, as `at3=0.9`."""
    track = np.full(1000, 0.01)
    for name, level in peaks.items():
        first = int(name[2:]) * 100
        track[first : first + 10] = level
    return track


def rows_of(**onsets) -> pd.DataFrame:
    rows = [(name, "call", at, at + 0.1) for name, times in onsets.items() for at in times]
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture
def case():
    """Two of three calls are found, one of them late; an alarm beside calls, one where none is."""
    scores = scores_of(
        a=track_of(at1=0.9, at3=0.6, at5=0.8), b=track_of(at2=0.7), c=track_of(at4=0.3)
    )
    events = rows_of(a=[1.0, 3.03, 8.0])
    found = rows_of(a=[1.0, 3.0, 5.0], b=[2.0]).assign(score=[0.9, 0.6, 0.8, 0.7])
    return scores, events, found


def test_counts_by_hand(case):
    measured = {name: one["value"] for name, one in measure_events(*case, SETTINGS).items()}
    assert measured["event_f1"] == pytest.approx(2 * 2 / (3 + 4))
    # 3.0 to 3.1 against 3.03 to 3.13: 70 ms of 130.
    assert measured["iou_0.5_f1"] == pytest.approx(2 * 2 / 7)
    # 30 ms late is beyond the collar of 20.
    assert measured["collar_f1"] == pytest.approx(2 * 1 / 7)
    assert measured["false_alarms_per_hour"] == pytest.approx(2 / (30 / 3600))
    assert measured["false_alarms_per_hour_beside_calls"] == pytest.approx(1 / (9.7 / 3600))
    assert measured["false_alarms_per_hour_without_calls"] == pytest.approx(1 / (20 / 3600))
    # Candidates from 0.2 on: 0.9 and 0.6 of five are calls, the third call has none.
    expected = average_precision_score([1, 0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.3]) * 2 / 3
    assert measured["ap"] == pytest.approx(expected, rel=1e-5)


def test_sed_evals_own_figures(case):
    sed_eval = pytest.importorskip("sed_eval")
    dcase = pytest.importorskip("dcase_util")
    scores, events, found = case
    event = sed_eval.sound_event.EventBasedMetrics(
        ["call"], t_collar=0.02, percentage_of_length=0.5, event_matching_type="optimal"
    )
    segment = sed_eval.sound_event.SegmentBasedMetrics(["call"], time_resolution=0.1)
    for name in scores.recording_ids:
        lists = [
            dcase.containers.MetaDataContainer(
                [
                    {"filename": name, "event_label": "call", "onset": one.onset,
                     "offset": one.offset}
                    for one in table[table["recording_id"] == name].itertuples()
                ]
            )
            for table in (events, found)
        ]  # fmt: skip
        event.evaluate(*lists)
        segment.evaluate(*lists, evaluated_length_seconds=10.0)
    measured = measure_events(*case, SETTINGS)
    by_event = event.results_overall_metrics()["f_measure"]["f_measure"]
    by_segment = segment.results_overall_metrics()
    assert measured["collar_f1"]["value"] == pytest.approx(by_event)
    assert measured["segment_f1"]["value"] == pytest.approx(by_segment["f_measure"]["f_measure"])
    rate = by_segment["error_rate"]["error_rate"]
    assert measured["segment_error_rate"]["value"] == pytest.approx(rate)


def test_intervals_hold_the_value_and_nothing_found_has_no_interval_of_alarms(case):
    measured = measure_events(*case, SETTINGS, n_resamples=200)
    for one in measured.values():
        assert one["low"] <= one["value"] <= one["high"]
    scores, events, found = case
    nothing = measure_events(scores, events, found[:0], SETTINGS)
    assert nothing["event_f1"]["value"] == 0.0
    assert nothing["false_alarms_per_hour"]["value"] == 0.0
    silent = measure_events(scores, events[:0], found[:0], SETTINGS)
    assert math.isnan(silent["event_f1"]["value"])
    assert all(measure_title(name)[0] != "_" for name in measured)
    assert measure_title("iou_0.5_ap") == "average precision, IoU > 0.5"


def test_validation_goes_by_the_rule_of_relabelling_and_only_on_request(case):
    scores, events, _ = case
    config = Config(
        data=DataConfig(annotation="complete"),
        events=SETTINGS,
        relabel={"threshold": 0.65, "min_duration_s": 0.0, "max_gap_s": 0.0},
    )
    told = validation_measures(scores, events, config)
    # 0.9, 0.8 and 0.7 are events, the late call is not.
    assert told["valid_event_f1"] == pytest.approx(2 * 1 / (3 + 3))
    missing = validation_measures(None, events, config)
    assert list(missing) == list(told)
    assert all(math.isnan(value) for value in missing.values())
    assert validation_measures(scores, events, Config()) == {}
