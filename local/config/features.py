"""The front end."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from local.config.section_base import (
    Count,
    Positive,
    Section,
    Settings,
    StretchFactor,
)


class FeatureConfig(Section):
    """The front end, a registered kind by name.

    `params` are checked by that kind's own schema; the other keys are of log-mel spectrograms, and
    of what stage 0 stores whatever the kind.
    """

    kind: str = "logmel"
    params: Settings = {}
    n_fft: Annotated[int, Field(ge=16, le=2**18)] = 2048
    win_length: Count | None = None
    hop_length: Count = 512
    n_mels: Count = 128
    f_min_hz: Annotated[float, Field(ge=0.0)] = 50.0
    f_max_hz: Positive | None = None
    # On which scale the filters stand evenly; linear: in hertz, all of one width, for ultrasound.
    mel_scale: Literal["slaney", "htk", "linear"] = "slaney"
    floor: Positive = 1e-10
    dtype: Literal["float16", "float32"] = "float16"
    # Store the waveform beside the features, for augmentation of waveforms.
    keep_wave: bool = False
    # One more dump for each factor: every recording played so many times as long, pitch kept.
    stretches: tuple[StretchFactor, ...] = ()

    @model_validator(mode="after")
    def _stretches_differ(self) -> "FeatureConfig":
        if len({f"{factor:g}" for factor in [1.0, *self.stretches]}) <= len(self.stretches):
            raise ValueError(
                f"stretches is {list(self.stretches)}; give each factor once, and not 1, which is "
                "the plain dump"
            )
        return self
