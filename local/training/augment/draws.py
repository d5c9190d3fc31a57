"""Draws that several augmentations share; all from the generator given, on the CPU."""

import torch


def uniform(bounds: tuple[float, float], size: int, rng: torch.Generator) -> torch.Tensor:
    """(size,) float32 evenly between the bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand(size, generator=rng)


def chosen(share: float, size: int, rng: torch.Generator) -> torch.Tensor:
    """(size,) bool, true with chance `share`."""
    return torch.rand(size, generator=rng) < share


def normal(
    shape: torch.Size | tuple[int, ...], rng: torch.Generator, like: torch.Tensor
) -> torch.Tensor:
    """Standard normal numbers with the device and type of `like`."""
    return torch.randn(shape, generator=rng).to(like)


def beta(alpha: float, size: int, rng: torch.Generator) -> torch.Tensor:
    """Beta(alpha, alpha) draws from the ratio of two gammas."""
    shape = torch.full((2, size), alpha, dtype=torch.float64)
    gammas = torch._standard_gamma(shape, generator=rng).clamp_min(1e-300)
    return gammas[0] / gammas.sum(dim=0)


def gamma(shape: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Gamma draws of scale 1 for each entry of `shape`, on its device."""
    return torch._standard_gamma(shape.cpu(), generator=rng).to(shape.device)


def gusts(share: float, size: int, length: int, rng: torch.Generator) -> torch.Tensor:
    """(size, length) power that comes and goes, its mean about 1: a factor of noise.

    It swings between 0 and 2, a fifth of a turn to one and a half in a row; 1 throughout in rows
    that are not chosen, with chance 1 - `share`.
    """
    turns = uniform((0.2, 1.5), size, rng)[:, None] * torch.linspace(0.0, 1.0, length)
    swing = 1 + torch.sin(2 * torch.pi * (turns + torch.rand(size, 1, generator=rng)))
    return torch.where(chosen(share, size, rng)[:, None], swing, torch.ones_like(swing))
