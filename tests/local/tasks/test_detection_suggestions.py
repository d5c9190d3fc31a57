"""Settings that made-up annotation suggests: they suit it, fit each other and give way."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from local.config import make_config
from local.config.suggestion import as_values
from local.data.annotated import Annotated, tenth
from local.io.errors import CanopyError
from local.scoring.event_rules.labelled_lengths import class_lengths, event_lengths
from local.stages.checks import check_config
from local.tasks.detection_cells import check_cells
from local.tasks.detection_checks import check_tables
from local.tasks.detection_suggestions import suggest
from tests.local.tasks.made_tables import calls_of, made_tables

COMPLETE = {"data": {"annotation": "complete"}, "features": {"n_mels": 64}}
KINDS = {
    "song": made_tables(calls_of("s", 0.13, 0.025, 300, (500, 11000), spread=0.5)),
    "long and sparse": made_tables(calls_of("s", 8.0, 30.0, 60)),
    "birds": made_tables(calls_of("s", 1.0, 3.0, 100)),
    "two lengths": made_tables(
        calls_of("a", 0.06, 0.1, 200), calls_of("b", 8.0, 20.0, 40, (300, 900))
    ),
    "whales at 4 kHz": made_tables(calls_of("w", 3.0, 10.0, 60, (20, 80)), rates=(4000,)),
    "mice": made_tables(
        calls_of("m", 0.03, 0.05, 300, (45000, 100000), spread=0.8), rates=(250000,)
    ),
    "no frequencies": made_tables(calls_of("m", 0.5, 1.0, 100, None), rates=(44100,)),
    "one band": made_tables(calls_of("m", 0.5, 1.0, 100, (3000, 3600)), rates=(48000,)),
    "two recorders": made_tables(calls_of("m", 0.3, 0.5, 100, (2000, 7000)), rates=(16000, 48000)),
}


def settings(tables, **given):
    """Values by key, and the whole configuration with them."""
    given = {**COMPLETE, **given}
    suggestions = suggest(Annotated.of(tables), given)
    values = {one.key: one.value for one in suggestions}
    return values, make_config(given, "made up", as_values(suggestions))


def cell_s(config) -> float:
    step = math.prod(frames for _, frames in config.model.params["pool"])
    return step * config.features.hop_length / config.audio.sample_rate


@pytest.mark.parametrize("name", KINDS)
def test_what_is_suggested_fits_the_annotation_and_itself(name):
    tables = KINDS[name]
    told = Annotated.of(tables)
    _, config = settings(tables)
    check_config(config)
    calls, gaps = told.all("durations"), told.all("gaps")
    cell = cell_s(config)
    assert np.mean(calls < 2 * cell) < 0.1
    assert np.mean(gaps < 2 * cell) < 0.1
    assert cell <= 0.16
    assert config.events.tune
    if len(told.all("highs")):
        top = np.quantile(told.all("highs"), 0.95)
        assert config.features.f_max_hz >= top
        assert config.features.f_min_hz <= np.quantile(told.all("lows"), 0.05)
        assert config.audio.sample_rate >= min(2 * top, told.rates.min())
    assert config.audio.sample_rate <= told.rates.max()
    assert config.window.length_s >= min(2 * np.quantile(calls, 0.9), 600 * cell * 0.95)
    assert min(config.events.durations_s) < np.quantile(calls, 0.05)
    assert max(config.events.gaps_s) < np.quantile(gaps, 0.1)


def test_numbers_of_a_dense_song():
    values, config = settings(KINDS["song"])
    assert 0.005 <= cell_s(config) <= 0.01
    assert values["audio.sample_rate"] == 32000
    assert 0.4 <= values["window.length_s"] <= 1.5
    assert values["augment.time_masks"] == 0
    assert 0.02 < values["relabel.min_duration_s"]["s"] < 0.06


def test_rates_from_4_to_250_khz():
    assert settings(KINDS["whales at 4 kHz"])[0]["audio.sample_rate"] == 1000
    assert settings(KINDS["no frequencies"])[0]["audio.sample_rate"] == 44100
    values, config = settings(KINDS["mice"])
    assert (values["audio.sample_rate"], values["features.mel_scale"]) == (250000, "linear")
    assert config.window.length_s < 0.5


def test_two_recorders_meet_at_the_lower_rate_unless_calls_lie_above_it():
    assert settings(KINDS["two recorders"])[0]["audio.sample_rate"] == 16000
    high = made_tables(calls_of("m", 0.3, 0.5, 100, (9000, 14000)), rates=(16000, 48000))
    assert settings(high)[0]["audio.sample_rate"] == 32000


def test_what_is_set_is_kept_and_reckoned_with():
    tables = KINDS["song"]
    values, config = settings(tables, audio={"sample_rate": 16000})
    assert "audio.sample_rate" not in values
    assert config.features.f_max_hz <= 8000
    plain = settings(tables)[1]
    assert cell_s(config) == pytest.approx(cell_s(plain), rel=0.1)
    values, config = settings(tables, features={"n_mels": 32, "hop_length": 220})
    assert config.features.hop_length == 220
    assert cell_s(config) == pytest.approx(2 * 220 / 32000)
    _, config = settings(tables, features={"f_max_hz": 15000})
    assert config.audio.sample_rate == 32000
    values, config = settings(tables, window={"length_s": 2.0})
    assert "window.length_s" not in values
    assert config.inference.window_s == 4.0
    assert config.train.windows_per_epoch < plain.train.windows_per_epoch


def test_a_window_of_frames_that_is_set_gets_a_transform_that_holds_it():
    values, config = settings(KINDS["birds"], features={"win_length": 4096})
    assert values["features.n_fft"] == 4096
    check_config(config)


@pytest.mark.parametrize(
    ("inference", "window_s", "overlap_s"),
    [
        ({"overlap_s": 5.0}, 10.0, 5.0),
        ({"overlap_s": 0.5}, 4.0, 0.5),
        ({"window_s": 3.0}, 3.0, 1.5),
        ({"tta": {"lengths_s": [1.0]}}, 4.0, 0.5),
        ({"window_frames": 40}, None, None),
    ],
)
def test_windows_of_inference_go_with_what_is_set_of_them(inference, window_s, overlap_s):
    given = {"window": {"length_s": 2.0}, "inference": inference}
    _, config = settings(KINDS["birds"], **given)
    assert (config.inference.window_s, config.inference.overlap_s) == (window_s, overlap_s)
    check_config(config)


def test_an_overlap_in_frames_gets_a_window_that_is_longer():
    given = {"window": {"length_s": 2.0}, "inference": {"overlap_frames": 500}}
    _, config = settings(KINDS["birds"], **given)
    assert config.inference.overlap_s is None
    check_config(config)


@pytest.mark.parametrize("subset", ["train", "test"])
@pytest.mark.parametrize("length", [1.0, 1.04, 0.996])
def test_windows_are_no_longer_than_the_shortest_recording_unless_it_is_padded(subset, length):
    tables = made_tables(calls_of("s", 1.0, 3.0, 100))
    more = tables.recordings.iloc[:1].assign(recording_id="short", duration=length, subset=subset)
    tables = replace(tables, recordings=pd.concat([tables.recordings, more], ignore_index=True))
    told = {one.key: one for one in suggest(Annotated.of(tables), COMPLETE)}["window.length_s"]
    assert 0.9 * length < told.value <= length
    assert "the shortest recording lasts" in told.reason
    padded, _ = settings(tables, window={"short": "repeat"})
    assert padded["window.length_s"] > 4
    _, config = settings(tables)
    check_config(config)
    check_tables(config, tables, Path())


def test_a_network_that_is_named_gets_hops_for_its_own_pooling():
    pool = [[2, 2], [2, 2], [2, 2], [2, 2]]
    values, config = settings(KINDS["song"], model={"name": "crnn", "params": {"pool": pool}})
    assert "model.params.channels" not in values
    assert "train.n_epochs" not in values
    assert 16 * config.features.hop_length / config.audio.sample_rate < 0.01
    values, config = settings(KINDS["birds"], model={"name": "transformer"})
    assert not any(key.startswith("model.") for key in values)
    check_config(config)


@pytest.mark.parametrize("kind", ["song", "birds"])
def test_one_parameter_of_the_suggested_network_may_be_set(kind):
    plain, _ = settings(KINDS[kind])
    values, config = settings(KINDS[kind], model={"params": {"gru": 200}})
    assert "model.params.gru" not in values
    assert config.model.params["gru"] == 200
    assert values["model.params.pool"] == plain["model.params.pool"]
    assert values["train.windows_per_epoch"] < plain["train.windows_per_epoch"]
    check_config(config)
    with pytest.raises(CanopyError, match=r"model\.params\.gru"):
        settings(KINDS[kind], model={"params": {"gru": "many"}})


def told_minutes(tables, key, **given):
    reason = {one.key: one for one in suggest(Annotated.of(tables), {**COMPLETE, **given})}[key]
    return float(re.search(r"about ([\d.]+) minutes", reason.reason)[1])


def test_epochs_are_reckoned_from_what_is_set_of_them():
    tables = KINDS["song"]
    plain, _ = settings(tables)
    total = plain["train.n_epochs"] * plain["train.windows_per_epoch"]
    minutes = told_minutes(tables, "train.n_epochs")
    for n_windows in (20, 500, total, 10 * total):
        train = {"windows_per_epoch": n_windows}
        values, _ = settings(tables, train=train)
        # Whole batches in each of 30 epochs are not quite what was aimed at.
        assert values["train.n_epochs"] == pytest.approx(max(1, total / n_windows), rel=0.1)
        made = values["train.n_epochs"] * n_windows
        told = told_minutes(tables, "train.n_epochs", train=train)
        assert told == pytest.approx(minutes * made / total, rel=0.1)
    for n_epochs in (10, 100, 10 * total):
        train = {"n_epochs": n_epochs}
        values, _ = settings(tables, train=train)
        n_windows = values["train.windows_per_epoch"]
        assert abs(n_windows - total / n_epochs) <= values["train.batch_size"]
        told = told_minutes(tables, "train.windows_per_epoch", train=train)
        assert told == pytest.approx(minutes * n_epochs * n_windows / total, rel=0.1)


def test_epochs_of_one_window_a_row_count_the_rows():
    tables = made_tables(calls_of("s", 1.0, 3.0, 100))
    rejected = tables.events.assign(polarity=-1.0)
    both = replace(tables, events=pd.concat([tables.events, rejected], ignore_index=True))
    train = {"windows_per_epoch": None}
    n_epochs = [settings(some, train=train)[0]["train.n_epochs"] for some in (tables, both)]
    assert n_epochs[0] == pytest.approx(2 * n_epochs[1], abs=1)
    assert "train.n_epochs" not in settings(tables, train={**train, "n_epochs": 3})[0]


def test_partial_annotation_fits_no_rule_and_looks_at_rejected_spans():
    values, config = settings(KINDS["birds"], data={"annotation": "partial"})
    assert not config.events.tune
    assert "events.durations_s" not in values
    assert config.window.p_negative > config.window.p_random


@pytest.mark.parametrize(
    "kinds",
    [
        (calls_of("pip", 0.05, 2.0, 4), calls_of("song", 5.0, 9.0, 30)),
        (calls_of("pip", 0.05, 2.0, 30), calls_of("song", 5.0, 9.0, 400)),
        # One call of five is short, and of all calls hardly one.
        (("pip", [0.02, 1.0, 1.0, 1.0, 1.0], [1.0] * 5, None), calls_of("song", 5.0, 9.0, 90)),
    ],
)
@pytest.mark.parametrize("rate", [2000, 48000])
def test_cells_that_are_suggested_tell_the_calls_of_every_class(kinds, rate, caplog):
    tables = made_tables(*kinds, rates=(rate,))
    given = {"data": {"annotation": "complete", "short_calls": "refuse"}}
    _, config = settings(tables, **given, audio={"sample_rate": rate})
    told = Annotated.of(tables)
    step = math.prod(frames for _, frames in config.model.params["pool"])
    check_cells(config, told, config.features.hop_length / rate, step)
    assert caplog.text == ""
    shortest = min(tenth(values) for values in told.durations.values())
    assert cell_s(config) < shortest


def test_gaps_that_no_cell_can_show_are_a_warning_and_do_not_shorten_cells_without_end(caplog):
    tables = made_tables(calls_of("m", 0.3, 0.002, 100), rates=(48000,))
    _, config = settings(tables, data={"annotation": "complete", "short_calls": "refuse"})
    assert cell_s(config) > 0.015
    check_cells(config, Annotated.of(tables), config.features.hop_length / 12000, 2)
    assert "100 of 100 gaps" in caplog.text or "94 of 94 gaps" in caplog.text
    with pytest.raises(CanopyError, match="gaps between calls"):
        check_cells(config, Annotated.of(tables), config.features.hop_length / 6000, 2)


def test_nothing_is_suggested_where_nothing_is_annotated():
    tables = made_tables(calls_of("m", 0.3, 1.0, 12))
    tables.events["polarity"] = -1.0
    assert suggest(Annotated.of(tables), COMPLETE) == []


def test_every_suggestion_has_a_reason_of_one_line():
    for one in suggest(Annotated.of(KINDS["birds"]), COMPLETE):
        assert one.reason.strip()
        assert "\n" not in one.reason


def test_lengths_of_events_follow_the_labels():
    short, long = (Annotated.of(KINDS[name]) for name in ("song", "long and sparse"))
    for told in (short, long):
        durations, gaps = event_lengths(told)
        assert list(durations) == sorted(durations)
        assert gaps[0] == 0
        assert max(durations) < np.quantile(told.all("durations"), 0.05)
        assert max(gaps) < np.quantile(told.all("gaps"), 0.1)
    # One kind of calls is told the same by class.
    for told in (short, long):
        assert class_lengths(told)["s"] == pytest.approx([part[2] for part in event_lengths(told)])
    assert max(event_lengths(short)[0]) < 0.1 < 3 < max(event_lengths(long)[0])
    # No breath within a call is as long as the call.
    assert max(event_lengths(long)[1]) < 8


def test_each_class_has_lengths_of_its_own():
    """Calls of 60 ms and of 8 s: one pair for both broke the long ones or dropped the short."""
    _, config = settings(KINDS["two lengths"])
    (short, near), (long, far) = (config.relabel.lengths_of(label) for label in "ab")
    assert 0.02 < short < 0.048
    assert 2 < long < 6.4
    assert 0.01 < near < 0.06
    assert 1 < far < 8
    check_config(config)
    # Who sets one for all has that one.
    _, config = settings(KINDS["two lengths"], relabel={"min_duration_s": 0.3})
    assert config.relabel.lengths_of("b") == (0.3, far)


def test_few_labels_of_a_class_are_drawn_to_those_of_all():
    many = calls_of("a", 0.1, 0.2, 200)
    least = [
        class_lengths(Annotated.of(made_tables(many, calls_of("b", 5.0, 9.0, n))))["b"][0]
        for n in (1, 3, 10, 100)
    ]
    assert least == sorted(least)
    assert 0.05 < least[0] < 0.5
    assert least[-1] > 1.5
    # A class without a call has what all have.
    tables = made_tables(many)
    tables.classes.loc[1] = tables.classes.loc[0].replace("a", "c")
    lengths = class_lengths(Annotated.of(tables))
    assert lengths["c"] == pytest.approx(lengths["a"], rel=0.05)


def test_lengths_by_class_are_those_of_all_classes_and_no_others():
    tables = KINDS["two lengths"]
    for named, fault in (
        ({"a": 0.1}, "no number for the class 'b'"),
        ({"a": 0.1, "b": 0.2, "c": 0.3}, "names the class 'c'"),
    ):
        _, config = settings(tables, relabel={"max_gap_s": named})
        with pytest.raises(CanopyError, match=rf"relabel\.max_gap_s.*{fault}"):
            config.relabel.check_labels(tables.labels)
