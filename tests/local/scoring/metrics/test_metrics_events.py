"""Event measures against sed_eval, scikit-learn and sed_scores_eval on random events."""

import itertools

import numpy as np
import pandas as pd
import pytest
import sed_eval
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from local.io.errors import CanopyError
from local.scoring.evaluation.clip_level import clip_statistics
from local.scoring.metrics import matching, psds
from local.scoring.metrics.bootstrap import percentiles, resample_counts
from local.scoring.metrics.event_statistics import FALSE_ALARMS, EventOptions, event_statistics
from local.scoring.metrics.lwlrap import lwlrap
from local.scoring.metrics.matching import (
    EventList,
    closest_matching,
    collar_pairs,
    count_matched,
    largest_matching,
    matching_by_score,
    overlapping_pairs,
)
from local.scoring.metrics.measured import measure, resample_table
from local.scoring.metrics.recording_sums import (
    CountStatistic,
    MedianStatistic,
    RateStatistic,
    plain_values,
)
from local.scoring.metrics.segments import segment_counts

LABELS = ["a", "b", "c"]
N = 12
DURATION = 10.0
DURATIONS = np.full(N, DURATION)
OPTIONS = EventOptions()
RECORDINGS = [f"r{row}" for row in range(N)]


def events(rows):
    """(recording, label, onset, offset, score) rows as arrays."""
    table = np.array(rows, dtype=float).reshape(-1, 5)
    ids = table[:, :2].astype(np.int64)
    return EventList(ids[:, 0], ids[:, 1], table[:, 2], table[:, 3], table[:, 4])


def measured(true, cut, ranked, options=OPTIONS):
    """Measure -> (2 + C,) of the events as they are."""
    return plain_values(event_statistics(true, cut, ranked, DURATIONS, 3, options), N)


def drawn(n_resamples, rng, n=60, **how):
    return resample_table(resample_counts(n, rng, n_resamples, **how), n)


def random_pair(seed):
    """True and found events: some recordings empty, duplicates, touching events, equal scores."""
    rng = np.random.default_rng(seed)

    def some(n, recordings):
        onset = rng.uniform(0, 8.5, n).round(2)
        length = rng.uniform(0.1, 1.5, n).round(2)
        score = rng.integers(1, 8, n) / 8
        return np.column_stack(
            [rng.choice(recordings, n), rng.integers(0, 3, n), onset, onset + length, score]
        )

    true = some(30, np.arange(0, 9))
    near = true.copy()
    near[:, 2:4] += rng.normal(0, 0.15, (len(near), 1))
    near[:, 2] = np.maximum(near[:, 2], 0)
    near[:, 4] = rng.integers(1, 8, len(near)) / 8
    found = np.concatenate([near[:22], near[:4], some(20, np.arange(3, 12))])
    touching = true[:3].copy()
    touching[:, 3], touching[:, 2] = touching[:, 2], np.maximum(touching[:, 2] - 0.5, 0)
    touching = touching[touching[:, 2] < touching[:, 3]]
    found = np.concatenate([found, touching])
    return events(true), events(found[rng.permutation(len(found))])


def as_dicts(some, recording):
    mine = np.flatnonzero(some.recording == recording)
    return [
        {
            "event_label": LABELS[some.label[row]],
            "event_onset": float(some.onset[row]),
            "event_offset": float(some.offset[row]),
            "file": f"r{recording}",
        }
        for row in mine
    ]


SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("use_offset", [True, False])
def test_collar_counts_equal_sed_eval(seed, use_offset):
    true, found = random_pair(seed)
    reference = sed_eval.sound_event.EventBasedMetrics(
        LABELS,
        evaluate_offset=use_offset,
        t_collar=0.2,
        percentage_of_length=0.5,
        event_matching_type="optimal",
    )
    for row in range(N):
        reference.evaluate(as_dicts(true, row), as_dicts(found, row))
    pairs = collar_pairs(true, found, 0.2, 0.5, use_offset)
    counted = [one.sum(axis=0) for one in count_matched(true, found, pairs, N, 3)]
    assert counted[0].sum() > 0
    for index, label in enumerate(LABELS):
        counts = reference.class_wise[label]
        assert [counts[key] for key in ("Ntp", "Nref", "Nsys")] == [one[index] for one in counted]
    values = measured(true, found, None, EventOptions(use_offset=use_offset))
    overall = reference.results_overall_metrics()["f_measure"]
    assert values["collar F1"][0] == pytest.approx(overall["f_measure"])
    assert values["collar precision"][0] == pytest.approx(overall["precision"])
    macro = reference.results_class_wise_average_metrics()["f_measure"]
    assert values["collar F1"][1] == pytest.approx(macro["f_measure"])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("length_s", [1.0, 0.7])
def test_segments_equal_sed_eval(seed, length_s):
    true, found = random_pair(seed)
    reference = sed_eval.sound_event.SegmentBasedMetrics(LABELS, time_resolution=length_s)
    for row in range(N):
        reference.evaluate(as_dicts(true, row), as_dicts(found, row), DURATION)
    counts = segment_counts(true, found, DURATIONS, 3, length_s)
    for index, label in enumerate(LABELS):
        assert reference.class_wise[label]["Ntp"] == counts.hit[:, index].sum()
        assert reference.class_wise[label]["Nref"] == counts.n_true[:, index].sum()
        assert reference.class_wise[label]["Nsys"] == counts.n_found[:, index].sum()
    whole = reference.overall
    assert whole["S"] + whole["D"] + whole["I"] == counts.errors.sum()
    options = EventOptions(segment_s=length_s)
    values = measured(true, found, None, options)
    results = reference.results_overall_metrics()
    assert values["segment F1"][0] == pytest.approx(results["f_measure"]["f_measure"])
    assert values["segment error rate"][0] == pytest.approx(results["error_rate"]["error_rate"])
    macro = reference.results_class_wise_average_metrics()
    assert values["segment error rate"][1] == pytest.approx(macro["error_rate"]["error_rate"])


def slow_pairs(true, found):
    """Every pair of one recording and class that overlaps, one after another."""
    result = {}
    for i in range(len(true)):
        for j in range(len(found)):
            if (true.recording[i], true.label[i]) == (found.recording[j], found.label[j]):
                shared = min(true.offset[i], found.offset[j]) - max(true.onset[i], found.onset[j])
                if shared > 1e-9:
                    union = max(true.offset[i], found.offset[j]) - min(
                        true.onset[i], found.onset[j]
                    )
                    result[i, j] = shared / union
    return result


@pytest.mark.parametrize("seed", SEEDS)
def test_overlaps_and_choice_by_score_equal_plain_loops(seed):
    true, found = random_pair(seed)
    pairs = overlapping_pairs(true, found)
    expected = slow_pairs(true, found)
    got = dict(
        zip(zip(pairs.true.tolist(), pairs.found.tolist(), strict=True), pairs.iou, strict=True)
    )
    assert got.keys() == expected.keys()
    assert got == pytest.approx(expected)
    for iou in (0.0, 0.3, 0.5):
        reaching = {pair: value for pair, value in expected.items() if value >= iou - 1e-9}
        order = sorted(
            reaching,
            key=lambda pair: (
                -found.score[pair[1]],
                -reaching[pair],
                found.onset[pair[1]],
                found.offset[pair[1]],
            ),
        )
        used, taken = set(), set()
        for i, j in order:
            if i not in used and j not in taken:
                used.add(i)
                taken.add(j)
        right = matching_by_score(pairs.reaching(iou), true, found)
        assert right.sum() == len(taken)
        # Duplicates of a detection may stand for one another.
        assert sorted(found.onset[right]) == pytest.approx(sorted(found.onset[list(taken)]))


@pytest.mark.parametrize("seed", SEEDS)
def test_event_average_precision_equals_scikit_learn(seed):
    true, found = random_pair(seed)
    values = measured(true, found, found)
    right = matching_by_score(overlapping_pairs(true, found).reaching(0.3), true, found)
    per_class = []
    for index in range(3):
        mine = found.label == index
        share = right[mine].sum() / (true.label == index).sum()
        per_class.append(average_precision_score(right[mine], found.score[mine]) * share)
    assert values["iou 0.3 AP"][2:] == pytest.approx(per_class)
    assert values["iou 0.3 AP"][1] == pytest.approx(np.mean(per_class))
    pooled = average_precision_score(right, found.score) * right.sum() / len(true)
    assert values["iou 0.3 AP"][0] == pytest.approx(pooled)


@pytest.mark.parametrize("rate", [20.0, 100.0, 400.0])
def test_recall_at_false_alarms_equals_trying_every_threshold(rate):
    true, found = random_pair(1)
    options = EventOptions(ious=(0.3,), alarms_per_hour=(rate,))
    values = measured(true, found, found, options)
    right = matching_by_score(overlapping_pairs(true, found).reaching(0.3), true, found)
    hours = DURATIONS.sum() / 3600
    for index in range(3):
        best = 0
        for threshold in np.unique(found.score):
            passed = (found.label == index) & (found.score >= threshold)
            if (passed & ~right).sum() <= rate * hours:
                best = max(best, (passed & right).sum())
        expected = best / (true.label == index).sum()
        assert values[f"iou 0.3 recall at {rate:g}/h"][2 + index] == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_order_of_rows_plays_no_part(seed):
    true, found = random_pair(seed)
    rng = np.random.default_rng(9)
    mixed = (true.take(rng.permutation(len(true))), found.take(rng.permutation(len(found))))
    one = measured(true, found, found)
    two = measured(*mixed, mixed[1])
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name])


def test_touching_does_not_overlap_and_duplicates_count_once():
    true = events([(0, 0, 1.0, 2.0, 0)])
    touching = events([(0, 0, 0.1 + 0.2, 1.0, 0.9), (0, 0, 2.0, 3.0, 0.9)])
    assert len(overlapping_pairs(true, touching).true) == 0
    twice = events([(0, 0, 1.0, 2.0, 0.9), (0, 0, 1.0, 2.0, 0.9)])
    values = measured(true, twice, twice)
    assert values["iou 0.5 precision"][2] == 0.5
    assert values["iou 0.5 recall"][2] == 1.0
    assert values["iou 0.5 AP"][2] == 0.5


def test_largest_matching_finds_more_than_the_first_fit():
    true = events([(0, 0, 0, 2, 0), (0, 0, 2, 4, 0)])
    # The first detection touches both, the second only the first event.
    found = events([(0, 0, 1, 3, 1), (0, 0, 0, 1, 1)])
    rows, partners = largest_matching(overlapping_pairs(true, found), 2, 2)
    assert (rows.tolist(), partners.tolist()) == ([0, 1], [1, 0])


def rows_of_one(part, row, label):
    mine = (part.recording == row) & (part.label == label)
    return np.flatnonzero(mine)


def best_by_hand(true, found, row, label):
    """IoUs of the best of all matchings of one recording and class: most pairs, then most IoU."""
    i, j = rows_of_one(true, row, label), rows_of_one(found, row, label)

    def iou(a, b):
        shared = min(true.offset[a], found.offset[b]) - max(true.onset[a], found.onset[b])
        whole = max(true.offset[a], found.offset[b]) - min(true.onset[a], found.onset[b])
        return shared / whole if shared > 1e-9 else 0.0

    best = []
    padded = [*j, *[None] * len(i)]
    for order in itertools.permutations(padded, len(i)):
        values = [iou(a, b) for a, b in zip(i, order, strict=True) if b is not None]
        values = [value for value in values if value > 0]
        if (len(values), round(sum(values), 9)) > (len(best), round(sum(best), 9)):
            best = values
    return best


@pytest.mark.parametrize("seed", range(4))
def test_the_closest_matching_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)

    def some(n):
        onset = rng.uniform(0, 4, n)
        rows = [rng.integers(0, 4, n), rng.integers(0, 2, n), onset, onset + rng.uniform(0.2, 3, n)]
        return events(np.column_stack([*rows, np.zeros(n)]))

    true, found = some(12), some(14)
    pairs = overlapping_pairs(true, found)
    chosen = closest_matching(pairs, len(true), len(found))
    assert len(set(pairs.true[chosen])) == len(set(pairs.found[chosen])) == len(chosen)
    assert len(chosen) == len(largest_matching(pairs, len(true), len(found))[0])
    for row in range(4):
        for label in range(2):
            own = chosen[(true.recording[pairs.true[chosen]] == row)]
            own = own[true.label[pairs.true[own]] == label]
            expected = best_by_hand(true, found, row, label)
            assert len(own) == len(expected)
            assert pairs.iou[own].sum() == pytest.approx(sum(expected))


def test_a_group_too_large_for_a_table_still_gets_a_largest_matching(monkeypatch):
    true = events([(0, 0, at, at + 1.2, 0) for at in range(6)])
    found = events([(0, 0, at + 0.5, at + 1.7, 0) for at in range(5)])
    pairs = overlapping_pairs(true, found)
    monkeypatch.setattr(matching, "_DENSE_CELLS", 3)
    chosen = closest_matching(pairs, 6, 5)
    assert sorted(pairs.found[chosen]) == list(range(5))
    assert len(set(pairs.true[chosen])) == 5
    assert len(closest_matching(overlapping_pairs(true, events([])), 6, 0)) == 0


def test_medians_and_rates_are_those_of_repeated_recordings():
    rng = np.random.default_rng(3)
    recording, label = rng.integers(0, N, 80), rng.integers(0, 2, 80)
    value = rng.random(80).round(2)
    statistic = MedianStatistic("m", recording, label, value, 3)
    alarms = rng.integers(0, 4, (N, 3)).astype(float)
    rate = RateStatistic("r", alarms, DURATIONS / 3600)
    counts = rng.multinomial(N, np.full(N, 1 / N), 6)
    for draw, table, rates in zip(
        counts, statistic.values(counts)["m"], rate.values(counts)["r"], strict=True
    ):
        times = draw[recording]
        one = [np.median(np.repeat(value, times * (label == index))) for index in range(2)]
        expected = [np.median(np.repeat(value, times)), np.mean(one), *one]
        assert table[:4] == pytest.approx(expected)
        assert np.isnan(table[4])
        hourly = np.repeat(alarms, draw, axis=0).sum(axis=0) / (draw.sum() * DURATION / 3600)
        assert rates == pytest.approx([hourly.sum(), hourly.mean(), *hourly])
    assert np.isnan(statistic.values(np.zeros((1, N)))["m"]).all()


def test_nothing_on_either_side():
    nothing, some = events([]), events([(0, 0, 1, 2, 0.5)])
    silent = measured(some, nothing, nothing)
    assert silent["overlap F1"][2] == 0
    assert np.isnan(silent["overlap precision"][2])
    assert silent["overlap AP"][2] == 0
    assert np.isnan(silent["overlap F1"][3])
    empty = measured(nothing, some, some)
    assert empty["overlap F1"][2] == 0
    assert np.isnan(empty["overlap recall"][2])
    assert np.isnan(empty["overlap AP"][2])
    both = measured(nothing, nothing, nothing)
    assert both.pop(FALSE_ALARMS).tolist() == [0.0] * 5
    assert all(np.isnan(table).all() for table in both.values())


def clips(seed=0, n=40):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 4)) < 0.3
    score = (truth + rng.normal(0, 1, truth.shape)).round(1)
    return truth, score


def test_clip_measures_equal_scikit_learn_also_in_resamples():
    truth, score = clips()
    statistics = clip_statistics(truth, score, 0.5)
    counts = np.random.default_rng(1).multinomial(len(truth), np.full(len(truth), 1 / 40), 5)
    tables = {n: t for one in statistics for n, t in one.values(counts.astype(float)).items()}
    for draw, row in enumerate(counts):
        rows = np.repeat(np.arange(len(truth)), row)
        t, s = truth[rows], score[rows]
        ap = average_precision_score(t, s, average=None)
        assert tables["map"][draw] == pytest.approx(
            [average_precision_score(t, s, average="micro"), ap.mean(), *ap]
        )
        auc = roc_auc_score(t, s, average=None)
        assert tables["auroc"][draw] == pytest.approx(
            [roc_auc_score(t, s, average="micro"), auc.mean(), *auc]
        )
        f1 = f1_score(t, s >= 0.5, average=None)
        assert tables["clip F1"][draw] == pytest.approx(
            [f1_score(t, s >= 0.5, average="micro"), f1.mean(), *f1]
        )
        assert tables["lwlrap"][draw][0] == pytest.approx(lwlrap(t, s))


def test_resamples_of_events_equal_scoring_the_drawn_recordings():
    true, found = random_pair(2)
    counts = np.random.default_rng(3).multinomial(N, np.full(N, 1 / N), 3)
    statistics = event_statistics(true, found, found, DURATIONS, 3, EventOptions())
    for row in counts:
        copies = np.repeat(np.arange(N), row)
        again = []
        for some in (true, found):
            parts = [some.take(some.recording == name) for name in copies]
            place = [np.full(len(part), index) for index, part in enumerate(parts)]
            fields = [
                np.concatenate([getattr(part, field) for part in parts])
                for field in ("label", "onset", "offset", "score")
            ]
            again.append(EventList(np.concatenate(place), *fields))
        scored = measured(*again, again[1])
        for statistic in statistics:
            for name, table in statistic.values(row[None].astype(float)).items():
                np.testing.assert_allclose(table[0], scored[name], err_msg=name)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        hit = (rng.random((60, 1)) < 0.7).astype(float)
        one = [CountStatistic("x", hit, np.ones((60, 1)), np.ones((60, 1)))]
        result = measure(one, drawn(300, rng), np.ones(60))["x recall"]
        low, high = percentiles(result.samples[:, 0])
        covered += low <= 0.7 <= high
    assert 175 <= covered <= 199


def test_groups_are_drawn_as_wholes_and_widen_the_interval():
    groups = np.repeat(np.arange(6), 10)
    counts = drawn(100, np.random.default_rng(0), groups=groups)
    assert (counts.reshape(100, 6, 10) == counts.reshape(100, 6, 10)[:, :, :1]).all()
    assert (counts.sum(axis=1) == 60).all()
    hit = np.repeat([[1.0], [1], [1], [0], [0], [0]], 10, axis=0)
    one = [CountStatistic("x", hit, np.ones((60, 1)), np.ones((60, 1)))]
    widths = []
    for how in (None, groups):
        counts = drawn(400, np.random.default_rng(0), groups=how)
        low, high = percentiles(measure(one, counts, np.ones(60))["x recall"].samples[:, 0])
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]
    within = drawn(50, np.random.default_rng(0), within=groups == 2)
    assert within[:, groups != 2].sum() == 0
    assert (within.sum(axis=1) == 10).all()


def test_paired_differences_are_narrower_than_their_parts():
    rng = np.random.default_rng(0)
    easy = rng.random(80)
    tables = [(rng.random(80) < np.clip(easy + extra, 0, 1)) * 1.0 for extra in (0, 0.02)]
    tables[1] = np.maximum(tables[0], tables[1] * (rng.random(80) < 0.2))
    counts = drawn(500, rng, 80)
    ones = np.ones((80, 1))
    first, second = (
        measure([CountStatistic("x", t[:, None], ones, ones)], counts, np.ones(80))["x recall"]
        for t in tables
    )
    low, high = percentiles(second.samples[:, 0] - first.samples[:, 0])
    assert low <= tables[1].mean() - tables[0].mean() <= high
    parts = percentiles(first.samples[:, 0])
    assert high - low < parts[1] - parts[0]


# --------------------------------------------------------------------------------------------- PSDS


def tracks_and_truth(seed):
    true, found = random_pair(seed)
    tracks = psds.tracks_of_events(found, RECORDINGS, LABELS, DURATIONS)
    return tracks, psds.truth_tuples(true, RECORDINGS, LABELS)


def test_detections_become_the_highest_score_of_each_moment():
    found = events([(0, 0, 1, 3, 0.5), (0, 0, 2, 4, 0.9), (0, 1, 0, 1, 0.2)])
    table = psds.tracks_of_events(found, ["r0"], LABELS, np.array([10.0])).tables["r0"]
    at = table.set_index("onset")
    assert at.loc[1.0, "a"] == 0.5
    assert at.loc[2.0, "a"] == at.loc[3.0, "a"] == 0.9
    assert at.loc[0.0, "b"] == 0.2
    assert at.loc[4.0, "a"] == at.loc[4.0, "c"] < 0.2
    assert table["offset"].iloc[-1] == 10.0


def test_overlapping_true_events_of_a_class_become_one():
    true = events([(0, 0, 1, 3, 0), (0, 0, 2, 4, 0), (0, 1, 3, 5, 0), (0, 0, 6, 7, 0)])
    tuples = psds.truth_tuples(true, ["r0"], LABELS)
    assert sorted(tuples["r0"]) == [(1.0, 4.0, "a"), (3.0, 5.0, "b"), (6.0, 7.0, "a")]


@pytest.mark.parametrize("name", ["psds1", "psds2"])
def test_psds_is_that_of_sed_scores_eval_and_resamples_repeat_recordings(name):
    library = pytest.importorskip("sed_scores_eval", reason="needs `make setup-eval`")
    tracks, truth = tracks_and_truth(0)
    setting = psds.SETTINGS[name]
    expected, per_class, _, _ = library.intersection_based.psds(
        scores=tracks.tables,
        ground_truth=truth,
        audio_durations=tracks.durations,
        **setting.options(),
    )
    result = psds.psds(tracks, truth, LABELS, setting)
    assert result.value == pytest.approx(expected)
    assert result.per_class == pytest.approx([per_class[label] for label in LABELS])
    statistic = psds.psds_statistic(name, tracks, truth, RECORDINGS, LABELS)
    table = statistic.values(np.ones((1, N)))[name][0]
    assert table[1] == pytest.approx(expected)
    counts = np.random.default_rng(0).multinomial(N, np.full(N, 1 / N))
    copies = np.repeat(np.arange(N), counts)
    names = {f"{index}": RECORDINGS[row] for index, row in enumerate(copies)}
    again = psds.ScoreTracks(
        {key: tracks.tables[of] for key, of in names.items()},
        {key: tracks.durations[of] for key, of in names.items()},
    )
    drawn = psds.psds(again, {key: truth[of] for key, of in names.items()}, LABELS, setting)
    assert statistic.values(counts[None])[name][0][1] == pytest.approx(drawn.value)


def test_without_the_library_a_sentence_says_what_to_run(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sed_scores_eval", None)
    with pytest.raises(CanopyError, match="make setup-eval"):
        psds.psds(*tracks_and_truth(0), LABELS, psds.SETTINGS["psds1"])


def test_frames_become_tracks_from_zero_on():
    edges = np.array([-0.01, 0.01, 0.03])
    tracks = psds.tracks_of_frames({"r": (edges, np.array([[1.0, 2.0]]))}, ["a"])
    expected = pd.DataFrame({"onset": [0, 0.01], "offset": [0.01, 0.03], "a": [1.0, 2.0]})
    pd.testing.assert_frame_equal(tracks.tables["r"], expected)
