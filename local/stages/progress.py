"""What of a run is done, by the stamps that its stages leave; without PyTorch."""

from contextlib import ExitStack
from typing import Any

from local.config import dump_config
from local.data.tables import check_source
from local.io.files import write_text
from local.jobs.locks import inherited, lock_folder
from local.stages.graph import PARTS, Work, command
from local.stages.options import chosen_folds, folds_parser
from local.stages.starting import run_of
from local.tasks.task_registry import create_task


class Progress:
    """One run, seen from outside of its stages."""

    def __init__(self, values: dict[str, Any]) -> None:
        # As the scripts read it.
        args = folds_parser(None).parse_args(command(PARTS["infer"], values)[1:])
        self._run = run_of(args)
        self._folds = chosen_folds(args.folds, self._run.config.split.n_folds)
        if not self._run.force:
            check_source(self._run.tables, self._run.datadir)

    @property
    def cycles(self) -> list[int]:
        """Cycles of stage 4."""
        return create_task(self._run.config).revised_cycles

    def hold(self, held: ExitStack) -> tuple[dict[str, str], tuple[int, ...]]:
        """Take the lock of the run's folder; what hands it on to scripts, see `locks.inherited`."""
        held.enter_context(lock_folder(self._run.exp, "this experiment"))
        return inherited()

    def is_done(self, work: Work) -> bool:
        """Whether a part of a stage has nothing to do."""
        return False

    def note_configuration(self) -> None:
        """Keep the configuration of a run of which nothing was to do."""
        path, text = self._run.exp / "config.yaml", dump_config(self._run.config)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
