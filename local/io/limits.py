"""Limits on what comes from outside: sizes of files, names that become file names, cells that a
spreadsheet would compute.

Every bound is far above what the field uses and far below what would exhaust a laptop; a file that
passes it is refused in one sentence before memory is taken for it.
"""

import codecs
import os
import re
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from local.io.errors import CanopyError

if TYPE_CHECKING:
    import pandas as pd

# Tables, annotations: some millions of rows. Text of them takes about ten times that in memory.
MAX_TABLE_BYTES = 256 * 2**20
MAX_TABLE_COLUMNS = 20_000
MAX_CELL_CHARACTERS = 32_768
# Configurations are pages, not books.
MAX_YAML_BYTES = 256 * 2**10
MAX_YAML_NODES = 20_000
MAX_YAML_DEPTH = 32
MAX_JSON_BYTES = 256 * 2**20
MAX_NAME_CHARACTERS = 200
# Resamples of an interval: how often each recording is drawn in each is held at once.
MAX_RESAMPLES = 100_000

# Ids become file names: letters, digits and a few marks, never a dot or a dash in front.
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]*")
# Names that Windows takes for devices, whatever their ending.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])", re.I)
# What a spreadsheet would compute, behind any number of the apostrophes that stop it.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
# Marks by which UTF-16 tells itself apart; UTF-8's own is dropped by `utf-8-sig`.
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


# ------------------------------------------------------------------------------------------ files


def regular_size(path: Path | str) -> int:
    """Bytes of a plain file; pipes and devices, which may never end, are refused.

    Raises
    ------
    CanopyError
        Not a plain file, or a name that no file can have.
    OSError
        Missing or not to be looked at.
    """
    try:
        status = os.stat(path)
    except ValueError:
        raise CanopyError(f"{str(path)!r}: no file can be named so; correct the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise CanopyError(f"{path}: is a pipe or a device, not a plain file; name a file")
    return status.st_size


def check_size(path: Path | str, most: int, what: str) -> int:
    """Bytes of a plain file that must have at most `most`; `what` names its kind in the error."""
    size = regular_size(path)
    if size > most:
        raise CanopyError(
            f"{path}: has {size} bytes, a {what} may have at most {most}; name the right file, or "
            "divide it"
        )
    return size


def read_text(path: Path | str, most: int, what: str) -> str:
    """Text of a plain file of at most `most` bytes: UTF-8, or UTF-16 that begins with its mark.

    Raises
    ------
    CanopyError
        Too large, no plain file, another encoding, or a NUL character inside.
    OSError
        Missing or not readable; the caller knows what to say of it.
    """
    check_size(path, most, what)
    with open(path, "rb") as stream:
        # What grows while it is read is bounded as well.
        content = stream.read(most + 1)[:most]
    encoding = "utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise CanopyError(
            f"{path}: not readable as {encoding.removesuffix('-sig').upper()} text (byte "
            f"{error.start}); save it as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise CanopyError(
            f"{path} line {line}: holds a NUL character, so it is no text or UTF-16 without its "
            "mark; save it as UTF-8"
        )
    return text


# ------------------------------------------------------------------------------------------ names


def id_fault(text: str) -> str:
    """Why `text` cannot be a recording's id and so name a file; "" when it can."""
    if len(text) > MAX_NAME_CHARACTERS:
        return f"is longer than {MAX_NAME_CHARACTERS} characters"
    if not _ID.fullmatch(text):
        return "cannot name a file; use letters, digits, '_', '-', '.'"
    if text.endswith("."):
        return "ends with a dot, which Windows drops; take it away"
    return _device_fault(text)


def label_fault(text: str) -> str:
    """Why `text` cannot be a label; "" when it can. Labels may hold spaces and any letters.

    What could climb out of a folder, be taken for an option or a device, or hide in a listing is
    refused; see `file_name` for the file name that stands for a label.
    """
    if not text.strip():
        return "is empty"
    if len(text) > MAX_NAME_CHARACTERS:
        return f"is longer than {MAX_NAME_CHARACTERS} characters"
    if text != text.strip():
        return "has a space in front or behind"
    if any(unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Zl", "Zp") for mark in text):
        return "holds a control character"
    if "/" in text or "\\" in text:
        return "holds a separator of folders"
    if text[0] == "-":
        return "begins with a dash and would be taken for an option"
    if not text.strip("."):
        return "stands for a folder"
    return _device_fault(text)


def safe_name(text: str, what: str) -> str:
    """`text` itself when it can name a file as it is (as ids do); `what` names it in the error."""
    fault = id_fault(text)
    if fault:
        raise CanopyError(f"{what} {text!r:.120} {fault}")
    return text


def file_name(text: str) -> str:
    """The file name (without ending) of a label; different labels have different names.

    Letters, digits and `_`, `-`, `.` stay, all else becomes %XX of its UTF-8 bytes, as do a dot or
    a dash in front, a dot at the end and the first letter of a device's name.
    """
    name = quote(text, safe="", errors="surrogatepass").replace("~", "%7E")
    if name[:1] in ("", ".", "-") or _device_fault(name):
        name = f"%{ord(name[0]):02X}{name[1:]}" if name else "%"
    return name[:-1] + "%2E" if name.endswith(".") else name


def _device_fault(text: str) -> str:
    if _DEVICES.fullmatch(text.partition(".")[0].rstrip()):
        return "is the name of a device on Windows; choose another"
    return ""


# ----------------------------------------------------------------------------------- spreadsheets


def spreadsheet_safe(frame: "pd.DataFrame") -> "pd.DataFrame":
    """A table that a spreadsheet shows and does not compute, for files that people open.

    Text that begins like a formula (`=`, `+`, `-`, `@`, tab, line break and the wide forms of the
    first four) gets an apostrophe in front, columns' names too. Numbers stay, also those written as
    text. `spreadsheet_plain` takes it back.
    """
    return _map_text(frame, _guarded)


def spreadsheet_plain(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The inverse of `spreadsheet_safe`."""
    return _map_text(frame, _unguarded)


def _guarded(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _unguarded(text: str) -> str:
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def _map_text(frame: "pd.DataFrame", change: Callable[[str], str]) -> "pd.DataFrame":
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    changed = frame.copy()
    for place, dtype in enumerate(frame.dtypes):
        if is_numeric_dtype(dtype) or is_datetime64_any_dtype(dtype):
            continue
        column = frame.iloc[:, place].astype(object)
        changed.isetitem(
            place, column.map(lambda cell: change(cell) if isinstance(cell, str) else cell)
        )
    return changed.rename(columns=lambda name: change(name) if isinstance(name, str) else name)
