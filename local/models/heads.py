"""Heads: from features of a window to its scores. All scores are logits."""

import torch
from torch import nn

from local.models.sed_model import SedOutput


def attend(frame_logit: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Clip logits (B, C): sum over t of softmax_t(attention) * frame logit, both (B, C, T')."""
    weights = torch.softmax(attention.float(), dim=-1)
    return (weights * frame_logit.float()).sum(dim=-1)


class AttentionHead(nn.Module):
    """Decision-level attention: frame logits, and their attention-weighted sum as clip logit.

    The weights sum to one, so a class that is nowhere keeps a low clip score (a maximum of weighted
    probabilities would not).
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
        clip_logit = attend(frame_logit, self.attention(x))
        return SedOutput(
            frame_logit.float(),
            clip_logit,
            self.activity(x).float() if self.activity is not None else None,
            features.float().mean(dim=-1),
        )


class PoolHead(nn.Module):
    """The simple head: a linear layer a cell; a window's logit is the cells' maximum or mean."""

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        how: str,
        dropout: float = 0.0,
        activity: bool = False,
    ) -> None:
        super().__init__()
        self.how = how
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Conv1d(n_features, n_classes, 1)
        self.activity = nn.Conv1d(n_features, 1, 1) if activity else None

    def forward(self, features: torch.Tensor) -> SedOutput:
        """Score (B, D, T') features."""
        x = self.dropout(features)
        frame_logit = self.classes(x).float()
        return SedOutput(
            frame_logit,
            frame_logit.amax(dim=-1) if self.how == "max" else frame_logit.mean(dim=-1),
            self.activity(x).float() if self.activity is not None else None,
            features.float().mean(dim=-1),
        )


class TokenHead(nn.Module):
    """For encoders with a class token: its output scores the window, the others their cells."""

    def __init__(
        self, n_features: int, n_classes: int, dropout: float = 0.0, activity: bool = False
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Conv1d(n_features, n_classes, 1)
        self.clip = nn.Linear(n_features, n_classes)
        self.activity = nn.Conv1d(n_features, 1, 1) if activity else None

    def forward(self, features: torch.Tensor) -> SedOutput:
        """Score (B, D, 1 + T') features, the token's first."""
        x = self.dropout(features)
        token, cells = x[..., 0], x[..., 1:]
        return SedOutput(
            self.classes(cells).float(),
            self.clip(token).float(),
            self.activity(cells).float() if self.activity is not None else None,
            features[..., 0].float(),
        )
