"""Log lines, to the terminal and to a file of the stage."""

import logging
import sys
from pathlib import Path

from tqdm import tqdm

from local.io.files import disk_fault, make_folder

_FORMAT, _DATE = "%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"


def log_to_terminal() -> None:
    """Log lines with time and level to stderr alone."""
    logging.basicConfig(
        level=logging.INFO, format=_FORMAT, datefmt=_DATE, stream=sys.stderr, force=True
    )


def start_log(path: Path) -> None:
    """Log lines with time and level to stderr and, appended, to `path`."""
    make_folder(path.parent)
    try:
        handlers: list[logging.Handler] = [_TqdmHandler(), _LogFile(path, encoding="utf-8")]
    except OSError as error:
        raise disk_fault(path, error) from None
    logging.basicConfig(
        level=logging.INFO, format=_FORMAT, datefmt=_DATE, handlers=handlers, force=True
    )


class _LogFile(logging.FileHandler):
    """A log file that says once on stderr when it cannot be written, and is no reason to stop."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            tqdm.write(str(disk_fault(self.baseFilename, error)), file=sys.stderr)


class _TqdmHandler(logging.StreamHandler):
    """A stderr handler whose lines do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
