"""The processes that train one fold together, and what they tell each other.

Each of them, a rank, reads its share of every batch and learns from it; what all know of the batch
together is what one process would know of the whole. A process alone is rank 0 of one, for which
everything here gives back what it was given.
"""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from local.io.errors import CanopyError

# Gradients are sent together, so many numbers at a time.
_BUCKET = 1 << 23
# A rank that is not heard of for so long is taken as dead.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """Rank `rank` of `size`. All call the same methods in the same order.

    Every method is a barrier, except `own`, `of_batch` and `first`.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | str = "cpu"

    @property
    def alone(self) -> bool:
        """Whether there is no other rank."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    # ----------------------------------------------------------------------------------- batches

    def of_batch(self, n: int) -> list[int]:
        """Which windows of a batch of `n` are this rank's: as many for each, one after the other.

        Where they do not come out even, the last ranks repeat the last window; `gather` leaves the
        repetitions out.
        """
        each = -(-n // self.size)
        return [min(self.rank * each + i, n - 1) for i in range(each)]

    def n_own(self, n: int) -> int:
        """How many of `of_batch` are no repetitions."""
        each = -(-n // self.size)
        return max(0, min(each, n - self.rank * each))

    def own(self, x: torch.Tensor) -> torch.Tensor:
        """Of a whole batch, this rank's windows."""
        return x if self.alone else x[self.of_batch(len(x))]

    def gather(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """The whole batch of `n`, from each rank's own windows, with gradients to all of them."""
        return x if self.alone else _Gather.apply(x, self)[:n]

    def gather_items(self, items: dict[str, torch.Tensor], n: int) -> dict[str, torch.Tensor]:
        """The same of all tensors of a batch at once, of any type, without gradients."""
        if self.alone:
            return items
        rows = {key: _bytes(value) for key, value in items.items()}
        whole = torch.cat(self.all(torch.cat(list(rows.values()), dim=1)))[:n]
        parts = whole.split([row.shape[1] for row in rows.values()], dim=1)
        return {
            key: part.contiguous().view(value.dtype).view(n, *value.shape[1:])
            for (key, value), part in zip(items.items(), parts, strict=True)
        }

    def all(self, x: torch.Tensor) -> list[torch.Tensor]:
        """`x` of every rank, all of one shape."""
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(self.size)]
        distributed.all_gather(parts, x)
        return parts

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of `x` over the ranks, in place where it can be."""
        if not self.alone:
            x = x.contiguous()
            distributed.all_reduce(x)
        return x

    # --------------------------------------------------------------------------------- gradients

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over the ranks in place of each gradient."""
        if self.alone:
            return
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in _buckets(grads):
            flat = torch.cat([grad.reshape(-1) for grad in bucket])
            distributed.all_reduce(flat)
            flat /= self.size
            for grad, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                grad.copy_(mean.view(grad.shape))

    # ------------------------------------------------------------------------------ one decision

    def any(self, *asked: bool) -> list[bool]:
        """Of each question, whether any rank says yes."""
        if self.alone:
            return list(asked)
        votes = torch.tensor(asked, dtype=torch.int32, device=self.device)
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def numbers_of_first(self, numbers: dict[str, float]) -> dict[str, float]:
        """What the first rank says."""
        if self.alone:
            return numbers
        values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self.device)
        distributed.broadcast(values, 0)
        return dict(zip(numbers, values.tolist(), strict=True))

    def state_of_first(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        """A state of tensors and plain values that the first rank has, or None."""
        if self.alone:
            return state
        content = np.zeros(0, dtype=np.uint8)
        if self.first and state is not None:
            stream = io.BytesIO()
            torch.save(state, stream)
            content = np.frombuffer(stream.getvalue(), dtype=np.uint8)
        content = self.collect(content)[0]
        if len(content) == 0:
            return None
        return torch.load(io.BytesIO(content.tobytes()), map_location="cpu", weights_only=True)

    def collect(self, values: np.ndarray) -> list[np.ndarray]:
        """(n_i,) values of every rank, of any lengths."""
        if self.alone:
            return [values]
        own = torch.tensor(values, device=self.device)
        lengths = [int(n) for n in self.all(torch.tensor([len(own)], device=self.device))]
        padded = own.new_zeros(max(lengths))
        padded[: len(own)] = own
        parts = [part.cpu().numpy() for part in self.all(padded)]
        return [part[:length] for part, length in zip(parts, lengths, strict=True)]


class _Gather(torch.autograd.Function):
    """Rows of all ranks, one rank after the other; each gets the gradients of all for its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks, ctx.n = ranks, len(x)
        return torch.cat(ranks.all(x))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        whole = ctx.ranks.sum(grad.clone())
        return whole[ctx.ranks.rank * ctx.n :][: ctx.n], None


def _bytes(x: torch.Tensor) -> torch.Tensor:
    """(n, ...) -> (n, k) uint8 of the same content."""
    return x.contiguous().view(len(x), -1).view(torch.uint8)


def _buckets(grads: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Tensors in their order, so many together that a bucket has its size."""
    bucket: list[torch.Tensor] = []
    for grad in grads:
        bucket.append(grad)
        if sum(part.numel() for part in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


# ------------------------------------------------------------------------------------- beginning


def is_rank() -> bool:
    """Whether this process was started by torchrun, as one of several or alone."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Find the other ranks that torchrun started; alone where it did not.

    NCCL between GPUs, gloo on the CPU and where ranks share a GPU.
    """
    if not is_rank():
        yield Ranks(device=device)
        return
    place, backend = torch.device(device), "gloo"
    if place.type == "cuda":
        n_gpus, local = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(local % n_gpus)
        place = torch.device("cuda", local % n_gpus)
        if int(os.environ["LOCAL_WORLD_SIZE"]) <= n_gpus:
            backend = "nccl"
    try:
        distributed.init_process_group(backend, timeout=_PATIENCE)
    except distributed.DistError as error:
        raise CanopyError(f"the ranks of this fold do not find each other: {error}") from None
    yield Ranks(distributed.get_rank(), distributed.get_world_size(), place)
    # Not after an error: the others may be gone, and the end of the process tells those that wait.
    distributed.destroy_process_group()
