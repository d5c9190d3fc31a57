"""How a network was built, as the file of its weights says; the file may be anybody's."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from local.config.section_base import Section
from local.io.limits import label_fault


class BuiltModel(Section):
    """What `create_model` takes, and the labels of the outputs in their order."""

    name: str
    params: dict[str, Any]
    n_classes: Annotated[int, Field(ge=1, le=100_000)]
    n_bands: Annotated[int, Field(ge=1, le=2**20)]
    labels: list[str]

    @model_validator(mode="after")
    def _labels_can_be(self) -> "BuiltModel":
        if len(self.labels) != self.n_classes:
            raise ValueError(f"n_classes is {self.n_classes}, and {len(self.labels)} are named")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("a label stands twice")
        for label in self.labels:
            if fault := label_fault(label):
                raise ValueError(f"label {label!r:.120} {fault}")
        return self
