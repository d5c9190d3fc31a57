"""What is kept of submissions and tasks: below `cluster/` of a run, `OUT.cluster` of detections.

<number>/submission.json   jobs, their tasks and their ids
<number>/scripts/<job>.sh  what was handed in
<number>/logs/             <job>-<task>.log, and <job>.<index>.slurm with what Slurm itself says
tasks/<job>-<task>.json    how a task stands, written by itself on its node
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import __version__
from local.io.errors import CanopyError
from local.io.files import fingerprint, read_json, write_json
from local.slurm.job_graph import Job, Task

# Beyond so many files a data folder is known by its folders' times alone.
_MAX_LISTED = 200_000


@dataclass(frozen=True)
class Home:
    """Folder of a run's cluster files."""

    folder: Path

    @staticmethod
    def of_run(exp: Path) -> "Home":
        """Of EXPDIR/TAG."""
        return Home(exp / "cluster")

    @staticmethod
    def find(path: Path) -> "Home":
        """Of a run, or of a folder of detections."""
        for folder in (path / "cluster", path.with_name(f"{path.name}.cluster"), path):
            if any(folder.glob("*/submission.json")):
                return Home(folder)
        raise CanopyError(f"{path}: nothing of it was handed in to a cluster; give EXPDIR/TAG")

    def submissions(self) -> list[Path]:
        """Folders of submissions, oldest first."""
        return sorted(path.parent for path in self.folder.glob("[0-9]*/submission.json"))

    def next(self) -> Path:
        """Folder for a new submission."""
        numbers = [int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit()]
        return self.folder / f"{max(numbers, default=0) + 1:03d}"

    def task_file(self, job: str, task: str) -> Path:
        """Where a task writes how it stands."""
        return self.folder / "tasks" / f"{job}-{task}.json"

    def task_state(self, job: str, task: str) -> dict[str, Any]:
        """How a task stands; empty when it never began."""
        path = self.task_file(job, task)
        return read_json(path) if path.is_file() else {}


@dataclass
class Submission:
    """Jobs handed in together.

    ids: of Slurm, by job's name. given: indices of the tasks in it. cancelled: array elements that
    `cancel` took back, which the queue forgets.
    """

    folder: Path
    root: str
    context: dict[str, Any]
    jobs: list[Job]
    ids: dict[str, int]
    given: dict[str, list[int]]
    cancelled: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write it."""
        values = {**vars(self), "folder": None, "jobs": [job.to_dict() for job in self.jobs]}
        write_json(self.folder / "submission.json", values)

    @staticmethod
    def load(folder: Path) -> "Submission":
        """Read it."""
        values = read_json(folder / "submission.json")
        jobs = [Job.from_dict(job) for job in values["jobs"]]
        return Submission(**{**values, "folder": folder, "jobs": jobs})

    def job(self, name: str) -> Job:
        """The job of that name."""
        return next(job for job in self.jobs if job.name == name)

    def log(self, job: str, task: str) -> Path:
        """Where a task's output goes."""
        return self.folder / "logs" / f"{job}-{task}.log"

    def slurm_log(self, job: str, index: int) -> Path:
        """Where Slurm itself writes."""
        return self.folder / "logs" / f"{job}.{index}.slurm"


def task_print(task: Task, context: dict[str, Any]) -> str:
    """Fingerprint of what a task would do; another one is another task."""
    known = {"version": __version__, "commands": task.commands, "conf": context.get("conf")}
    if any("prepare.py" in command[0] for command in task.commands):
        known["data"] = _listing(Path(context["datadir"]))
    return fingerprint(known)


def left_of(task: Task, context: dict[str, Any]) -> list[list[int]] | None:
    """Size and time of change of what a task leaves; None when something is not there."""
    found = []
    for name in task.leaves:
        path = Path(name.replace("DUMP", context["dump"], 1) if name.startswith("DUMP/") else name)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        found.append([status.st_size, status.st_mtime_ns])
    return found


def is_done(home: Home, job: Job, task: Task, context: dict[str, Any]) -> bool:
    """Whether a task ended well, with the same command and settings, and left what is there now."""
    state = home.task_state(job.name, task.name)
    if state.get("status") != "done" or state.get("print") != task_print(task, context):
        return False
    return state.get("left") == left_of(task, context)


def _listing(folder: Path) -> str:
    """Fingerprint of the files of a data folder by name, size and time of change."""
    rows: list[Any] = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        rows.append([place, os.stat(place).st_mtime_ns])
        for name in sorted(files) if len(rows) < _MAX_LISTED else ():
            status = os.stat(os.path.join(place, name))
            rows.append([name, status.st_size, status.st_mtime_ns])
    return fingerprint(rows)
