"""The `prepare:` section of this recipe: what is learned, from which files, and the simulation."""

from typing import Annotated, Literal

from pydantic import Field

from local.config import Positive, Section, Share

# Context ids of the data set; their names are the labels of task `context`.
CONTEXTS = {
    0: "Unknown",
    1: "Separation",
    2: "Biting",
    3: "Feeding",
    4: "Fighting",
    5: "Grooming",
    6: "Isolation",
    7: "Kissing",
    8: "Landing",
    9: "Mating protest",
    10: "Threat-like",
    11: "General",
    12: "Sleeping",
}
Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class SimulateConfig(Section):
    """The simulated data set, made where there is no FileInfo.csv."""

    size: Literal["tiny", "small"] = "small"
    seed: Natural = 0
    # Level of a call's lowest line over the noise in the band that it sweeps, drawn evenly.
    snr_db: tuple[float, float] = (0.0, 20.0)
    # Rows of every fault that the reader knows.
    faults: bool = True


class PrepareConfig(Section):
    """What becomes of FileInfo.csv and Annotations.csv."""

    task: Literal["call", "context", "emitter"] = "call"
    # Context labels that are no class; voices that carry them count as without a label.
    contexts_left_out: tuple[str, ...] = ("Unknown", "General")
    # A voice that no row of Annotations.csv overlaps: without a label, or with that of its file
    # where all rows of the file agree.
    uncovered: Literal["unlabelled", "file"] = "unlabelled"
    # Voices nearer than this are syllables of one call; 0 keeps them apart.
    max_gap_s: Annotated[float, Field(ge=0.0)] = 0.0
    # Files to use: only those with a row in Annotations.csv; so many of each label; so many in all.
    labelled_only: bool = False
    max_files_per_class: Count | None = None
    max_files: Count | None = None
    # Labels in fewer files are no classes (contexts of 16 files, bats that are heard once).
    min_files_per_class: Count = 1
    subsample_seed: Natural = 0
    # What must not straddle folds: a recording session (day and treatment) or a bat.
    fold_by: Literal["session", "bat"] = "session"
    # Folders of sounds without calls, below the data folder or absolute.
    noise: tuple[str, ...] = ()
    sample_rate: Positive = Field(250_000, description="of the set's own files; others are refused")
    max_absent_share: Share = 1.0
    simulate: SimulateConfig = SimulateConfig()
