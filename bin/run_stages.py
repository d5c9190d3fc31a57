#!/usr/bin/env python3
"""All stages of one recipe, in order: what `./run.sh` does once it has found a Python.

    ./run.sh --recipe demo --stage train --dry-run
    .venv/bin/python bin/run_stages.py --recipe demo    the same, in an environment that is there

Reads the options, brings the environment up to date where that is to do, and runs the stages that
have work to do, or hands them to Slurm. Exit codes: 0 done; 1 or that of the stage that failed; 2
usage; 75 stopped on request, the same command goes on; 130 aborted by a second Ctrl-C.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from local.stages.pipeline import Pipeline, say
from local.stages.run_options import UsageError, complete, help_text, parse
from local.stages.stage_graph import Part, command

ROOT = Path(__file__).resolve().parents[1]
# Set by run.sh: how it was called, and whether the environment is up to date.
CALLED, READY = "CANOPY_RUN_SH", "CANOPY_READY"
JOBS = Part(
    *("jobs", "bin/cluster.py", "run", (), ()),
    options=(
        *("recipe", "conf", "tag", "datadir", "dumpdir", "expdir", "device", "stage"),
        *("stop-stage", "folds", "seeds", "slurm-conf", "cache", "set", "force", "dry-run"),
    ),
)


def main(argv: list[str] | None = None) -> int:
    """Run, or say why not."""
    argv = sys.argv[1:] if argv is None else argv
    called, ready = os.environ.get(CALLED, "./run.sh"), os.environ.get(READY, "yes") == "yes"
    venv = Path(os.environ.get("VENV") or sys.prefix)
    try:
        given = parse(argv)
        if given.get("help"):
            print(f"{__doc__}\n{help_text()}")
            raise SystemExit(0)
        values = complete(given, ROOT, Path.cwd())
        if values["launcher"] == "slurm" and values["dry-run"] and not ready:
            raise UsageError(
                "--dry-run of --launcher slurm needs the environment: bin/setup_env.sh first."
            )
    except UsageError as error:
        print(f"run.sh: {error}", file=sys.stderr)
        return 2
    python = str(venv / "bin/python")
    if not ready and not values["dry-run"]:
        return _set_up(python, argv)
    os.chdir(ROOT)
    if values["launcher"] == "slurm":
        script, *options = command(JOBS, values)
        return _become([python, script, "submit", *options], VENV=str(venv))
    # Who meets the lock of this run is told what holds it.
    sys.argv = [called, *argv]
    pipeline = Pipeline(values, python, " ".join([called, *map(shlex.quote, argv)]))
    pipeline.greet()
    if values["dry-run"]:
        return pipeline.show(lambda: _cycles(values, ready))
    return pipeline.run()


def _set_up(python: str, argv: list[str]) -> int:
    """Bring the environment up to date, and begin again with its Python."""
    ended = subprocess.run([ROOT / "bin/setup_env.sh"], stdout=subprocess.DEVNULL, check=False)
    if ended.returncode != 0:
        return ended.returncode
    return _become([python, __file__, *argv], **{READY: "yes"})


def _become(command_line: list[str], **environment: str) -> NoReturn:
    """Go on as another program, which gets the signals that this process would get."""
    os.execve(command_line[0], command_line, os.environ | environment)  # noqa: S606 (by its path)


def _cycles(values: dict[str, Any], ready: bool) -> list[int]:
    """Cycles of stage 4 that the configuration asks for, where it can be read."""
    if not ready:
        if not values["n-cycles"]:
            say("nothing is set up yet that could read the configuration: one cycle is shown")
        return list(range(1, int(values["n-cycles"] or 1) + 1))
    from local.config import load_config
    from local.stages.completion import folds_and_cycles

    stages = range(values["stage"], values["stop-stage"] + 1)
    return folds_and_cycles(load_config(values["conf"], values["set"]), values["folds"], stages)[1]


if __name__ == "__main__":
    sys.exit(main())
