"""The mark that a stage is done.

A stage is done when its stamp `<stage>.done.json` exists and holds the fingerprint of the inputs
and settings it would run with now, and its outputs are still what it wrote. Anything else is run
again.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from local import __version__
from local.io.errors import CanopyError
from local.io.files import disk_fault, file_digest, fingerprint, write_json

log = logging.getLogger("canopy")


class Stamp:
    """The mark that a stage ran with these inputs and settings and left these outputs."""

    def __init__(self, path: Path, settings: Any, inputs: list[Path]) -> None:
        self.path = path
        absent = [str(item) for item in inputs if not item.is_file()]
        if absent:
            raise CanopyError(f"{absent[0]} is missing; run the stage that writes it first")
        digests = {str(item): file_digest(item) for item in inputs}
        # Paths are left out: a run that was moved or is given by another path is still done.
        self.fingerprint = fingerprint(
            {"version": __version__, "settings": settings, "inputs": list(digests.values())}
        )

    def is_done(self, force: bool = False) -> bool:
        """True, with a log line, when the stage has nothing to do."""
        done = not force and self.matches()
        if done:
            log.info("%s: done before with the same inputs and settings, skipped", self.path)
        return done

    def matches(self) -> bool:
        """Whether the mark is there, of these inputs and settings, and the outputs are whole."""
        if not self.path.is_file():
            return False
        try:
            stamp = json.loads(self.path.read_text(encoding="utf-8"))
            outputs = stamp["outputs"]
            return stamp["fingerprint"] == self.fingerprint and all(
                file_digest(self.path.parent / name) == digest for name, digest in outputs.items()
            )
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return False
        except OSError as error:
            raise disk_fault(error.filename or self.path, error) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

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
        write_json(self.path, {"fingerprint": self.fingerprint, "outputs": digests, "notes": notes})
