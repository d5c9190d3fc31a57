"""Figures of events against plain loops, at their ends, and what they hold still under."""

import itertools

import numpy as np
import pandas as pd
import pytest

from local.config import ScoreConfig
from local.inference.scores import Scores
from local.io.files import write_json
from local.scoring.event_rules import event_figures as module
from local.scoring.event_rules.event_figures import TITLES, event_figures

NAMES, LABELS = [f"r{row}" for row in range(8)], ["a", "b", "c"]
HOP, N_CELLS = 0.1, 100
DURATIONS = np.full(len(NAMES), HOP * N_CELLS)
COLUMNS = ["recording_id", "label", "onset", "offset"]
CONFIG = ScoreConfig(n_bootstrap=60)


def scores_of(frames):
    window = np.array([frame.max(axis=1) for frame in frames])
    return Scores(NAMES, LABELS, frames, window, HOP, 0.0)


@pytest.fixture
def noise():
    rng = np.random.default_rng(0)
    return scores_of([rng.normal(size=(3, N_CELLS)).astype("f4") for _ in NAMES])


def some(seed, n, labels="ab", names=NAMES[:6]):
    """Events of whole cells, apart from each other in a recording and class or not."""
    rng = np.random.default_rng(seed)
    onset = rng.integers(0, 80, n) * HOP
    rows = pd.DataFrame(
        {"recording_id": rng.choice(names, n), "label": rng.choice(list(labels), n)}
    ).assign(onset=onset, offset=onset + rng.integers(1, 20, n) * HOP)
    return rows


def figures(true, found, scores, **changes):
    settings = CONFIG.model_copy(update=changes)
    return event_figures(true, found, scores, DURATIONS, settings, seed=0)


def by_loops(true, found):
    """Label -> hits at any overlap, hits beyond an IoU of a half, IoUs, false alarms."""
    result = {}
    for label in LABELS:
        hits, close, ious, alarms = 0, 0, [], 0
        for name in NAMES:
            own, made = (
                part[(part["recording_id"] == name) & (part["label"] == label)]
                .sort_values(["onset", "offset"])[["onset", "offset"]]
                .to_numpy()
                for part in (true, found)
            )
            table = np.zeros((len(own), len(made)))
            for i, one in enumerate(own):
                for j, two in enumerate(made):
                    shared = min(one[1], two[1]) - max(one[0], two[0])
                    if shared > 1e-9:
                        table[i, j] = shared / (max(one[1], two[1]) - min(one[0], two[0]))
            alarms += sum(not table[:, j].any() for j in range(len(made)))
            best, best_close = [], 0
            for order in itertools.permutations([*range(len(made)), *[-1] * len(own)], len(own)):
                values = [table[i, j] for i, j in enumerate(order) if j >= 0 and table[i, j] > 0]
                if (len(values), sum(values)) > (len(best), sum(best) + 1e-9):
                    best = values
                best_close = max(best_close, sum(value > 0.5 + 1e-6 for value in values))
            hits, close, ious = hits + len(best), close + best_close, ious + best
        result[label] = (hits, close, ious, alarms)
    return result


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_plain_loops(noise, seed):
    true, found = some(seed, 20), some(seed + 10, 24, "abc")
    told = figures(true, found, noise)
    loops, hours = by_loops(true, found), 80 / 3600
    n_true, n_found = (
        [int((part["label"] == label).sum()) for label in LABELS] for part in (true, found)
    )
    assert told["n_true_per_class"].tolist() == n_true
    assert told["n_found_per_class"].tolist() == n_found
    assert (told["n"], told["n_true"], told["n_found"]) == (8, 20, 24)
    assert told["hours"] == pytest.approx(hours)
    each = {name: [] for name in TITLES}
    for place, label in enumerate(LABELS):
        hits, close, ious, alarms = loops[label]
        for prefix, right in (("event", hits), ("iou_0.5", close)):
            each[f"{prefix}_f1"].append(2 * right / (n_true[place] + n_found[place]))
            each[f"{prefix}_precision"].append(right / n_found[place])
            each[f"{prefix}_recall"].append(
                right / n_true[place] if n_true[place] else float("nan")
            )
        each["median_iou"].append(np.median(ious) if ious else float("nan"))
        each["false_alarms_per_hour"].append(alarms / hours)
    for name, one in told["measures"].items():
        if name == "psds1":
            continue
        np.testing.assert_allclose(one["per_class"], each[name], err_msg=name)
        assert one["macro"]["value"] == pytest.approx(np.nanmean(each[name])), name
    micro = {name: one["micro"]["value"] for name, one in told["measures"].items()}
    hits, close, alarms = (sum(one[at] for one in loops.values()) for at in (0, 1, 3))
    assert micro["event_f1"] == pytest.approx(2 * hits / 44)
    assert micro["iou_0.5_precision"] == pytest.approx(close / 24)
    assert micro["event_recall"] == pytest.approx(hits / 20)
    together = np.concatenate([one[2] for one in loops.values()])
    assert micro["median_iou"] == pytest.approx(np.median(together))
    assert micro["false_alarms_per_hour"] == pytest.approx(alarms / hours)
    # c is found and never there: nothing is worse, but of equals the one with most events is told.
    place = min(range(3), key=lambda row: (each["event_f1"][row], -(n_true[row] + n_found[row])))
    assert told["worst"] == {
        "label": LABELS[place],
        "event_f1": 0.0,
        "n_true": n_true[place],
        "n_found": n_found[place],
        "n_hit": 0,
    }


def test_intervals_hold_their_values_and_come_from_the_seed(noise):
    true, found = some(0, 40, "abc"), some(1, 40, "abc")
    told = figures(true, found, noise)
    for name, one in told["measures"].items():
        for average in ("micro", "macro"):
            low, value, high = (one[average][key] for key in ("low", "value", "high"))
            if name != "psds1":
                assert low < high, name
                assert low - 0.1 * abs(value) <= value <= high + 0.1 * abs(value), name
        assert len(one["per_class_low"]) == 3
    again = figures(true, found, noise)
    assert again["measures"]["event_f1"]["macro"] == told["measures"]["event_f1"]["macro"]
    none = figures(true, found, noise, n_bootstrap=0)["measures"]["event_f1"]["micro"]
    assert none["value"] == told["measures"]["event_f1"]["micro"]["value"]
    assert np.isnan([none["low"], none["high"]]).all()


def test_the_order_of_rows_recordings_and_classes_plays_no_part(noise):
    true, found = some(2, 30, "abc"), some(3, 30, "abc")
    told = figures(true, found, noise)["measures"]
    mixed = figures(true.sample(frac=1, random_state=0), found.iloc[::-1], noise)["measures"]
    turned = Scores(
        NAMES[::-1], LABELS[::-1], [one[::-1] for one in noise.frames[::-1]], noise.window, HOP, 0.0
    )
    other = event_figures(true, found, turned, DURATIONS, CONFIG, 0)["measures"]
    for name, one in told.items():
        np.testing.assert_allclose(mixed[name]["per_class"], one["per_class"])
        np.testing.assert_allclose(other[name]["per_class"][::-1], one["per_class"])
        assert other[name]["macro"]["value"] == pytest.approx(one["macro"]["value"])


def test_other_recordings_and_rejected_rows_are_left_out(noise):
    true, found = some(4, 20), some(5, 20)
    more = pd.concat([true.assign(polarity=1), some(6, 9).assign(polarity=-1)])
    strange = pd.concat([found, found.assign(recording_id="elsewhere")])
    one, two = figures(true, found, noise), figures(more, strange, noise)
    assert one["measures"]["event_f1"]["micro"] == two["measures"]["event_f1"]["micro"]
    assert (two["n_true"], two["n_found"]) == (20, 20)


@pytest.mark.parametrize(
    ("n_true", "n_found", "expected"),
    [
        (0, 0, {"event_f1": np.nan, "median_iou": np.nan, "false_alarms_per_hour": 0}),
        (5, 0, {"event_f1": 0, "event_precision": np.nan, "event_recall": 0}),
        (0, 5, {"event_f1": 0, "event_precision": 0, "event_recall": np.nan}),
    ],
)
def test_without_events_on_a_side(noise, tmp_path, n_true, n_found, expected):
    told = figures(some(0, n_true), some(1, n_found), noise)
    for name, value in expected.items():
        np.testing.assert_equal(told["measures"][name]["micro"]["value"], value)
    assert (told["worst"] is None) == (n_true + n_found == 0)
    write_json(tmp_path / "told.json", told)


def perfect():
    """True events, and scores that say nothing else."""
    true = pd.DataFrame(
        [(name, label, at, at + 1.0) for name in NAMES for at, label in enumerate("abc", 2)],
        columns=COLUMNS,
    )
    frames = [np.full((3, N_CELLS), -5, dtype="f4") for _ in NAMES]
    for row in true.itertuples():
        column = LABELS.index(row.label)
        first = round(row.onset / HOP)
        frames[NAMES.index(row.recording_id)][column, first : first + 10] = 5
    return true, scores_of(frames)


def test_perfect_events_have_perfect_figures():
    true, scores = perfect()
    told = figures(true, true, scores)["measures"]
    for name, one in told.items():
        wanted = 0.0 if name == "false_alarms_per_hour" else 1.0
        for average in ("micro", "macro"):
            if not (name == "psds1" and average == "micro"):
                assert set(one[average].values()) == {wanted}, name
        assert (one["per_class"] == wanted).all()


def test_psds_is_the_librarys(noise):
    library = pytest.importorskip("sed_scores_eval", reason="needs `make setup-eval`")
    true = some(0, 30).drop_duplicates(["recording_id", "label"])
    frames = [frame.copy() for frame in noise.frames]
    for place, row in enumerate(true.itertuples()):
        cells = slice(round(row.onset / HOP), round(row.offset / HOP))
        frames[NAMES.index(row.recording_id)][LABELS.index(row.label), cells] += place % 8
    told = figures(true, true, scores_of(frames))["measures"]["psds1"]
    edges = np.arange(N_CELLS + 1) * HOP
    tables = {
        name: pd.DataFrame({"onset": edges[:-1], "offset": edges[1:], "a": one[0], "b": one[1]})
        for name, one in zip(NAMES, frames, strict=True)
    }
    by_name = true[["onset", "offset", "label"]].groupby(true["recording_id"])
    truth = {name: [] for name in NAMES} | {
        name: list(rows.itertuples(index=False, name=None)) for name, rows in by_name
    }
    value, each, *_ = library.intersection_based.psds(
        tables,
        truth,
        dict(zip(NAMES, DURATIONS, strict=True)),
        dtc_threshold=0.7,
        gtc_threshold=0.7,
        alpha_ct=0.0,
        alpha_st=1.0,
    )
    assert 0 < value < 1
    assert told["macro"]["low"] <= value <= told["macro"]["high"]
    assert told["macro"]["value"] == pytest.approx(value)
    assert told["per_class"][:2] == pytest.approx([each["a"], each["b"]])
    assert np.isnan(told["per_class"][2])
    assert np.isnan(told["micro"]["value"])


@pytest.mark.parametrize("why", ["library", "size"])
def test_psds_is_left_out_where_it_cannot_be_and_it_is_said(noise, monkeypatch, caplog, why):
    caplog.set_level("INFO", "canopy")
    if why == "library":
        monkeypatch.setitem(__import__("sys").modules, "sed_scores_eval", None)
    else:
        monkeypatch.setattr(module, "MAX_UNASKED_CELLS", 5)
    told = figures(some(0, 9), some(1, 9), noise)
    assert "psds1" not in told["measures"]
    assert "PSDS is left out" in caplog.text
