"""The processes that train one fold together, by PyTorch's DistributedDataParallel.

Each process, a rank, learns from its share of every batch; gradients are averaged over the ranks.
A process alone is rank 0 of one, for which everything here gives back what it was given.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from local.io.errors import CanopyError

# A rank that is not heard of for so long is taken as dead.
_PATIENCE = timedelta(minutes=30)

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Rank `rank` of `size`, on `device`.

    All ranks call the same methods in the same order: every method but `own` waits for the others.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | str = "cpu"

    @property
    def alone(self) -> bool:
        """Whether this process was started as one of no ranks; torchrun may start a single one."""
        return not distributed.is_initialized()

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def own(self, batch: range) -> range:
        """Windows of a batch that are this rank's: every `size`-th.

        Of a batch with fewer windows than ranks each rank takes all: it must have some, and the
        mean over the ranks stays that of the batch.
        """
        return batch[self.rank :: self.size] if len(batch) >= self.size else batch

    # ---------------------------------------------------------------------------------- learning

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with gradients that are averaged over the ranks as they are made.

        Weights and buffers begin as the first rank has them, and buffers (the running statistics of
        batch normalisation) are the first rank's at every step.
        """
        if self.alone:
            return module
        # Which outputs the loss asks for is configured: a parameter may have no gradient.
        return DistributedDataParallel(module, find_unused_parameters=True)

    def average_later(self, module: Any) -> AbstractContextManager:
        """Context of a batch whose gradients wait for those of the next, on each rank for itself.

        `module`: as `wrap` gave it.
        """
        return nullcontext() if self.alone else module.no_sync()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average gradients that wait, where no further batch comes that would do so."""
        if not self.alone:
            for parameter in parameters:
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.size

    # -------------------------------------------------------------------------------- agreement

    def any(self, *asked: bool) -> list[bool]:
        """Of each question, whether any rank says yes."""
        if self.alone:
            return list(asked)
        votes = torch.tensor(asked, dtype=torch.int32, device=self.device)
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def mean(self, numbers: dict[str, float]) -> dict[str, float]:
        """Mean of each number over the ranks; not finite where one rank's is not."""
        if self.alone:
            return numbers
        values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(values)
        return dict(zip(numbers, (values / self.size).tolist(), strict=True))

    def of_first(self, value: T) -> T:
        """The value that the first rank has; it travels pickled."""
        if self.alone:
            return value
        holder = [value]
        distributed.broadcast_object_list(holder, src=0)
        return holder[0]

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in their order; they travel pickled."""
        if self.alone:
            return [value]
        values: list[T] = [value] * self.size
        distributed.all_gather_object(values, value)
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """Give every rank the first one's buffers."""
        if not self.alone:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)


def normalise_together(model: nn.Module) -> nn.Module:
    """The model on GPUs, with batch statistics over the windows of all ranks (SyncBatchNorm).

    Layers of timm that normalise and activate in one go keep their activation.
    """
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(model)


# ------------------------------------------------------------------------------------- beginning


def is_rank() -> bool:
    """Whether this process was started by torchrun, as one of several or alone."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Find the other ranks that torchrun started, by NCCL on GPUs, else by gloo."""
    if not is_rank():
        yield Ranks(device=device)
        return
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    try:
        distributed.init_process_group(
            "nccl" if place.type == "cuda" else "gloo",
            timeout=_PATIENCE,
            device_id=place if place.type == "cuda" else None,
        )
    except distributed.DistError as error:
        raise CanopyError(f"the ranks of this fold do not find each other: {error}") from None
    yield Ranks(distributed.get_rank(), distributed.get_world_size(), place)
    # Not after an error: the others may be gone, and the end of the process tells those that wait.
    distributed.destroy_process_group()
