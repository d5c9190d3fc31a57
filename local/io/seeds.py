"""Random numbers from named seeds: the same names give the same stream, whatever ran before."""

import hashlib

import numpy as np


def named_seed(seed: int, *names: object) -> int:
    """A 63-bit seed from the run's seed and the names of what it is for (stage, fold, epoch)."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: object) -> np.random.Generator:
    """A numpy generator for a named purpose."""
    return np.random.default_rng(named_seed(seed, *names))


def seed_torch(seed: int, *names: object) -> None:
    """Seed torch's global generators (weights, dropout) for a named purpose."""
    import torch

    torch.manual_seed(named_seed(seed, *names))
