import numpy as np
import pandas as pd
import pytest

from local.report.records import Curve, Detection, EventKind


def test_panel_refuses_shapes_that_do_not_fit(make_panel):
    with pytest.raises(ValueError, match="3 labels"):
        make_panel(labels=["a", "b", "c"])
    with pytest.raises(ValueError, match="mel_centres_hz"):
        make_panel(mel_centres_hz=np.arange(39))
    with pytest.raises(ValueError, match="n_mels"):
        make_panel(feats=np.zeros((40, 0)))
    with pytest.raises(ValueError, match="positive"):
        make_panel(hop_s=0.0)


def test_top_labels_rank_by_peak_and_put_unscored_last(make_panel):
    logit = np.full((4, 5), -4.0)
    logit[2, 3] = 6.0
    logit[0, 0] = 1.0
    logit[1] = np.nan
    panel = make_panel(frame_logit=logit)
    assert panel.top_labels(4) == ["toad", "frog", "wren", "owl"]
    assert panel.top_labels(1) == ["toad"]
    assert make_panel(frame_logit=np.zeros((4, 0))).top_labels(2) == ["frog", "owl"]


def test_title_holds_the_name_once(make_panel):
    panel = make_panel(names={"owl": "Otus asio", "frog": "frog"})
    assert [panel.title_of(label) for label in ("owl", "frog", "wren")] == [
        "owl Otus asio",
        "frog",
        "wren",
    ]


def test_an_event_kind_is_known_by_its_word():
    assert Detection(0, 1, "a", kind="pseudo").kind is EventKind.PSEUDO
    with pytest.raises(ValueError, match="guessed"):
        Detection(0, 1, "a", kind="guessed")


def test_curve_from_a_log_takes_numbers_and_refuses_uneven_series():
    frame = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4], "note": ["a", "b"]})
    curve = Curve.from_log(frame, cycle=1, fold=2)
    assert dict(curve.series) == {"loss": [0.5, 0.4]}
    assert list(curve.epoch) == [1, 2]
    with pytest.raises(ValueError, match="'loss' has 1 values for 2 epochs"):
        Curve(0, 0, [1, 2], {"loss": [1.0]})
