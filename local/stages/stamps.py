"""The mark that a stage is done: with which inputs and settings, by which code, what came out.

A stage is done when its stamp `<stage>.done.json` holds the version of the stage, the settings and
the content of the inputs that it would run with now, and its outputs are still what it wrote.
Anything else is run again. `dependencies` says what a stage depends on. Paths are no part of it: a
run that was moved, or is given by another path, is still done. Nor is the commit: a stage whose
results change raises its version.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local import __version__
from local.io.errors import CanopyError
from local.io.files import disk_fault, file_digest, fingerprint, plain_json, write_json
from local.stages.run_record import commit

log = logging.getLogger("canopy")

_SUFFIX = ".done.json"
# Differences that a line of the log names, and characters of a value.
_MAX_TOLD, _MAX_VALUE = 5, 60


class Stamp:
    """The mark that a version of a stage ran with these settings and inputs.

    Parameters
    ----------
    path : `<stage>.done.json`, in or above the folder of the outputs.
    version : of the stage, see `dependencies`.
    settings : by key.
    inputs : files by the name that they have for the stage, wherever they lie; None: there is none.

    Raises
    ------
    CanopyError
        An input is missing.
    """

    def __init__(
        self,
        path: Path,
        version: int,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Path | None],
    ) -> None:
        self.path = path
        absent = [str(item) for item in inputs.values() if item is not None and not item.is_file()]
        if absent:
            raise CanopyError(f"{absent[0]} is missing; run the stage that writes it first")
        self.made_of: dict[str, Any] = {
            "stage": path.name.removesuffix(_SUFFIX),
            "version": version,
            "settings": plain_json(settings),
            "inputs": {
                name: None if item is None else file_digest(item) for name, item in inputs.items()
            },
        }
        self.fingerprint = fingerprint(self.made_of)

    def is_done(self, force: bool = False) -> bool:
        """True, with a log line, when the stage has nothing to do."""
        if force or not self.path.is_file():
            return False
        if changes := self.changes():
            log.info("%s: to be done again: %s", self.path, changes)
            return False
        self.say_done()
        return True

    def say_done(self) -> None:
        """The log line of a stage that has nothing to do."""
        made_by = _read(self.path)["code"]["commit"]
        told = f" by commit {made_by[:12]}{made_by[40:]}" if made_by else ""
        other = told if made_by != commit() else ""
        log.info("%s: done before%s with the same inputs and settings, skipped", self.path, other)

    def matches(self) -> bool:
        """Whether the mark is there, made of the same, and the outputs are whole."""
        return self.path.is_file() and not self.changes()

    def changes(self) -> str:
        """What is other than when the stage was marked as done, in words; empty: nothing is."""
        if changes := self.differences(self.path):
            return changes
        stamp = _read(self.path)
        outputs, code = stamp.get("outputs"), stamp.get("code")
        if not isinstance(outputs, dict) or not isinstance(code, dict) or "commit" not in code:
            return f"{self.path.name} is damaged"
        changed = [name for name, digest in outputs.items() if not self._is_whole(name, digest)]
        return f"{changed[0]} is not what it wrote" if changed else ""

    def differences(self, record: Path) -> str:
        """What this stamp is made of that differs from a file of `made_of`, in words."""
        before = _read(record)
        if "fingerprint" in before:
            return "it was made by an earlier version of Canopy, which did not note its settings"
        told = [
            f"{name} {before.get(name)} -> {self.made_of[name]}"
            for name in ("stage", "version")
            if before.get(name) != self.made_of[name]
        ]
        for name, words in (("settings", "{} -> {}"), ("inputs", "has other content")):
            if not isinstance(before.get(name), dict):
                return f"{record.name} is damaged"
            told += _differences(before[name], self.made_of[name], words)
        more = f", and {len(told) - _MAX_TOLD} more" if len(told) > _MAX_TOLD else ""
        return ", ".join(told[:_MAX_TOLD]) + more

    def _is_whole(self, name: Any, digest: Any) -> bool:
        try:
            return bool(file_digest(self.path.parent / name) == digest)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return False
        except OSError as error:
            raise disk_fault(error.filename or self.path, error) from None

    def clear(self) -> None:
        """Take the mark away before work begins that will change the outputs."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_fault(self.path, error) from None

    def write(self, outputs: list[Path], **notes: Any) -> None:
        """Mark the stage as done; `outputs` lie in or below the stamp's folder."""
        digests = {
            os.path.relpath(output, self.path.parent): file_digest(output) for output in outputs
        }
        code = {"canopy": __version__, "commit": commit()}
        write_json(self.path, {**self.made_of, "outputs": digests, "code": code, "notes": notes})


def _read(path: Path) -> dict[str, Any]:
    """What a stamp says; nothing when it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise disk_fault(path, error) from None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _differences(before: dict[str, Any], now: dict[str, Any], words: str) -> list[str]:
    """Names whose values differ, with `words` for the value before and the one now."""
    told = []
    for name in {**before, **now}:
        if name not in before:
            told.append(f"{name} is new")
        elif name not in now:
            told.append(f"{name} is no more")
        elif before[name] != now[name]:
            values = [json.dumps(side[name])[:_MAX_VALUE] for side in (before, now)]
            told.append(f"{name} {words.format(*values)}")
    return told
