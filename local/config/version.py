"""A whole version: its sections, and what they must say of each other.

Seconds, hertz and decibels carry their unit in the key (`_s`, `_hz`, `_db`); counts begin `n_`.
"""

from typing import Annotated

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
from local.config.windows import WindowConfig

# Weights of the mel filters: more would take memory by gigabytes.
_MAX_FILTER_WEIGHTS = 2**26


class Config(Section):
    """A whole version."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    # Settings of the recipe's own preparation, checked by the recipe.
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

    @model_validator(mode="after")
    def _prevalence_is_known(self) -> "Config":
        if self.relabel.prevalence_share is not None and self.prior.method == "none":
            raise ValueError(
                "relabel.prevalence_share needs a prevalence; set prior.method to estimated or "
                "given, or prevalence_share to null"
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
    def _front_end_fits(self) -> "Config":
        nyquist = self.audio.sample_rate / 2
        f_max = self.features.f_max_hz
        if f_max is not None and f_max > nyquist:
            raise ValueError(
                f"features.f_max_hz {f_max:g} is above the Nyquist frequency {nyquist:g} of "
                f"audio.sample_rate {self.audio.sample_rate}; lower it or raise the rate"
            )
        if self.features.f_min_hz >= (f_max or nyquist):
            raise ValueError(
                f"features.f_min_hz {self.features.f_min_hz:g} is not below the upper edge "
                f"{f_max or nyquist:g}"
            )
        weights = self.features.n_mels * (self.features.n_fft // 2 + 1)
        if self.features.kind == "logmel" and weights > _MAX_FILTER_WEIGHTS:
            raise ValueError(
                f"features.n_mels {self.features.n_mels} filters over features.n_fft "
                f"{self.features.n_fft} have {weights} weights, at most {_MAX_FILTER_WEIGHTS} are "
                "taken; lower one of the two"
            )
        win_length = self.features.win_length
        if win_length is not None and win_length > self.features.n_fft:
            raise ValueError(
                f"features.win_length {win_length} is longer than features.n_fft "
                f"{self.features.n_fft}"
            )
        return self

    @model_validator(mode="after")
    def _what_augmentation_needs(self) -> "Config":
        made = {f"{factor:g}" for factor in self.features.stretches}
        if self.window.p_stretched > 0 and not made:
            raise ValueError("window.p_stretched reads stretched dumps; list features.stretches")
        absent = [f for f in self.inference.tta.stretches if f"{f:g}" not in made]
        if absent:
            raise ValueError(
                f"inference.tta.stretches has {absent[0]:g}, which features.stretches "
                f"{list(self.features.stretches)} does not make; add it there"
            )
        augment, is_wave = self.augment, self.features.kind == "wave"
        if augment.wave_p > 0 and not (is_wave or self.features.keep_wave):
            raise ValueError("augment.wave_p needs waveforms in the dump; set features.keep_wave")
        spectral = {"stretch": None, "pitch_bands": 0, "freq_mask_spares_calls": False}
        wrong = [key for key, off in spectral.items() if getattr(augment, key) != off]
        if is_wave and wrong:
            raise ValueError(f"augment.{wrong[0]} works on features.kind logmel only; leave it out")
        return self

    @property
    def hop_s(self) -> float:
        """Seconds between feature frames (between samples for waveform input)."""
        if self.features.kind == "wave":
            return 1.0 / self.audio.sample_rate
        return self.features.hop_length / self.audio.sample_rate
