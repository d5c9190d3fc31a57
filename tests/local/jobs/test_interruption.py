"""Signals set a flag, once; a second Ctrl-C aborts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.jobs import interruption
from local.jobs.exit_codes import run_script
from local.jobs.interruption import (
    EXIT_CONTINUE,
    Interrupted,
    forget,
    listen,
    requested,
    stop_if_asked,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def quiet():
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    yield
    forget()
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


def test_nothing_is_asked_before_a_signal():
    listen()
    assert requested() == ""
    stop_if_asked("here")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_is_noted_and_stops_at_the_next_question(name):
    listen()
    os.kill(os.getpid(), getattr(signal, name))
    assert requested() == name
    with pytest.raises(Interrupted, match=f"stopped by {name} at row 3"):
        stop_if_asked("row 3")


def test_only_a_second_ctrl_c_aborts():
    listen()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert requested() == "SIGTERM"
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_script_that_is_asked_ends_with_the_code_for_continue(capsys):
    def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        stop_if_asked("epoch 3")
        return 0

    assert run_script(main) == EXIT_CONTINUE == 75
    told = "stopped by SIGUSR1 at epoch 3; the same command goes on from here\n"
    assert capsys.readouterr().err == told
    # The next one is not asked.
    assert run_script(lambda: int(bool(requested()))) == 0


def test_a_process_does_not_outlive_the_one_it_is_bound_to(monkeypatch):
    monkeypatch.setenv(interruption.PARENT, str(os.getppid()))
    listen()
    assert interruption.PARENT not in os.environ
    assert requested() == ""
    monkeypatch.setenv(interruption.PARENT, str(os.getpid()))  # not the parent, as if it had died
    listen()
    assert requested() == "the end of the process that started it"


WORKER = """
import os, signal, sys, time
from local.jobs import interruption
interruption.LINGER_S = 1
interruption.leave_to_parent(0)
print("ready", flush=True)
end = time.monotonic() + 20
while time.monotonic() < end:
    time.sleep(0.05)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ends"), [("SIGINT", 0), ("SIGUSR1", 0), ("SIGTERM", 1)])
def test_workers_leave_signals_to_their_parent(name, ends):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, name))
        time.sleep(0.4)
        assert process.poll() is None
        if ends:
            assert process.wait(timeout=10) == -signal.SIGALRM
    finally:
        process.kill()
        process.wait()
