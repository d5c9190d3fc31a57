"""What is wrong with a corpus: every fault of its tables, of each file's sound, and between them.

- `sound`: one recording, decoded and measured
- `corpus`: the tables, the sound against them and against the configuration, and the account

Nothing is changed and nothing stops at the first fault. An error is what some stage refuses or what
makes scores untrue; a warning is what a person should look at.
"""

from local.quality.corpus import (
    findings_table,
    fold_findings,
    sound_findings,
    summary,
    table_findings,
)
from local.quality.sound import Finding, Survey, survey

__all__ = [
    "Finding",
    "Survey",
    "findings_table",
    "fold_findings",
    "sound_findings",
    "summary",
    "survey",
    "table_findings",
]
