"""The optimiser of a model and its objective, and how its rate goes over the steps."""

import math
from typing import Any

import torch
from torch import nn

from local.config import LossConfig, TrainConfig
from local.io.errors import CanopyError


def make_optimizer(
    model: nn.Module,
    objective: nn.Module,
    config: TrainConfig,
    loss: LossConfig | None = None,
) -> torch.optim.Optimizer:
    """Optimiser over every parameter of the model and of the loss, each in one group.

    Weights of layers decay; biases, normalisation and what the loss learns do not. With `lr_head`
    the parameters that score (the model's `head_prefixes`) have groups with that rate; with
    `loss.centre_lr` what the loss learns has. Empty groups are left out.
    """
    body: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    prefixes = getattr(model, "head_prefixes", ())
    for name, parameter in model.named_parameters():
        is_head = config.lr_head is not None and name.startswith(prefixes)
        (head if is_head else body).append(parameter)
    if config.lr_head is not None and not head:
        raise CanopyError(
            f"train.lr_head is {config.lr_head:g}, but this model has no parameters of a head; set "
            "it to null"
        )
    groups = _groups(body, config.lr, config.weight_decay)
    if config.lr_head is not None:
        groups += _groups(head, config.lr_head, config.weight_decay)
    rate = loss.centre_lr if loss is not None and loss.centre_lr is not None else config.lr
    groups.append({"params": list(objective.parameters()), "lr": rate, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    # On a GPU PyTorch chooses; on a CPU it would go through parameters and operations one by one.
    on_cpu = next(model.parameters()).device.type == "cpu"
    return kind(groups, lr=config.lr, fused=True if on_cpu else None)


def _groups(parameters: list[nn.Parameter], lr: float, decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "lr": lr, "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]


def lr_factor(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Share of the rate at optimiser step `step` (from 0).

    Linear warm-up over `warmup_share` of all steps, then by `schedule`: cosine, half a cosine down
    to zero at the last step; step, times `step_factor` after every `step_epochs`; noam (Vaswani et
    al. 2017), with 1 / sqrt(step) from the end of the warm-up on, where it is 1; constant.
    """
    total = steps_per_epoch * config.n_epochs
    warmup = max(1, round(config.warmup_share * total))
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "cosine":
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "step":
        # Counted from the first step; rounding must not turn a whole number of times down.
        return config.step_factor ** math.floor(
            step / (config.step_epochs * steps_per_epoch) + 1e-9
        )
    if config.schedule == "noam":
        return math.sqrt(warmup / (step + 1))
    return 1.0
