"""Reading a configuration: YAML with `base:`, overrides, and errors that name the nearest key."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from local.config.section_base import Section, SectionType
from local.config.strict_yaml import parse_yaml
from local.config.version import Config
from local.io.errors import CanopyError
from local.io.limits import MAX_YAML_BYTES, MAX_YAML_DEPTH, read_text

# Files of a chain of `base:`.
_MAX_BASES = 16
# Characters of a value that an error quotes.
_MAX_SHOWN = 120


def load_config(path: Path | str, overrides: list[str] | None = None) -> Config:
    """Read a version, its bases and the overrides `section.key=value`; validate the whole.

    Raises
    ------
    CanopyError
        One message that lists every fault with its key, value and remedy.
    """
    path = Path(path)
    values = _read_with_bases(path, ())
    for override in overrides or []:
        _apply_override(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_explain(fault, Config) for fault in error.errors())
        raise CanopyError(f"{path}: {faults}") from None


def parse_section(
    section: type[SectionType], values: dict[str, Any], key: str, path: Path | str = "configuration"
) -> SectionType:
    """Validate `values` of a section whose schema lives elsewhere (a recipe's, a model's).

    `key` is where the section stands in the configuration, for the error.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_explain(fault, section, key) for fault in error.errors())
        raise CanopyError(f"{path}: {faults}") from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    try:
        resolved = path.resolve()
    except (ValueError, OSError, RuntimeError):
        raise CanopyError(f"{str(path)!r}: no file can be named so; correct the path") from None
    if resolved in above:
        raise CanopyError(f"{path}: `base:` leads back to itself; break the circle")
    if len(above) >= _MAX_BASES:
        raise CanopyError(f"{path}: `base:` goes on for more than {_MAX_BASES} files; join some")
    values = _read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise CanopyError(f"{path}: `base:` must be the path of another file, found {base!r}")
    return _merge(_read_with_bases(path.parent / base, (*above, resolved)), values)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = parse_yaml(read_text(path, MAX_YAML_BYTES, "configuration"))
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise CanopyError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except ValueError as error:
        raise CanopyError(f"{path}: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise CanopyError(f"{path}: expected sections with keys, found {type(values).__name__}")
    return values


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`, section by section. A model of another name starts from no params."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            if "name" in value and value["name"] != under.get("name"):
                under = {name: item for name, item in under.items() if name != "params"}
            merged[key] = _merge(under, value)
        else:
            merged[key] = value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise CanopyError(f"--set {override!r}: expected section.key=value")
    if len(parts) > MAX_YAML_DEPTH:
        raise CanopyError(f"--set {override!r:.120}: no key lies {len(parts)} sections deep")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise CanopyError(f"--set {override!r:.120}: {error}") from None
    for part in reversed(parts):
        value = {part: value}
    merged = _merge(values, value)
    values.clear()
    values.update(merged)


def _explain(fault: Any, schema: type[Section], prefix: str = "") -> str:
    key = ".".join(str(part) for part in (prefix, *fault["loc"]) if part != "")
    if fault["type"] == "extra_forbidden":
        known = _known_keys(schema, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.0)
        return f"unknown key {key}; the nearest known one is {near[0] if near else known}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, found {_shown(fault['input'])}"


def _shown(value: Any) -> str:
    """A value of others, cut where it would be more than a line of text."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _known_keys(section: Any, location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at `location` within `section`."""
    for part in location:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
