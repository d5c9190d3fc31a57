"""The sections of a configuration: one a concern, every value typed and bounded.

Seconds, hertz and decibels carry their unit in the key (`_s`, `_hz`, `_db`); counts begin `n_`.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from local.config.learning import (
    AugmentConfig,
    LossConfig,
    ModelConfig,
    StretchFactor,
    TrainConfig,
    WindowConfig,
)
from local.config.section_base import Count, Positive, Section, Settings, Share, Some
from local.io.limits import MAX_RESAMPLES

# Weights of the mel filters: more would take memory by gigabytes.
_MAX_FILTER_WEIGHTS = 2**26


class AudioConfig(Section):
    """How files become one channel of samples (stage 0 and detection)."""

    sample_rate: Annotated[int, Field(ge=100, le=4_000_000)] = 32000
    # What to do with a file of another rate: resample it, or refuse it.
    other_rates: Literal["resample", "refuse"] = "resample"
    channel: Literal["mix", "first"] | Some = "mix"
    # Unreadable recordings are listed in the manifest; above this share of them the run stops.
    max_invalid_share: Share = 0.0


class FeatureConfig(Section):
    """The front end: natural-log mel power spectrogram, or the waveform itself."""

    kind: Literal["logmel", "wave"] = "logmel"
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
    def _kept_and_stretched(self) -> "FeatureConfig":
        if self.keep_wave and self.kind == "wave":
            raise ValueError("kind: wave stores waveforms anyway; leave keep_wave out")
        if len({f"{factor:g}" for factor in [1.0, *self.stretches]}) <= len(self.stretches):
            raise ValueError(
                f"stretches is {list(self.stretches)}; give each factor once, and not 1, which is "
                "the plain dump"
            )
        return self


class DataConfig(Section):
    """What the annotations mean."""

    # partial: what has no row is unknown. complete: what has no row is absent.
    annotation: Literal["partial", "complete"] = "partial"
    # Tables of events that people made besides, as the report's review writes them: below the data
    # folder or absolute. They are trained on as known rows; scores stay those on the recipe's rows.
    reviewed: tuple[str, ...] = ()
    # Recordings whose reviewed rows are used. With `test`, fold models train on test recordings.
    reviewed_subsets: tuple[Literal["train", "test", "unlabelled"], ...] = ("train", "unlabelled")


class SplitConfig(Section):
    """Stage 1."""

    n_folds: Annotated[int, Field(ge=2, le=1000)] = 5


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


class RelabelConfig(Section):
    """Stage 4: pseudo events from scores of models that never saw the recording's group."""

    n_cycles: Annotated[int, Field(ge=0, le=100)] = 1
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    # Hysteresis: an event grows from the threshold down to this probability.
    low_threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    min_duration_s: Annotated[float, Field(ge=0.0)] = 0.2
    max_gap_s: Annotated[float, Field(ge=0.0)] = 0.2
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    subsets: tuple[Literal["train", "test", "unlabelled"], ...] = ("train",)
    # Cells below this probability become pseudo negatives; null (the default) makes none.
    negative_below: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    # Of a class, at most this share of the recordings that should have it, by the prevalence that
    # section `prior` gives or estimates, get pseudo events of it: the threshold rises for classes
    # that score high without being common. null sets no bound.
    prevalence_share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    # Apply the prior correction of section `prior` before thresholding.
    use_prior: bool = False
    # Weights each cycle starts from: fresh ones, or those of cycle 0 of the same fold.
    start: Literal["scratch", "cycle0"] = "scratch"

    @model_validator(mode="after")
    def _ordered(self) -> "RelabelConfig":
        if self.low_threshold is not None and self.low_threshold > self.threshold:
            raise ValueError(
                f"low_threshold {self.low_threshold} is above threshold {self.threshold}"
            )
        return self


class PriorConfig(Section):
    """Stage 5: correction of the class priors, in odds."""

    method: Literal["none", "given", "estimated"] = "none"
    # given: a csv with columns label, prevalence; relative to the data folder or absolute.
    given: str | None = None
    # How prevalence is estimated: mixture, the share of test scores that lie where those of known
    # positives do and not where those of rejected spans do; tail, the share that lies above what
    # few others reach; combined, the mean of these two; em, by expectation maximisation, which
    # needs calibrated scores; mean, the mean of probabilities calibrated on known spans.
    estimator: Literal["combined", "mixture", "tail", "em", "mean"] = "combined"
    # For combined, mixture and tail: confirmed calls inserted into test recordings, by class and
    # fold; 0 makes none.
    n_insertions: Some = 40
    # Exponent of the odds ratio: 1 is the exact label-shift form, less is a cautious one.
    strength: Share = 1.0
    # The ratio of odds is kept within [1/max_odds_ratio, max_odds_ratio].
    max_odds_ratio: Annotated[float, Field(gt=1.0)] = 1000.0

    @property
    def inserts_calls(self) -> bool:
        """Whether prevalence is estimated with inserted calls."""
        compares = self.method == "estimated" and self.estimator in ("combined", "mixture", "tail")
        return compares and self.n_insertions > 0

    @model_validator(mode="after")
    def _given_has_a_file(self) -> "PriorConfig":
        if (self.method == "given") != (self.given is not None):
            raise ValueError("method: given goes with the path of a csv in key given, and only so")
        return self


class ScoreConfig(Section):
    """How results are measured. Truth files are opened by scoring alone."""

    metric: str = "lwlrap"
    n_bootstrap: Annotated[int, Field(ge=0, le=MAX_RESAMPLES)] = 1000
    # Clip-level truth of test and of train: csv of recording_id and one 0/1 column a class, below
    # the data folder. What does not exist is passed over.
    test_truth: str | None = None
    train_truth: str | None = None
    # True spans of test recordings, for pictures: csv of recording_id, species_id, t_min, t_max.
    test_events: str | None = None


class EventsConfig(Section):
    """Stage 5: one rule that makes events of scores, fitted out-of-fold; see local/tuning."""

    # Write rule.json, oof_events.csv and test_events.csv; annotation must be complete.
    tune: bool = False
    # Limits of overlap for which F1 is measured, the mean of which is fitted; 0: any overlap.
    ious: Annotated[tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...], Field(min_length=1)] = (
        0.0,
        0.5,
    )
    # What is tried, in all combinations: rising probabilities; how far below, in logits, an event
    # goes on; seconds of the shortest event and of the longest gap that is closed.
    thresholds: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    drops: tuple[float, ...] = (0.0, 0.7, 1.4)
    durations_s: tuple[float, ...] = (0.004, 0.006, 0.008, 0.010)
    gaps_s: tuple[float, ...] = (0.0, 0.005, 0.010, 0.015)
    # Ids of recordings that are changed copies of others (fainter, noisier), as a pattern such as
    # copy-*: the rule is fitted on them too, so that it holds there; no event and no figure is
    # theirs. null: there are none.
    copies: str | None = None
    # Of sed_eval's measures: how far an onset may be off (an offset too, or half of the call's
    # length where that is more), and the length of segments.
    collar_s: Positive = 0.2
    segment_s: Positive = 1.0

    @model_validator(mode="after")
    def _values_that_can_be(self) -> "EventsConfig":
        lists = (self.thresholds, self.drops, self.durations_s, self.gaps_s)
        if not all(lists) or not all(0 < value < 1 for value in self.thresholds):
            raise ValueError("thresholds must be probabilities between 0 and 1, and no list empty")
        if list(self.thresholds) != sorted(self.thresholds):
            raise ValueError(f"thresholds are {list(self.thresholds)}; give them in rising order")
        if min(*self.drops, *self.durations_s, *self.gaps_s, 0.0) < 0:
            raise ValueError("drops, durations_s and gaps_s must be 0 or more")
        return self


class ReportConfig(Section):
    """What report.html shows."""

    # Recordings to look at and to judge (of long ones, minutes); 0: none.
    n_recordings: Some = 24
    # How many times slower sounds play; null: 10 above a sample rate of 48000, else 1.
    time_expansion: Annotated[float, Field(ge=1.0, le=100.0)] | None = None


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
