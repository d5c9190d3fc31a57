"""Options of scripts."""

import argparse
from typing import Any


class ScriptParser(argparse.ArgumentParser):
    """Options of a script, or of one of its commands; the docstring of the script is its help.

    Options are written out in full: a prefix of one (`--fo` for `--force`) is unknown, since a
    further option could give it another meaning.
    """

    def __init__(self, description: str | None = None, **more: Any) -> None:
        more.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, allow_abbrev=False, **more)
