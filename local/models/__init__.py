"""Networks for sound event detection, by name.

Every model maps a batch of windows to a `SedOutput`; `create_model(name, ...)` builds one from its
own typed parameters. A family is one file that registers its builders.
"""

from local.models.base import SedModel, SedOutput, create_model, model_names, without_start

# Importing a family registers its models.
from local.models import crnn, timm_sed  # isort: skip

__all__ = [
    "SedModel",
    "SedOutput",
    "create_model",
    "crnn",
    "model_names",
    "timm_sed",
    "without_start",
]
