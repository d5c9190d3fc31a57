"""A whole version: its sections, and what they must say of each other.

Seconds, hertz and decibels carry their unit in the key (`_s`, `_hz`, `_db`); counts begin `n_`.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from local.config.augment import AugmentConfig
from local.config.data import AudioConfig, DataConfig, SplitConfig
from local.config.features import FeatureConfig
from local.config.infer import InferenceConfig
from local.config.loss import LossConfig
from local.config.relabel import PriorConfig, RelabelConfig
from local.config.score import EventsConfig, ReportConfig, ScoreConfig
from local.config.section_base import Section, Settings
from local.config.train import ModelConfig, TrainConfig
from local.config.window import WindowConfig


class Config(Section):
    """A whole version."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    # What is learned, one of `local.tasks`; and settings that only this task has, checked by it.
    task: str = "detection"
    task_params: Settings = {}
    # Settings of the recipe's own preparation, checked by it; but `settings`, auto or fixed,
    # says whether the tables suggest what nobody sets.
    prepare: Settings = {}
    audio: AudioConfig = AudioConfig()
    features: FeatureConfig = FeatureConfig()
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    window: WindowConfig = WindowConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()
    relabel: RelabelConfig = RelabelConfig()
    prior: PriorConfig = PriorConfig()
    score: ScoreConfig = ScoreConfig()
    events: EventsConfig = EventsConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="before")
    @classmethod
    def _events_are_tuned_where_they_can(cls, values: Any) -> Any:
        """`events.tune` that nobody sets is on where annotation is complete and scores are kept."""
        if not isinstance(values, dict):
            return values
        events, data = values.get("events", {}), values.get("data", {})
        kept = values.get("inference", {})
        if not all(isinstance(section, dict) for section in (events, data, kept)):
            return values
        can = data.get("annotation") == "complete" and kept.get("keep_frames", True) is True
        return {**values, "events": {**events, "tune": can}} if "tune" not in events else values

    @model_validator(mode="after")
    def _settings_are_suggested_or_not(self) -> "Config":
        found = self.prepare.get("settings", "fixed")
        if found not in ("auto", "fixed"):
            raise ValueError(
                f"prepare.settings is {found!r}, expected auto (what nobody sets is told from the "
                "tables) or fixed"
            )
        return self

    @model_validator(mode="after")
    def _prevalence_is_known(self) -> "Config":
        if self.relabel.prevalence_share is not None and self.prior.method == "none":
            raise ValueError(
                "relabel.prevalence_share needs a prevalence; set prior.method to estimated or "
                "given, or prevalence_share to null"
            )
        if self.relabel.use_prior and self.prior.method == "none":
            raise ValueError(
                "relabel.use_prior needs a prevalence; set prior.method to estimated or given, or "
                "use_prior to false"
            )
        return self

    @model_validator(mode="after")
    def _soft_labels_are_mixed_by_weight(self) -> "Config":
        mixed = self.augment.mixes or self.relabel.mixes_pseudo
        union = self.augment.mixup_target == "union"
        if self.relabel.makes_soft_labels and mixed and union:
            raise ValueError(
                "relabel.kind is soft, and augment.mixup_target: union takes any probability for "
                "presence; set mixup_target to soft"
            )
        return self

    @model_validator(mode="after")
    def _soft_labels_are_masked(self) -> "Config":
        if self.relabel.makes_soft_labels and not self.loss.masked:
            raise ValueError(
                "relabel.kind is soft, but with loss.masked: false what nobody spoke of counts as "
                "absent; set loss.masked to true, or relabel.kind to events"
            )
        return self

    @model_validator(mode="after")
    def _events_can_be_tuned(self) -> "Config":
        if self.events.tune and self.data.annotation != "complete":
            raise ValueError(
                "events.tune counts what has no row as false, which needs data.annotation: complete"
            )
        if self.events.tune and not self.inference.keep_frames:
            raise ValueError("events.tune needs scores over time; set inference.keep_frames")
        return self

    @model_validator(mode="after")
    def _stretches_are_made(self) -> "Config":
        made = {f"{factor:g}" for factor in self.features.stretches}
        if self.window.p_stretched > 0 and not made:
            raise ValueError("window.p_stretched reads stretched dumps; list features.stretches")
        absent = [f for f in self.inference.tta.stretches if f"{f:g}" not in made]
        if absent:
            raise ValueError(
                f"inference.tta.stretches has {absent[0]:g}, which features.stretches "
                f"{list(self.features.stretches)} does not make; add it there"
            )
        return self
