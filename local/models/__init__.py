"""Networks for sound event detection, by name.

Every model maps a batch of windows to a `SedOutput`; `create_model(name, ...)` builds one from its
own typed parameters. A family is one file that registers its builders, and a name in
`model_registry`; `sed_model` is the contract.
"""

from local.models.model_registry import (
    create_model,
    model_names,
    with_drop_path,
    without_pretrained,
)
from local.models.pretrained import fit_hint
from local.models.sed_model import Mix, SedModel, SedOutput

__all__ = [
    "Mix",
    "SedModel",
    "SedOutput",
    "create_model",
    "fit_hint",
    "model_names",
    "with_drop_path",
    "without_pretrained",
]
