"""Submissions and truth as csv: read with all digits, refused in one sentence, joined by name."""

import numpy as np
import pandas as pd
import pytest

from local.io.errors import CanopyError
from local.scoring.metrics.clip_tables import join_clips, read_clip_table, read_truth_table


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_clip_tables_keep_ids_and_digits(tmp_path):
    path = write(tmp_path / "s.csv", "recording_id,a,b\n007,0.1234567890123456,-inf\n1e5,2,3\n")
    table = read_clip_table(path)
    assert list(table.index) == ["007", "1e5"]
    assert table.loc["007"].tolist() == [0.1234567890123456, -np.inf]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable as csv"),
        ("id,a\nx,1\n", "no column recording_id"),
        ("recording_id\nx\n", "no class"),
        ("recording_id,a,a\nx,1,2\n", "column 'a' stands twice"),
        ("recording_id,a\nx,1\nx,2\n", "recording x stands twice"),
        ("recording_id,a\nx,1\ny,\n", "recording y, column a holds ''"),
        ("recording_id,a\nx,NaN\n", "recording x, column a holds 'NaN'"),
        ("recording_id,a,b\nx,1\n", "line 2: has 2 fields, expected 3"),
        ("recording_id,a\nx,1,2\n", "not readable as csv"),
    ],
)
def test_clip_tables_refuse_in_one_sentence(tmp_path, text, message):
    path = write(tmp_path / "s.csv", text)
    with pytest.raises(CanopyError, match=message) as caught:
        read_clip_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truth_tables_hold_only_0_and_1(tmp_path):
    path = write(tmp_path / "t.csv", "recording_id,a,b\nx,1,0\ny,0,0.5\n")
    with pytest.raises(CanopyError, match=r"recording y, column b holds 0\.5"):
        read_truth_table(path)
    with pytest.raises(CanopyError, match="no such file"):
        read_truth_table(tmp_path / "none.csv")


def test_join_is_by_name_and_complete():
    truth = pd.DataFrame({"a": [1.0, 0.0], "b": [0.0, 1.0]}, index=["x", "y"])
    mixed = pd.DataFrame({"b": [4.0, 3.0], "a": [2.0, 1.0]}, index=["y", "x"])
    joined = join_clips(mixed, truth)
    assert joined.to_numpy().tolist() == [[1, 3], [2, 4]]
    for bad, message in [
        (mixed.drop(index="x"), "lacks 1 recording, the first x"),
        (mixed.rename(index={"x": "z"}), "lacks 1 recording, the first x"),
        (pd.concat([mixed, mixed.rename(index={"x": "p", "y": "q"})]), "2 recordings, the first p"),
        (mixed.drop(columns="b"), "lacks 1 class column, the first b"),
        (mixed.assign(c=0.0), "1 class column, the first c"),
    ]:
        with pytest.raises(CanopyError, match=message):
            join_clips(bad, truth)
