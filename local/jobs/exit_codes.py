"""Exit codes: 0 done, 1 failure, 2 usage (argparse), 75 to go on, 130 aborted."""

import sys
from collections.abc import Callable

from local.io.errors import CanopyError
from local.io.files import DISK_FAULTS, disk_fault
from local.jobs.interruption import EXIT_ABORTED, EXIT_CONTINUE, Interrupted, forget, listen

EXIT_FAILURE = 1


def run_script(main: Callable[[], int]) -> int:
    """Run a script's `main`; turn faults of the user's input into one line and an exit code.

    Exit codes: 0 done, 1 failure, 2 usage (argparse), 75 stopped on request where it goes on, 130
    aborted by a second Ctrl-C.
    """
    listen()
    try:
        return main()
    except (CanopyError, OSError) as error:
        return explain(error)
    except Interrupted as stop:
        print(f"{stop}; the same command goes on from here", file=sys.stderr)
        return EXIT_CONTINUE
    except KeyboardInterrupt:
        print("aborted; the same command goes on from what was saved", file=sys.stderr)
        return EXIT_ABORTED
    finally:
        forget()


def explain(error: CanopyError | OSError) -> int:
    """Say in one line what the user can mend, and return the exit code; other errors are raised."""
    if isinstance(error, OSError):
        if error.errno not in DISK_FAULTS:
            raise error
        error = disk_fault(error.filename or "a file", error)
    print(f"error: {error}", file=sys.stderr)
    return EXIT_FAILURE
