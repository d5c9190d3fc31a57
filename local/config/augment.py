"""Augmentation of windows."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from local.config.section_base import (
    Section,
    Share,
    Some,
    StretchFactor,
)

Semitones = Annotated[float, Field(ge=-12.0, le=12.0)]


class AugmentConfig(Section):
    """Augmentation of windows on the device, of features or of the waveforms behind them."""

    # Mixup with lambda ~ Beta(alpha, alpha), or with a constant lambda; both off: no mixup.
    mixup_alpha: Annotated[float, Field(ge=0.0)] = 0.0
    mixup_lambda: Share | None = None
    mixup_p: Share = 1.0
    # input: windows are mixed as sounds add; last: what the head sees is mixed.
    mixup_at: Literal["input", "last"] = "input"
    # soft: targets mixed by lambda; union: a class of either window is present.
    mixup_target: Literal["soft", "union"] = "union"
    gain_db: Annotated[float, Field(ge=0.0)] = 0.0
    freq_masks: Some = 0
    freq_mask_share: Share = 0.1
    # Place masks over bands beside the bands of the window's known calls.
    freq_mask_spares_calls: bool = False
    time_masks: Some = 0
    time_mask_share: Share = 0.1
    noise_std: Annotated[float, Field(ge=0.0)] = 0.0
    # Roll windows in time, up to so far either way, in whole output cells and labels with them.
    shift_s: Annotated[float, Field(ge=0.0)] = 0.0
    # Play windows up to so many times as long, pitch untouched: bounds of the factor.
    stretch: tuple[StretchFactor, StretchFactor] | None = None
    # Move spectra up or down by up to so many mel bands: a pitch shift, roughly.
    pitch_bands: Annotated[int, Field(ge=0)] = 0
    # Noise at a signal-to-noise ratio drawn between these decibels.
    noise_p: Share = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 20.0)
    noise_colour: Literal["white", "pink", "either"] = "either"
    # Share of that noise which comes and goes within the window, as wind does.
    noise_gusts: Share = 0.0
    # Another recording's sound laid under the window: from around a rejected event, from anywhere
    # in what the fold trains on, or from recordings of subset unlabelled.
    background_p: Share = 0.0
    background_snr_db: tuple[float, float] = (5.0, 20.0)
    background_from: Literal["negative", "random", "unlabelled"] = "negative"
    # From this signal-to-noise ratio on a background is too faint to make known absences unknown;
    # null: it never is.
    background_faint_db: float | None = None
    # Share of windows whose waveform is augmented before it becomes features (features.keep_wave).
    wave_p: Share = 0.0
    # Pitch shift of waveforms: bounds in semitones.
    wave_pitch: tuple[Semitones, Semitones] | None = None

    @property
    def mixes(self) -> bool:
        """Whether mixup is asked for."""
        return self.mixup_alpha > 0 or self.mixup_lambda is not None

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "AugmentConfig":
        for key in ("stretch", "noise_snr_db", "background_snr_db", "wave_pitch"):
            bounds = getattr(self, key)
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{key} is {list(bounds)}; give the lower bound first")
        return self

    @model_validator(mode="after")
    def _waves_are_changed(self) -> "AugmentConfig":
        something = self.wave_pitch is not None or self.noise_p > 0 or self.background_p > 0
        if self.wave_p > 0 and not something:
            raise ValueError(
                "wave_p asks for waveforms that nothing would change; set wave_pitch, noise_p or "
                "background_p, or wave_p to 0"
            )
        if self.wave_pitch is not None and self.wave_p == 0:
            raise ValueError("wave_pitch shifts waveforms; set wave_p, the share that is shifted")
        return self
