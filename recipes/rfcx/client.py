"""The competition's official command-line client, called as a command.

The client finds its credentials by itself, in the environment or in its own file. They are never
read here and never put on a command line; only whether there are any is looked at, so that what
to do can be said before the client is called.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from local.io.errors import CanopyError

SLUG = "rfcx-species-audio-detection"
PAGE = f"https://www.kaggle.com/competitions/{SLUG}"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Pairs and single variables that the client takes its credentials from.
_VARIABLES = (("KAGGLE_USERNAME", "KAGGLE_KEY"), ("KAGGLE_API_TOKEN",))
_FILES = ("kaggle.json", "access_token")


def find_client() -> str:
    """Path of the `kaggle` command: on PATH, or beside the Python that runs this."""
    # Not resolved: the Python of an environment is a link to one outside it.
    beside = Path(sys.executable).parent / "kaggle"
    found = shutil.which("kaggle") or shutil.which(str(beside))
    if found is None:
        raise CanopyError(
            f"the kaggle client is not installed; run {sys.executable} -m pip install -r "
            f"{_shown(REQUIREMENTS)}, or download from {PAGE}/data by hand"
        )
    return found


def check_credentials() -> None:
    """Raise, saying what to do, when the client would find no credentials."""
    if any(all(os.environ.get(name) for name in names) for names in _VARIABLES):
        return
    if any((folder / name).is_file() for folder in _config_folders() for name in _FILES):
        return
    raise CanopyError(
        "no credentials for the kaggle client; on https://www.kaggle.com/settings create an API "
        "token, save it as ~/.kaggle/kaggle.json with mode 600 (or set KAGGLE_USERNAME and "
        f"KAGGLE_KEY), and accept the rules at {PAGE}/rules"
    )


def _config_folders() -> list[Path]:
    if os.environ.get("KAGGLE_CONFIG_DIR"):
        return [Path(os.environ["KAGGLE_CONFIG_DIR"])]
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [home / ".kaggle", config / "kaggle"]


def call_client(*arguments: str, keep_output: bool = False) -> str:
    """Call `kaggle competitions ARGUMENTS`; what it says goes to the terminal.

    Returns
    -------
    Its standard output with `keep_output`, for a short answer; else nothing.

    Raises
    ------
    CanopyError
        No client, no credentials, or an exit code that is not 0. The client's own words are not
        repeated in it, so that nothing of them reaches a log.
    """
    client = find_client()
    check_credentials()
    done = subprocess.run(
        [client, "competitions", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if keep_output else None,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout or "", end="", file=sys.stderr)
        raise CanopyError(
            f"kaggle competitions {arguments[0]} ended with code {done.returncode} (its message "
            f"stands above); if it says 401, make a new token at https://www.kaggle.com/settings, "
            f"if 403, accept the rules at {PAGE}/rules; then the same command goes on"
        )
    return done.stdout or ""


def _shown(path: Path) -> str:
    """A path as short as it can be named from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
