"""What is computed on: a CPU or a GPU, and how many threads.

PyTorch is imported where it is used: it takes seconds, and not all scripts need it.
"""

import os

from local.io.errors import CanopyError


def choose_device(name: str) -> str:
    """`auto` is `cuda` when there is one; a GPU that is asked for and absent is refused."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise CanopyError("--device cuda: PyTorch finds no GPU here; give --device cpu or auto")
    return name


def set_threads(n_threads: int | None = None) -> None:
    """Compute on `n_threads` cores; by default on what OMP_NUM_THREADS says, else all."""
    import torch

    torch.set_num_threads(n_threads or int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
