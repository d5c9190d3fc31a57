"""The ledger: rows of runs, hands that write into it, and correlations."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from local.inference.score_files import save_scores
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.files import write_csv, write_json
from local.report.ledger import (
    COLUMNS,
    agreements,
    correlations,
    fill_in,
    ledger_path,
    locked,
    numbers,
    read_ledger,
    record,
    run_fingerprint,
    run_row,
)
from local.report.ledger_view import agreement_lines, ledger_table, scatter_figure, write_scatter
from local.stages.experiment import Experiment

ROOT = Path(__file__).resolve().parents[3]


def row(tag="v1", recipe="rfcx", fingerprint="abc123def456", **values):
    blank = dict.fromkeys(COLUMNS, "")
    given = {"date": "2026-01-02T03:04:05Z", "recipe": recipe, "tag": tag, "metric": "lwlrap"}
    given |= {"fingerprint": fingerprint, "cv": "0.700000", "submission": "0011"}
    return blank | given | values


def later(line, **values):
    return line | {"date": "2026-02-02T03:04:05Z", **values}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "exp" / "ledger.csv"


def test_where_it_lies():
    assert ledger_path(Path("exp/rfcx"), "rfcx") == Path("exp/ledger.csv")
    assert ledger_path(Path("/big/exp/rfcx"), "rfcx") == Path("/big/exp/ledger.csv")
    # Never above a folder that only happens to bear the recipe's name, or another one.
    assert ledger_path(Path("/home/rfcx"), "rfcx") == Path("/home/rfcx/ledger.csv")
    assert ledger_path(Path("/big/runs"), "rfcx") == Path("/big/runs/ledger.csv")


def test_rows_are_added_and_replaced_in_place(path):
    record(path, row("v1"))
    record(path, row("v2", cv="0.8"))
    record(path, row("v1", fingerprint="ffffffffffff", submission="22"))
    record(path, row("v1", recipe="demo"))
    record(path, later(row("v1", cv="0.9")))
    frame = read_ledger(path)
    assert frame["tag"].tolist() == ["v1", "v2", "v1", "v1"]
    assert frame["cv"].tolist() == ["0.9", "0.8", "0.700000", "0.700000"]
    assert frame.columns.tolist() == list(COLUMNS)


def test_what_people_wrote_stays(path, caplog):
    record(path, row("v1"))
    fill_in(path, "v1", {"public": 0.95})
    frame = read_ledger(path)
    frame["note"] = "my best, so far"
    write_csv(path, frame[["note", *COLUMNS]])
    record(path, later(row("v1", cv="0.9")))
    assert "another submission" not in caplog.text
    record(path, later(row("v1", cv="0.91", submission="2222")))
    assert "those of another submission.csv" in caplog.text
    record(path, row("v2"))
    frame = read_ledger(path)
    assert frame["public"].tolist() == ["0.95", ""]
    assert frame["private"].tolist() == ["", ""]
    assert frame["note"].tolist() == ["my best, so far", ""]
    assert frame["cv"].tolist() == ["0.91", "0.700000"]


def test_results_that_are_noted_are_left_alone(path):
    record(path, row("v1"))
    before = path.stat().st_mtime_ns
    # Stage 5 was skipped; a section that it does not read differs.
    record(path, row("v1", fingerprint="000000000000"))
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@a", "\ta"])
def test_a_cell_is_never_a_formula_and_reads_back(path, text):
    record(path, row(text, commit="- 0.9"))
    assert f",'{text}," in path.read_text(encoding="utf-8")
    frame = read_ledger(path)
    assert frame["tag"].tolist() == [text]
    assert frame["commit"].tolist() == ["- 0.9"]
    fill_in(path, text, {"public": 0.5})
    assert read_ledger(path)["tag"].tolist() == [text]


@pytest.mark.slow
def test_processes_take_turns(path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom local.report.ledger import COLUMNS, record\n"
        "for i in range(8):\n"
        "    blank = dict.fromkeys(COLUMNS, '')\n"
        "    record(Path(sys.argv[1]), blank | {'recipe': 'r', 'tag': f'{sys.argv[2]}-{i}'})\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([*command, f"p{n}"], env=environment) for n in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sorted(read_ledger(path)["tag"]) == sorted(
        f"p{n}-{i}" for n in range(3) for i in range(8)
    )


def test_a_lock_that_is_held_makes_others_wait(path):
    command = [sys.executable, "-c", "import sys, fcntl\nfcntl.flock(open(sys.argv[1]), 6)"]
    with locked(path):
        lock = path.with_name(".ledger.csv.lock")
        tried = subprocess.run([*command, lock], capture_output=True, check=False)
        assert b"BlockingIOError" in tried.stderr
    assert subprocess.run([*command, lock], check=False).returncode == 0


# ------------------------------------------------------------------------------------- filling in


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tag": "v1", "scores": {"public": 95.0}}, "--public is 95; a leaderboard score lies"),
        ({"tag": "v1", "scores": {"private": float("nan")}}, "--private is nan"),
        ({"tag": "v1", "scores": {"public": -0.1}}, "--public is -0.1"),
        ({"tag": "w22"}, "no run of tag 'w22'; the nearest is 'v22'"),
        ({"tag": "v1"}, "2 rows fit tag v1; say which with --recipe and --fingerprint: rfcx abc"),
        ({"tag": "v1", "recipe": "rats"}, "0 rows fit tag v1"),
        ({"tag": "v3"}, "2 rows fit tag v3; say which with --recipe and --fingerprint: rfcx aaa1"),
        ({"tag": "v3", "fingerprint": "aaa"}, "2 rows fit"),
        ({"tag": "v3", "fingerprint": "b"}, "0 rows fit"),
    ],
)
def test_faults_change_nothing(path, options, words):
    for line in (row("v1"), row("v1", "demo"), row("v22")):
        record(path, line)
    for fingerprint in ("aaa1", "aaa2"):
        record(path, row("v3", fingerprint=fingerprint, submission=fingerprint))
    before = path.read_bytes()
    with pytest.raises(CanopyError) as caught:
        fill_in(path, **({"scores": {"public": 0.9}} | options))
    assert words in str(caught.value)
    assert path.read_bytes() == before


def test_no_ledger_no_lock(path):
    with pytest.raises(CanopyError, match="no ledger yet"):
        fill_in(path, "v1", {"public": 0.9})
    assert not path.parent.exists()


def test_the_row_that_is_meant(path):
    record(path, row("v1"))
    record(path, row("v1", "demo", fingerprint="aaa1"))
    record(path, row("v1", "demo", fingerprint="bbb1", submission="22"))
    fill_in(path, "v1", {"public": 0.95, "private": 1.0}, recipe="demo", fingerprint="b")
    fill_in(path, "v1", {"public": 0.0}, recipe="rfcx")
    frame = read_ledger(path)
    assert frame["public"].tolist() == ["0.0", "", "0.95"]
    assert frame["private"].tolist() == ["", "", "1.0"]


# ------------------------------------------------------------------------------------ correlations


def test_correlations_are_those_of_pairs():
    rng = np.random.default_rng(0)
    x = rng.random(12)
    y = x + 0.3 * rng.random(12)
    r, low, high, rho = correlations(x, y)
    assert r == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert low < r < high
    places = [np.argsort(np.argsort(values)) for values in (x, y)]
    assert rho == pytest.approx(np.corrcoef(*places)[0, 1])


@pytest.mark.parametrize(
    ("x", "y"), [([0.5], [0.5]), ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]), ([0.1, 0.2], [0.3, 0.3])]
)
def test_no_variation_no_correlation(x, y):
    assert np.isnan(correlations(np.array(x), np.array(y))).all()


def test_few_pairs_have_no_interval():
    r, low, high, rho = correlations(np.array([0.1, 0.2, 0.4]), np.array([0.1, 0.3, 0.4]))
    assert np.isnan([low, high]).all()
    assert rho == pytest.approx(1)
    assert r < 1


def filled(path, n=5):
    for i in range(n):
        record(
            path,
            row(
                f"v{i}",
                submission=str(i),
                cv=f"0.{50 + i}",
                cv_low=f"0.{40 + i}",
                cv_high=f"0.{60 + i}",
                span_auc=f"0.{90 - i}",
            ),
        )
        if i:
            fill_in(path, f"v{i}", {"public": 0.9 + 0.01 * (i % 3)})
    record(path, row("other", "demo", cv="0.10", test_truth="0.95"))
    return read_ledger(path)


def test_recipes_are_compared_apart_and_by_pairs(path):
    found = agreements(filled(path), path)
    assert [(one.recipe, one.ours, one.theirs, one.n) for one in found] == [
        ("rfcx", "cv", "public", 4),
        ("rfcx", "span_auc", "public", 4),
        ("demo", "cv", "test_truth", 1),
    ]
    assert found[0].pearson == pytest.approx(-found[1].pearson)
    assert "CV with public leaderboard, n 4: Pearson" in agreement_lines(found)[0]
    assert "set TAG --public" in agreement_lines([])[0]


def test_a_cell_that_is_no_score_is_named(path):
    frame = filled(path)
    frame.loc[2, "public"] = "0,95"
    with pytest.raises(CanopyError, match="line 4: public is '0,95'"):
        numbers(frame, "public", path)
    frame.loc[2, "public"] = " 1.5 "
    with pytest.raises(CanopyError, match="expected a number from 0 to 1"):
        agreements(frame, path)


def test_the_table_leaves_out_what_is_empty_and_cuts_what_is_long(path):
    frame = filled(path)
    header, first, *_ = ledger_table(frame, path).splitlines()
    names = "date recipe tag run CV 95 % interval span AUC truth public"
    assert " ".join(header.split()) == names
    assert first.split()[:6] == ["2026-01-02", "rfcx", "v0", "abc123", "0.5000", "0.400-0.600"]
    assert ledger_table(frame.iloc[:0], path).endswith("no run yet")
    long = ledger_table(pd.DataFrame([row("x" * 99 + "\x1b[31m")]), path)
    assert "\x1b" not in long
    assert max(map(len, long.splitlines())) < 90


def test_the_scatter(path, tmp_path):
    frame = filled(path)
    figure = scatter_figure(frame, path)
    assert figure.axes[1].get_title(loc="left") == "test truth"
    assert figure.axes[0].get_title(loc="left") == "public leaderboard"
    drawn = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(
        drawn, [[0.51, 0.91], [0.52, 0.92], [0.53, 0.9], [0.54, 0.91]], atol=1e-9
    )
    for name, start in (("a.svg", b"<?xml"), ("b.PNG", b"\x89PNG")):
        write_scatter(tmp_path / name, frame, path)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(CanopyError, match=r"ends in \.svg or \.png"):
        write_scatter(tmp_path / "c.pdf", frame, path)
    with pytest.raises(CanopyError, match="nothing to draw"):
        write_scatter(tmp_path / "d.svg", frame.iloc[:1], path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.svg", "b.PNG", "exp"]


# ------------------------------------------------------------------------------------ rows of runs


def results():
    def cycle(number, cv, truth):
        known = {"value": cv, "low": cv - 0.1, "high": cv + 0.1, "span_auc": 0.9}
        scores = {"oof_known": known}
        if truth:
            scores |= {"test_truth": {"value": truth}, "test_truth_raw": {"value": truth - 0.1}}
        return {"cycle": number, "scores": scores}

    run = {"commit": "c0ffee+changes", "seed": 7}
    return {"metric": "lwlrap", "cycles": [cycle(0, 0.6, 0.7), cycle(1, 0.65, 0.8)], "run": run}


def test_a_row_says_what_the_run_reached(toy):
    made = toy(train__windows_per_epoch=100)
    run = made.run
    write_json(run.exp / "results.json", results())
    write_csv(run.exp / "submission.csv", pd.DataFrame({"recording_id": ["x"], "a": [0.5]}))
    found = run_row(run.exp, "toy", run.config, run.tables)
    assert list(found) == list(COLUMNS)
    expected = {
        "recipe": "toy",
        "tag": "toy",
        "commit": "c0ffee+changes",
        "seed": "7",
        "cv": "0.650000",
        "cv_low": "0.550000",
        "span_auc": "0.900000",
        "test_truth": "0.800000",
        "test_truth_raw": "0.700000",
        "public": "",
    }
    assert {name: found[name] for name in expected} == expected
    without = results()
    without["cycles"] = without["cycles"][:1]
    del without["cycles"][0]["scores"]["test_truth"]
    write_json(run.exp / "results.json", without)
    found = run_row(run.exp, "toy", run.config, run.tables)
    assert (found["test_truth"], found["cv"]) == ("", "0.600000")


def test_the_fingerprint_knows_settings_and_tables_but_not_the_way_the_data_came(toy):
    run = toy().run
    before = run_fingerprint(run.config, run.tables)
    change = {"prepare": {"download": True}}
    assert run_fingerprint(run.config.model_copy(update=change), run.tables) == before
    assert run_fingerprint(run.config.model_copy(update={"seed": 5}), run.tables) != before
    events = run.tables / "events.csv"
    events.write_text("\n".join(events.read_text().splitlines()[:-1]) + "\n")
    assert run_fingerprint(run.config, run.tables) != before


def scored(made):
    """Scores of cycle 0 as stage 3 leaves them."""
    experiment = Experiment(made.run)
    rng = np.random.default_rng(0)
    for kind, ids in (("oof", experiment.dump_ids), ("test", experiment.ids("test"))):
        frames = [rng.normal(size=(3, 30)).astype(np.float32) for _ in ids]
        window = np.stack([one.max(axis=1) for one in frames])
        scores = Scores(list(ids), ["a", "b", "c"], frames, window, 0.2, -0.05)
        save_scores(made.run.cycle(0) / f"{kind}.npz", scores, window, True)
    write_json(made.run.cycle(0) / "merge.done.json", {})


@pytest.mark.slow
def test_stage_5_notes_the_run_once(toy, script):
    made = toy(score={"n_bootstrap": 20})
    scored(made)
    submit, path = script("submit").main, made.run.exp.parent / "ledger.csv"
    assert submit(made.options) == 0
    first = read_ledger(path)
    assert first["tag"].tolist() == ["toy"]
    assert float(first["cv_low"][0]) < float(first["cv"][0]) < float(first["cv_high"][0])
    fill_in(path, "toy", {"public": 0.9})
    # Skipped, and run again: still one row. Another seed is another run.
    assert submit(made.options) == 0
    assert submit([*made.options, "--force"]) == 0
    assert read_ledger(path)["public"].tolist() == ["0.9"]
    assert submit([*made.options, "--force", "--set", "seed=3"]) == 0
    assert read_ledger(path)["seed"].tolist() == ["0", "3"]
    path.unlink()
    assert submit([*made.options, "--set", "seed=3"]) == 0
    assert len(read_ledger(path)) == 1
