"""What the `prepare:` section of the configuration says for this recipe."""

from pydantic import Field

from local.config import Section


class CopyConfig(Section):
    """How many copies are made."""

    copies: int = Field(0, ge=0, description="changed copies of each train recording")
    simulated: int = Field(0, ge=0, description="simulations over each train recording's noise")
    seed: int = Field(0, ge=0, description="of the draws of copies and simulations")


class PrepareConfig(CopyConfig):
    """The `prepare:` section of this recipe."""

    recordings: str = Field("rec_*.wav", description="pattern of sound files in the data folder")
    truth: str = Field("gt_{}.csv", description="table of a recording; {} is what * stands for")
    test: tuple[str, ...] = Field((), description="ids of recordings that nothing is learned from")
