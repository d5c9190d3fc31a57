"""Exit codes: 0 done, 1 failure, 2 usage (argparse), 75 to go on, 130 aborted."""

import sys
from collections.abc import Callable

from local.io.errors import CanopyError
from local.io.files import DISK_FAULTS, disk_fault
from local.jobs.interruption import EXIT_CONTINUE, Interrupted, forget, listen
from local.jobs.processes import EXIT_INTERRUPTED

EXIT_FAILURE = 1


def run_script(main: Callable[[], int]) -> int:
    """Run a script's `main`; turn faults of the user's input into one line and an exit code.

    Exit codes: 0 done, 1 failure, 2 usage (argparse), 75 stopped on request where it goes on, 130
    aborted by a second Ctrl-C.
    """
    listen()
    try:
        return main()
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        print(f"error: {disk_fault(error.filename or 'a file', error)}", file=sys.stderr)
        return EXIT_FAILURE
    except Interrupted as stop:
        print(f"{stop}; the same command goes on from here", file=sys.stderr)
        return EXIT_CONTINUE
    except KeyboardInterrupt:
        print("aborted; the same command goes on from what was saved", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        forget()
