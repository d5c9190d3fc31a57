"""The configuration of a run: what a version sets, over what the tables suggest, over defaults.

With `prepare.settings: auto` the task proposes settings from what is annotated (`Task.suggest`).
They are a function of the tables and of what the version sets, and every stage works them out anew:
so all have the same, and where the tables change, the stamps of what was made with other settings
no longer match. `suggested.yaml` in the run's folder keeps them with their reasons.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from local.config import Config, Suggestion, make_config, read_values
from local.config.relevance import flatten
from local.config.strict_yaml import parse_yaml
from local.config.suggestion import as_values, as_yaml
from local.data.tables import Tables, read_tables
from local.io.files import write_text
from local.io.limits import MAX_YAML_BYTES, read_text
from local.tasks.task_registry import create_task

log = logging.getLogger("canopy")

SUGGESTED = "suggested.yaml"
# What the preparation leaves last: before that, tables are on their way.
_PREPARED = "prepare.done.json"


@dataclass(frozen=True)
class Resolved:
    """A configuration, and what of it was suggested; None where nothing is to be."""

    config: Config
    suggestions: list[Suggestion] | None = None


def resolve(conf: Path, overrides: list[str], tables: Path | Tables | None) -> Resolved:
    """The configuration of a version and its `--set`, with what the tables suggest.

    tables : or their folder; without any, or before they are prepared, nothing is suggested yet.
    """
    given = read_values(conf, overrides)
    config = make_config(given, conf)
    if not suggests(config) or tables is None:
        return Resolved(config)
    if isinstance(tables, Path):
        if not (tables / _PREPARED).is_file():
            return Resolved(config)
        tables = read_tables(tables)
    suggestions = create_task(config).suggest(tables, given)
    return Resolved(make_config(given, conf, as_values(suggestions)), suggestions)


def of_recipe(config: Config) -> Config:
    """The configuration as a recipe sees it: `prepare.settings` is read here and no part of it."""
    own = {key: value for key, value in config.prepare.items() if key != "settings"}
    return config.model_copy(update={"prepare": type(config.prepare)(own)})


def suggests(config: Config) -> bool:
    """Whether tables are to suggest what nobody sets."""
    return config.prepare.get("settings") == "auto"


def write_suggested(folder: Path, config: Config, suggestions: list[Suggestion] | None) -> None:
    """Keep the suggestions with a run; what changed since is said.

    suggestions : None where there are to be none, or none yet: then those of before stay, so that
        a change of the tables is told once they are prepared.
    """
    path = folder / SUGGESTED
    if suggestions is None:
        if not suggests(config):
            path.unlink(missing_ok=True)
        return
    text = as_yaml(suggestions)
    before = read_text(path, MAX_YAML_BYTES, "configuration") if path.is_file() else None
    if text == before:
        return
    write_text(path, text)
    if before is None:
        log.info("%s: %d settings told from the annotation", path, len(suggestions))
    elif changes := _changes(before, suggestions):
        log.warning(
            "%s: other settings than before (%s): stages that were done with those are done again",
            *(path, changes),
        )


def _changes(before: str, suggestions: list[Suggestion]) -> str:
    """Keys whose suggested values differ from those of a file, in words."""
    try:
        old = flatten(parse_yaml(before) or {})
    except ValueError:
        return "the file was changed"
    new = flatten(as_values(suggestions))
    return ", ".join(
        f"{key} {old.get(key, 'not set')} -> {new.get(key, 'not set')}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    )
