"""Thresholds by the recordings at hand, and how far below them events go on."""

import numpy as np
import pandas as pd
import pytest

from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.labels.spans import frames_to_events
from local.scoring.event_rules import extents
from local.scoring.event_rules.at_hand import AtHand
from local.scoring.event_rules.evidence import ClassEvidence, Evidence
from local.scoring.event_rules.extents import DEFAULT_DROP, DROPS, fit_drop
from local.scoring.event_rules.thresholds import fit_thresholds, parse_choice

RNG = np.random.default_rng(0)
# Of two classes: seconds of the least event and of gaps to close.
LENGTHS = [(0.2, 0.3), (0.5, 0.1)]


def field_of(prevalence=0.2, n=2000, gap=4.0):
    """Truth (n,) and highest scores (n,) of recordings, with the scores of calls that have it."""
    truth = RNG.random(n) < prevalence
    return truth, RNG.normal(size=n) + gap * truth, gap + RNG.normal(size=500)


def evidence(positive, negative, at_hand=None):
    one = ClassEvidence(
        np.sort(np.asarray(positive, dtype=float)),
        np.sort(np.asarray(negative, dtype=float)),
        np.zeros(0),
        np.zeros(0),
        at_hand or AtHand(),
    )
    return one


def fit(rule, **classes):
    return fit_thresholds(list(classes), parse_choice(rule), Evidence(classes, 1.0)).set_index(
        "label"
    )


def test_as_many_recordings_pass_as_hold_the_class():
    truth, peaks, calls = field_of()
    at_hand = AtHand.of(truth.mean(), peaks, calls)
    passing = peaks >= at_hand.balance()
    assert passing.mean() == pytest.approx(truth.mean(), abs=0.01)
    # False alarms and misses are as many.
    assert (passing & ~truth).sum() == pytest.approx((truth & ~passing).sum(), abs=6)


def test_expected_precision_is_that_of_the_field():
    truth, peaks, calls = field_of()
    at_hand = AtHand.of(truth.mean(), peaks, calls)
    for threshold in (1.0, 2.0, 3.0):
        found = at_hand.expected_precision(np.array([threshold]), calls)[0]
        assert found == pytest.approx(truth[peaks >= threshold].mean(), abs=0.05)
    assert np.isnan(at_hand.expected_precision(np.array([99.0]), calls)[0])
    least, highest = at_hand.reaching(0.95, calls)
    assert truth[peaks >= least].mean() > 0.9
    assert 0.95 <= highest <= 1
    # Were it much rarer, most of what is found would be something else.
    least, highest = AtHand.of(0.001, peaks, calls).reaching(0.99, calls)
    assert np.isnan(least)
    assert highest < 0.2
    assert AtHand.of(0.2, peaks, calls[:0]).reaching(0.9, calls[:0]) is None


def test_a_shift_of_all_scores_moves_thresholds_alone():
    truth, peaks, calls = field_of()
    one, other = (AtHand.of(truth.mean(), peaks + d, calls + d) for d in (0.0, -3.0))
    assert other.balance() == pytest.approx(one.balance() - 3.0)
    moved, plain = other.reaching(0.9, calls - 3.0), one.reaching(0.9, calls)
    assert moved[0] == pytest.approx(plain[0] - 3.0)
    assert moved[1] == pytest.approx(plain[1])


def test_it_survives_a_file():
    truth, peaks, calls = field_of()
    at_hand = AtHand.of(truth.mean(), peaks, np.append(calls, np.nan))
    assert len(at_hand.peaks) <= 400
    back = AtHand.from_dict(at_hand.to_dict())
    assert back.share == at_hand.share
    np.testing.assert_array_equal(back.peaks, at_hand.peaks)
    assert not AtHand.from_dict(None)
    assert not AtHand.from_dict(AtHand().to_dict())


def test_look_alikes_among_known_spans_do_not_decide_where_the_field_is_known():
    truth, peaks, calls = field_of()
    # People confirm what is plain, and look-alikes were picked for being like it.
    confirmed, look_alikes = calls[:30] + 3, 5.0 + RNG.normal(size=30)
    plain = fit("best-f1", a=evidence(confirmed, look_alikes))
    known = fit("best-f1", a=evidence(confirmed, look_alikes, AtHand.of(0.2, peaks, calls)))
    f1 = [
        2 * (truth & (peaks >= t)).sum() / (truth.sum() + (peaks >= t).sum())
        for t in (plain["logit"]["a"], known["logit"]["a"])
    ]
    assert f1[1] > f1[0] + 0.1
    assert known["expected_precision"]["a"] == pytest.approx(f1[1], abs=0.1)
    assert np.isnan(plain["expected_precision"]["a"])


def test_a_class_of_few_spans_is_drawn_to_all():
    many = evidence(RNG.normal(2, 0.1, 200), RNG.normal(-2, 0.1, 200))
    few = evidence([-4.0], [-5.0])
    found = fit("best-f1", many=many, few=few)
    alone = fit("best-f1", few=few)["logit"]["few"]
    assert alone == pytest.approx(-4.5)
    common = found["logit"]["few"] + (found["logit"]["few"] - alone) / 10
    assert abs(common - found["logit"]["many"]) < 1.0
    assert found["note"]["few"] == "only 2 known spans: too few to tell"
    assert found["note"]["many"] == ""


def test_precision_by_counting():
    positive, negative = np.arange(1.0, 101.0) / 10, np.arange(-100.0, 60.0) / 10
    found = fit("precision=0.8", a=evidence(positive, negative))
    threshold = found["logit"]["a"]
    right, wrong = (positive >= threshold).sum(), (negative >= threshold).sum()
    assert right / (right + wrong) >= 0.79
    assert found["precision_low"]["a"] < found["precision"]["a"] < found["precision_high"]["a"]
    # A little lower it is less.
    right, wrong = (positive >= threshold - 0.6).sum(), (negative >= threshold - 0.6).sum()
    assert right / (right + wrong) < 0.8


def test_a_promise_that_no_class_keeps_is_refused_and_says_the_highest():
    hard = evidence([0.0] * 20, [1.0] * 20)
    with pytest.raises(CanopyError, match=r"reached for no class, the highest is 0\.\d+; promise"):
        fit("precision=0.9", a=hard)
    easy = evidence(RNG.normal(9, 1, 200), RNG.normal(-9, 1, 200))
    found = fit("precision=0.9", a=hard, b=easy)
    assert "is not reached, 0." in found["note"]["a"]
    assert found["logit"]["a"] > 1.0  # above all that was rejected
    assert found["note"]["b"] == ""


def test_a_promise_is_kept_by_all_that_is_known():
    spans = RNG.normal(5, 1, 50), RNG.normal(-5, 1, 50)
    other = evidence(RNG.normal(5, 1, 50), RNG.normal(-5, 1, 50))
    # The recordings at hand hold hardly any: what is found there is something else.
    rare = AtHand.of(0.02, RNG.normal(5, 1, 200), spans[0])
    easy = dict.fromkeys("bcdefgh", other)
    found = fit("precision=0.9", a=evidence(*spans, rare), **easy)
    assert found["note"]["a"].startswith("precision 0.9 is not reached, 0.0")
    assert found["recall"]["a"] == 0
    assert found["recall"]["b"] > 0.9
    # Known spans say that look-alikes score higher, whatever is expected at hand.
    common = AtHand.of(0.3, np.append(RNG.normal(8, 1, 60), RNG.normal(-5, 1, 140)), spans[0])
    hard = evidence(RNG.normal(8, 1, 40), RNG.normal(9.5, 1, 40), common)
    with pytest.raises(CanopyError, match="reached for no class"):
        fit("precision=0.9", a=hard)


def test_one_rejected_span_above_all_switches_no_class_off():
    positive, negative = np.linspace(1, 10, 100), np.append(np.full(20, -5.0), 11.0)
    # Of all classes it is one of many.
    other = evidence(RNG.normal(20, 1, 50), RNG.normal(-5, 1, 50))
    found = fit("precision=0.9", a=evidence(positive, negative), b=other)
    assert found["recall"]["a"] == 1
    assert found["precision"]["a"] > 0.9
    assert found["note"]["a"] == ""


def test_recordings_at_hand_tell_where_nothing_was_rejected():
    truth, peaks, calls = field_of()
    known = AtHand.of(truth.mean(), peaks, calls)
    for rule in ("best-f1", "precision=0.9"):
        found = fit(rule, a=evidence(calls[:50], [], known))
        passing = peaks >= found["logit"]["a"]
        assert truth[passing].mean() > 0.85
        assert passing[truth].mean() > 0.8
        assert found["note"]["a"] == "50 confirmed and 0 rejected spans: too few to tell"


def test_what_is_too_little_is_said():
    few_recordings = AtHand.of(0.5, np.array([1.0, -1.0]), np.zeros(0))
    rows = RNG.normal(5, 1, 20), RNG.normal(-5, 1, 20)
    found = fit("best-f1", a=evidence(*rows, few_recordings), b=evidence(rows[0][:1], rows[1]))
    assert found["note"]["a"] == "only 2 recordings at hand: too few to tell"
    assert found["note"]["b"] == "1 confirmed and 20 rejected spans: too few to tell"


def test_events_go_on_below_by_the_fitted_drop():
    one, two = evidence([1.0] * 20, [-1.0] * 20), Evidence({}, 1.0, drop=1.5)
    table = fit_thresholds(["a"], parse_choice("best-f1"), Evidence({"a": one}, 1.0, drop=1.5))
    assert (table["logit"] - table["low_logit"]).tolist() == [1.5]
    assert Evidence.from_dict(two.to_dict()).drop == 1.5
    # A model that was published before there were drops has none.
    assert Evidence.from_dict({"hours": 1.0, "classes": {}}).drop == 0.0
    fixed = fit_thresholds(["a"], parse_choice("0.5"), None)
    assert fixed["low_logit"].tolist() == fixed["logit"].tolist()


# ----------------------------------------------------------------------------------------- extents


def tracks(depth):
    """Ten recordings of 10 s with one call of 3 s whose flanks lie `depth` below its middle."""
    frames = np.full((1, 100), -6.0, dtype=np.float32)
    frames[0, 30:60] = 2.0 - depth
    frames[0, 40:50] = 2.0
    names = [f"r{i}" for i in range(10)]
    scores = Scores(names, ["a"], [frames] * 10, np.zeros((10, 1)), 0.1, 0.0)
    confirmed = pd.DataFrame(
        {"recording_id": names, "class": 0, "onset": 3.0, "offset": 6.0, "score": 2.0}
    )
    return scores, confirmed


@pytest.mark.parametrize("depth", [1.0, 1.75, 2.5])
def test_the_drop_covers_the_flanks_of_calls(depth):
    scores, confirmed = tracks(depth)
    threshold = np.array([1.5])
    drop = fit_drop(scores, confirmed, threshold, [(0.0, 0.0)])
    assert 1.5 - drop <= 2.0 - depth < 1.5 - drop + 0.26


def test_few_spans_give_the_default_drop():
    scores, confirmed = tracks(2.5)
    assert fit_drop(scores, confirmed[:4], np.array([1.5]), [(0.0, 0.0)]) == DEFAULT_DROP
    # Those that reach no threshold say nothing.
    assert fit_drop(scores, confirmed, np.array([3.0]), [(0.0, 0.0)]) == DEFAULT_DROP


def many_spans(rng):
    """Three recordings of two classes with several confirmed spans each."""
    frames = [np.cumsum(rng.normal(size=(2, 300)), axis=1).astype(np.float32) for _ in range(3)]
    frames = [part - part.mean() for part in frames]
    scores = Scores(["x", "y", "z"], ["a", "b"], frames, np.zeros((3, 2)), 0.1, -0.05)
    onset = rng.uniform(0, 28, 40)
    spans = pd.DataFrame({"recording_id": rng.choice(["x", "y", "z"], 40), "onset": onset})
    spans["class"] = rng.integers(0, 2, 40)
    spans["offset"] = onset + rng.uniform(0.2, 3, 40)
    return scores, spans.assign(score=rng.normal(3, 2, 40))


@pytest.mark.parametrize("seed", range(8))
def test_the_drop_is_that_of_one_span_after_the_other(seed):
    scores, spans = many_spans(np.random.default_rng(seed))
    threshold = np.array([0.5, 1.0])
    reached = spans[spans["score"] >= threshold[spans["class"]]]
    ious = np.zeros((len(reached), len(DROPS)))
    for place, one in enumerate(reached.itertuples()):
        row, column = scores.recording_ids.index(one.recording_id), spans["class"][one.Index]
        for number, drop in enumerate(DROPS):
            top = threshold[column]
            track, grid = scores.frames[row][column].astype(float), scores.grid(row)
            for event in frames_to_events(track, grid, top, top - drop, *LENGTHS[column]):
                shared = min(event.offset, one.offset) - max(event.onset, one.onset)
                both = max(event.offset, one.offset) - min(event.onset, one.onset)
                ious[place, number] = max(ious[place, number], shared / both)
    expected = DROPS[ious.mean(axis=0).argmax()]
    assert fit_drop(scores, spans, threshold, LENGTHS) == expected


def test_events_of_a_track_are_found_once_a_drop(monkeypatch):
    scores, spans = many_spans(np.random.default_rng(0))
    calls = []
    found = extents.frames_to_events
    monkeypatch.setattr(extents, "frames_to_events", lambda *a: calls.append(1) or found(*a))
    fit_drop(scores, spans, np.array([0.5, 1.0]), LENGTHS)
    assert len(calls) <= 3 * 2 * len(DROPS)
