"""Which keys of a configuration matter to a result, and which files: one entry a stage.

The table is `local.stages.dependencies`; a task may bring entries of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from local.config.whole_config import Config

Condition = Callable[[Config, int], bool]


@dataclass(frozen=True)
class When:
    """Keys that matter, and files that are read, only where a condition holds."""

    holds: Condition  # of the configuration and the cycle
    matters: str = ""
    files: str = ""


@dataclass(frozen=True)
class Dependencies:
    """What a stage depends on; names are separated by white space.

    matters, when : keys that change its results, always or where a condition holds.
    harmless : keys that it reads and that change no result, with the reason.
    unread : keys that it does not read.
    files : files that it reads.
    """

    version: int
    matters: str
    unread: str
    harmless: dict[str, str] = field(default_factory=dict)
    files: str = ""
    when: tuple[When, ...] = ()

    def deciding(self, config: Config, cycle: int = 0) -> dict[str, str | None]:
        """For every key the name in this table that says it matters; None: it does not."""
        holding = [one.matters for one in self.when if one.holds(config, cycle)]
        matters = {name for names in (self.matters, *holding) for name in names.split()}
        others = {*self.unread.split(), *self.harmless}
        # What matters under a condition is named twice where that holds.
        found = {key: longest_prefix(key, matters | others) for key in flat_settings(config)}
        undecided = [key for key, name in found.items() if name is None]
        if undecided:
            raise ValueError(f"{undecided[0]}: say in dependencies.py whether it matters")
        return {key: name if name in matters else None for key, name in found.items()}

    def settings(self, config: Config, cycle: int = 0) -> dict[str, Any]:
        """The settings that matter, by key."""
        deciding = self.deciding(config, cycle)
        return {key: value for key, value in flat_settings(config).items() if deciding[key]}

    def read_files(self, config: Config, cycle: int = 0) -> list[str]:
        """Names of the files that are read."""
        holding = [one.files for one in self.when if one.holds(config, cycle)]
        return [name for names in (self.files, *holding) for name in names.split()]


def flat_settings(config: Config) -> dict[str, Any]:
    """Every value of a configuration as `section.key`, with those of `params` and the like."""
    return flatten(config.model_dump(mode="json"))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections with their keys -> every value as `section.key`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        found |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def longest_prefix(key: str, names: set[str]) -> str | None:
    """The longest of `names` that is the key or a section it is in."""
    parts = key.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in names), None)
