"""Several processes that train a fold together, by DistributedDataParallel, and how they start."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import distributed, nn

from local.io.errors import CanopyError
from local.jobs.interruption import Interrupted, forget, listen
from local.models import create_model
from local.models.checkpoint import load_checkpoint, load_model
from local.training.examples import WindowDataset
from local.training.fold_loop import Trainer
from local.training.ranks import Ranks, normalise_together
from local.training.torchrun import LaunchConfig, run_ranks
from tests.local.training.test_training import task_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "OMP_NUM_THREADS": "1",
}
# A network that looks at no other window of the batch, and draws nothing.
ALONE = {"downsample": [2], "width": 16, "n_blocks": 1, "n_heads": 2, "feed_forward": 16}
ALONE |= {"dropout": 0.0, "norm": "none", "level_norm": True, "activity": True}
LOSS = {"frame_weight": 0.5, "lsep_weight": 0.2, "activity_weight": 0.3, "centre_weight": 1e-3}
# Everything that divides by a sum over the batch.
NO_STATISTICS = {
    "model": {"name": "transformer", "params": ALONE},
    "loss": {**LOSS, "unknown_weight": 0.2, "normalise": "positives"},
    # Adam would make steps of the rounding that is all of some gradients.
    "train__optimizer": "sgd",
    "inference__batch_size": 1,
}
# Everything that draws, with batch normalisation; the last batch has 5 windows.
DRAWN = {
    "model__params": {"channels": [8, 8], "pool": [[2, 2], [1, 1]], "gru": 4, "dropout": 0.3},
    "augment": {"gain_db": 6, "freq_masks": 1, "background_p": 0.5, "mixup_alpha": 0.5},
    "train__windows_per_epoch": 69,
    "train__select": "best",
    "train__validate_every": 1,
}


def launch(work, n, folder):
    """`work(ranks)` in `n` processes forked from this one; their exit codes, 99 for an error."""
    folder.mkdir(parents=True, exist_ok=True)
    store = f"file://{folder}/store-{time.monotonic_ns()}"

    def begin(rank):
        code = 99
        try:
            torch.set_num_threads(1)
            distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=n)
            work(Ranks(rank, n))
            distributed.destroy_process_group()
            code = 0
        finally:
            sys.stderr.flush()
            # What pytest would do at its end is not for these.
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=begin, args=(rank,)) for rank in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def train(made, folder, n=1):
    """A fold in `n` processes; each leaves its weights and averages in `rank<k>.pt`."""
    fold_data = task_of(made, folder)

    def work(ranks):
        trainer = Trainer(fold_data, made.run.config, None, ranks)
        trainer.run()
        parts = trainer.batch_loss.state_dict() | trainer.ema.state_dict(prefix="ema.")
        torch.save(parts, folder / f"rank{ranks.rank}.pt")

    if n == 1:
        Trainer(fold_data, made.run.config).run()
    else:
        assert launch(work, n, folder.parent) == [0] * n


def close(one, other):
    """Logs and states of two folds are the same within 1e-5."""
    logs = [pd.read_csv(folder / "log.csv") for folder in (one, other)]
    pd.testing.assert_frame_equal(*logs, rtol=1e-5, atol=1e-5)
    states = [load_checkpoint(folder / "last.pt") for folder in (one, other)]
    for part in ("weights", "ema", "objective"):
        for name, value in states[0][part].items():
            torch.testing.assert_close(states[1][part][name], value, rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("n", "windows", "accumulate", "more"),
    [
        # The last batch has five windows, and fewer than there are ranks.
        (2, 69, 1, {"loss__normalise": "known", "loss__cells": "focal"}),
        (3, 65, 2, {"data__annotation": "complete", "train__n_workers": 1}),
    ],
)
def test_ranks_learn_what_one_process_does(toy, tmp_path, n, windows, accumulate, more):
    """Up to rounding, of a network without batch statistics.

    A defect of earlier systems: every process wrote the checkpoint and scored its own share.
    """
    size = {"train__windows_per_epoch": windows, "train__accumulate": accumulate}
    made = toy(**NO_STATISTICS, **size, **more)
    train(made, tmp_path / "one")
    train(made, tmp_path / "ranks", n)
    close(tmp_path / "one", tmp_path / "ranks")


def test_ranks_read_different_windows(toy, tmp_path, monkeypatch):
    """Each reads its share of a batch and no more, together all of it."""
    made = toy(train__n_epochs=1, train__n_workers=0)
    fold_data = task_of(made, tmp_path / "fold")
    read = WindowDataset.__getitem__

    def work(ranks):
        seen = []
        noted = lambda self, item: seen.append(item) or read(self, item)  # noqa: E731
        monkeypatch.setattr(WindowDataset, "__getitem__", noted)
        Trainer(fold_data, made.run.config, None, ranks).run()
        np.save(tmp_path / f"seen{ranks.rank}.npy", seen)

    assert launch(work, 2, tmp_path) == [0, 0]
    seen = [np.load(tmp_path / f"seen{rank}.npy") for rank in range(2)]
    assert [sorted(batch) for batch in np.hstack([s.reshape(4, 8) for s in seen])] == [
        list(range(first, first + 16)) for first in range(0, 64, 16)
    ]


def test_ranks_stop_together_and_any_number_goes_on(toy, tmp_path, monkeypatch):
    """Of a network with batch statistics and all that draws; the ranks end with equal weights."""
    made = toy(**DRAWN, train__save_minutes=60.0)
    train(made, tmp_path / "whole", 2)
    weights = [torch.load(tmp_path / "whole" / f"rank{rank}.pt") for rank in range(2)]
    for name, value in weights[0].items():
        # Statistics of batches are each rank's own; the averages that are used and kept are not.
        own = not name.startswith("ema.") and "running" in name
        assert own or torch.equal(weights[1][name], value), name
    fold_data = task_of(made, tmp_path / "broken")
    step, count = Trainer._step, {"n": 0}

    def asked(self, batch, rows):
        count["n"] += 1
        # The third batch of the second epoch, of five; the second rank alone is asked.
        if count["n"] == 8 and self.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, rows)

    def work(ranks):
        listen()
        monkeypatch.setattr(Trainer, "_step", asked)
        with pytest.raises(Interrupted) as stop:
            Trainer(fold_data, made.run.config, None, ranks).run()
        forget()
        who = ["a signal to another rank", "SIGTERM"][ranks.rank]
        assert str(stop.value) == f"stopped by {who} at epoch 2, batch 3 of cycle0/fold0"

    assert launch(work, 2, tmp_path) == [0, 0]
    progress = load_checkpoint(tmp_path / "broken" / "step.pt")["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 3)
    for n in (1, 2):
        folder = tmp_path / f"with{n}"
        folder.mkdir()
        for path in (tmp_path / "broken").glob("*.*"):
            (folder / path.name).write_bytes(path.read_bytes())
        train(made, folder, n)
    for name in ("best.pt", "log.csv"):
        whole, again = (tmp_path / folder / name for folder in ("whole", "with2"))
        assert whole.read_bytes() == again.read_bytes()
    assert pd.read_csv(tmp_path / "with1" / "log.csv")["epoch"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_bad_step_of_one_rank_is_skipped_by_all(toy, tmp_path, monkeypatch, accumulate):
    """Also where gradients of the batch before wait to be averaged."""
    made = toy(train__n_epochs=2, train__max_bad_steps=1, train__accumulate=accumulate)
    fold_data = task_of(made, tmp_path / "fold")
    step, count = Trainer._step, {"n": 0}

    def spoiled(self, batch, rows):
        count["n"] += 1
        if count["n"] in (4, 6) and self.ranks.rank == 1:
            batch.x[0] = float("nan")
        done = step(self, batch, rows)
        weights = torch.cat([parameter.flatten() for parameter in self.model.parameters()])
        first, second = self.ranks.gather(weights.detach())
        assert torch.equal(first, second)
        return done

    def work(ranks):
        monkeypatch.setattr(Trainer, "_step", spoiled)
        with pytest.raises(CanopyError, match="2 steps were not finite"):
            Trainer(fold_data, made.run.config, None, ranks).run()

    assert launch(work, 2, tmp_path) == [0, 0]
    assert pd.read_csv(tmp_path / "fold" / "log.csv")["skipped_steps"].tolist() == [1]
    assert (tmp_path / "fold" / "bad_batch.json").is_file()


@pytest.mark.parametrize("name", ["crnn", "timm"])
def test_a_network_that_normalises_together_is_the_same_network(name):
    """Layers for GPUs: same names, weights and, in use, scores; activations in them included."""
    params = {"backbone": "efficientnet_lite0"} if name == "timm" else {}
    torch.manual_seed(4)
    model, x = create_model(name, params, 3, 32).eval(), torch.randn(2, 1, 32, 64)
    before, state = model(x), model.state_dict()
    together = normalise_together(model)
    assert sum(isinstance(layer, nn.SyncBatchNorm) for layer in together.modules()) > 1
    assert list(together.state_dict()) == list(state)
    for part, value in zip(together(x), before, strict=True):
        torch.testing.assert_close(part, value)


# --------------------------------------------------------------------------------------- scripts


def command(made, *more):
    options = [*made.options, "--worker", "--folds", "0", *map(str, more)]
    return [sys.executable, str(ROOT / "bin/sed_train.py"), *options]


def run(parts, env=ENVIRONMENT, code=0):
    ran = subprocess.run(parts, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == code, ran.stderr
    return ran.stderr


def ranks_of(process):
    """Ids of the processes that one has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find a rank")
def test_a_killed_rank_costs_what_was_not_saved(toy, tmp_path):
    made = toy(**DRAWN, train__n_epochs=12, train__save_minutes=0.0)
    folder = made.run.fold(0, 0)
    train(made, tmp_path / "whole", 2)
    process = subprocess.Popen(
        command(made, "--ranks", 2), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not (folder / "last.pt").exists() and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(ranks_of(process)[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "going on after epoch" in said
    whole, killed = (path / "best.pt" for path in (tmp_path / "whole", folder))
    assert whole.read_bytes() == killed.read_bytes()
    whole, killed = (path / "log.csv" for path in (tmp_path / "whole", folder))
    assert whole.read_bytes() == killed.read_bytes()
    assert (folder / "train.done.json").is_file()


SRUN = """#!{python}
import os, subprocess, sys
options = [word for word in sys.argv[1:] if word.startswith("--") and "=" in word]
n = int(next(word.split("=")[1] for word in options if word.startswith("--ntasks=")))
command = sys.argv[1 + sys.argv[1:].index(sys.executable):]
nodes = [
    subprocess.Popen(command, env=os.environ | {{"SLURM_NODEID": str(k)}}) for k in range(n)
]
sys.exit(max(node.wait() for node in nodes))
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The environment of a job of two nodes, both of which are here."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "srun").write_text(SRUN.format(python=sys.executable))
    (folder / "scontrol").write_text("#!/bin/sh\nprintf '127.0.0.1\\n127.0.0.2\\n'\n")
    for path in folder.iterdir():
        path.chmod(0o755)
    own = {"SLURM_JOB_NODELIST": "here[1-2]", "SLURM_JOB_ID": str(os.getpid())}
    return ENVIRONMENT | own | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_two_nodes_and_a_signal(toy, tmp_path, job):
    """Stopped as Slurm stops them, a fold goes on to the same end, there in a job."""
    made = toy(**DRAWN, train__n_epochs=20, train__save_minutes=60.0)
    port = 20000 + os.getpid() % 20000
    where = ("--n-nodes", 2, "--master-addr", f"127.0.0.1:{port}", "--node-rank")

    def nodes():
        pipes = {"stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
        return [subprocess.Popen(command(made, *where, node), **pipes) for node in (0, 1)]

    begun, folder = nodes(), made.run.fold(0, 0)
    end = time.monotonic() + 120
    while not (folder / "last.pt").exists() and time.monotonic() < end:
        time.sleep(0.02)
    for process in begun:
        process.terminate()
    told = [process.communicate(timeout=240)[1] for process in begun]
    assert [process.returncode for process in begun] == [75, 75], told
    assert (folder / "step.pt").exists()
    run(command(made, "--n-nodes", 2), env=job)
    train(made, tmp_path / "whole", 2)
    whole, nodes = (path / "best.pt" for path in (tmp_path / "whole", folder))
    assert whole.read_bytes() == nodes.read_bytes()


def test_more_nodes_than_the_job_has_are_refused(job, tmp_path, monkeypatch):
    for key in ("PATH", "SLURM_JOB_NODELIST", "SLURM_JOB_ID"):
        monkeypatch.setenv(key, job[key])
    with pytest.raises(CanopyError, match="is 3, but this job has 2; ask sbatch for --nodes=3"):
        run_ranks(tmp_path / "script.py", [], LaunchConfig(nodes=3), tmp_path / "note")


def test_a_fault_is_told_once_and_not_tried_again(toy):
    made = toy(train__max_bad_steps=0, train__lr=1e30, train__grad_clip=1e30)
    said = run(command(made, "--ranks", 2), code=1)
    assert said.count("steps were not finite") == 1, said
    assert said.strip().splitlines()[-1].startswith("error: cycle0/fold0: 1 steps were not finite")


def test_what_cannot_be_is_refused(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    plain = LaunchConfig()
    for changes, words in (
        ({"ranks": 0}, "--ranks is 0"),
        ({"nodes": 2}, "--n-nodes is 2 outside a job of Slurm"),
    ):
        with pytest.raises(CanopyError, match=words):
            replace(plain, **changes).check("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CanopyError, match="--ranks is 2, but there are 1 GPUs here"):
        LaunchConfig(ranks=2).check("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", [NO_STATISTICS, {**DRAWN, "train__amp": True}])
def test_a_fold_on_a_gpu_under_torchrun(toy, tmp_path, settings):
    """One process with NCCL: learns what a CPU does, and with SyncBatchNorm in half precision."""
    made = toy(**settings)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    run([sys.executable, *torchrun, *command(made, "--device", "cuda")[1:]])
    folder = made.run.fold(0, 0)
    assert (folder / "train.done.json").is_file()
    assert not load_model(folder / "best.pt", ["a", "b", "c"]).training
    losses = pd.read_csv(folder / "log.csv")["loss_total"]
    assert losses.iloc[-1] < losses.iloc[0]
    if settings is NO_STATISTICS:
        train(made, tmp_path / "cpu")
        on_cpu = pd.read_csv(tmp_path / "cpu" / "log.csv")["loss_total"]
        np.testing.assert_allclose(losses, on_cpu, rtol=0.02)
