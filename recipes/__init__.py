"""One folder a system: what only that system needs."""

from pathlib import Path

import local

# Those of the clone whose library it is: see local/__init__.py.
__path__ = [str(Path(local.__path__[0]).parent / "recipes")]
