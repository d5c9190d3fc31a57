"""The bench of competitions: settings that work, choices that leave out, a page with every rule."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from local.config.strict_yaml import parse_yaml
from local.inference.scores import Scores
from local.scoring.metrics.matching import EventList
from recipes.demo.settings import settings_from
from recipes.rfcx.transfer.__main__ import main, parse_args
from recipes.rfcx.transfer.choosing import leave_out, mean_interval, pick
from recipes.rfcx.transfer.competitions import COMPETITIONS
from recipes.rfcx.transfer.event_rules import DROPS, find, judge
from recipes.rfcx.transfer.first_training import command, place_of, train
from recipes.rfcx.transfer.page import gains_of, write_page
from recipes.rfcx.transfer.relabelling import cycles_table, run_cycles
from recipes.rfcx.transfer.stored_scores import Stored


def test_there_are_many_of_several_kinds():
    assert len(COMPETITIONS) >= 12
    assert len({one.name for one in COMPETITIONS}) == len(COMPETITIONS)
    assert sum(one.made_up for one in COMPETITIONS) >= 6
    assert sum(one.clips is not None for one in COMPETITIONS) >= 3
    assert sum(one.data is not None for one in COMPETITIONS) >= 2


@pytest.mark.parametrize("one", [one for one in COMPETITIONS if one.data is None])
def test_settings_make_a_competition(one):
    given = {key: parse_yaml(value) for key, value in one.settings.items()}
    if one.clips:
        given["clips"] = Path("clips")
    settings = settings_from({"sample_rate": 16000, "n_train": 80, "n_test": 40, **given})
    assert settings.n_test == 40


def test_commands_name_seeds_and_sounds(tmp_path):
    by_name = {one.name: one for one in COMPETITIONS}
    place = place_of(by_name["clips, fainter test"], 2, tmp_path, Path("/sounds"))
    words = command(place, Path("/sounds"))
    assert "prepare.test_snr_db=-6" in words
    assert "prepare.clips=/sounds/esc10" in words
    assert "seed=2" in words
    assert place.folder == tmp_path / "seed2/clips-fainter-test"
    town = place_of(by_name["soundscapes town"], 0, tmp_path, Path("/sounds"))
    assert town.data == Path("/sounds/soundscapes_town")
    assert "rfcx" in command(town, Path("/sounds"))


def test_what_is_trained_is_passed_over(tmp_path):
    place = place_of(COMPETITIONS[0], 0, tmp_path, tmp_path)
    ran = []
    train(place, tmp_path, lambda words, log: ran.append(words))
    (place.exp / "cycle0").mkdir(parents=True)
    (place.exp / "cycle0/merge.done.json").write_text("{}")
    train(place, tmp_path, lambda words, log: ran.append(words))
    assert len(ran) == 1


def test_cycles_go_on_from_the_first_training(tmp_path):
    place, ran = place_of(COMPETITIONS[0], 0, tmp_path, tmp_path), []
    (place.exp / "cycle0").mkdir(parents=True)
    (place.exp / "cycle0/merge.done.json").write_text("{}")

    def runner(words, log):
        ran.append(words)

    run_cycles(place, "events-scratch", tmp_path, runner)
    folder = place.folder / "exp/events-scratch"
    assert (folder / "cycle0/merge.done.json").is_file()
    assert {"relabel.kind=events", "relabel.start=scratch"} <= set(ran[0])
    assert ran[0][ran[0].index("--tag") + 1] == "events-scratch"
    assert cycles_table([place]).empty
    (folder / "results.json").write_text("{}")
    run_cycles(place, "events-scratch", tmp_path, runner)
    assert len(ran) == 1


def test_nothing_to_try_is_told(tmp_path, capsys):
    options = ["--sounds", str(tmp_path), "--only", "soundscapes"]
    assert parse_args(options).only == ["soundscapes"]
    from local.io.errors import CanopyError

    with pytest.raises(CanopyError, match="holds no sounds"):
        main(options)


# ---------------------------------------------------------------------------------------- choosing


def gains() -> pd.DataFrame:
    columns = pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0), ("c", 0)])
    rows = {
        "none": [0.0, 0.0, 0.0, 0.0],
        "bold": [0.2, 0.2, 0.2, -0.1],
        "cautious": [0.05, 0.05, 0.05, 0.0],
    }
    return pd.DataFrame(rows, index=columns).T


def test_the_worst_counts_as_well_as_the_mean():
    assert pick(gains(), 0.005) == "cautious"
    assert pick(gains(), 0.2) == "bold"
    assert pick(gains().drop(index=["none", "cautious"]), 0.0) == "bold"


def test_a_competition_has_no_say_in_its_own_rule():
    table = gains()
    groups = pd.Series(table.columns.get_level_values(0), index=table.columns)
    choice = leave_out(table, groups, 0.005)
    # Without c nothing speaks against the bold rule, which then fails there.
    assert choice.chosen[("c", 0)] == "bold"
    assert choice.left_out[("c", 0)] == pytest.approx(-0.1)
    assert choice.chosen[("a", 1)] == "cautious"
    assert choice.best == "cautious"


def test_the_interval_holds_the_mean():
    values = np.array([0.0, 0.1, 0.2, 0.4])
    low, high = mean_interval(values, np.random.default_rng(0))
    assert low < values.mean() < high
    assert mean_interval(np.ones(3), np.random.default_rng(0)) == (1.0, 1.0)


# -------------------------------------------------------------------------------------- event rules


def toy() -> Stored:
    frames = np.full((2, 100), -5.0, dtype=np.float32)
    frames[0, 20:30] = 2.0
    frames[0, 30:40] = 0.5
    frames[1, 60:70] = -1.0
    test = Scores(["x"], ["s0", "s1"], [frames], frames.max(axis=1)[None], 0.1, 0.0)
    true = EventList(
        np.zeros(2, np.int64), np.array([0, 1]), np.array([2.0, 6.0]), np.array([4.0, 7.0]),
        np.ones(2),
    )  # fmt: skip
    nothing: dict = dict.fromkeys(("config", "folds", "oof", "oof_clip", "spans", "events"))
    return Stored(
        name="toy", seed=0, labels=["s0", "s1"], source=np.full(2, 0.5), test=test,
        test_clip=frames.max(axis=1)[None], truth=np.ones((1, 2), np.int64), truth_events=true,
        **nothing,
    )  # fmt: skip


def test_events_by_threshold_and_drop():
    stored = toy()
    narrow = judge(stored, find(stored, np.array([1.0, 1.0]), 0.0))
    wide = judge(stored, find(stored, np.array([1.0, 1.0]), 1.0))
    assert (narrow.precision, narrow.recall) == (1.0, 0.5)
    assert narrow.f1 == wide.f1 == pytest.approx(2 / 3)
    assert narrow.iou == pytest.approx(0.5)
    assert wide.iou == pytest.approx(1.0)
    # An IoU of exactly a half is not above it.
    assert (narrow.f1_half, wide.f1_half) == (0.0, pytest.approx(2 / 3))
    both = judge(stored, find(stored, np.array([1.0, -2.0]), 1.0))
    assert both.f1 == both.macro == 1.0
    none = judge(stored, find(stored, np.array([9.0, 9.0]), 1.0))
    assert none.f1 == 0.0
    assert np.isnan(none.precisions).all()


# --------------------------------------------------------------------------------------------- page


def test_every_rule_is_a_row(tmp_path):
    rows = [
        (name, 0, rule, 0.7 + gain)
        for name in ("a", "b")
        for rule, gain in (("none", 0.0), ("odds", 0.1), ("true, odds", 0.2))
    ]
    ranking = pd.DataFrame(rows, columns=["competition", "seed", "rule", "lwlrap"])
    assert gains_of(ranking).loc["odds"].to_list() == pytest.approx([0.1, 0.1])
    figures = vars(judge(toy(), find(toy(), np.ones(2), 0.0)))
    events = pd.DataFrame(
        [
            {"competition": name, "seed": 0, "rule": "logit 1", "drop": drop, **figures}
            for name in ("a", "b")
            for drop in DROPS
        ]
        + [
            {
                "competition": "a",
                "seed": 0,
                "rule": "--threshold precision=0.9",
                "drop": 0,
                **figures,
            }
        ]
    )
    cycles = pd.DataFrame(
        {
            "competition": ["a", "b"],
            "seed": 0,
            "tag": "soft",
            "submitted": [1, 0],
            "raw": [0.7, 0.6],
            "lwlrap": [0.8, 0.59],
            "ap_first": [0.5, 0.5],
            "ap_last": [0.6, 0.45],
            "ap": [0.6, 0.5],
        }
    )
    write_page(tmp_path / "page.md", "make transfer", ranking, events, cycles, ["town"])
    text = (tmp_path / "page.md").read_text()
    assert (
        "| soft labels, from the weights of cycle 0 | 2 | 0.650 | 0.695 | +0.045 | -0.010, b | "
        "0.500 | +0.025 | -0.050, b | +0.050 | +0.000, b |"
    ) in text
    assert "| a | 0 | soft labels, from the weights of cycle 0 | cycle 1 | 0.700 to 0.800 |" in text
    assert "| odds | +0.100 (+0.100 to +0.100) | +0.100 | a | 2 of 2 |" in text
    assert "Chosen on all: odds." in text
    assert text.count("| logit 1 |") == len(DROPS)
    assert "| --threshold precision=0.9 | 1 of 1 | 1.000 | 1.000, a | 1.000, s0 of a |" in text
    assert "Passed over, as their sounds are not there: town." in text
