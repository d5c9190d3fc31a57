"""Folds in processes of their own: the calling script again, with a share of the folds each."""

import sys
from pathlib import Path

from local.jobs.processes import run_each
from local.stages.run import Run


def run_folds(run: Run, folds: list[int], n_gpus: int, argv: list[str], n_ranks: int = 1) -> None:
    """Run the calling script on some folds in processes of their own, several at a time.

    Each process takes its share of the folds one after another: starting one takes seconds.

    n_ranks : processes that a fold starts in turn, each on a core or a GPU.
    """
    import torch

    # Not by how many folds are waiting: the number of threads decides the last digits, and a fold
    # that is made again must come out the same.
    n_parallel = min(max(1, run.nj // n_ranks), run.config.split.n_folds)
    if run.device == "cuda":
        there = torch.cuda.device_count()
        n_parallel = max(1, min(n_gpus or there, there) // n_ranks)
    # Ranks that were started together end together: a fold of theirs is a process of its own.
    n_shares = n_parallel if n_ranks == 1 else len(folds)
    shares = [share for k in range(n_shares) if (share := folds[k::n_shares])]
    tasks = [[*argv, "--worker", "--folds", " ".join(map(str, share))] for share in shares]
    run_each(Path(sys.argv[0]).resolve(), tasks, n_parallel, run.device, n_ranks)
