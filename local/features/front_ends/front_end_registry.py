"""The front end that a configuration names."""

import difflib
from functools import lru_cache

from local.config import AudioConfig, Config, FeatureConfig

# Importing a kind registers it: a new one is a file, and its name here.
from local.features.front_ends import logmel, wave  # noqa: F401
from local.features.front_ends.front_end import FrontEnd, registered
from local.io.errors import CanopyError


def front_end_of(config: Config) -> FrontEnd:
    """The front end of a configuration, its settings checked.

    Raises
    ------
    CanopyError
        An unknown kind, or settings that cannot work.
    """
    return _front_end(config.audio, config.features)


@lru_cache(maxsize=32)
def _front_end(audio: AudioConfig, features: FeatureConfig) -> FrontEnd:
    kinds = registered()
    if features.kind not in kinds:
        near = difflib.get_close_matches(features.kind, kinds, n=1, cutoff=0.5)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise CanopyError(
            f"features.kind is {features.kind!r:.120}, expected one of {', '.join(sorted(kinds))}"
            f"{hint}"
        )
    return kinds[features.kind](audio, features)
