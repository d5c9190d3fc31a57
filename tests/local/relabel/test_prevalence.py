"""The tail estimate of prevalence against its formula; prevalence that a person gives."""

from dataclasses import replace

import numpy as np
import pytest

from local.io.errors import CanopyError
from local.relabel.fold_scores import FoldScores
from local.relabel.prevalence import estimate_tail, read_prevalence


def tail_by_hand(target, scores, mass, min_share):
    """The formula as it is written: every threshold in turn."""
    ratios = []
    for threshold in scores:
        kept = mass[scores >= threshold].sum() / mass.sum()
        if kept >= min_share - 1e-12:
            ratios.append(((target >= threshold).sum() + 1) / (len(target) + 1) / kept)
    return min(min(ratios), 1.0)


@pytest.mark.parametrize("n_inserted", [0, 30])
def test_tail_against_its_formula(n_inserted):
    rng = np.random.default_rng(2)
    folds, expected = [], []
    for n in (5, 9):
        known, target = rng.normal(2, 1, (n, 1)), rng.normal(0.5, 1.5, (40, 1))
        inserted = rng.normal(1.5, 1, (n_inserted, 1)) if n_inserted else None
        folds.append(FoldScores(known, np.ones((n, 1)), target, inserted))
        share = 100 / (14 + 100) if n_inserted else 0.0
        mass = [np.full(n, (1 - share) / n), np.full(n_inserted, share / max(1, n_inserted))]
        scores = known[:, 0] if inserted is None else np.concatenate([known, inserted])[:, 0]
        expected.append((n, tail_by_hand(target[:, 0], scores, np.concatenate(mass), 0.3)))
    wanted = sum(n * value for n, value in expected) / sum(n for n, _ in expected)
    np.testing.assert_allclose(estimate_tail(folds), [wanted])


def test_tail_finds_the_prevalence_where_confirmed_calls_are_few_and_of_other_sites():
    """Insertions halve what eight confirmed recordings, easier than the target's, get wrong."""
    rng = np.random.default_rng(0)
    prevalence = np.array([0.9, 0.5, 0.2, 0.05])
    present = rng.random((400, 4)) < prevalence
    folds = []
    for _ in range(4):
        target = np.where(present, 3.0, -2.0) + rng.normal(size=present.shape)
        known = 4.5 + rng.normal(size=(2, 4))
        inserted = np.maximum(3.0 + rng.normal(size=(100, 4)), target[rng.integers(400, size=100)])
        folds.append(FoldScores(known, np.ones((2, 4)), target, inserted))
    few = estimate_tail([replace(fold, inserted=None) for fold in folds])
    mended = estimate_tail(folds)
    error = [np.abs(np.log(found / prevalence)).max() for found in (few, mended)]
    assert error[1] < error[0] / 2


def test_tail_of_a_class_without_a_confirmed_positive_is_nan():
    fold = FoldScores(
        np.zeros((3, 2)), np.array([[1, 0]] * 3), np.zeros((5, 2)), np.full((4, 2), np.nan)
    )
    found = estimate_tail([fold, fold])
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_prevalence_is_read_in_the_order_of_labels(tmp_path):
    path = tmp_path / "prevalence.csv"
    path.write_text("label,prevalence,note\nNA,0.25,x\na,0.5,\n", encoding="utf-8")
    assert read_prevalence(path, ["a", "NA"]).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,prevalence\na,0.1\n", "no prevalence of b"),
        ("label,prevalence\na,0.1\nb,0.1\nc,0.1\n", "row 4: label 'c'"),
        ("label,prevalence\na,0.1\nb,0.1\na,0.2\n", "row 4: label a stands twice"),
        ("label,prevalence\na,0.1\nb,0\n", "row 3: prevalence '0'"),
        ("label,prevalence\na,1\nb,0.1\n", "row 2: prevalence '1'"),
        ("label,prevalence\na,nan\nb,0.1\n", "row 2: prevalence 'nan'"),
        ("label,prevalence\na,often\nb,0.1\n", "row 2: prevalence 'often'"),
        ("label,share\na,0.1\n", "no column prevalence"),
        ("", "not readable"),
    ],
)
def test_faulty_prevalence_files_are_refused(tmp_path, text, message):
    path = tmp_path / "prevalence.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CanopyError, match=message) as caught:
        read_prevalence(path, ["a", "b"])
    assert str(path) in str(caught.value)
    with pytest.raises(CanopyError, match="no such file"):
        read_prevalence(tmp_path / "none.csv", ["a"])
