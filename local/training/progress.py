"""Where the training of a fold stands."""

import math
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where training stands; part of every checkpoint.

    epoch, step : epochs that are done, and batches of the next one.
    bad_steps : steps of the run that were skipped because loss or gradient were not finite.
    best_score, best_epoch : of `best.pt`, where a score selects it; the epoch counts from 1.
    n_good, skipped, sums : of the epoch that has begun: batches that were learned from, steps that
        were skipped, and sums of the parts of the loss.
    """

    epoch: int = 0
    step: int = 0
    bad_steps: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0
    n_good: int = 0
    skipped: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, parts: dict[str, float]) -> None:
        """Take in the parts of the loss of a batch."""
        self.n_good += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Parts of the loss, as means over the batches of the epoch."""
        return {f"loss_{name}": value / max(1, self.n_good) for name, value in self.sums.items()}

    def end_epoch(self) -> None:
        """Count the epoch and begin the next one."""
        self.epoch += 1
        self.step, self.n_good, self.skipped, self.sums = 0, 0, 0, {}
