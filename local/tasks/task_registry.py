"""Tasks by the name that a configuration gives as `task`. A new one is a file, and a line here."""

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from local.config import Config
from local.io.errors import CanopyError
from local.tasks.detection import Detection

if TYPE_CHECKING:
    from local.models.task_contract import Task

# A task knows its models and outputs more closely than the contract does, hence Any.
_TASKS: dict[str, Callable[[Config], Any]] = {}


def register(name: str, make: Callable[[Config], Any]) -> None:
    """Let `task: NAME` stand for what `make` makes of a configuration."""
    _TASKS[name] = make


register("detection", Detection)


def task_names() -> list[str]:
    """Registered names."""
    return sorted(_TASKS)


def create_task(config: Config) -> "Task":
    """The task of a configuration."""
    if config.task not in _TASKS:
        near = difflib.get_close_matches(config.task, task_names(), n=1, cutoff=0.5)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise CanopyError(
            f"task is {config.task!r}, expected one of {', '.join(task_names())}{hint}"
        )
    return _TASKS[config.task](config)
