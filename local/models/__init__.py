"""Networks for sound event detection, by name.

Every model maps a batch of windows to a `SedOutput`; `create_model(name, ...)` builds one from its
own typed parameters. A family is one file that registers its builders.
"""

from local.models.pretrained import fit_hint
from local.models.registry import (
    Mix,
    SedModel,
    SedOutput,
    create_model,
    model_names,
    without_pretrained,
)

# Importing a family registers its models.
from local.models import cnn14, conformer, crnn, denet, sincnet, timm_sed, transformer  # isort: skip

__all__ = [
    "Mix",
    "SedModel",
    "SedOutput",
    "cnn14",
    "conformer",
    "create_model",
    "crnn",
    "denet",
    "fit_hint",
    "model_names",
    "sincnet",
    "timm_sed",
    "transformer",
    "without_pretrained",
]
