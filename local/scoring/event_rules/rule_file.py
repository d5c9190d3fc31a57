"""rule.json: the rule that makes events of a run's scores, as stage 5 left it.

It belongs to the scores that it was fitted on, and is read on its own, without PyTorch.
"""

import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from local.config import Section, parse_section
from local.io.errors import CanopyError
from local.io.files import file_digest, read_json

log = logging.getLogger("canopy")

RULE = "rule.json"
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]


class EventRule(Section):
    """Thresholds as probabilities, lengths in seconds."""

    threshold: Probability
    low_threshold: Probability
    min_duration: Seconds
    max_gap: Seconds

    @model_validator(mode="after")
    def _in_order(self) -> "EventRule":
        if self.low_threshold > self.threshold:
            raise ValueError(f"low_threshold {self.low_threshold} is above {self.threshold}")
        return self

    def words(self) -> str:
        """The rule as options of bin/detect.py."""
        return " ".join(
            f"--{key.replace('_', '-')} {value:g}" for key, value in self.model_dump().items()
        )


def parse_rule(values: Any, place: Path | str) -> EventRule:
    """A rule from plain values; a fault names `place`."""
    if not isinstance(values, dict):
        raise CanopyError(f"{place}: rule is {values!r:.40}, expected thresholds and lengths")
    return parse_section(EventRule, values, "rule", place)


def read_rule(folder: Path, scores: Path) -> EventRule | None:
    """The rule of a run, where it has one that was fitted on the out-of-fold file `scores`."""
    path = folder / RULE
    if not path.is_file():
        return None
    told = read_json(path)
    if not isinstance(told, dict) or "rule" not in told:
        raise CanopyError(f"{path}: holds no rule; run stage 5 again")
    if not scores.is_file() or told.get("made_from") != file_digest(scores):
        log.warning("%s: not used, since it was fitted on other scores than %s", path, scores)
        return None
    return parse_rule(told["rule"], path)
