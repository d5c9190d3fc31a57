#!/usr/bin/env python3
"""Time and memory of one training step of a model, part by part.

    bin/profile_step.py --conf conf/demo/default.yaml --batch-size 4

The batch is noise that the task makes up; the step is forward, loss, backward and optimiser, in
half precision where train.amp and the device have it. Times are those of the fastest of a few
steps. Memory is the process's peak above what it took before the steps (on a GPU: that of tensors).
"""

import argparse
import sys

from local.jobs.arguments import ScriptParser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ScriptParser(__doc__)
    parser.add_argument("--conf", required=True, help="configuration of a version")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--batch-size", type=int, help="windows (default: train.batch_size)")
    parser.add_argument(
        "--steps", type=int, default=3, help="measured after one more (%(default)s)"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2, help="on a CPU (%(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure; the exit code is 0 when done, 1 for a fault of the configuration."""
    args = parse_args(argv)

    import torch

    from local.config import load_config
    from local.io.errors import CanopyError
    from local.tasks.task_registry import create_task
    from local.training.profiling import profile_step
    from local.training.steps import amp_dtype

    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    try:
        config = load_config(args.conf, args.set)
        task = create_task(config)
        trial = task.trial(args.batch_size or config.train.batch_size, device)
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    trial.model.train()
    found = profile_step(trial, amp_dtype(config, device), args.steps)
    n_weights = sum(parameter.numel() for parameter in trial.model.parameters())
    print(f"{config.model.name}: {n_weights:,} weights, {trial.batch}")
    for name, seconds in found.seconds.items():
        print(f"{name:>24} {seconds:9.3f} s")
        if name == "forward":
            for part, its_seconds in found.parts.items():
                print(f"{'of it ' + part:>24} {its_seconds:9.3f} s")
    print(f"{'kept for the gradient':>24} {found.kept_bytes / 2**20:9.0f} MB")
    print(f"{'peak memory':>24} {found.peak_bytes / 2**20:9.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
