"""The contract of a task: what is learned, by which loss, and what becomes of a model's outputs.

It stands beside the contract of a model, so that training and inference may use it; the tasks
themselves are in `local.tasks`. What a batch, an output or the outputs of recordings are is known
to the task alone: whoever calls it hands them on.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pandas as pd
import torch
from torch import nn

from local.config import Config, Suggestion
from local.config.relevance import Dependencies
from local.jobs.shards import Shard


class Examples(Protocol):
    """The examples of one epoch, in the order in which they are learned from.

    Example i is the same whoever reads it and in what order, so that a run which was stopped goes
    on exactly. It is a dict of tensors of one shape each, which are stacked to a batch.
    """

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        """One example."""

    def describe(self, item: int) -> dict[str, Any]:
        """`recording_id`, and what else says where the example lies, for the record of a fault."""


class Outputs(Protocol):
    """What a model, or the combination of several, says of recordings."""

    @property
    def recording_ids(self) -> list[str]:
        """Whose outputs these are, in their order."""

    def take(self, names: list[str]) -> "Outputs":
        """Those of the named recordings, in that order."""

    def join(self, others: "list[Any]") -> "Outputs":
        """These and those of other recordings, one after the other."""


class FoldData(Protocol):
    """What one fold learns from and is judged by: all that the training loop asks of a task."""

    @property
    def name(self) -> str:
        """Of the fold, for logs; it seeds all that is drawn."""

    @property
    def folder(self) -> Path:
        """Where checkpoints and logs are written."""

    @property
    def device(self) -> str:
        """Where models compute: cpu or cuda."""

    @property
    def held_out(self) -> list[str]:
        """Recordings that the fold is judged by; none of their group is learned from."""

    @property
    def n_examples(self) -> int:
        """Examples of an epoch."""

    @property
    def recipe(self) -> dict[str, Any]:
        """How `create_model` builds the model; a checkpoint holds it beside the weights."""

    def create_model(self) -> nn.Module:
        """The model with its first weights, drawn from torch's generator."""

    def create_objective(self, model: Any) -> nn.Module:
        """The loss: maps an output and its batch to its parts by name, and their sum as `total`.

        What it learns itself, if anything, are its parameters. The model is on its device and stays
        as it is. What a sum over a batch is divided by goes through `training.losses.per_cell`'s
        `per_weight`, so that ranks which share a batch learn from it as one process does.
        """

    def examples(self, model: Any, epoch: int) -> Examples:
        """The examples of an epoch (from 0), drawn from seeds alone."""

    def make_batch(self, tensors: dict[str, torch.Tensor], rng: torch.Generator) -> Any:
        """Examples that were stacked along a first axis and moved to the device, augmented.

        All that is drawn comes from `rng`, which is on the CPU.
        """

    def forward(self, model: Any, batch: Any) -> Any:
        """The model's output for a batch; `model` may be wrapped, so it is only called."""

    def score(self, model: Any, shard: Shard | None = None) -> Outputs:
        """Outputs for the held-out recordings, or a share of them, as stage 3 makes them."""

    def measure(self, outputs: Any) -> dict[str, float]:
        """Columns of the log for outputs of all held-out recordings; NaN each where there are none.

        `valid` is among them: `train.select: best` keeps the model of which it is highest.
        """


# -------------------------------------------------------------------------------- what a task does


class Run(Protocol):
    """One invocation of a stage: its configuration, and where its files lie."""

    @property
    def config(self) -> Config:
        """The resolved configuration."""

    @property
    def datadir(self) -> Path:
        """Folder of the raw data."""

    @property
    def exp(self) -> Path:
        """Folder of the run's results."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""

    @property
    def tables(self) -> Path:
        """Folder of the three tables."""

    def cycle(self, cycle: int) -> Path:
        """Folder of a cycle."""

    def fold(self, cycle: int, fold: int) -> Path:
        """Folder of one fold's model."""


class Experiment(Protocol):
    """What a task may ask of the experiment that a stage works on."""

    @property
    def run(self) -> Run:
        """The invocation."""

    @property
    def tables(self) -> Any:
        """`local.data.tables.Tables`: recordings, events, classes as the recipe prepared them."""

    @property
    def known_tables(self) -> Any:
        """The same with the rows that people reviewed."""

    @property
    def known_events(self) -> pd.DataFrame:
        """Rows that people made: the recipe's and the reviewed ones."""

    @property
    def dump(self) -> Any:
        """`local.features.store.FeatureStore`: the features of all readable recordings."""

    @property
    def folds(self) -> list[int]:
        """Numbers of all folds."""

    @property
    def fold_of(self) -> dict[str, int]:
        """Fold of every recording."""

    @property
    def groups(self) -> dict[str, str]:
        """Group of every recording."""

    def ids(self, *subsets: str) -> list[str]:
        """Readable recordings of the subsets, in table order."""

    def held_out_ids(self, fold: int) -> list[str]:
        """Train recordings of the fold."""

    def training_ids(self, cycle: int, fold: int) -> list[str]:
        """Recordings that a fold may learn from."""

    def background_ids(self, fold: int) -> list[str]:
        """Unlabelled recordings that a fold may mix with those, where `augment` asks for them."""

    def events(self, cycle: int) -> pd.DataFrame:
        """Known rows, and the pseudo rows made for that cycle, if it has such."""

    def soft_ids(self, cycle: int) -> set[str]:
        """Recordings that have soft labels in that cycle."""

    def ended(self, cycle: int) -> str:
        """Why the cycles ended with one before, in words; "" where they did not."""

    def seen_groups(self, cycle: int, fold: int) -> set[str]:
        """Groups that a fold's model and its first weights saw."""


class Trial(NamedTuple):
    """A model with a batch that is made up, to see what a step gives and costs.

    loss : of the model's output for `x`. batch : what `x` is, in words.
    """

    model: nn.Module
    x: torch.Tensor
    loss: Callable[[Any], torch.Tensor]
    batch: str


class Submission(NamedTuple):
    """What stage 5 found and wrote.

    results : for results.json. `metric` is the name of the scores, `cycles` a list of {cycle,
        scores: {name: {value, low, high, n}}}; the first score is the one that runs are compared
        by. `submitted`, where it is there, says in `cycle` which of them is handed in, the last by
        default. The rest is the task's own.
    files : what was written below the experiment's folder, the file to hand in first.
    table : the results in lines for the terminal.
    """

    results: dict[str, Any]
    files: list[Path]
    table: str


class ReportSection(NamedTuple):
    """A section of the report that a task brings along: words, a figure, a table.

    figure : draws one of matplotlib, so many pixels wide.
    """

    title: str
    text: str = ""
    figure: Callable[[int], Any] | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()


class Task(Protocol):
    """What is learned and what becomes of it; made of a configuration, whose `task` names it."""

    @property
    def dependencies(self) -> Mapping[str, Dependencies]:
        """What stages of this task depend on, where that differs from `local.stages.dependencies`.

        By the name of the stage; `further` is the file of `write_further`, `relabel` is `revise`.
        Tables and features are the same for every task.
        """

    def check_config(self) -> None:
        """Refuse, by a CanopyError, settings that do not fit each other; there are no data yet."""

    def check_tables(self, tables: Any, datadir: Path) -> None:
        """Refuse settings that do not fit the prepared tables."""

    def suggest(self, tables: Any, given: dict[str, Any]) -> list[Suggestion]:
        """Settings that prepared tables suggest, for what nobody set; `given` is what is set.

        Asked for with `prepare.settings: auto`. They depend on nothing else.
        """

    def trial(self, n: int, device: torch.device) -> Trial:
        """The configured model with a batch of `n` examples of noise."""

    # Stage 2.

    def load_initial(self, experiment: Experiment, path: Path) -> dict[str, torch.Tensor]:
        """Weights to start from, of a file that `model.init` names; they fit the model."""

    def fold_data(self, experiment: Experiment, cycle: int, fold: int) -> FoldData:
        """What a fold learns from in a cycle, and is judged by."""

    # Stage 3. Of a fold: load_model, score, save. Of a cycle: load, combine, save.

    def load_model(self, experiment: Experiment, path: Path) -> nn.Module:
        """The model of a `best.pt`, on the device and in evaluation mode."""

    def score(
        self,
        experiment: Experiment,
        model: Any,
        names: list[str],
        progress: str,
        kept: Any,
        shard: Shard | None,
    ) -> Outputs:
        """Outputs for recordings; those of a recording's windows or crops are made one.

        progress : words for the progress bar. kept : `local.inference.score_files.PartialScores`
        of what an earlier run made. shard : make this share only.
        """

    def save(self, path: Path, outputs: Any, merged: bool = False, **arrays: Any) -> None:
        """Write an npz. `merged`: of several folds, for later stages, not to be merged again."""

    def load(self, path: Path) -> tuple[Outputs, dict[str, Any]]:
        """Read what `save` wrote: the outputs, and all arrays of the file by name."""

    def combine(self, parts: list[Any]) -> Outputs:
        """One output a recording from those of several models for the same recordings."""

    def further(self, experiment: Experiment, cycle: int, fold: int) -> Path | None:
        """A file that stage 3 makes with a fold's model beside its outputs; None: there is none."""

    def write_further(self, experiment: Experiment, cycle: int, fold: int, model: Any) -> None:
        """Write that file."""

    # Stage 4.

    @property
    def revised_cycles(self) -> list[int]:
        """Cycles that `revise` writes for, in order.

        A cycle from 1 on is trained and inferred after that, from what `revise` made of the
        out-of-fold outputs of the cycle before. For cycle 0 it calibrates that cycle's outputs.
        """

    def stop_reason(self, experiment: Experiment, cycle: int) -> str:
        """Why there is no such cycle after those before it, in words; "" where there is one."""

    def revise(self, experiment: Experiment, cycle: int, outputs: Any) -> list[Path]:
        """Learn from out-of-fold outputs; what was written, in the folder of `cycle`.

        No model that took part in an output saw the recording's group; the stage has proved it.
        """

    # Stage 5.

    def submit(self, experiment: Experiment, cycles: list[int]) -> Submission:
        """Score the cycles that are done and write what can be handed in."""

    def report(self, experiment: Experiment, results: dict[str, Any]) -> list[str | ReportSection]:
        """Sections of the report in order; a name stands for one of `page_sections.SECTIONS`.

        Of those, scores, training and provenance can be filled for any task.
        """
