"""What a front end is: it turns samples into features, and tells every fact that others need.

Facts (bands, hop, padding, id ...) are told without PyTorch; a front end imports it to compute.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from local.config import AudioConfig, FeatureConfig, Section, parse_section
from local.features.npz import SCHEMA
from local.io.errors import CanopyError
from local.io.files import fingerprint
from local.labels.grid import hop_seconds

if TYPE_CHECKING:
    import torch

LOG_POWER_PER_DB = float(np.log(10) / 10)
# What a window is to a model: (B, K, F, T), or samples (B, n).
SPECTROGRAM, WAVEFORM = "spectrogram", "waveform"


class NoParams(Section):
    """`features.params` of a kind that has no settings of its own."""


class FrontEnd(ABC):
    """Turns samples (n_channels, n) into features (*axes, T), time last.

    Attributes
    ----------
    kind : its name in `features.kind`.
    version : raised whenever the numbers change that it makes of the same samples and settings.
    schema : of `features.params`, the settings of this kind alone.
    keys : keys of section `features` that shape its numbers, beside `params`: those of the base
        class, `hop_length` and `dtype`, and any other that it reads.
    input : what a batch of its windows is to a model, in the words of `SedModel.input`.
    can_stream : whether a recording's features are made block by block, without holding it whole.
    level : how a louder sound shows in features: `log_power`, by a constant added to natural
        logarithms of power; `amplitude`, by a factor; None, in no such way.
    n_channels : channels of sound that it hears.
    begin : where frame 0 begins, in hops from the first sample; -0.5 where frames are centred.

    Raises
    ------
    CanopyError
        Settings that cannot work; the message names the key and the mend.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    schema: ClassVar[type[Section]] = NoParams
    keys: ClassVar[tuple[str, ...]] = ("hop_length", "dtype")
    input: ClassVar[str] = SPECTROGRAM
    can_stream: ClassVar[bool] = True
    level: ClassVar[Literal["log_power", "amplitude"] | None] = None
    n_channels: ClassVar[int] = 1
    begin: ClassVar[float] = 0.0

    def __init__(self, audio: AudioConfig, features: FeatureConfig) -> None:
        self.audio, self.features = audio, features
        self.params: Any = parse_section(self.schema, dict(features.params), "features.params")
        if self.n_channels > 1 and features.stretches:
            raise CanopyError(
                f"features.stretches plays one channel, features.kind {self.kind} hears "
                f"{self.n_channels}; leave it out"
            )
        self.check()

    def __reduce__(self) -> tuple[Any, ...]:
        # What it has built to compute with stays in its own process.
        return type(self), (self.audio, self.features)

    def check(self) -> None:  # noqa: B027 (most kinds need none)
        """Refuse settings that cannot work, before any work."""

    # ------------------------------------------------------------------------------------- numbers

    @property
    @abstractmethod
    def axes(self) -> tuple[int, ...]:
        """Lengths of the axes before time: (n_mels,) of a spectrogram, () of one waveform."""

    @property
    def n_bands(self) -> int:
        """Length of the last axis before time; 1 where there is none."""
        return self.axes[-1] if self.axes else 1

    @property
    def n_numbers(self) -> int:
        """Numbers of one frame."""
        return int(np.prod(self.axes, dtype=np.int64))

    @property
    def fill(self) -> float:
        """What silence is, which short recordings are padded with."""
        return 0.0

    @property
    def dtype(self) -> str:
        """Type that features are stored in."""
        return self.features.dtype

    def store(self, features: np.ndarray) -> np.ndarray:
        """Float features to the type they are stored in."""
        return features.astype(self.dtype)

    def restore(self, stored: np.ndarray) -> np.ndarray:
        """Stored features to float32."""
        return np.asarray(stored, dtype=np.float32)

    @property
    def keeps_wave(self) -> bool:
        """Whether the samples, as 16 bits, are stored beside the features."""
        return self.features.keep_wave

    def louder(self, x: Any, gain_db: Any) -> Any:
        """Features, an array or a tensor, of sound that is `gain_db` louder; 0 changes nothing.

        The gain is a number, or a tensor that broadcasts.
        """
        if isinstance(gain_db, float | int) and gain_db == 0:
            return x
        if self.level == "log_power":
            return x + gain_db * LOG_POWER_PER_DB
        if self.level == "amplitude":
            return x * 10 ** (gain_db / 20)
        raise CanopyError(
            f"features.kind {self.kind} shows no level, so a gain cannot be applied to it; leave "
            "out augment.gain_db and inference.tta.gains_db"
        )

    # ---------------------------------------------------------------------------------------- time

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return self.features.hop_length

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""
        return hop_seconds(self.hop_length, self.audio.sample_rate)

    @property
    def start_s(self) -> float:
        """Where frame 0 begins, in seconds from the first sample."""
        return self.begin * self.hop_s

    @abstractmethod
    def n_frames(self, n_samples: int) -> int:
        """Frames of a recording of so many samples."""

    def n_samples(self, n_frames: int) -> int:
        """Samples that so many neighbouring frames are made of, with what surrounds them."""
        raise CanopyError(
            f"features.kind {self.kind} makes no features of a part of a recording, which this "
            "asks for; choose another kind"
        )

    @property
    def n_before(self) -> int:
        """How many of `n_samples` lie before sample i * hop_length of their first frame i."""
        return 0

    # ---------------------------------------------------------------------------------- frequency

    def band_edges_hz(self) -> np.ndarray | None:
        """(n_bands, 2) hertz between which each band hears anything; None without bands in hertz.

        Features of such a kind have the axes (n_bands,).
        """
        return None

    def band_weights(self) -> tuple[np.ndarray, np.ndarray] | None:
        """How bands add up power: weights (n_bands, K) and the K frequencies in hertz, or None."""
        return None

    # ------------------------------------------------------------------------------------- compute

    def stream(
        self, blocks: Iterable[np.ndarray], device: str | torch.device = "cpu"
    ) -> Iterator[np.ndarray]:
        """Features of a recording that arrives in blocks, the same whatever their lengths.

        Parameters
        ----------
        blocks : consecutive float32 samples (n_i,), or (n_channels, n_i) of several channels; at
            least one sample in all.
        device : where to compute.

        Yields
        ------
        Float features (*axes, k_i), that follow each other in time.
        """
        yield self.whole(np.concatenate(list(blocks), axis=-1), device)

    def whole(self, samples: np.ndarray, device: str | torch.device = "cpu") -> np.ndarray:
        """Features (*axes, T) of a whole recording; of kinds that do not stream."""
        raise NotImplementedError

    def stream_numpy(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """As `stream` to within rounding, without PyTorch where the kind can do without it."""
        return self.stream(blocks)

    def excerpt(self, wave: torch.Tensor) -> torch.Tensor:
        """Samples (B, n_samples(k)) with their surroundings -> features (B, *axes, k)."""
        raise CanopyError(
            f"augment.wave_p makes features anew, which features.kind {self.kind} cannot; set it "
            "to 0"
        )

    def onnx_module(self) -> torch.nn.Module | None:
        """`excerpt` as a module that can be written as ONNX; None where models take samples."""
        raise CanopyError(
            f"features.kind {self.kind} cannot be written as ONNX; export without it (--no-onnx)"
        )

    # -------------------------------------------------------------------------------------- models

    def as_input(self, x: Any) -> Any:
        """Windows (B, *axes, T), an array or a tensor, as a model takes them."""
        return x[:, None] if self.input == SPECTROGRAM and len(self.axes) == 1 else x

    # -------------------------------------------------------------------------------------- itself

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that shapes the numbers, as plain values.

        `n_fft` is the transform that stretches recordings as well.
        """
        audio = self.audio.model_dump(mode="json", exclude={"max_invalid_share"})
        keys = {"n_fft", *self.keys, *(("keep_wave",) if self.keeps_wave else ())}
        features = self.features.model_dump(mode="json", include=keys)
        params = self.params.model_dump(mode="json")
        return {
            "kind": self.kind,
            "version": self.version,
            "audio": audio,
            "features": features,
            "params": params,
            "schema": SCHEMA,
        }

    @cached_property
    def id(self) -> str:
        """Ten hex digits that name its folder in a dump: a digest of `settings`."""
        return fingerprint(self.settings)[:10]

    def describe(self) -> str:
        """What it makes, in words for people."""
        return self.kind


_REGISTRY: dict[str, type[FrontEnd]] = {}


def register(cls: type[FrontEnd]) -> type[FrontEnd]:
    """Class decorator: make a kind known by its name."""
    _REGISTRY[cls.kind] = cls
    return cls


def registered() -> dict[str, type[FrontEnd]]:
    """All kinds that were imported, by name."""
    return dict(_REGISTRY)


def check_input(front_end: FrontEnd, model_name: str, model_input: str) -> None:
    """Refuse a model (`model.name`, `SedModel.input`) that does not take what a front end makes."""
    if model_input != front_end.input:
        raise CanopyError(
            f"model.name {model_name} takes a {model_input}, features.kind {front_end.kind} makes "
            f"a {front_end.input}; change one of them"
        )
