import numpy as np
import pytest
from scipy.special import logit as logit_of

from local.config import RelabelConfig
from local.labels.grid import FrameGrid
from local.report.clips import Part, choose, parts_of
from local.report.page_records import Item
from local.report.review_items import Row, Sources, Track, items_of

NAN = float("nan")
RULES = RelabelConfig(min_duration_s=0.0, max_gap_s=0.0)


def track(*probability):
    logit = logit_of(np.clip(np.array([probability]), 1e-6, 1 - 1e-6))
    return Track(logit, FrameGrid(len(probability), 1.0))


def row(onset, offset, polarity=1.0):
    return Row(onset, offset, NAN, NAN, polarity)


def sources(**changes):
    parts = {
        "labels": ["a"],
        "last": {"r": track(0.1, 0.9, 0.8, 0.1, 0.1, 0.2)},
        "threshold": np.zeros(1),
        "rules": RULES,
        "bands": {"a": (100.0, 200.0)},
    }
    return Sources(**{**parts, **changes})


def only(found):
    (item,) = found
    return item


def test_a_detection_with_nothing_known_of_it():
    item = only(items_of(sources(), "r", 6.0))
    assert (item.onset, item.offset, item.low_freq, item.high_freq) == (1.0, 3.0, 100.0, 200.0)
    assert item.score == pytest.approx(0.9)
    assert np.isnan([item.by_label, item.by_cycle, item.by_fold]).all()
    assert item.disagreement == 0
    assert not item.missed


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([row(2.9, 5)], 0.0),  # confirmed: any overlap agrees
        ([row(0, 3, -1)], 0.9),  # rejected, covered
        ([row(2.8, 9, -1)], NAN),  # a rejection that barely touches says nothing
        ([row(0, 3, -1), row(1, 2)], 0.0),
    ],
)
def test_labels_agree_or_contradict(known, expected):
    item = only(items_of(sources(known={("r", "a"): known}), "r", 6.0))
    assert item.by_label == pytest.approx(expected, nan_ok=True)


def test_cycles_and_folds_are_compared_inside_the_span():
    first = {"r": track(0.9, 0.3, 0.2, 0.9, 0.9, 0.9)}
    folds = [{"r": track(0, 0.5, 0.6, 1, 1, 1)}, {"r": track(1, 0.95, 0, 1, 1, 1)}, {}]
    item = only(items_of(sources(first=first, folds=folds), "r", 6.0))
    assert item.by_cycle == pytest.approx(0.6)
    assert item.by_fold == pytest.approx(0.35)
    assert item.disagreement == pytest.approx(0.6)


def test_labels_without_a_detection_are_missed():
    found = items_of(sources(known={("r", "a"): [row(5, 6), row(0, 1, -1)]}), "r", 6.0)
    assert [item.missed for item in found] == [False, True]
    assert (found[1].onset, found[1].score) == (5.0, pytest.approx(0.2))
    assert found[1].by_label == pytest.approx(0.8)


def test_complete_truth_contradicts_where_it_is_silent():
    judged = sources(judged=frozenset(["r"]), truth={("r", "a"): [row(4, 5)]})
    found = items_of(judged, "r", 6.0)
    assert [(item.missed, round(item.by_label, 3)) for item in found] == [(False, 0.9), (True, 0.9)]


def test_pseudo_labels_are_marked_and_events_end_with_the_recording():
    item = only(items_of(sources(pseudo={("r", "a"): [row(2.5, 4)]}), "r", 2.75))
    assert item.pseudo
    assert item.offset == 2.75


def test_long_recordings_are_shown_in_equal_parts():
    assert parts_of("r", 60.0) == [Part("r", 0.0, 60.0)]
    assert [part.end_s for part in parts_of("r", 150.0)] == [50.0, 100.0, 150.0]


def test_half_are_chosen_evenly_and_half_by_disagreement():
    parts = [Part(f"r{i}", 0.0, 10.0) for i in range(11)]
    items = {f"r{i}": [Item("a", 1, 2, 0.9, by_cycle=i / 20)] for i in range(11)}
    items["r4"].append(Item("a", 1, 2, 0.9, by_label=0.9))
    chosen = [part.recording_id for part in choose(parts, items, 4)]
    assert chosen == ["r0", "r4", "r9", "r10"]
