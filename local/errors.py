"""The one exception that means "the user can mend this".

Library code raises `CanopyError` with a single sentence that names the file, row or key, what was
found, and what to do. Scripts turn it into one line on stderr and exit code 1; anything else that
escapes is a defect of ours and keeps its traceback.
"""


class CanopyError(Exception):
    """A fault of the input or the configuration, told in one sentence with its remedy."""
