"""Reading a configuration: YAML with `base:`, overrides, and errors that name the nearest key.

A file lies over its base and all `--set` together lie over the files, key by key, so that the order
of keys and of options decides nothing; only where one key is set twice the last value holds.
`model.params` belong to the model that `model.name` names, `features.params` to the kind that
`features.kind` names: whoever names another one starts from none.
"""

import difflib
import logging
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from local.config.retired_keys import drop_retired
from local.config.section_base import Section, SectionType
from local.config.strict_yaml import parse_yaml
from local.config.whole_config import Config
from local.io.errors import CanopyError
from local.io.limits import MAX_YAML_BYTES, MAX_YAML_DEPTH, read_text

# Files of a chain of `base:`.
_MAX_BASES = 16
# Characters of a value that an error quotes.
_MAX_SHOWN = 120

log = logging.getLogger("canopy")


def load_config(path: Path | str, overrides: list[str] | None = None) -> Config:
    """Read a version, its bases and the overrides `section.key=value`; validate the whole.

    Raises
    ------
    CanopyError
        One message that lists every fault with its key, value and remedy.
    """
    return make_config(read_values(path, overrides), path)


def read_values(path: Path | str, overrides: list[str] | None = None) -> dict[str, Any]:
    """What a version, its bases and the overrides set, by section and key; nothing else.

    Raises
    ------
    CanopyError
        A file that cannot be read as YAML of sections, or an override that is none.
    """
    path = Path(path)
    values: dict[str, Any] = {}
    for override in overrides or []:
        values = _merge(values, _read_override(override))
    return _lay_over(_read_with_bases(path, ()), values, path)


def make_config(
    values: dict[str, Any], path: Path | str, below: dict[str, Any] | None = None
) -> Config:
    """Validate `values` of `path`, laid over what stands `below` them.

    Raises
    ------
    CanopyError
        One message that lists every fault with its key, value and remedy.
    """
    return parse_section(Config, _lay_over(below or {}, values, Path(path)), "", path)


def parse_section(
    section: type[SectionType], values: dict[str, Any], key: str, path: Path | str = "configuration"
) -> SectionType:
    """Validate `values` of a section whose schema lives elsewhere (a recipe's, a model's).

    `key` is where the section stands in the configuration, for the error.

    Raises
    ------
    CanopyError
        One message that lists every fault with its key, value and remedy.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_explain(fault, section, values, key) for fault in error.errors())
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
    values = drop_retired(_read_yaml(path), path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise CanopyError(f"{path}: `base:` must be the path of another file, found {base!r}")
    return _lay_over(_read_with_bases(path.parent / base, (*above, resolved)), values, path)


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


def _lay_over(below: dict[str, Any], above: dict[str, Any], path: Path) -> dict[str, Any]:
    """What `path` says over what stands below it.

    Parameters of another model than below, or of another front end, are left out.
    """
    for section, key in (("model", "name"), ("features", "kind")):
        old, new = (_named(values, section, key) for values in (below, _merge(below, above)))
        given = below.get(section)
        if old != new and isinstance(given, dict) and given.get("params"):
            log.info(
                "%s: %s.%s is %s in place of %s, whose %s.params are left out: %s",
                *(path, section, key, new, old, section, _shown(given["params"])),
            )
            without = {name: value for name, value in given.items() if name != "params"}
            below = {**below, section: without}
    return _merge(below, above)


def _named(values: dict[str, Any], section: str, key: str) -> Any:
    """What a section names, or would by default."""
    given = values.get(section)
    default = getattr(Config.model_fields[section].default, key)
    return given.get(key, default) if isinstance(given, dict) else default


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`, key by key at every depth."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            value = _merge(under, value)
        merged[key] = value
    return merged


def _read_override(override: str) -> dict[str, Any]:
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
    return value


def _explain(fault: Any, schema: type[Section], values: Any, prefix: str) -> str:
    location, sections = [prefix] if prefix else [], [schema]
    *inside, last = fault["loc"] or [""]
    for part in inside:
        if not _holds(values, part):
            continue  # not a key: pydantic's name of one of several types
        location, values = [*location, str(part)], values[part]
        fields = [s.model_fields[part] for s in sections if part in s.model_fields]
        if fields:
            sections = [found for field in fields for found in _sections_in(field.annotation)]
    if fault["type"] in ("extra_forbidden", "missing") or _holds(values, last):
        location.append(str(last))
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        known = [name for section in sections for name in section.model_fields]
        near = difflib.get_close_matches(str(last), known, n=1, cutoff=0.0)
        hint = f"the nearest known one is {near[0]}" if near else "there are none here"
        return f"unknown key {key}; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{key}: {message}" if key else message
    if fault["type"] == "missing":
        return f"{key} is not given; add it"
    return f"{key}: {message}, found {_shown(fault['input'])}"


def _holds(values: Any, part: str | int) -> bool:
    if isinstance(values, list | tuple):
        return isinstance(part, int) and part < len(values)
    return isinstance(values, dict) and part in values


def _sections_in(annotation: Any) -> list[type[Section]]:
    """Sections that a value of this annotation may hold: itself, or in an optional or a list."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]


def _shown(value: Any) -> str:
    """A value of others, cut where it would be more than a line of text."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
