"""Out of GPU memory: what to say, and which batch size would fit."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from local.io.errors import CanopyError

# What the allocator cannot use of the memory it has, as it comes in blocks.
_WASTE = 0.1
_WORDS = ("out of memory", "alloc_failed")

# Makes a batch of so many items and works on it; what it took at most, in bytes.
Probe = Callable[[int], int]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the GPU's memory is used up, by itself or from a library on it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    on_gpu = any(word in text for word in ("cuda", "cublas", "cudnn", "hip"))
    return isinstance(error, RuntimeError) and on_gpu and any(word in text for word in _WORDS)


def fitting_batch(probe: Probe, available: int, batch_size: int) -> tuple[int, int]:
    """How many items fit into `available` bytes (less than `batch_size`), and bytes an item.

    What an item takes is the difference between batches of two and of one; what does not depend on
    the batch (weights, gradients, moments) is the rest. 0 items when not even one fits.
    """
    try:
        one = probe(1)
        item = max(1, probe(2) - one) if batch_size > 2 else one
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 0, available
    static = max(0, one - item)
    n = int((available * (1 - _WASTE) - static) / item)
    return max(1, min(n, batch_size - 1)), item


@contextmanager
def advise_batch_size(
    where: str,
    key: str,
    batch_size: int,
    probe: Probe,
    available: Callable[[], int] | None = None,
) -> Iterator[None]:
    """Turn "out of memory" within the block into a sentence that names a batch size that fits.

    Parameters
    ----------
    where, key : what was being done, and the key of the configuration that sets the batch size.
    probe : peak bytes of this process on the GPU for a batch of so many items.
    available : bytes that this process may have on the GPU; asked after the failure.
    """
    try:
        yield
        return
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        # They hold the tensors of the batch that was too large.
        traceback.clear_frames(error.__traceback__)
    torch.cuda.empty_cache()
    there = (available or gpu_bytes)()
    n, item = fitting_batch(probe, there, batch_size)
    have = f"{where}: out of GPU memory with {key} {batch_size}"
    if batch_size == 1 or n == 0:
        raise CanopyError(
            f"{have}; not even one or two items at a time fit into {megabytes(there)}: take a GPU "
            "with more memory, a smaller model or a shorter window"
        )
    raise CanopyError(
        f"{have}; an item takes about {megabytes(item)} and this process may have "
        f"{megabytes(there)}: set {key} to {n}, which would fit, or less"
    )


@contextmanager
def explain_oom(where: str, key: str, batch_size: int, n_ranks: int) -> Iterator[None]:
    """The same of one rank of several: no other size can be tried, as the others wait for it."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise CanopyError(
            f"{where}: out of GPU memory with {key} {batch_size} over {n_ranks} ranks; lower it "
            "or give more --ranks"
        ) from None


def gpu_bytes() -> int:
    """What this process has of the GPU's memory, and what nobody has."""
    free, _ = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved()


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that this process has held on the GPU while `work` ran."""
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def megabytes(n_bytes: int) -> str:
    """Bytes for people."""
    return f"{n_bytes / 1e6:,.0f} MB"
