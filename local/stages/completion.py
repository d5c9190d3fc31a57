"""What of a run is done, by the stamps that its stages leave; without PyTorch."""

import importlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from local.config import Config, dump_config
from local.data.tables import check_source
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError
from local.io.files import write_text
from local.jobs.locks import inherited, lock_folder
from local.stages.experiment import Experiment
from local.stages.logs import log_to_terminal
from local.stages.preprocess import dumps_are_done
from local.stages.settings import of_recipe, write_suggested
from local.stages.stage_graph import PARTS, Part, Work, command
from local.stages.stage_options import (
    check_folds_for,
    chosen_folds,
    folds_parser,
    preparation_parser,
)
from local.stages.stamps import Stamp
from local.stages.starting import run_of
from local.tasks.task_registry import create_task

log = logging.getLogger("canopy")


def folds_and_cycles(
    config: Config, folds: str, stages: Iterable[int]
) -> tuple[list[int], list[int]]:
    """The folds that an option names, and the cycles of stage 4.

    Raises
    ------
    CanopyError
        A task or front end that does not exist, or folds that these stages cannot do with.
    """
    front_end_of(config)
    n_folds, cycles = config.split.n_folds, create_task(config).revised_cycles
    chosen = chosen_folds(folds, n_folds)
    check_folds_for(stages, chosen, n_folds, cycles)
    return chosen, cycles


class Completion:
    """One run, seen from outside of its stages; `values` are those of `run_options.complete`.

    cycles : of stage 4.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        log_to_terminal()
        self._values = values
        # As the scripts read it.
        self._args = folds_parser(None).parse_args(command(PARTS["infer"], values)[1:])
        stages = range(values["stage"], values["stop-stage"] + 1)
        # Tables that stage 0 may make anew suggest nothing yet.
        self._run = run_of(self._args, prepared=0 not in stages)
        self._folds, self.cycles = folds_and_cycles(self._run.config, self._args.folds, stages)
        if not self._run.force:
            check_source(self._run.tables, self._run.datadir)

    def hold(self, held: ExitStack) -> tuple[dict[str, str], tuple[int, ...]]:
        """Take the lock of the run's folder; what hands it on to scripts, see `locks.inherited`."""
        held.enter_context(lock_folder(self._run.exp, "this experiment"))
        return inherited()

    def take_tables(self) -> bool:
        """Now the tables are prepared: go on with what they suggest; whether they were asked."""
        self._run = run_of(self._args)
        return self._run.suggestions is not None

    def is_done(self, work: Work) -> bool:
        """Whether a script has nothing to do, with a line in the log for every stamp that says so.

        Where something that it needs is missing, it has: its script tells what.
        """
        if self._run.force:
            return False
        # The stamp of stage 4 tells whether that still holds; after it there is nothing more.
        before = work.cycle - 1 if work.part.name == "relabel" else work.cycle
        if why := Experiment(self._run).ended(before):
            if work.part.name == "train":
                log.info("no cycle %d: %s", work.cycle, why)
            return True
        try:
            if work.part.name == "preprocess":
                return dumps_are_done(self._run)
            if work.part.name == "infer":
                # Of models of other settings its script scores nothing, and says so.
                trained = self._stamps(PARTS["train"], work.cycle)
                if not all(stamp.matches() for stamp in trained):
                    return False
            stamps = [*self._stamps(work.part, work.cycle)]
            for part in PARTS.values():
                if part.gathers == work.part.name:
                    stamps += self._stamps(part, work.cycle)
        except CanopyError:
            return False
        done = bool(stamps) and all(stamp.matches() for stamp in stamps)
        for stamp in stamps if done else ():
            stamp.say_done()
        return done

    def _stamps(self, part: Part, cycle: int) -> Iterator[Stamp]:
        """The marks of a part."""
        experiment = Experiment(self._run)
        if part.name == "prepare":
            yield from self._preparation()
        elif part.per == "fold":
            for fold in self._folds:
                yield experiment.stamp(part.name, cycle, fold)
                if part.name == "infer" and experiment.task.further(experiment, cycle, fold):
                    yield experiment.stamp("further", cycle, fold)
        elif part.name == "submit":
            cycles = experiment.cycles_done()
            yield experiment.stamp(part.name, max(cycles, default=0), cycles=cycles)
        else:
            some: dict[str, Any] = {"folds": self._folds} if "folds" in part.options else {}
            yield experiment.stamp(part.name, cycle, **some)

    def _preparation(self) -> Iterator[Stamp]:
        """The mark of the tables; of a recipe that does not say what they are made from, none."""
        name = self._values["recipe"]
        # Of a script that knows nothing of this, who can say what it does when it is imported.
        if "\ndef preparation(" in Path("recipes", name, "prepare.py").read_text(encoding="utf-8"):
            recipe = importlib.import_module(f"recipes.{name}.prepare")
            values = self._values | {"out": str(self._run.tables)}
            args = preparation_parser(None).parse_args(command(PARTS["prepare"], values)[1:])
            config = of_recipe(self._run.config)
            yield recipe.preparation(args, config).stamp(args.datadir, args.out)

    def note_configuration(self) -> None:
        """Keep the configuration of a run of which nothing was to do."""
        path, text = self._run.exp / "config.yaml", dump_config(self._run.config)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        write_suggested(self._run.exp, self._run.config, self._run.suggestions)
