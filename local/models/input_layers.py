"""Layers between a log-mel window and a trunk."""

import torch
from torch import nn


class BandNorm(nn.Module):
    """Batch normalisation of every mel band by itself, as in PANNs (Kong et al. 2020)."""

    def __init__(self, n_bands: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_bands)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) -> (B, 1, F, T)."""
        return self.norm(x.squeeze(1)).unsqueeze(1)


class LevelNorm(nn.Module):
    """Takes each band's mean over the window away: what sounds all the time is background.

    The mean of a log spectrum over time is the level of site, recorder and weather; without it the
    network sees what changes.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) -> (B, 1, F, T)."""
        return x - x.mean(dim=-1, keepdim=True)


class WithLevel(nn.Module):
    """Adds the level itself, normalised by band, to the channels that `layers` make."""

    def __init__(self, layers: nn.Sequential, n_bands: int, normalised: bool) -> None:
        super().__init__()
        self.layers = layers
        self.level = BandNorm(n_bands) if normalised else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) -> (B, K + 1, F, T), the level last."""
        return torch.cat([self.layers(x), self.level(x)], dim=1)


class FrequencyCoordinate(nn.Module):
    """Adds a channel that says how high a band is, from -1 to 1: convolutions cannot know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, F, T) -> (B, K + 1, F, T)."""
        n_bands = x.shape[2]
        ramp = torch.linspace(-1.0, 1.0, n_bands, device=x.device, dtype=x.dtype)
        return torch.cat([x, ramp.view(1, 1, n_bands, 1).expand_as(x[:, :1])], dim=1)


class Copies(nn.Module):
    """The spectrogram several times over, for trunks that were made for pictures."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, F, T) -> (B, n, F, T)."""
        return x.expand(-1, self.n, -1, -1)
