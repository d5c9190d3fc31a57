import numpy as np
import pandas as pd
import pytest

from local.stages.checks import check_data
from local.io.errors import CanopyError
from local.stages.experiment import Experiment
from local.data.reviewed import merge_reviewed, read_reviewed
from local.data.tables import EVENT_COLUMNS


def table(*rows):
    """Rows of recording, label, onset, offset, polarity (and source)."""
    full = [(*row[:4], np.nan, np.nan, row[4], 1.0, *(row[5:] or ("review",))) for row in rows]
    return pd.DataFrame(full, columns=list(EVENT_COLUMNS))


def spans(frame):
    columns = ["recording_id", "label", "onset", "offset", "polarity"]
    return sorted(map(tuple, frame[columns].itertuples(index=False)))


def test_what_a_review_contradicts_gives_way():
    events = table(
        ("r", "a", 1.0, 5.0, -1, "fp"),
        ("r", "b", 1.0, 5.0, -1, "fp"),
        ("q", "a", 1.0, 2.0, 1, "tp"),
    )
    merged = merge_reviewed(events, table(("r", "a", 2.0, 3.0, 1), ("q", "a", 0.5, 2.5, -1)))
    assert spans(merged) == [
        ("q", "a", 0.5, 2.5, -1),
        ("r", "a", 1.0, 2.0, -1),
        ("r", "a", 2.0, 3.0, 1),
        ("r", "a", 3.0, 5.0, -1),
        ("r", "b", 1.0, 5.0, -1),
    ]


def test_rows_that_agree_stay_and_equal_ones_are_one():
    events = table(("r", "a", 1.0, 2.0, 1, "tp"))
    merged = merge_reviewed(events, table(("r", "a", 1.0, 2.0, 1), ("r", "a", 1.5, 3.0, 1)))
    assert spans(merged) == [("r", "a", 1.0, 2.0, 1), ("r", "a", 1.5, 3.0, 1)]
    assert merged["source"].tolist() == ["tp", "review"]


def test_the_later_review_stands():
    there_and_back = table(("r", "a", 1.0, 2.0, 1), ("r", "a", 1.0, 2.0, -1))
    assert spans(merge_reviewed(table(), there_and_back)) == [("r", "a", 1.0, 2.0, -1)]
    again = pd.concat([there_and_back, table(("r", "a", 1.0, 2.0, 1))], ignore_index=True)
    assert spans(merge_reviewed(table(), again)) == [("r", "a", 1.0, 2.0, 1)]


def test_no_review_changes_nothing():
    events = table(("r", "a", 1.0, 2.0, 1, "tp"), ("r", "a", 1.5, 2.5, -1, "fp"))
    assert spans(merge_reviewed(events, table())) == spans(events)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recording_id": "nobody"}, "line 2: recording_id 'nobody' is not among"),
        ({"label": "zebra"}, "label 'zebra' is not among"),
        ({"offset": 99.0}, "lies after the end"),
        ({"polarity": ""}, "polarity is nan"),
        ({"source": "pseudo:cycle1"}, "rows that people made"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, words):
    path = tmp_path / "events.csv"
    table(("r", "a", 1.0, 2.0, 1)).assign(**change).to_csv(path, index=False)
    with pytest.raises(CanopyError, match=words) as caught:
        read_reviewed([path], pd.Series({"r": 6.0}), ["a"])
    assert str(path) in str(caught.value)


def review(tmp_path, *rows):
    path = tmp_path / "data" / "events.csv"
    path.parent.mkdir(exist_ok=True)
    table(*rows).to_csv(path, index=False)
    return path


def test_reviewed_rows_teach_and_do_not_judge(toy, tmp_path):
    review(tmp_path, ("r00", "c", 0.1, 0.2, 1), ("u0", "a", 1.0, 2.0, 1), ("t0", "a", 1.0, 2.0, -1))
    plain = Experiment(toy().run)
    made = Experiment(toy(data__reviewed=["events.csv"]).run)
    check_data(made.run)
    added = set(spans(made.events(0))) - set(spans(plain.events(0)))
    assert added == {("r00", "c", 0.1, 0.2, 1), ("u0", "a", 1.0, 2.0, 1)}
    pd.testing.assert_frame_equal(made.tables.events, plain.tables.events)
    assert made.fold_of == plain.fold_of
    # The unlabelled recording is drawn from by folds that are not its own, the test one by none.
    for fold in made.folds:
        names = set(made.training_ids(0, fold)) - set(plain.training_ids(0, fold))
        assert names == ({"u0"} if made.fold_of["u0"] != fold else set())


def test_test_recordings_are_learned_from_only_when_asked(toy, tmp_path):
    review(tmp_path, ("t2", "a", 1.0, 2.0, -1))
    asked = {"data__reviewed": ["events.csv"], "data__reviewed_subsets": ["test"]}
    made = Experiment(toy(**asked).run)
    for fold in made.folds:
        assert ("t2" in made.training_ids(0, fold)) == (made.fold_of["t2"] != fold)


def test_another_review_is_another_model_and_its_place_does_not_matter(toy, tmp_path):
    path = review(tmp_path, ("r00", "c", 0.1, 0.2, 1))

    def mark(**changes):
        return Experiment(toy(**changes).run).stamp("train").fingerprint

    plain, one = mark(), mark(data__reviewed=["events.csv"])
    assert plain != one
    assert mark(data__reviewed=[str(path)]) == one
    review(tmp_path, ("r00", "c", 0.1, 0.3, 1))
    assert mark(data__reviewed=["events.csv"]) != one


def test_a_missing_review_is_told_before_any_work(toy):
    made = toy(data__reviewed=["nowhere.csv"])
    with pytest.raises(CanopyError, match=r"nowhere\.csv"):
        check_data(made.run)
