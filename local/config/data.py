"""What sound files and annotations are taken for, and how recordings are split."""

from typing import Annotated, Literal

from pydantic import Field

from local.config.section_base import Section, Share, Some


class AudioConfig(Section):
    """How files become one channel of samples (stage 0 and detection)."""

    sample_rate: Annotated[int, Field(ge=100, le=4_000_000)] = 32000
    # What to do with a file of another rate: resample it, or refuse it.
    other_rates: Literal["resample", "refuse"] = "resample"
    channel: Literal["mix", "first"] | Some = "mix"
    # Unreadable recordings are listed in the manifest; above this share of them the run stops.
    max_invalid_share: Share = 0.0


class DataConfig(Section):
    """What the annotations mean."""

    # partial: what has no row is unknown. complete: what has no row is absent.
    annotation: Literal["partial", "complete"] = "partial"
    # What to do where more than a tenth of the calls, of all or of a class, or of the gaps between
    # calls of one class is shorter than a cell of the model's output, which then cannot tell them.
    short_calls: Literal["warn", "refuse"] = "warn"
    # Tables of events that people made besides, as the report's review writes them: below the data
    # folder or absolute. They are trained on as known rows; scores stay those on the recipe's rows.
    reviewed: tuple[str, ...] = ()
    # Recordings whose reviewed rows are used. With `test`, fold models train on test recordings.
    reviewed_subsets: tuple[Literal["train", "test", "unlabelled"], ...] = ("train", "unlabelled")


class SplitConfig(Section):
    """Stage 1."""

    n_folds: Annotated[int, Field(ge=2, le=1000)] = 5
