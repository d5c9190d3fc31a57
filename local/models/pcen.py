"""Per-channel energy normalisation as a layer."""

import math

import torch
from torch import nn

# Mel power of samples within -1 .. 1 times this is of the size that the customary bias of 2 means:
# the power of 16-bit samples.
_SCALE = 2.0**31
_EPSILON = 1e-6
# Frames smoothed by one product; between blocks only the last level is carried over.
_BLOCK = 128


class Pcen(nn.Module):
    """Dynamic compression that takes the running level of each band away.

    Wang et al. 2017 (trainable frontend for robust and far-field keyword spotting): with energy E
    and its running level M[t] = (1 - s) M[t - 1] + s E[t],
    PCEN = (E / (eps + M)^gain + bias)^power - bias^power. M begins at the first frame's energy.

    Parameters
    ----------
    smooth : s, fixed.
    gain, bias, power : where each band starts; learned (as logarithms, so that they stay above 0)
        when `trainable`.
    """

    log_gain: torch.Tensor
    log_bias: torch.Tensor
    log_power: torch.Tensor
    within: torch.Tensor
    carried: torch.Tensor

    def __init__(
        self,
        n_bands: int,
        smooth: float,
        gain: float,
        bias: float,
        power: float,
        trainable: bool,
    ) -> None:
        super().__init__()
        start = {"log_gain": gain, "log_bias": bias, "log_power": power}
        for name, value in start.items():
            logarithm = torch.full((n_bands,), math.log(value))
            if trainable:
                self.register_parameter(name, nn.Parameter(logarithm))
            else:
                self.register_buffer(name, logarithm, persistent=False)
        age = torch.arange(_BLOCK, dtype=torch.float64)
        lag = age[None, :] - age[:, None]
        weights = torch.where(lag >= 0, smooth * (1 - smooth) ** lag.clamp(min=0), 0.0)
        self.register_buffer("within", weights.float(), persistent=False)
        self.register_buffer("carried", ((1 - smooth) ** (age + 1)).float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) natural-log mel power -> (B, 1, F, T)."""
        # Half precision cannot hold the range of energies.
        with torch.autocast(x.device.type, enabled=False):
            energy = _SCALE * torch.exp(x.float())
            gain, bias, power = (
                torch.exp(value)[:, None]
                for value in (self.log_gain, self.log_bias, self.log_power)
            )
            # (eps + M)^-gain, through logarithms as gains near 1 and levels near 0 want it.
            level = math.log(_EPSILON) + torch.log1p(self.level(energy) / _EPSILON)
            ratio = energy * torch.exp(-gain * level)
            return bias**power * torch.expm1(power * torch.log1p(ratio / bias))

    def level(self, energy: torch.Tensor) -> torch.Tensor:
        """The running level M of `energy`, exact: the recursion written out within blocks."""
        last = energy[..., :1]
        blocks = []
        for block in energy.split(_BLOCK, dim=-1):
            n = block.shape[-1]
            blocks.append(block @ self.within[:n, :n] + last * self.carried[:n])
            last = blocks[-1][..., -1:]
        return torch.cat(blocks, dim=-1)
