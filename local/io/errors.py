"""The one exception that means "the user can mend this".

Library code raises `CanopyError` with a single sentence that names the file, row or key, what was
found, and what to do. Scripts turn it into one line on stderr and exit code 1; anything else that
escapes is a defect of ours and keeps its traceback.
"""

import pickle
import re
import struct
import zipfile
import zlib

# What unpacking a damaged checkpoint raises: the formats' own errors, and what arbitrary bytes were
# seen to raise.
UNPACKING_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    MemoryError,
    RecursionError,
    AssertionError,
)


# PyTorch's word for what it does not unpickle, within a page of advice to load it all the same.
_REFUSED = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]{1,80})")


class CanopyError(Exception):
    """A fault of the input or the configuration, told in one sentence with its remedy."""

    def __init__(self, message: object = "") -> None:
        # What is quoted from a file must not break the line or steer a terminal.
        text = str(message)
        super().__init__(
            text
            if text.isprintable()
            else "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)
        )


class MachineError(CanopyError):
    """A fault of the disk, the memory or the rights: it tells nothing of the file it was met at.

    Who takes damaged files for what they are (invalid, set aside) lets this one pass.
    """


def first_line(error: BaseException) -> str:
    """A library's error in one line of at most 120 characters; its kind where it says nothing."""
    refused = _REFUSED.search(str(error))
    if refused:
        return f"it holds an object of {refused[1]}, and only tensors are loaded"
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
