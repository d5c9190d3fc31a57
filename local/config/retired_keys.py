"""Keys that configurations had once: runs and versions that name them are still read."""

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger("canopy")

# What came of each.
RETIRED = {
    "prior.estimator": "prevalence is estimated in one way",
}


def drop_retired(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The sections of a file without keys that are no more; each is said in one line."""
    kept = {name: dict(part) if isinstance(part, dict) else part for name, part in values.items()}
    for key, why in RETIRED.items():
        section, name = key.split(".")
        part = kept.get(section)
        if isinstance(part, dict) and name in part:
            log.warning("%s: %s is passed over: %s", path, key, why)
            del part[name]
    return kept
