"""What a simulated competition is made of: one typed model, three sizes.

`settings_from` fills what is not given from the size's preset, so that a value that is given always
wins. All values but the folder of clips decide the sound and so belong to the fingerprint.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from local.config import Count, Positive, Section, Share, parse_section
from recipes.demo.calls import N_SPECIES, highest_hz

# Clip-level prevalence of the 24 classes in the competition's test set: Table 2 of the organisers'
# pipeline paper, Ecological Informatics 2020, S1574954120300637 (in thousandths there).
PUBLISHED_PREVALENCE = tuple(
    value / 1000
    for value in (
        *(113, 204, 44, 923, 53, 41, 3, 213, 44, 23, 26, 149),
        *(255, 14, 123, 222, 46, 6, 474, 4, 17, 18, 23, 72),
    )
)

# True-positive rows of each (species, song type) in the competition, 1,216 in all.
_PUBLISHED_TP = [50, 50, 37, *[50] * 6, 34, *[50] * 7, 40, 28, 50, 43, 40, 50, 44, 50, 50]

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "n_train": 36,
        "n_test": 12,
        "duration_s": 6.0,
        "sample_rate": 16000,
        "species": [3, 17, 13, 16, 6, 18],
        "fp_ratio": 3.0,
        "n_train_sites": 6,
        "n_test_sites": 3,
    },
    "small": {},
    "full": {
        "n_train": 4727,
        "n_test": 1992,
        "duration_s": 60.0,
        "sample_rate": 48000,
        "n_tp_per_class": _PUBLISHED_TP,
        "fp_ratio": 6.4,
        "n_train_sites": 60,
        "n_test_sites": 30,
    },
}


class DemoSettings(Section):
    """A simulated competition; the defaults are those of size `small`."""

    size: Literal["tiny", "small", "full"] = Field("small", description="preset of all the rest")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="decides everything drawn")
    n_train: Count = Field(240, description="recordings of the train set")
    n_test: Count = Field(96, description="recordings of the test set")
    duration_s: Annotated[float, Field(ge=2.0)] = Field(12.0, description="seconds a recording")
    sample_rate: Annotated[int, Field(ge=4000)] = Field(32000, description="hertz")
    species: list[Annotated[int, Field(ge=0, lt=N_SPECIES)]] = Field(
        list(range(N_SPECIES)), min_length=2, description="which procedural species, in class order"
    )
    prevalence: list[Annotated[float, Field(gt=0.0, lt=1.0)]] | None = Field(
        None,
        description="share of recordings each class sounds in; null: the published vector for all "
        "24 species, otherwise one drawn from the seed, skewed alike",
    )
    n_tp_per_class: Count | list[Count] | None = Field(
        None,
        description="labelled true calls of each (class, song type), or one number for each; null: "
        "so many that seven train recordings in eight have one (at least 3)",
    )
    fp_ratio: Annotated[float, Field(ge=0.0)] = Field(
        6.0, description="false-positive rows for each true-positive row, spread evenly"
    )
    max_fp_per_recording: Count = Field(10, description="false-positive rows a recording at most")
    second_label_share: Share = Field(
        0.05, description="share of labelled calls that go to a recording which has one already"
    )
    n_train_sites: Count = Field(12, description="recording sites of the train set")
    n_test_sites: Count = Field(6, description="recording sites of the test set")
    shared_sites: Share = Field(
        0.0, description="share of the test sites that are train sites; 0: no site is in both"
    )
    snr_mean_db: float = Field(7.0, description="mean level of calls over the noise in their band")
    snr_std_db: Annotated[float, Field(ge=0.0)] = Field(5.0, description="its spread")
    calls_per_minute: Annotated[float, Field(ge=0.0)] = Field(
        4.0, description="mean number of further calls of a class that sounds, per minute"
    )
    decoys_per_minute: Annotated[float, Field(ge=0.0)] = Field(
        2.0, description="calls of no class that resemble one (never in clips mode)"
    )
    test_snr_db: float = Field(
        0.0, description="added to the level of calls in test recordings: fainter ones"
    )
    test_rain: Share = Field(0.0, description="share of the test recordings with further rain")
    test_slope_db: float = Field(
        0.0,
        description="decibels an octave above 1 kHz (less below) by which another recorder hears "
        "test recordings",
    )
    clips: Path | None = Field(None, description="folder of class folders with real clips")
    background: list[str] = Field([], description="class folders that serve as background")
    sources: Path | None = Field(
        None, description="csv with filename, src_file; default: one in the folder of clips"
    )
    test_clip_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.3, description="share of the sources of clips that only the test set uses"
    )
    max_clip_s: Positive = Field(4.0, description="longest piece of a clip used as a call, seconds")

    @model_validator(mode="after")
    def _consistent(self) -> "DemoSettings":
        if self.clips is None and (self.background or self.sources is not None):
            raise ValueError("background and sources go with clips; give the folder in clips")
        if len(set(self.species)) != len(self.species):
            raise ValueError("species names one of them twice; give each once")
        if self.clips is None:
            for species in self.species:
                if highest_hz(species) > 0.49 * self.sample_rate:
                    raise ValueError(
                        f"species {species} calls up to {highest_hz(species):g} Hz, above what "
                        f"sample_rate {self.sample_rate} holds; raise the rate or leave it out"
                    )
        return self

    @property
    def max_call_s(self) -> float:
        """Longest call that is rendered: longer phrases are sung with fewer notes."""
        return 0.6 * self.duration_s


SettingsType = TypeVar("SettingsType", bound=DemoSettings)


def settings_from(
    given: dict[str, Any], model: type[SettingsType] = DemoSettings, key: str = "prepare"
) -> SettingsType:
    """Validate `given` over the preset of its size.

    Raises
    ------
    CanopyError
        One message that names every fault; an unknown key with the nearest known one.
    """
    size = given.get("size", "small")
    preset = PRESETS.get(size, {}) if isinstance(size, str) else {}
    return parse_section(model, {**preset, **given}, key)
