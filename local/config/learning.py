"""The sections that say how a network learns: windows, model, loss, augmentation, training."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from local.config.section_base import Count, FrozenDict, Positive, Section, Settings, Share, Some

# How many times as long; beyond these bounds a call is another call.
StretchFactor = Annotated[float, Field(ge=0.5, le=2.0)]
Semitones = Annotated[float, Field(ge=-12.0, le=12.0)]


class WindowConfig(Section):
    """Windows that training sees."""

    length_s: Positive = 5.0
    # What becomes of a recording shorter than a window: an error, or padded with its own repeats or
    # with the feature floor.
    short: Literal["refuse", "repeat", "silence"] = "refuse"
    # Shares of the windows of an epoch: drawn around a true event, around a known negative, around
    # a pseudo event, or anywhere in a random recording. Normalised; absent kinds fall away.
    p_positive: Annotated[float, Field(ge=0.0)] = 0.6
    p_negative: Annotated[float, Field(ge=0.0)] = 0.3
    p_pseudo: Annotated[float, Field(ge=0.0)] = 0.3
    p_random: Annotated[float, Field(ge=0.0)] = 0.1
    balance_classes: bool = True
    # Spread the classes of true rows over every batch as evenly as their number allows.
    balance_batches: bool = False
    # Chance that a window is read from one of the dumps of `features.stretches`.
    p_stretched: Share = 0.0
    # A window is the whole recording, padded by `short` to the longest one of the corpus.
    whole: bool = False
    # An event counts in a window when this share of it (of the window, if that is shorter), or this
    # many seconds, is inside.
    min_visible_share: Share = 0.5
    min_visible_s: Positive = 1.0
    # A window is a known negative of a class when negative spans cover at least this share of it.
    # Below 1 it assumes that a rejected candidate speaks for its surroundings as well.
    negative_cover: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0

    @model_validator(mode="after")
    def _balance_agrees(self) -> "WindowConfig":
        if self.balance_batches and not self.balance_classes:
            raise ValueError("balance_batches goes with balance_classes: true; change one of them")
        return self


class ModelConfig(Section):
    """A registered model by name; `params` are checked by that model's own schema."""

    name: str = "crnn"
    params: Settings = {}
    # Path of a checkpoint whose weights start the training (tensors only), or null. {fold} in it
    # stands for the number of the fold.
    init: str | None = None

    def init_of(self, fold: int) -> Path | None:
        """The checkpoint that a fold starts from, if any."""
        return None if self.init is None else Path(self.init.replace("{fold}", str(fold)))


class LossConfig(Section):
    """Parts of the loss, each with its weight; a weight of 0 leaves a part out.

    `clip_weight` and `frame_weight` are the ratio of the loss over windows to that over frames.
    """

    clip_weight: Annotated[float, Field(ge=0.0)] = 1.0
    frame_weight: Annotated[float, Field(ge=0.0)] = 0.5
    # Loss of a cell. focal: an error counts by its size to the power of gamma, for all cells or for
    # positives alone; alpha weighs positives, 1 - alpha negatives, null neither.
    cells: Literal["bce", "focal"] = "bce"
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    focal_alpha: Share | None = None
    focal_on: Literal["all", "positives"] = "all"
    # Factor of the positive side of a cell: one number, or numbers by label (others have 1).
    positive_weight: Positive | Annotated[dict[str, Positive], AfterValidator(FrozenDict)] = 1.0
    # What sums are divided by: the weight of the known cells, or that of the positives.
    normalise: Literal["known", "positives"] = "known"
    # false: what is unknown counts as absent, in all parts.
    masked: bool = True
    # LSoft: targets are beta of what is given and 1 - beta of what the model says itself.
    negative_beta: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    # Unknown cells: left out, or pulled with this weight towards this soft target (by LSoft when
    # beta is below 1).
    unknown_weight: Annotated[float, Field(ge=0.0)] = 0.0
    unknown_target: Share = 0.0
    unknown_beta: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    # Ranking of the known classes of a window.
    lsep_weight: Annotated[float, Field(ge=0.0)] = 0.0
    # "Anything calls here" against the union of events; frames of which that is not known are left
    # out, or taken as silent.
    activity_weight: Annotated[float, Field(ge=0.0)] = 0.0
    activity_unknown: Literal["ignore", "absent"] = "ignore"
    # Distance of a window's embedding to the learned centres of its classes, and the rate at which
    # the centres learn; null: that of the network.
    centre_weight: Annotated[float, Field(ge=0.0)] = 0.0
    centre_lr: Positive | None = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> "LossConfig":
        if self.clip_weight == 0 and self.frame_weight == 0 and self.lsep_weight == 0:
            raise ValueError(
                "clip_weight, frame_weight and lsep_weight are all 0: nothing would be learned"
            )
        if not self.masked and self.unknown_weight > 0:
            raise ValueError(
                "masked is false, so nothing is unknown, but unknown_weight is "
                f"{self.unknown_weight:g}; set it to 0 or masked to true"
            )
        if self.centre_lr is not None and self.centre_weight == 0:
            raise ValueError(
                f"centre_lr is {self.centre_lr:g}, but centre_weight is 0, so there are no "
                "centres; set centre_weight or leave centre_lr out"
            )
        if self.cells == "focal" and self.negative_beta < 1:
            raise ValueError(
                f"negative_beta is {self.negative_beta:g}, which goes with cells bce, not focal; "
                "set it to 1 or change cells"
            )
        return self


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


class TrainConfig(Section):
    """Stage 2."""

    n_epochs: Count = 30
    # Windows drawn an epoch; null draws one for each true event and negative of the fold.
    windows_per_epoch: Count | None = None
    batch_size: Count = 32
    # Batches whose gradients are averaged into one step of the optimiser.
    accumulate: Count = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    lr: Positive = 1e-3
    # Rate of the layers after the trunk; null: that of all.
    lr_head: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    # Warm-up is linear over this share of the steps. Then: cosine to zero; step, times step_factor
    # after every step_epochs; noam, with the inverse root of the step; or constant.
    schedule: Literal["cosine", "step", "noam", "constant"] = "cosine"
    step_epochs: Positive = 10.0
    step_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    warmup_share: Share = 0.05
    grad_clip: Positive = 5.0
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    amp: bool = True
    # Validation is the full sliding-window inference on the held-out fold every so many epochs, and
    # always after the last. select: none keeps the last weights, best those of the best score.
    validate_every: Count = 5
    select: Literal["none", "best"] = "none"
    # A non-finite loss skips its step; more than so many in a run stop it.
    max_bad_steps: Annotated[int, Field(ge=0)] = 10
    n_workers: Some = 0
    # Minutes after which the state is saved within an epoch; 0 saves it after every step.
    save_minutes: Annotated[float, Field(ge=0.0)] = 10.0
