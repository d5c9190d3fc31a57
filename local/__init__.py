"""Canopy: who calls, when and where, in recordings with few, partial and biased labels.

The library, which all recipes share. (In other toolkits `local/` is a recipe's own code.)
"""

import sys
from pathlib import Path

__version__ = "0.1.0"

# Clones may share an environment, which is linked to one of them: a script of another clone gets
# that clone's modules. What is installed in an environment inside a clone is no script of it.
_script = Path(sys.argv[0]).resolve()
if _script.is_file() and not _script.is_relative_to(Path(sys.prefix).resolve()):
    for _clone in _script.parents:
        if (_clone / "bin/setup_env.sh").is_file():
            __path__ = [str(_clone / "local")]
            break
