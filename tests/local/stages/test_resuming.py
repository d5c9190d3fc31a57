"""A fold that was killed or asked to stop, anywhere, ends as one that ran through: to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from local.jobs.interruption import EXIT_CONTINUE
from local.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
# What does not depend on the clock or on this machine's names.
FILES = ("best.pt", "last.pt", "previous.pt", "log.csv", "seen.csv", "train.done.json")
QUICK = {"train__n_epochs": 3, "train__validate_every": 2, "train__windows_per_epoch": 80}
DROPOUT = {"channels": [8, 8], "pool": [[2, 2], [1, 1]], "depth": 1, "gru": 0, "dropout": 0.3}
SOUND = {"gain_db": 6, "freq_masks": 1, "noise_std": 0.1, "noise_p": 0.5, "background_p": 0.5}
# Five batches an epoch.
KINDS = {
    "plain": {"model__params": DROPOUT},
    "workers": {
        "train__accumulate": 2,
        "train__n_workers": 2,
        "augment": {**SOUND, "mixup_alpha": 0.5},
        "train__select": "best",
        "train__validate_every": 1,
    },
    "balanced": {"window__balance_batches": True, "augment": {"mixup_lambda": 0.6}},
    "stretched": {
        "features__stretches": [0.9, 1.1],
        "window__p_stretched": 0.6,
        "augment": {"stretch": [0.9, 1.1]},
    },
    "whole": {
        "window": {"whole": True, "short": "repeat"},
        "loss": {"centre_weight": 1e-3},
        "train__optimizer": "sgd",
        "train__accumulate": 3,
    },
}


@pytest.fixture(scope="module")
def processes():
    """Function: job -> exit code of the process that `dying` makes for it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("dying.py"))],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline() == "ready\n"

    def run(**job) -> int:
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    yield run
    server.stdin.close()
    server.wait()


@pytest.fixture
def fold(toy, tmp_path, processes):
    """Function: changes of the toy -> function: what happens to a process -> its exit code."""

    def make(**changes):
        made = toy(**{**QUICK, "train__save_minutes": 0.0, **changes})
        log = tmp_path / "log"

        def run(**death) -> int:
            options = [*made.options, "--worker", "--folds", "0"]
            return processes(options=options, log=str(log), **death)

        run.folder, run.log = made.run.fold(0, 0), log
        return run

    return make


def contents(folder):
    found = {name: (folder / name).read_bytes() for name in FILES}
    stamp = json.loads(found["train.done.json"])
    # The tree that the tests run in may be worked on.
    return found | {"train.done.json": stamp | {"code": None}}


def begin_anew(folder):
    """Nothing is left of the fold."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def whole_run(run):
    assert run() == 0, run.log.read_text()
    kept = contents(run.folder)
    begin_anew(run.folder)
    return kept


def changed(folder, kept):
    found = contents(folder)
    return [name for name in FILES if found[name] != kept[name]]


def same(run, kept):
    assert changed(run.folder, kept) == []
    left = {path.name for path in run.folder.iterdir() if path.name.startswith(("step", "."))}
    assert left <= {".lock"}


@pytest.mark.parametrize("kind", ["plain", "workers"])
def test_a_fold_after_another_is_the_fold_alone(toy, tmp_path, processes, kind):
    made, log = toy(**{**QUICK, **KINDS[kind]}), tmp_path / "log"
    folder = made.run.fold(0, 1)
    worker = [*made.options, "--worker", "--folds"]
    assert processes(options=[*worker, "1"], log=str(log)) == 0, log.read_text()
    kept = contents(folder)
    begin_anew(folder)
    assert processes(options=[*worker, "0 1"], log=str(log)) == 0, log.read_text()
    assert (made.run.fold(0, 0) / "best.pt").is_file()
    assert changed(folder, kept) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("save_minutes", [0.0, 60.0])
def test_killed_at_random_steps(fold, kind, save_minutes):
    run = fold(**KINDS[kind], train__save_minutes=save_minutes)
    kept = whole_run(run)
    rng = random.Random(f"{kind} {save_minutes}")
    # Counted from where each begins: with every step saved a killed run still goes forward.
    for at in rng.sample(range(2, 9), 3):
        assert run(signal=signal.SIGKILL, place="step", at=at) in (-signal.SIGKILL, 0)
    assert run() == 0, run.log.read_text()
    same(run, kept)


@pytest.mark.parametrize("kind", ["plain", "workers"])
def test_killed_before_a_file_gets_its_name(fold, kind):
    """Between any two files that an epoch leaves."""
    run = fold(**KINDS[kind], train__n_epochs=2, train__save_minutes=60.0)
    kept = whole_run(run)
    for at in range(1, 60):
        code = run(signal=signal.SIGKILL, place="replace", at=at)
        if code == 0:
            break
        assert code == -signal.SIGKILL, run.log.read_text()
        assert run() == 0, run.log.read_text()
        same(run, kept)
        begin_anew(run.folder)
    assert at > 10
    same(run, kept)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("kind", ["plain", "workers"])
def test_a_signal_saves_and_says_continue(fold, kind, number):
    run = fold(**KINDS[kind], train__save_minutes=60.0)
    kept = whole_run(run)
    assert run(signal=number, place="step", at=8) == EXIT_CONTINUE, run.log.read_text()
    last = run.log.read_text().splitlines()[-1]
    assert f"stopped by {signal.Signals(number).name} at epoch 2, batch " in last
    assert last.endswith("; the same command goes on from here")
    progress = load_checkpoint(run.folder / "step.pt")["progress"]
    # The eighth batch is the third of the second epoch; with two to a step the fourth ends it.
    assert (progress["epoch"], progress["step"]) == (1, 4 if kind == "workers" else 3)
    assert not (run.folder / "train.done.json").exists()
    assert run() == 0, run.log.read_text()
    same(run, kept)


def test_a_signal_during_validation_costs_no_step(fold):
    run = fold(train__save_minutes=60.0)
    kept = whole_run(run)
    # The fifth and last batch of the second epoch, after which the fold is validated.
    assert run(signal=signal.SIGTERM, place="step", at=10) == EXIT_CONTINUE
    assert load_checkpoint(run.folder / "step.pt")["progress"]["step"] == 5
    assert run(signal=signal.SIGTERM, place="score", at=1) == EXIT_CONTINUE
    assert load_checkpoint(run.folder / "step.pt")["progress"]["step"] == 5
    assert run(signal=signal.SIGKILL, place="score", at=1) == -signal.SIGKILL
    assert run(signal=signal.SIGTERM, place="step", at=1) == EXIT_CONTINUE
    progress = load_checkpoint(run.folder / "step.pt")["progress"]
    assert (progress["epoch"], progress["step"]) == (2, 1)
    assert run() == 0
    same(run, kept)


@pytest.mark.parametrize("damaged", ["step.pt", "last.pt", "both"])
def test_damaged_states_fall_back_and_end_the_same(fold, damaged):
    run = fold(train__save_minutes=60.0, train__n_epochs=4)
    kept = whole_run(run)
    assert run(signal=signal.SIGTERM, place="step", at=12) == EXIT_CONTINUE
    for name in ("step.pt", "last.pt") if damaged == "both" else (damaged,):
        content = bytearray((run.folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (run.folder / name).write_bytes(content)
    assert run() == 0
    text = run.log.read_text()
    assert ("going on from previous.pt" in text) == (damaged == "both")
    assert f"{'step.pt' if damaged == 'both' else damaged}: not a checkpoint" in text
    same(run, kept)


@pytest.mark.parametrize("how", ["damaged", "gone", "older"])
def test_a_best_model_that_cannot_be_had_back_is_trained_anew(fold, how):
    run = fold(train__select="best", train__validate_every=1, train__save_minutes=60.0)
    kept = whole_run(run)
    assert run(signal=signal.SIGTERM, place="step", at=12) == EXIT_CONTINUE
    best = run.folder / "best.pt"
    if how == "damaged":
        best.write_bytes(best.read_bytes()[:-100])
    elif how == "gone":
        best.unlink()
    else:
        from local.models.checkpoint import save_checkpoint

        save_checkpoint(best, {**load_checkpoint(best), "epoch": 0})
    assert run() == 0
    assert "training begins anew" in run.log.read_text()
    same(run, kept)


def test_the_last_model_is_had_back_from_the_last_state(fold):
    run = fold(train__save_minutes=60.0)
    kept = whole_run(run)
    # Killed when all is written but the stamp.
    assert run(signal=signal.SIGKILL, place="stamp", at=1) == -signal.SIGKILL
    assert load_checkpoint(run.folder / "last.pt")["progress"]["epoch"] == 3
    assert not (run.folder / "train.done.json").exists()
    (run.folder / "best.pt").write_bytes(b"")
    assert run() == 0
    assert "training begins anew" not in run.log.read_text()
    same(run, kept)


def test_a_fold_that_is_done_and_lost_its_model_is_trained_again(fold):
    run = fold()
    kept = whole_run(run)
    assert run() == 0
    best = run.folder / "best.pt"
    best.write_bytes(best.read_bytes()[:-1])
    assert run() == 0
    same(run, kept)


def test_clock_columns_are_kept_apart(fold):
    run = fold()
    assert run(signal=signal.SIGTERM, place="step", at=8) == EXIT_CONTINUE
    assert run() == 0
    log, timing = (pd.read_csv(run.folder / f"{name}.csv") for name in ("log", "timing"))
    assert timing["epoch"].tolist() == log["epoch"].tolist() == [1, 2, 3]
    assert (timing["seconds"] > 0).all()
    assert not {"seconds", "windows_per_s"} & set(log)
    assert log["skipped_steps"].tolist() == [0, 0, 0]
