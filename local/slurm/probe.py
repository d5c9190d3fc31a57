"""Whether a node sees the folders of a run: asked of one, where one is free, before handing in."""

import shlex
import shutil
import subprocess
from pathlib import Path

from local.io.errors import CanopyError
from local.slurm.conf import Resources

MARKER = ".shared"
# A node that is not to be had at once is not waited for: each task looks for itself as well.
_FREE_WITHIN_S = 5
_TIMEOUT_S = 30
_PLACE = ("account", "constraint", "exclude", "nodelist", "partition", "qos", "reservation")


def check_shared(shared: dict[str, str], asked: Resources) -> None:
    """Refuse folders of which a node does not see the marker that was written here.

    Says nothing where no node answers: when all are busy, or this machine may not ask.

    Parameters
    ----------
    shared : folders, each with the word its marker holds
    asked : of the first stage, on whose kind of node to look
    """
    if shutil.which("srun") is None:
        return
    place = [f"--{name}={text}" for name, text in asked.options.items() if name in _PLACE]
    lines = [
        f'[ "$(cat {shlex.quote(str(Path(folder, MARKER)))} 2>/dev/null)" = {word} ] || '
        f'echo "not shared|$(hostname)|"{shlex.quote(folder)}'
        for folder, word in shared.items()
    ]
    options = ["--quiet", "--job-name=canopy-look", "--chdir=/", "--ntasks=1", "--time=1"]
    options += [f"--immediate={_FREE_WITHIN_S}", "--mem=100M", *place]
    try:
        ran = subprocess.run(
            ["srun", *options, "sh", "-c", "\n".join(lines)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return
    for line in ran.stdout.splitlines():
        if line.startswith("not shared|"):
            _, host, folder = line.split("|", 2)
            raise CanopyError(
                f"{folder} of this machine is not on {host}: give a folder on a disk that login "
                "and compute nodes share"
            )
