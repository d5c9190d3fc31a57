"""Exit codes of scripts, and the device that they compute on."""

import pytest

from local.io.errors import CanopyError
from local.jobs.devices import choose_device
from local.jobs.exit_codes import run_script


def test_exit_codes(capsys):
    def fail(error):
        raise error

    assert run_script(lambda: 0) == 0
    assert run_script(lambda: fail(CanopyError("x.csv: no column y; add it"))) == 1
    assert capsys.readouterr().err == "error: x.csv: no column y; add it\n"
    assert run_script(lambda: fail(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):  # a fault of ours shows where it is
        run_script(lambda: 1 // 0)


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(CanopyError, match="finds no GPU"):
        choose_device("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == "cuda"
