"""`make gpu` itself, run on the CPU."""

from pathlib import Path

import pytest

from tests.gpu import check

pytestmark = pytest.mark.slow


def test_the_script_of_a_gpu_machine_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    code = check.main(["--device", "cpu", "--quick", "--out", str(out)])
    table = out.read_text()
    assert code == 0, table
    assert "| tests marked gpu | ok |" in table
    assert "| torchrun, one process | ok |" in table
    assert "FAILED" not in table
    assert "not run" not in table
