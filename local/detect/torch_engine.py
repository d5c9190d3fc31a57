"""Detection by PyTorch: on a GPU, or of models that are not published."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from local.config import Config
from local.features.logmel import LogMel, stream_features
from local.inference.score_recordings import (
    TorchScorer,
)
from local.models import SedModel


class TorchEngine:
    """Front end and networks on one device."""

    def __init__(self, models: list[SedModel], config: Config, device: str) -> None:
        self._front = (
            LogMel(config.features, config.audio.sample_rate).to(device)
            if config.features.kind == "logmel"
            else None
        )
        self.scorers = [TorchScorer(model.to(device).eval(), device) for model in models]

    def features(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Samples as they come -> frames (k, n_mels) (samples (k,) for the waveform)."""
        if self._front is None:
            yield from blocks
            return
        for features in stream_features(blocks, self._front):
            yield features.T.cpu().numpy()


def set_threads(n_threads: int) -> None:
    """Compute on so many cores."""
    torch.set_num_threads(n_threads)
