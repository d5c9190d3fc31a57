"""Settings that were told from data: values with their reasons, and the file that keeps them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_HEAD = (
    "# Settings told from what is annotated in the tables. They lie below the version's own and\n"
    "# --set: what is given there is not listed here, so this file alone is no version. To freeze\n"
    "# them, make one of these lines with base: (the version) and prepare: {settings: fixed}.\n"
)


@dataclass(frozen=True)
class Suggestion:
    """A value for a key such as `features.hop_length`, and why, in one line."""

    key: str
    value: Any
    reason: str


def as_values(suggestions: Iterable[Suggestion]) -> dict[str, Any]:
    """Sections with their keys, as a file of YAML would give them."""
    values: dict[str, Any] = {}
    for one in suggestions:
        *sections, last = one.key.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = one.value
    return values


def as_yaml(suggestions: Iterable[Suggestion]) -> str:
    """A fragment of a configuration: every value below a comment of one line with its reason."""
    lines: list[str] = []
    open_sections: list[str] = []
    # Sections may not stand twice, so what belongs to one comes together.
    by_section: dict[str, list[Suggestion]] = {}
    for one in suggestions:
        by_section.setdefault(one.key.rpartition(".")[0].partition(".")[0], []).append(one)
    for group in by_section.values():
        group.sort(key=lambda one: one.key.count("."))
        for one in group:
            *sections, last = one.key.split(".")
            same = 0
            while sections[: same + 1] == open_sections[: same + 1] and same < len(sections):
                same += 1
            lines += [f"{'  ' * depth}{sections[depth]}:" for depth in range(same, len(sections))]
            open_sections = sections
            indent = "  " * len(sections)
            lines += [f"{indent}# {one.reason}", f"{indent}{last}: {json.dumps(one.value)}"]
    return _HEAD + "".join(f"{line}\n" for line in lines)
