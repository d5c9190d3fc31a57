"""Sliding windows, test-time augmentation, and one score a recording."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from local.config.section_base import (
    Count,
    Positive,
    Section,
    StretchFactor,
)


class PoolConfig(Section):
    """From scores over time to one score a recording."""

    source: Literal["frame", "window"] = "frame"
    method: Literal["max", "topk", "smooth_max"] = "max"
    # topk: mean of the k seconds with the highest scores; smooth_max: length of the moving average.
    seconds: Positive = 1.0


class TtaConfig(Section):
    """Test-time augmentation: every view is scored and the probabilities averaged."""

    shifts_s: tuple[float, ...] = (0.0,)
    speeds: tuple[Positive, ...] = (1.0,)
    # Dumps of `features.stretches` to look at beside the plain one.
    stretches: tuple[StretchFactor, ...] = ()
    gains_db: tuple[float, ...] = (0.0,)
    flip: bool = False
    lengths_s: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _at_least_one_view(self) -> "TtaConfig":
        for key in ("shifts_s", "speeds", "gains_db"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty; the plain view is [0.0] (speeds: [1.0])")
        return self


class InferenceConfig(Section):
    """Stage 3, validation and detection: the one sliding-window path."""

    # Window length: seconds, or frames of the features; null takes the training window's.
    window_s: Positive | None = None
    window_frames: Count | None = None
    # Overlap of neighbouring windows: seconds, or frames; null for both means half a window.
    overlap_s: Annotated[float, Field(ge=0.0)] | None = None
    overlap_frames: Annotated[int, Field(ge=0)] | None = None
    stitch: Literal["max", "mean"] = "max"
    pool: PoolConfig = PoolConfig()
    tta: TtaConfig = TtaConfig()
    batch_size: Count = 64
    keep_frames: bool = True

    @model_validator(mode="after")
    def _one_unit_each(self) -> "InferenceConfig":
        for quantity in ("window", "overlap"):
            values = [getattr(self, f"{quantity}_{unit}") for unit in ("s", "frames")]
            if None not in values:
                raise ValueError(f"{quantity}_s and {quantity}_frames are both given; keep one")
        return self
