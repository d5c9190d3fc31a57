"""What all sections of a configuration share: the base class, bounded types, mappings that stay."""

from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
# A number of things made or held at once: beyond any sense, and below what would exhaust a machine.
Some = Annotated[int, Field(ge=0, le=10_000)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# How many times as long; beyond these bounds a call is another call.
StretchFactor = Annotated[float, Field(ge=0.5, le=2.0)]

SectionType = TypeVar("SectionType", bound=Section)


class FrozenDict(dict[str, Any]):
    """A dict that refuses every change; what is in it, at any depth, does so as well."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__({key: _frozen(value) for key, value in values.items()})

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a configuration is frozen; make a dict of it and change that")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return FrozenDict(value)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


# Settings whose keys somebody else's schema knows.
Settings = Annotated[dict[str, Any], AfterValidator(FrozenDict), Field(validate_default=True)]
