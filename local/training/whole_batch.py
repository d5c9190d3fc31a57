"""What a network draws and measures of a batch, as if the whole of it were here.

Two things in a network look at more than one window: batch normalisation, whose statistics are of
the batch, and dropout, whose numbers come from one stream after the other. Inside `WholeBatch` both
are what one process makes of the whole batch, in any network and without changing it.
"""

from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)
from torch.overrides import TorchFunctionMode

from local.models import Mix, SedModel, SedOutput
from local.training.ranks import Ranks


def score_whole_batch(
    model: SedModel, x: torch.Tensor, mix: Mix | None, ranks: Ranks, seed: int
) -> SedOutput:
    """What the model says of a whole batch `x`, of which each rank scores its windows.

    mix : as the model takes it, for features of the whole batch: a window's partner may be another
        rank's.
    seed : of this rank and step.
    """
    n = len(x)

    def mix_own(features: torch.Tensor) -> torch.Tensor:
        return ranks.own(mix(ranks.gather(features, n)))

    own = ranks.own(x)
    if x.ndim == 4:
        own = own.contiguous(memory_format=torch.channels_last)
    with WholeBatch(ranks, n, seed):
        output = model(own) if mix is None else model(own, mix=mix_own)
    return SedOutput(*(None if part is None else ranks.gather(part, n) for part in output))


class WholeBatch(TorchFunctionMode):
    """Context of a network's forward pass on this rank's windows of a batch of `n`.

    Batch normalisation in training takes its statistics over all ranks, with gradients, on any
    device. Dropout of values and of channels on the CPU draws for the whole batch and takes the
    rank's part, from torch's global generator, which is left as one process leaves it. Whatever
    else is drawn (on a GPU, in attention, of whole layers, in layers that are made again for the
    gradient) comes from a stream of the rank's own that begins at `seed`.
    """

    def __init__(self, ranks: Ranks, n: int, seed: int) -> None:
        super().__init__()
        self._ranks, self._n, self._seed = ranks, n, seed
        self._each = len(ranks.of_batch(n))
        self._shared = torch.Generator()

    def __enter__(self) -> "WholeBatch":
        self._shared.set_state(torch.get_rng_state())
        torch.manual_seed(self._seed)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        torch.set_rng_state(self._shared.get_state())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called in place of every function of torch."""
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func in (F.dropout1d, F.dropout2d):
            return self._dropout_channels(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _rows(self, x: torch.Tensor) -> int:
        """Rows of `x` that stand for one window; 0 where they do not come out even."""
        return 0 if len(x) % self._each else len(x) // self._each

    def _batch_norm(
        self,
        x: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        n_rows = self._ranks.n_own(self._n) * self._rows(x) if self._rows(x) else len(x)
        out, mean, variance = _BatchNorm.apply(x, weight, bias, eps, n_rows, self._ranks)
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_(variance.to(running_var), momentum)
        return out

    def _dropout(
        self, x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        rows = self._rows(x)
        if not training or p == 0 or rows == 0 or x.device.type != "cpu":
            return F.dropout(x, p, training, inplace)
        order = sorted(range(x.ndim), key=lambda axis: -x.stride(axis))
        whole = torch.empty_permuted((self._n * rows, *x.shape[1:]), order, dtype=x.dtype)
        own = self._kept(whole, rows, p)
        return x.mul_(own) if inplace else x * own

    def _dropout_channels(
        self,
        func: Any,
        x: torch.Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> torch.Tensor:
        """Whole channels of (N, C, T) by `dropout1d`, of (N, C, H, W) by `dropout2d`."""
        rows = self._rows(x)
        is_batch = x.ndim == (3 if func is F.dropout1d else 4)
        if not training or p == 0 or rows == 0 or x.device.type != "cpu" or not is_batch:
            return func(x, p, training, inplace)
        shape = (self._n * rows, x.shape[1], *[1] * (x.ndim - 2))
        own = self._kept(torch.empty(shape, dtype=x.dtype), rows, p)
        return x.mul_(own) if inplace else x * own

    def _kept(self, whole: torch.Tensor, rows: int, p: float) -> torch.Tensor:
        """What dropout multiplies this rank's windows by; `whole` is laid out as the batch."""
        whole.bernoulli_(1 - p, generator=self._shared).div_(1 - p)
        return whole[
            [rows * item + row for item in self._ranks.of_batch(self._n) for row in range(rows)]
        ]


class _BatchNorm(torch.autograd.Function):
    """Normalisation by mean and variance of all ranks' windows (Ioffe & Szegedy 2015).

    With u = (x - mean) / sqrt(variance + eps) and N values a channel over all ranks, the gradient
    is w / sqrt(variance + eps) (dy - sum(dy) / N - u sum(dy u) / N), the sums over all ranks.
    Gives back the variance with N - 1 too, for the running statistics.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
        n_rows: int,
        ranks: Ranks,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        own = x[:n_rows] if n_rows else x
        # As one process sums: in double precision where that costs little.
        own = own.double() if x.device.type == "cpu" else own.float()
        variance, mean = (part.double() for part in torch.var_mean(own, axes, correction=0))
        count = torch.full_like(mean, x.numel() / x.shape[1] / len(x) * n_rows)
        counts, means, variances = torch.stack(
            ranks.all(torch.stack([count, mean, variance])), dim=1
        )
        total = counts.sum(dim=0)
        mean = (counts * means).sum(dim=0) / total
        # Of each rank's values about the common mean (Chan et al. 1979).
        variance = (counts * (variances + (means - mean).square())).sum(dim=0) / total
        unbiased = variance * total / (total - 1).clamp_min(1)
        # By the kernel that normalises with given statistics.
        like = weight.dtype if weight is not None else torch.float32
        given = mean.to(like), variance.to(like)
        out = F.batch_norm(x, *given, weight, bias, False, 0.0, eps)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean.to(like), scale.to(like), total)
        ctx.axes, ctx.n_rows, ctx.ranks, ctx.has_bias = axes, n_rows, ranks, bias is not None
        ctx.mark_non_differentiable(mean, unbiased)
        return out, mean, unbiased

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: torch.Tensor) -> tuple[Any, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        shape = [1, -1] + [1] * (x.ndim - 2)
        unit = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        slope = grad.to(mean.dtype)
        kind = torch.float64 if x.device.type == "cpu" else torch.float32
        sums = [part.sum(ctx.axes, dtype=kind) for part in (slope, slope * unit)]
        own = torch.stack(sums).double()
        of_all, of_all_unit = (ctx.ranks.sum(own.clone()) / total).to(slope.dtype)
        changed = slope - of_all.view(shape) - unit * of_all_unit.view(shape)
        # Repeated windows are in no statistic, and nothing is learned from them.
        changed[ctx.n_rows :] = slope[ctx.n_rows :]
        factor = scale if weight is None else scale * weight
        own_bias, own_weight = own
        return (
            (changed * factor.view(shape)).to(grad.dtype),
            None if weight is None else own_weight.to(weight.dtype),
            own_bias.to(grad.dtype if weight is None else weight.dtype) if ctx.has_bias else None,
            *(None, None, None),
        )
