"""The contract of a task: what is learned, by which loss, and what becomes of a model's outputs.

It stands beside the contract of a model, so that training and inference may use it; the tasks
themselves are in `local.tasks`. What a batch, an output or the outputs of recordings are is known
to the task alone: whoever calls it hands them on.
"""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

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

    recording_ids: list[str]

    def take(self, names: list[str]) -> "Outputs":
        """Those of the named recordings, in that order."""


class FoldData(Protocol):
    """What one fold learns from and is judged by: all that the training loop asks of a task.

    Attributes
    ----------
    name : of the fold, for logs; it seeds all that is drawn.
    folder : where checkpoints and logs are written.
    device : "cpu" or "cuda".
    held_out : recordings that the fold is judged by; none of their group is learned from.
    """

    name: str
    folder: Path
    device: str
    held_out: list[str]

    @property
    def n_examples(self) -> int:
        """Of an epoch."""

    @property
    def recipe(self) -> dict[str, Any]:
        """How `create_model` builds the model; a checkpoint holds it beside the weights."""

    def create_model(self) -> nn.Module:
        """The model with its first weights, drawn from torch's generator."""

    def create_objective(self, model: nn.Module) -> nn.Module:
        """The loss: maps an output and its batch to its parts by name, and their sum as `total`.

        What it learns itself, if anything, are its parameters. The model is on its device and stays
        as it is.
        """

    def examples(self, model: nn.Module, epoch: int) -> Examples:
        """The examples of an epoch (from 0), drawn from seeds alone."""

    def make_batch(self, tensors: dict[str, torch.Tensor], rng: torch.Generator) -> Any:
        """Examples that were stacked along a first axis and moved to the device, augmented.

        All that is drawn comes from `rng`, which is on the CPU.
        """

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """The model's output for a batch; `model` may be wrapped, so it is only called."""

    def score(self, model: nn.Module, shard: Shard | None = None) -> Outputs:
        """Outputs for the held-out recordings, or a share of them, as stage 3 makes them."""

    def measure(self, outputs: Outputs | None) -> dict[str, float]:
        """Columns of the log for outputs of all held-out recordings; NaN each where there are none.

        `valid` is among them: `train.select: best` keeps the model of which it is highest.
        """
