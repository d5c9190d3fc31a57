"""Folds: whole groups, everything covered, balanced, the same whatever the order of rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.io.errors import CanopyError
from local.data.folds import assign_folds, read_folds, write_folds

LABELS = ["a", "b", "c"]


def make_tables(seed=0, n_train=150, n_test=40, n_groups=50, n_events=400):
    """Recordings in uneven groups, some in two subsets; class c is rare, negatives are many."""
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    recordings = pd.DataFrame(
        {
            "recording_id": [f"r{i:04d}" for i in range(n)],
            "subset": ["train"] * n_train + ["test"] * n_test,
            "group": [f"g{i}" for i in (n_groups * rng.random(n) ** 2).astype(int)],
        }
    )
    events = pd.DataFrame(
        {
            "recording_id": rng.choice(recordings["recording_id"][: n_train - 20], n_events),
            "label": rng.choice(LABELS, n_events, p=[0.5, 0.35, 0.15]),
            "polarity": rng.choice([1, -1], n_events, p=[0.3, 0.7]),
        }
    )
    return recordings, events


def counts_per_fold(folds, recordings, events, n_folds):
    """Event rows (fold, polarity x label)."""
    rows = events.merge(folds, on="recording_id")
    table = pd.crosstab(rows["fold"], [rows["polarity"], rows["label"]])
    return table.reindex(range(n_folds), fill_value=0).to_numpy()


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n_folds=st.integers(2, 5),
    n_groups=st.integers(30, 190),
)
def test_every_recording_once_and_no_group_torn(seed, n_folds, n_groups):
    recordings, events = make_tables(seed, n_groups=n_groups)
    folds = assign_folds(recordings, events, LABELS, n_folds, seed)
    assert folds["recording_id"].tolist() == sorted(recordings["recording_id"])
    assert set(folds["fold"]) == set(range(n_folds))
    joined = folds.merge(recordings, on="recording_id")
    assert (joined.groupby("group")["fold"].nunique() == 1).all()


def test_row_order_and_index_have_no_influence_and_the_seed_has():
    recordings, events = make_tables()
    folds = assign_folds(recordings, events, LABELS, 4, 7)
    shuffled = assign_folds(
        recordings.sample(frac=1, random_state=1),
        events.sample(frac=1, random_state=2),
        LABELS,
        4,
        7,
    )
    pd.testing.assert_frame_equal(folds, shuffled)
    assert not folds.equals(assign_folds(recordings, events, LABELS, 4, 8))


def test_balance_is_better_than_random():
    recordings, events = make_tables(3)
    groups = recordings["group"].unique()

    def imbalance(folds):
        table = counts_per_fold(folds, recordings, events, 5)
        expected = table.mean(axis=0)
        return ((table - expected) ** 2 / expected).sum()

    random = []
    for seed in range(50):
        drawn = np.random.default_rng(seed).permutation(np.arange(len(groups)) % 5)
        fold = recordings["group"].map(dict(zip(groups, drawn, strict=True)))
        random.append(imbalance(recordings[["recording_id"]].assign(fold=fold)))
    stratified = [imbalance(assign_folds(recordings, events, LABELS, 5, s)) for s in range(5)]
    # The most uneven of ours against the random ones: below their best twentieth.
    assert max(stratified) < np.quantile(random, 0.05)


def test_single_recordings_are_shared_out_almost_exactly():
    recordings, events = make_tables(4)
    recordings["group"] = recordings["recording_id"]
    # One event a recording, so that exact shares are possible.
    rng = np.random.default_rng(0)
    events = recordings.iloc[:130][["recording_id"]].assign(
        label=rng.choice(LABELS, 130, p=[0.5, 0.3, 0.2]), polarity=rng.choice([1, -1], 130)
    )
    folds = assign_folds(recordings, events, LABELS, 4, 0)
    table = counts_per_fold(folds, recordings, events, 4)
    assert (table.max(axis=0) - table.min(axis=0)).max() <= 2
    # Positives and negatives alike are in every fold.
    assert table.min() > 0
    joined = folds.merge(recordings, on="recording_id")
    sizes = pd.crosstab(joined["subset"], joined["fold"])
    assert (sizes.max(axis=1) - sizes.min(axis=1)).max() <= 2


def test_unlabelled_groups_even_out_the_subsets():
    recordings, events = make_tables(5)
    extra = pd.DataFrame(
        {
            "recording_id": [f"u{i}" for i in range(60)],
            "subset": "unlabelled",
            "group": np.repeat(list("abcdefghijkl"), [10, 8, 8, 7, 7, 5, 5, 4, 2, 2, 1, 1]),
        }
    )
    folds = assign_folds(pd.concat([recordings, extra]), events, LABELS, 3, 0)
    sizes = folds[folds["recording_id"].str.startswith("u")]["fold"].value_counts()
    assert sizes.tolist() == [20, 20, 20]


def test_unlabelled_groups_fill_up_what_labelled_ones_leave():
    # Labelled groups of 6, 1 and 1 recordings, one a fold; ten more recordings level them.
    group = ["big"] * 6 + ["one", "two"] + [f"free{i}" for i in range(10)]
    recordings = pd.DataFrame(
        {"recording_id": [f"r{i}" for i in range(18)], "subset": "train", "group": group}
    )
    events = pd.DataFrame({"recording_id": ["r0", "r6", "r7"], "label": "a", "polarity": 1})
    folds = assign_folds(recordings, events, ["a"], 3, 0)
    assert folds["fold"].value_counts().tolist() == [6, 6, 6]


def test_rows_of_test_recordings_do_not_count():
    recordings, events = make_tables(6)
    hidden = pd.DataFrame(
        {"recording_id": recordings["recording_id"].iloc[-5:], "label": "a", "polarity": 1}
    )
    pd.testing.assert_frame_equal(
        assign_folds(recordings, pd.concat([events, hidden]), LABELS, 3, 0),
        assign_folds(recordings, events, LABELS, 3, 0),
    )


def test_scarce_classes_are_all_named():
    recordings, events = make_tables(7)
    few = events[(events["label"] != "c") | (events["polarity"] == -1)]
    some = events[(events["label"] == "c") & (events["polarity"] == 1)].iloc[:3]
    n_groups = some.merge(recordings)["group"].nunique()
    with pytest.raises(CanopyError, match=f"c: {n_groups}; lower split.n_folds to {n_groups}"):
        assign_folds(recordings, pd.concat([few, some]), LABELS, 5, 0)
    with pytest.raises(CanopyError, match="c: 0, d: 0; drop the class"):
        assign_folds(recordings, few, [*LABELS, "d"], 5, 0)
    # With as many folds as groups every fold gets its positive.
    folds = assign_folds(recordings, pd.concat([few, some]), LABELS, n_groups, 0)
    assert some.merge(folds)["fold"].nunique() == n_groups


def test_faulty_tables_are_refused():
    recordings, events = make_tables(8)
    twice = pd.concat([recordings, recordings.iloc[:1]])
    stray = pd.concat([events, events.iloc[:1].assign(recording_id="nowhere")])
    odd = pd.concat([events, events.iloc[:1].assign(label="zebra")])
    homeless = recordings.assign(group=recordings["group"].where(recordings.index > 0))
    for bad_recordings, bad_events, n_folds, message in [
        (recordings, events, 1, "n_folds is 1"),
        (twice, events, 3, "r0000 stands twice"),
        (recordings, stray, 3, "recording_id nowhere"),
        (recordings, odd, 3, "label zebra"),
        (homeless, events, 3, "r0000 has no group"),
        (recordings.drop(columns="group"), events, 3, "no column group"),
        (recordings.assign(group="one"), events, 3, "1 group"),
    ]:
        with pytest.raises(CanopyError, match=message):
            assign_folds(bad_recordings, bad_events, LABELS, n_folds, 0)


def test_folds_file_round_trip(tmp_path):
    recordings, events = make_tables(9)
    folds = assign_folds(recordings, events, LABELS, 3, 0)
    path = tmp_path / "folds.csv"
    write_folds(path, folds)
    turned = recordings.iloc[::-1]
    back = read_folds(path, turned, 3)
    assert back["recording_id"].tolist() == turned["recording_id"].tolist()
    pd.testing.assert_frame_equal(back.sort_values("recording_id", ignore_index=True), folds)
    pd.testing.assert_frame_equal(back, read_folds(path, turned))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recording_id,fold\nx,0\ny,0\n", "lacks 1 recording.*first z"),
        ("recording_id,fold\nx,0\ny,0\nz,1\nw,1\n", "unknown 1 recording.*first w"),
        ("recording_id,fold\nx,0\ny,0\nz,1\nz,1\n", "z stands twice"),
        ("recording_id,fold\nx,0\ny,0\nz,2\n", "z has fold '2'.*0 to 1"),
        ("recording_id,fold\nx,0\ny,0\nz,-1\n", "z has fold '-1'"),
        ("recording_id,fold\nx,0\ny,0\nz,1.0\n", "z has fold '1.0'"),
        ("recording_id,fold\nx,0\ny,1\nz,1\n", "group g stands in folds 0 and 1"),
        ("recording,fold\nx,0\n", "no column recording_id"),
        ("", "not readable"),
    ],
)
def test_folds_files_that_do_not_fit_are_refused(tmp_path, text, message):
    recordings = pd.DataFrame({"recording_id": ["x", "y", "z"], "group": ["g", "g", "h"]})
    path = tmp_path / "folds.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CanopyError, match=message) as caught:
        read_folds(path, recordings, 2)
    assert str(path) in str(caught.value)
    with pytest.raises(CanopyError, match="no such file"):
        read_folds(tmp_path / "none.csv", recordings)
