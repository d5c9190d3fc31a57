"""What one training step of a model costs: seconds part by part, and memory."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from local.models.task_contract import Trial


class StepProfile(NamedTuple):
    """Costs of a step.

    seconds : of "forward", of its parts by the name of the model's child, "backward", "optimiser";
        the fastest of all steps each.
    kept_bytes : what the forward pass keeps for the gradient, weights left out.
    peak_bytes : the most memory taken above what was taken before, of the process on a CPU (which
        counts since the process began) and of tensors on a GPU.
    """

    seconds: dict[str, float]
    parts: dict[str, float]
    kept_bytes: int
    peak_bytes: int


class _Clock:
    """Seconds by name, on a device that may work ahead."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    def now(self) -> float:
        """The time when all work that was asked for is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add what happens inside under `name`."""
        self.begin(name)
        yield
        self.end(name)

    def begin(self, name: str) -> None:
        """Start the clock of `name`."""
        self._begun[name] = self.now()

    def end(self, name: str) -> None:
        """Stop it; several stretches of one name add up."""
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - self._begun[name]


def profile_step(trial: Trial, dtype: torch.dtype | None, n_steps: int) -> StepProfile:
    """Run a few training steps on a batch, after one that does not count.

    Parameters
    ----------
    trial : model and batch on one device; the steps change the model, at a rate as good as none.
    dtype : half precision to compute in; None is single.
    """
    device = trial.x.device
    before = _peak_bytes(device)
    kept = kept_bytes(trial.model, trial.x, dtype)
    optimizer = torch.optim.AdamW(trial.model.parameters(), lr=1e-8)
    steps = [_step(trial, dtype, optimizer) for _ in range(n_steps + 1)][1:]
    seconds, parts = (
        {name: min(step[kind][name] for step in steps) for name in steps[0][kind]}
        for kind in range(2)
    )
    return StepProfile(seconds, parts, kept, _peak_bytes(device) - before)


def _step(
    trial: Trial, dtype: torch.dtype | None, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, float], dict[str, float]]:
    model, x = trial.model, trial.x
    whole, parts = _Clock(x.device), _Clock(x.device)
    hooks = []
    for name, part in model.named_children():
        hooks.append(part.register_forward_pre_hook(lambda *_, key=name: parts.begin(key)))
        hooks.append(part.register_forward_hook(lambda *_, key=name: parts.end(key)))
    optimizer.zero_grad(set_to_none=True)
    autocast = torch.autocast(x.device.type, dtype, enabled=dtype is not None)
    with whole.measure("forward"), autocast:
        output = model(x)
    # What is made again for the gradient belongs to the backward pass.
    for hook in hooks:
        hook.remove()
    with whole.measure("backward"):
        trial.loss(output).backward()
    with whole.measure("optimiser"):
        optimizer.step()
    return whole.seconds, parts.seconds


def kept_bytes(model: nn.Module, x: torch.Tensor, dtype: torch.dtype | None = None) -> int:
    """Bytes that a forward pass keeps for the gradient, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast(x.device.type, dtype, enabled=dtype is not None):
        output = model(x)
    # Until here its graph was alive, so no memory was given out twice.
    del output
    return sum(kept.values())


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
