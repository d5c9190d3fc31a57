"""Input layers and heads that several families share."""

import torch
from torch import nn

from local.models.base import SedOutput


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


class FrequencyCoordinate(nn.Module):
    """Adds a channel that says how high a band is, from -1 to 1: convolutions cannot know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, F, T) -> (B, K + 1, F, T)."""
        n_bands = x.shape[2]
        ramp = torch.linspace(-1.0, 1.0, n_bands, device=x.device, dtype=x.dtype)
        return torch.cat([x, ramp.view(1, 1, n_bands, 1).expand_as(x[:, :1])], dim=1)


class AttentionHead(nn.Module):
    """Decision-level attention: frame logits, and their attention-weighted sum as clip logit.

    clip = sum over t of softmax_t(attention) * frame logit. The weights sum to one, so a class that
    is nowhere keeps a low clip score (a maximum of weighted probabilities would not).
    """

    def __init__(
        self, n_features: int, n_classes: int, dropout: float = 0.0, activity: bool = False
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Conv1d(n_features, n_classes, 1)
        self.attention = nn.Conv1d(n_features, n_classes, 1)
        self.activity = nn.Conv1d(n_features, 1, 1) if activity else None

    def forward(self, features: torch.Tensor) -> SedOutput:
        """Score (B, D, T') features."""
        x = self.dropout(features)
        frame_logit = self.classes(x)
        weights = torch.softmax(self.attention(x).float(), dim=-1)
        clip_logit = (weights * frame_logit.float()).sum(dim=-1)
        return SedOutput(
            frame_logit.float(),
            clip_logit,
            self.activity(x).float() if self.activity is not None else None,
            features.float().mean(dim=-1),
        )
