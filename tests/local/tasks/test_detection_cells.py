"""Calls and gaps that are shorter than a cell are told with the numbers and the mend."""

import re

import pytest

from local.config import make_config
from local.data.annotated import Annotated
from local.io.errors import CanopyError
from local.tasks.detection_cells import check_cells, wanted_cell
from tests.local.tasks.made_tables import calls_of, made_tables


def config_of(**sections):
    given = {
        "audio": {"sample_rate": 24000},
        "features": {"hop_length": 480, "f_max_hz": 12000},
        "data": {"annotation": "complete", "short_calls": "refuse"},
    }
    return make_config({**given, **sections}, "made up")


def test_a_tenth_is_the_limit():
    calls = [("a", [0.1] * n + [1.0] * (100 - n), [2.0] * 100, None) for n in (10, 11)]
    for kind, refused in zip(calls, (False, True), strict=True):
        label, lengths, gaps, band = kind
        told = Annotated.of(made_tables((label, list(lengths), gaps, band), n_recordings=1))
        if not refused:
            check_cells(config_of(), told, 0.02, 8)
            continue
        with pytest.raises(CanopyError, match=r"11 of 100 labelled calls \(11%\)") as caught:
            check_cells(config_of(), told, 0.02, 8)
        assert "0.16 s (8 frames of 20 ms)" in str(caught.value)


def test_the_mend_that_is_named_does():
    told = Annotated.of(made_tables(calls_of("s", 0.13, 0.025, 300, spread=0.5)))
    config = config_of()
    with pytest.raises(CanopyError, match=r"gaps between calls of one class") as caught:
        check_cells(config, told, 0.02, 8)
    hop = re.search(
        r"pool at most (\d+) frames .* with features.hop_length (\d+)", str(caught.value)
    )
    single = re.search(r"set features.hop_length to (\d+) or less", str(caught.value))
    frames, hop = (8, int(single[1])) if single else (int(hop[1]), int(hop[2]))
    check_cells(config, told, hop / 24000, frames)
    assert "short_calls to warn" in str(caught.value)


def test_elsewhere_it_is_a_warning(caplog):
    told = Annotated.of(made_tables(calls_of("s", 0.05, 1.0, 100)))
    check_cells(config_of(data={"annotation": "complete"}), told, 0.02, 8)
    assert "100 of 100 labelled calls (100%)" in caplog.text
    caplog.clear()
    check_cells(config_of(data={"annotation": "complete"}), told, 0.005, 2)
    assert caplog.text == ""


def test_models_of_waveforms_are_told_their_own_setting():
    told = Annotated.of(made_tables(calls_of("s", 0.05, 1.0, 100)))
    wave = config_of(features={"kind": "wave"}, model={"name": "denet"})
    with pytest.raises(CanopyError, match="frames of model denet"):
        check_cells(wave, told, 1 / 24000, 4800)


@pytest.mark.parametrize(
    ("n_short", "n_long", "words"),
    [
        (4, 30, r"4 of 34 labelled calls \(12%\) and 4 of 4 calls of class pip \(100%\)"),
        (30, 400, r"^30 of 30 calls of class pip \(100%\) last less than 0\.16 s"),
    ],
)
def test_a_class_of_short_calls_is_not_outvoted(n_short, n_long, words, caplog):
    kinds = calls_of("pip", 0.05, 2.0, n_short), calls_of("song", 5.0, 9.0, n_long)
    told = Annotated.of(made_tables(*kinds))
    with pytest.raises(CanopyError, match=words) as caught:
        check_cells(config_of(), told, 0.02, 8)
    hop = int(re.search(r"set features.hop_length to (\d+) or less", str(caught.value))[1])
    check_cells(config_of(), told, hop / 24000, 8)
    assert caplog.text == ""
    check_cells(config_of(data={"annotation": "complete"}), told, 0.02, 8)
    assert re.search(words, caplog.messages[0])
    caplog.clear()
    check_cells(config_of(), told, wanted_cell(told), 1)
    assert caplog.text == ""


def test_many_classes_of_short_calls_are_counted():
    kinds = [calls_of(f"s{n}", 0.05, 2.0, 6) for n in range(7)]
    with pytest.raises(CanopyError, match=r"class s2 .* and calls of 4 more classes last less"):
        check_cells(config_of(), Annotated.of(made_tables(*kinds)), 0.02, 8)


def test_only_gaps_are_let_off_where_cells_are_as_short_as_pays():
    clicks = Annotated.of(made_tables(calls_of("c", 0.0003, 0.1, 60), rates=(250000,)))
    cell = wanted_cell(clicks)
    with pytest.raises(CanopyError, match=r"60 of 60 labelled calls"):
        check_cells(config_of(), clicks, cell, 1)


def test_gaps_of_classes_with_few_calls_count():
    few = [calls_of(f"s{n}", 1.0, 0.3, 4, spread=0.0) for n in range(6)]
    told = Annotated.of(made_tables(calls_of("song", 2.0, 9.0, 20), *few, n_recordings=1))
    assert wanted_cell(told) == pytest.approx(0.1)
