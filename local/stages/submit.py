"""Stage 5: what the task hands in, results.json, report.html."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from local.io.errors import CanopyError
from local.io.files import write_json
from local.stages.experiment import Experiment
from local.stages.run import Run
from local.stages.run_record import environment_record, note_work


def submit(run: Run, write_page: Callable[[Experiment, dict[str, Any]], list[Path]]) -> None:
    """Write what can be handed in, its scores and its report.

    write_page : writes the report of the results; all its files.
    """
    experiment = Experiment(run)
    cycles = experiment.cycles_done()
    if not cycles:
        raise CanopyError(f"{run.cycle(0)}: no scores yet; run stages 2 and 3 first")
    stamp = experiment.stamp("submit", cycles[-1], cycles=cycles)
    if not stamp.is_done(run.force):
        stamp.clear()
        note_work(run, "submit")
        found = experiment.task.submit(experiment, cycles)
        # The command names folders, and a run gives the same bytes wherever it lies: see run.json.
        made = environment_record(run.config, run.device)
        results = found.results | {"run": {k: v for k, v in made.items() if k != "command"}}
        write_json(run.exp / "results.json", results)
        pages = write_page(experiment, results)
        print(found.table)
        stamp.write([*found.files, run.exp / "results.json", *pages])
