"""All that training needs to go on as if it had not stopped, for a checkpoint."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from local.training.progress import Progress

if TYPE_CHECKING:
    from local.training.steps import Learner

# Parts of a learner that have a state of their own, and their names in a checkpoint.
_PARTS = {
    "weights": "model",
    "objective": "objective",
    "ema": "ema",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "scaler": "scaler",
}


class RandomState:
    """The generators that a step draws from: torch's own, the GPU's, and that of augmentation.

    What an epoch draws at its beginning (windows, and how they are read) is drawn again from its
    seed; nothing draws from numpy's or Python's global generators.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.augment = torch.Generator()
        self._waiting: dict[str, torch.Tensor] = {}

    def state(self) -> dict[str, torch.Tensor]:
        """The state of each, by name."""
        found = {"torch": torch.get_rng_state(), "augment": self.augment.get_state()}
        if self._device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self._device)
        # What was read and not yet put in place is still how things stand.
        return found | self._waiting

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Keep states for `restore`: what is done until then draws from the generators as well."""
        self._waiting = dict(state)

    def restore(self) -> None:
        """Put in place what was loaded, once."""
        state, self._waiting = self._waiting, {}
        if "torch" in state:
            torch.set_rng_state(state["torch"])
        if "augment" in state:
            self.augment.set_state(state["augment"])
        if "cuda" in state and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self._device)


def training_state(learner: "Learner") -> dict[str, Any]:
    """The state of a learner that stands between two steps of its optimiser."""
    parts = {name: getattr(learner, attribute) for name, attribute in _PARTS.items()}
    return {
        "recipe": learner.recipe,
        **{name: part.state_dict() for name, part in parts.items()},
        # Between epochs all generators are seeded anew, so their state says nothing.
        "random": learner.random.state() if learner.progress.step > 0 else {},
        "progress": asdict(learner.progress),
        "history": learner.history,
    }


def load_training_state(learner: "Learner", state: dict[str, Any]) -> None:
    """Set a learner to a state that `training_state` gave."""
    for name, attribute in _PARTS.items():
        getattr(learner, attribute).load_state_dict(state[name])
    learner.random.load(state.get("random", {}))
    learner.progress = Progress(**state["progress"])
    learner.history = state["history"]
