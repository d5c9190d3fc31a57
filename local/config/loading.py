"""Reading a configuration: YAML with `base:`, overrides, and errors that name the nearest key."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from local.config.base import Section, SectionType
from local.config.sections import Config
from local.errors import CanopyError


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, which plain YAML silently overrides."""


def _strict_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        if key in seen:
            raise CanopyError(f"key {key!r} stands twice (line {key_node.start_mark.line + 1})")
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


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
    resolved = path.resolve()
    if resolved in above:
        raise CanopyError(f"{path}: `base:` leads back to itself; break the circle")
    values = _read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise CanopyError(f"{path}: `base:` must be the path of another file, found {base!r}")
    return _merge(_read_with_bases(path.parent / base, (*above, resolved)), values)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        # Safe: the loader derives from SafeLoader and builds plain values only.
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise CanopyError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise CanopyError(f"{path}: not readable as YAML ({reason})") from None
    except CanopyError as error:
        raise CanopyError(f"{path}: {error}; keep one of them") from None
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
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise CanopyError(f"--set {override!r}: the value is not readable as YAML") from None
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
    return f"{key}: {message}, found {fault['input']!r}"


def _known_keys(section: Any, location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at `location` within `section`."""
    for part in location:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
