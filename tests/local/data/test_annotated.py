"""What is annotated, against plain loops."""

import numpy as np
import pytest

from local.data.annotated import Annotated, gaps_between, share_below
from tests.local.tasks.made_tables import calls_of, made_tables


def test_gaps_are_the_silence_between_calls_of_one_class():
    rng = np.random.default_rng(0)
    tables = made_tables(calls_of("a", 0.5, 1.0, 40), calls_of("b", 0.2, 0.3, 40))
    events = tables.events
    events["onset"] = rng.uniform(0, 20, len(events))
    events["offset"] = events["onset"] + rng.uniform(0.1, 3.0, len(events))
    expected = []
    for _, rows in events[events["label"] == "a"].groupby("recording_id"):
        until = None
        for row in rows.sort_values("onset").itertuples():
            if until is not None and row.onset > until + 1e-4:
                expected.append(row.onset - until)
            until = row.offset if until is None else max(until, row.offset)
    found = gaps_between(events[events["label"] == "a"])
    assert sorted(found) == pytest.approx(sorted(expected))
    assert len(found) > 0


def test_calls_that_touch_have_no_gap_and_rejected_ones_do_not_count():
    tables = made_tables(calls_of("a", 0.5, 0.0, 24, spread=0.0))
    assert Annotated.of(tables).n_gaps == 0
    tables.events["polarity"] = -1.0
    assert Annotated.of(tables).n_calls == 0


def test_only_train_recordings_are_measured():
    tables = made_tables(calls_of("a", 0.5, 1.0, 24))
    tables.recordings.loc[0, "subset"] = "test"
    told = Annotated.of(tables)
    assert told.n_calls == 20
    assert len(told.lengths) == 5


def test_a_rare_class_is_asked_for_itself():
    tables = made_tables(calls_of("a", 2.0, 4.0, 200), calls_of("b", 0.1, 0.2, 12))
    told = Annotated.of(tables)
    assert told.least("durations", 0.1) < 0.12
    assert told.greatest("durations", 0.9) > 2.0
    assert np.quantile(told.all("durations"), 0.1) > 1.0


def test_a_share_counts_what_is_really_below():
    assert share_below(np.array([0.1, 0.2, 0.3, 0.4]), 0.3) == 0.5
    assert share_below(np.zeros(0), 1.0) == 0.0
    assert share_below(np.array([0.3 - 1e-12]), 0.3) == 0.0
