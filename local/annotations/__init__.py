"""Annotation formats of the field, to and from the rows of `events`.

`read_annotations` and `write_annotations` take any of `FORMATS`; each format has a file of its own
with its reader and its writer.
"""

from local.annotations.audacity import read_audacity, write_audacity
from local.annotations.formats import (
    FORMATS,
    SUFFIXES,
    Format,
    guess_format,
    read_annotations,
    write_annotations,
)
from local.annotations.plain import read_plain, write_plain
from local.annotations.rainforest import RAINFOREST_COLUMNS, read_rainforest, write_rainforest
from local.annotations.raven import read_raven, write_raven
from local.annotations.shared import ReadOptions, empty_events, file_stem, table_stem

__all__ = [
    "FORMATS",
    "RAINFOREST_COLUMNS",
    "SUFFIXES",
    "Format",
    "ReadOptions",
    "empty_events",
    "file_stem",
    "guess_format",
    "read_annotations",
    "read_audacity",
    "read_plain",
    "read_rainforest",
    "read_raven",
    "table_stem",
    "write_annotations",
    "write_audacity",
    "write_plain",
    "write_rainforest",
    "write_raven",
]
