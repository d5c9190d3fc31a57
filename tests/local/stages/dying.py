"""Runs stage 2 again and again in processes that die where they are told to; used by tests.

A line of JSON on stdin is one process: `options` of bin/sed_train.py, `log`, and optionally
`signal`, `place` and `at`: the signal that it sends to itself before the at-th call of `step` (a
batch is learned from), `replace` (a file gets its final name), `score` (windows are scored) or
`stamp` (the fold is marked as done). The answer is its exit code. The modules are imported once, so
that a process costs no more than a fork.
"""

import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unittest import mock

# Imported late by what uses them, which would cost each process seconds.
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

from local.inference import score_recordings as inference
from local.jobs.exit_codes import run_script
from local.stages import stamps, train  # noqa: F401 (late, by the script)
from local.training.fold_loop import Trainer

ROOT = Path(__file__).resolve().parents[3]


def script():
    spec = spec_from_file_location("sed_train", ROOT / "bin/sed_train.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dies(call, number, at):
    """`call`, but the at-th time (from 1) a signal comes before it."""
    count = {"n": 0}

    def counted(*args, **kwargs):
        count["n"] += 1
        if count["n"] == at:
            os.kill(os.getpid(), number)
        return call(*args, **kwargs)

    return counted


def run(job, stage):
    descriptor = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    targets = {
        "step": (Trainer, "_step"),
        "replace": (os, "replace"),
        "score": (inference.TorchScorer, "__call__"),
        "stamp": (stamps.Stamp, "write"),
    }
    if "signal" in job:
        target, name = targets[job["place"]]
        deadly = dies(getattr(target, name), job["signal"], job["at"])
        mock.patch.object(target, name, deadly).start()
    return run_script(lambda: stage.main(job["options"]))


def main():
    stage = script()
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                code = run(json.loads(line), stage)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                code = 99
            sys.stderr.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
