"""Processes that train a fold together: what one process would have made of the same batches."""

import copy
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
from local.models.checkpoint import load_checkpoint
from local.stages.experiment import Experiment
from local.tasks.detection_fold import DetectionFold
from local.training.epoch_plan import make_training_set
from local.training.examples import WindowDataset
from local.training.fold_loop import Trainer
from local.training.launching import LaunchConfig, run_ranks
from local.training.ranks import Ranks
from local.training.whole_batch import WholeBatch, score_whole_batch

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
MODEL = {"channels": [8, 8], "pool": [[2, 2], [1, 1]], "depth": 1, "gru": 4, "dropout": 0.3}
LOSS = {"frame_weight": 0.5, "lsep_weight": 0.2, "activity_weight": 0.3, "centre_weight": 1e-3}
SOUND = {"gain_db": 6, "freq_masks": 1, "noise_std": 0.1, "noise_p": 0.5, "background_p": 0.5}
# All that ties the windows of a batch to one another, and all that draws; the last batch has 5.
TIED = {
    "model__params": {**MODEL, "activity": True, "level_norm": True},
    "loss": {**LOSS, "unknown_weight": 0.2, "normalise": "positives"},
    "augment": {**SOUND, "mixup_alpha": 0.5},
    "train__windows_per_epoch": 69,
    "train__select": "best",
    "train__validate_every": 1,
    "inference__batch_size": 1,
}
# The last batch has one window: fewer than there are ranks.
MANIFOLD = {
    "model__params": {**MODEL, "gru": 0},
    "augment": {"mixup_lambda": 0.6, "mixup_at": "last"},
    "train__windows_per_epoch": 65,
    "train__accumulate": 2,
    "train__optimizer": "sgd",
    "train__n_workers": 1,
    "data__annotation": "complete",
}
KINDS = {"tied": TIED, "manifold": MANIFOLD}


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


def task_of(made, folder, fold=0):
    experiment = Experiment(made.run)
    names = experiment.training_ids(0, fold)
    folder.mkdir(parents=True, exist_ok=True)
    return DetectionFold(
        name=f"cycle0/fold{fold}",
        training_set=make_training_set(
            experiment.tables, experiment.tables.events, names, experiment.dump
        ),
        held_out=experiment.held_out_ids(fold),
        events=experiment.tables.events,
        labels=experiment.tables.labels,
        dump=experiment.dump,
        folder=folder,
        device="cpu",
    )


def train(made, folder, n=1):
    """A fold in `n` processes."""
    fold_data = task_of(made, folder)
    if n == 1:
        Trainer(fold_data, made.run.config).run()
        return
    work = lambda ranks: Trainer(fold_data, made.run.config, None, ranks).run()  # noqa: E731
    assert launch(work, n, folder.parent) == [0] * n


def close(one, other):
    """Logs and states of two folds are the same within 1e-5."""
    logs = [pd.read_csv(folder / "log.csv") for folder in (one, other)]
    pd.testing.assert_frame_equal(*logs, rtol=1e-5, atol=1e-5)
    states = [load_checkpoint(folder / "last.pt") for folder in (one, other)]
    assert states[0]["progress"]["best_epoch"] == states[1]["progress"]["best_epoch"]
    assert states[0]["random"].keys() == states[1]["random"].keys()
    for part in ("weights", "ema", "objective"):
        for name, value in states[0][part].items():
            # A softmax does not see its bias, of whose gradient rounding alone is left.
            if not name.endswith("head.attention.bias"):
                torch.testing.assert_close(states[1][part][name], value, rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(("kind", "n"), [("tied", 2), ("manifold", 3)])
def test_ranks_are_one_process(toy, tmp_path, kind, n):
    """Pins defect 11 of earlier systems: every rank wrote the checkpoint and scored its share."""
    made = toy(**KINDS[kind])
    train(made, tmp_path / "one")
    train(made, tmp_path / "ranks", n)
    close(tmp_path / "one", tmp_path / "ranks")


def test_ranks_read_different_windows(toy, tmp_path, monkeypatch):
    """Each reads its share of a batch and no more.

    Pins defect 11 of earlier systems: every rank wrote the checkpoint and scored its share.
    """
    made = toy(train__n_epochs=1, train__n_workers=0)
    fold_data = task_of(made, tmp_path / "fold")
    read = WindowDataset.__getitem__

    def work(ranks):
        seen = []
        monkeypatch.setattr(
            WindowDataset,
            "__getitem__",
            lambda self, item: seen.append(item) or read(self, item),
        )
        Trainer(fold_data, made.run.config, None, ranks).run()
        np.save(tmp_path / f"seen{ranks.rank}.npy", seen)

    assert launch(work, 2, tmp_path) == [0, 0]
    seen = [np.load(tmp_path / f"seen{rank}.npy") for rank in range(2)]
    assert [len(part) for part in seen] == [32, 32]
    assert sorted(np.concatenate(seen)) == list(range(64))


def test_ranks_stop_together_and_any_number_goes_on(toy, tmp_path, monkeypatch):
    made = toy(**TIED, train__save_minutes=60.0)
    train(made, tmp_path / "whole", 2)
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
    close(tmp_path / "whole", tmp_path / "with1")
    whole, again = (tmp_path / name / "best.pt" for name in ("whole", "with2"))
    assert whole.read_bytes() == again.read_bytes()


def test_a_bad_step_of_one_rank_is_skipped_by_all(toy, tmp_path, monkeypatch):
    made = toy(train__n_epochs=2, train__max_bad_steps=1)
    fold_data = task_of(made, tmp_path / "fold")
    own, count = Ranks.own, {"n": 0}

    def spoiled(self, x):
        count["n"] += 1
        x = own(self, x).clone()
        if count["n"] in (3, 6) and self.rank == 1:
            x[0] = float("nan")
        return x

    def work(ranks):
        monkeypatch.setattr(Ranks, "own", spoiled)
        with pytest.raises(CanopyError, match="2 steps were not finite"):
            Trainer(fold_data, made.run.config, None, ranks).run()

    assert launch(work, 2, tmp_path) == [0, 0]
    assert pd.read_csv(tmp_path / "fold" / "log.csv")["skipped_steps"].tolist() == [1]
    assert (tmp_path / "fold" / "bad_batch.json").is_file()


# ------------------------------------------------------------------------------------ whole batch


@pytest.mark.parametrize("n", [8, 7, 1])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4), (3,)])
def test_batch_norm_and_dropout_are_of_the_whole_batch(tmp_path, n, shape):
    torch.manual_seed(4)
    kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[len(shape) - 1]
    norm = kind(3).train()
    nn.init.normal_(norm.weight)
    x, slope = torch.randn(n, *shape) + 2, torch.randn(n, *shape)
    if n == 1 and len(shape) == 1:
        return  # one value a channel has no variance, and is refused by torch as well
    state = torch.get_rng_state()

    def work(ranks):
        own = ranks.own(x).requires_grad_()
        torch.set_rng_state(state)
        with WholeBatch(ranks, n, 5 + ranks.rank):
            out = nn.functional.dropout(norm(own), 0.4)
            drawn = torch.rand(2)
        (ranks.gather(out, n) * slope).sum().backward()
        ranks.average_gradients(norm.parameters())
        found = {"out": ranks.gather(out.detach(), n), "drawn": drawn, "next": torch.rand(2)}
        found["x"] = ranks.gather(own.grad, n) / ranks.size
        found |= {"weight": norm.weight.grad, "bias": norm.bias.grad}
        found |= {key: norm.state_dict()[key] for key in ("running_mean", "running_var")}
        torch.save(found, tmp_path / f"{ranks.rank}.pt")

    assert launch(work, 2, tmp_path) == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    x.requires_grad_()
    torch.set_rng_state(state)
    out = nn.functional.dropout(norm(x), 0.4)
    (out * slope).sum().backward()
    whole = {"out": out.detach(), "next": torch.rand(2), "x": x.grad, "bias": norm.bias.grad}
    whole |= {"weight": norm.weight.grad}
    whole |= {key: norm.state_dict()[key] for key in ("running_mean", "running_var")}
    for rank in range(2):
        for key, value in whole.items():
            torch.testing.assert_close(found[rank][key], value, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found[0]["drawn"], found[1]["drawn"])


WAVE = {
    **{"sample_rate": 32_000, "n_filters": 6, "kernel": 31, "frame_ms": 4.0, "gru": 7},
    **{"channels": [5, 6], "pool": [2, 2, 2], "de_channels": [3, 4], "de_strides": [2, 3]},
    **{"de_hidden": [5], "de_dropout": 0.2, "map_dropout": 0.2, "dense": [9, 8]},
}
NETWORKS = {
    "denet": (WAVE, (5, 1024)),
    "timm": ({"backbone": "resnet10t", "level_norm": True, "activity": True}, (5, 1, 32, 64)),
    "transformer": ({"width": 16, "n_blocks": 2, "n_heads": 2, "dropout": 0.0}, (5, 1, 32, 64)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_learns_as_of_the_whole_batch(tmp_path, name):
    """Outputs, gradients and running statistics of five windows, of which two ranks have three."""
    params, shape = NETWORKS[name]
    torch.manual_seed(4)
    model = create_model(name, params, 3, 32).train()
    x = torch.randn(shape) * torch.linspace(0.5, 2, 5).view(5, *[1] * (len(shape) - 1))

    def learn(score, average=lambda parameters: None):
        network = copy.deepcopy(model)
        torch.manual_seed(7)
        outputs = [part for part in score(network) if part is not None]
        sum((part * part.detach().cos()).sum() for part in outputs).backward()
        average(network.parameters())
        grads = {key: value.grad for key, value in network.named_parameters()}
        return [part.detach() for part in outputs], grads, network.state_dict()

    def work(ranks):
        found = learn(
            lambda network: score_whole_batch(network, x, None, ranks, ranks.rank),
            ranks.average_gradients,
        )
        torch.save(found, tmp_path / f"{ranks.rank}.pt")

    assert launch(work, 2, tmp_path) == [0, 0]
    outputs, grads, state = learn(lambda network: network(x))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found[0], outputs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[1], grads, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[2], state, rtol=1e-5, atol=1e-5)


def test_what_is_made_again_for_the_gradient_draws_the_same(tmp_path):
    """Dropout in layers that keep nothing for the gradient, as a rank draws it both times."""
    model = create_model("denet", {**WAVE, "checkpoint": True}, 3, 1).train()
    drawn = []
    model.enhancement.dropout.register_forward_hook(lambda *call: drawn.append(call[2] == 0))

    def work(ranks):
        x = torch.randn(4, 1024)
        with WholeBatch(ranks, 4, 5):
            loss = model(x).clip_logit.sum()
        loss.backward()
        first, again = drawn
        assert torch.equal(first, again)
        assert 0.1 < float(first.double().mean()) < 0.3

    assert launch(work, 1, tmp_path) == [0]


def test_items_of_any_type_are_gathered(tmp_path):
    items = {
        "x": torch.randn(5, 1, 2, 3),
        "wave": torch.arange(20, dtype=torch.int16).view(5, 4),
        "waved": torch.tensor([True, False, True, True, False]),
        "snr": torch.tensor([1.0, 2.0, torch.inf, 4.0, 5.0]),
    }

    def work(ranks):
        own = {key: ranks.own(value) for key, value in items.items()}
        whole = ranks.gather_items(own, 5)
        assert all(torch.equal(whole[key], value) for key, value in items.items())
        assert ranks.any(False, ranks.first) == [False, True]
        parts = ranks.collect(np.arange(3 * ranks.rank))
        assert [part.tolist() for part in parts] == [[], [0, 1, 2], [0, 1, 2, 3, 4, 5]]
        state = ranks.state_of_first({"a": torch.ones(2), "b": [1, "c"]} if ranks.first else None)
        assert state["b"] == [1, "c"]
        assert ranks.state_of_first(None) is None

    assert launch(work, 3, tmp_path) == [0, 0, 0]


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
    made = toy(**TIED, train__n_epochs=12, train__save_minutes=0.0)
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
    made = toy(**TIED, train__n_epochs=20, train__save_minutes=60.0)
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
