"""Pseudo labels, prevalence and the correction of priors."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from local.config.section_base import FrozenDict, Section, Share, Some
from local.io.errors import CanopyError

# Beyond it nothing but certainty is left of a probability.
Power = Annotated[float, Field(gt=0.0, le=10.0)]

Seconds = Annotated[float, Field(ge=0.0)]
# One number for all classes, or one for each by label.
SecondsByClass = (
    Seconds | Annotated[dict[str, Seconds], Field(min_length=1), AfterValidator(FrozenDict)]
)


class RelabelConfig(Section):
    """Stage 4: labels from scores of models that never saw the recording's group."""

    n_cycles: Annotated[int, Field(ge=0, le=100)] = 1
    # soft: the probability of every cell that no person spoke of. events: events where it passes a
    # threshold.
    kind: Literal["soft", "events"] = "soft"
    # soft: the power that probabilities are raised to; one number, or one a cycle.
    power: Power | tuple[Power, ...] = 1.5
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    # Hysteresis: an event grows from the threshold down to this probability.
    low_threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    min_duration_s: SecondsByClass = 0.2
    max_gap_s: SecondsByClass = 0.2
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    subsets: tuple[Literal["train", "test", "unlabelled"], ...] = ("train",)
    # Cells below this probability become pseudo negatives; null (the default) makes none.
    negative_below: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    # events: of a class, at most so many recordings get pseudo events for each recording in which a
    # confirmed call of it passes the threshold, out-of-fold; null sets no bound.
    max_per_confirmed: Annotated[float, Field(gt=0.0)] | None = 5.0
    # events: of a class, at most this share of the recordings that should have it get pseudo events
    # of it, by the prevalence that section `prior` gives or estimates; null sets no bound.
    prevalence_share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    # Apply the prior correction of section `prior` before the power or the threshold.
    use_prior: bool = False
    # No further cycle once the out-of-fold evidence of one lies so far below the best before it;
    # null: all n_cycles are made.
    max_fall: Share | None = 0.01
    # Chance that a window around a person's row has a pseudo window mixed in, by the rules of mixup
    # in section `augment`, or is one instead.
    pseudo_mixup: Share = 0.0
    pseudo_mixup_kind: Literal["mix", "substitute"] = "mix"
    # Stochastic depth of the backbone in cycles from 1 on; null: as model.params say.
    drop_path: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    # Weights each cycle starts from: fresh ones, or those of cycle 0 of the same fold.
    start: Literal["scratch", "cycle0"] = "cycle0"

    @model_validator(mode="after")
    def _ordered(self) -> "RelabelConfig":
        if self.low_threshold is not None and self.low_threshold > self.threshold:
            raise ValueError(
                f"low_threshold {self.low_threshold} is above threshold {self.threshold}"
            )
        return self

    @model_validator(mode="after")
    def _a_power_for_each_cycle(self) -> "RelabelConfig":
        listed = len(self.power) if isinstance(self.power, tuple) else self.n_cycles
        if self.n_cycles > 0 and listed != self.n_cycles:
            raise ValueError(
                f"power lists {listed} numbers, but n_cycles is {self.n_cycles}; give one "
                "number, or one a cycle"
            )
        return self

    @property
    def makes_soft_labels(self) -> bool:
        """Whether any cycle learns from soft labels."""
        return self.n_cycles > 0 and self.kind == "soft"

    @property
    def mixes_pseudo(self) -> bool:
        """Whether pseudo windows are mixed into those around a person's rows."""
        return self.pseudo_mixup > 0 and self.pseudo_mixup_kind == "mix"

    def lengths_of(self, label: str) -> tuple[float, float]:
        """Seconds of a class: how long an event lasts at least, and what gaps are closed."""
        return self._seconds("min_duration_s", label), self._seconds("max_gap_s", label)

    def _seconds(self, key: str, label: str) -> float:
        given: float | dict[str, float] = getattr(self, key)
        if not isinstance(given, dict):
            return given
        if label not in given:
            raise CanopyError(
                f"relabel.{key} has no number for the class {label!r}; give one for every class, "
                "or one number for all"
            )
        return given[label]

    def check_labels(self, labels: list[str]) -> None:
        """Refuse lengths of classes that are not there, and classes without any."""
        for key in ("min_duration_s", "max_gap_s"):
            given = getattr(self, key)
            others = [one for one in given if one not in labels] if isinstance(given, dict) else []
            if others:
                raise CanopyError(
                    f"relabel.{key} names the class {others[0]!r}, which classes.csv does not "
                    "have; correct or remove it"
                )
        for label in labels:
            self.lengths_of(label)

    def power_of(self, cycle: int) -> float:
        """The power of a cycle, from 1 on."""
        return self.power[cycle - 1] if isinstance(self.power, tuple) else self.power


class PriorConfig(Section):
    """Stage 5: correction of the class priors, in odds."""

    method: Literal["none", "given", "estimated"] = "none"
    # given: a csv with columns label, prevalence; relative to the data folder or absolute.
    given: str | None = None
    # Of estimated prevalence: confirmed calls inserted into test recordings, by class and fold; 0
    # makes none.
    n_insertions: Some = 40
    # How much of the shift is made that would make the mean probability of a class its prevalence;
    # null: all of it where prevalence is given, and where it is estimated the more of it by class
    # the better its scores tell confirmed from rejected spans.
    strength: Share | None = None
    # Estimated prevalence is used where the span AUC, out-of-fold, is at least this: scores that do
    # not tell confirmed from rejected spans do not tell how common a class is. 0: always.
    least_auc: Share = 0.8
    # The factor on the odds of a class is kept within [1/max_odds_ratio, max_odds_ratio].
    max_odds_ratio: Annotated[float, Field(gt=1.0)] = 1000.0

    @property
    def inserts_calls(self) -> bool:
        """Whether prevalence is estimated with inserted calls."""
        return self.method == "estimated" and self.n_insertions > 0

    @model_validator(mode="after")
    def _given_has_a_file(self) -> "PriorConfig":
        if (self.method == "given") != (self.given is not None):
            raise ValueError("method: given goes with the path of a csv in key given, and only so")
        return self
