"""Detection by PyTorch: on a GPU, or of models that are not published."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from local.config import Config
from local.features.front_ends.front_end_registry import front_end_of
from local.inference.score_recordings import TorchScorer
from local.models import SedModel


class TorchEngine:
    """Front end and networks on one device."""

    def __init__(self, models: list[SedModel], config: Config, device: str) -> None:
        self._front_end, self._device = front_end_of(config), device
        self.scorers = [
            TorchScorer(model.to(device).eval(), self._front_end, device) for model in models
        ]

    def features(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Samples as they come -> features (*axes, k)."""
        return self._front_end.stream(blocks, self._device)


def set_threads(n_threads: int) -> None:
    """Compute on so many cores."""
    torch.set_num_threads(n_threads)
