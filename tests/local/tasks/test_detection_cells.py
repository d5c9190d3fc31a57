"""Calls and gaps that are shorter than a cell are told with the numbers and the mend."""

import re

import pytest

from local.config import make_config
from local.data.annotated import Annotated
from local.io.errors import CanopyError
from local.tasks.detection_cells import check_cells
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
