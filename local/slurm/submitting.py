"""Jobs to Slurm: their scripts, and handing them in one after the other."""

import os
import re
import secrets
import shlex
from pathlib import Path
from typing import Any

from local.io.errors import CanopyError
from local.io.files import write_text
from local.slurm.conf import FLAGS, ClusterConf, Resources
from local.slurm.job_graph import Job
from local.slurm.probe import MARKER, check_shared
from local.slurm.sent_jobs import Home, Submission, is_done
from local.slurm.site import ask
from local.slurm.status import live_ids

_SCRIPT = """\
#!/usr/bin/env bash
{header}
# {words}
set -euo pipefail
cd {root} || exit 1
shared() {{ # shared MARKER WORD
  [[ $(cat "$1" 2>/dev/null) == "$2" ]] && return
  echo "error: $1 of the login node is not on $(hostname): its folder must be on a shared disk" >&2
  exit 1
}}
{markers}
export PYTHONPATH={root} OMP_NUM_THREADS={threads} VENV={venv}
venv=$(bin/setup_env.sh)
exec "$venv/bin/python" bin/cluster.py task {folder} {job} "${{SLURM_ARRAY_TASK_ID:-0}}"
"""


def to_run(home: Home, jobs: list[Job], context: dict[str, Any]) -> dict[str, list[int]]:
    """Indices of the tasks that are to be handed in, by job; jobs of none are left out.

    What ended well is not given again; whatever follows on something that is given is given too.
    """
    given: dict[str, list[int]] = {}
    for job in jobs:
        follows = any(name in given for name in job.after)
        indices = [
            index
            for index, task in enumerate(job.tasks)
            if follows or not is_done(home, job, task, context)
        ]
        if indices:
            given[job.name] = indices
    return given


def make_submission(
    home: Home, jobs: list[Job], given: dict[str, list[int]], context: dict[str, Any]
) -> Submission:
    """The next submission of a run; nothing is written yet."""
    folder = home.next()
    kept = [job for job in jobs if job.name in given]
    return Submission(folder, os.getcwd(), context, kept, {}, given)


def script_of(submission: Submission, job: Job, conf: ClusterConf) -> str:
    """The script of a job."""
    context, resources = submission.context, conf.of(job.stage)
    root = submission.root
    options = _header(submission, job, resources)
    indices = submission.given[job.name]
    names = ", ".join(f"{index} {job.tasks[index].name}" for index in indices)
    markers = [
        f"shared {shlex.quote(str(Path(root, path, MARKER)))} {word}"
        for path, word in context["shared"].items()
    ]
    return _SCRIPT.format(
        header="\n".join(_option(name, value) for name, value in options.items()),
        words=f"{job.name}: {names}",
        root=shlex.quote(root),
        markers="\n".join(markers),
        threads=conf.of(job.threads_of or job.stage).threads,
        venv=shlex.quote(context["venv"]),
        folder=shlex.quote(str(submission.folder)),
        job=job.name,
    )


def _option(name: str, value: str) -> str:
    """A line of the header: sbatch reads quotes as a shell does, but for backslashes."""
    if name in FLAGS and value.lower() in ("yes", "true"):
        return f"#SBATCH --{name}"
    if re.search(r"[\\\r\n]", value):
        raise CanopyError(f"{name} is {value!r}: sbatch takes no backslash there; give another")
    return f"#SBATCH --{name}={shlex.quote(value)}"


def _header(submission: Submission, job: Job, resources: Resources) -> dict[str, str]:
    logs = str(submission.folder / "logs").replace("%", "%%")
    options = {"job-name": f"{submission.context['title']}-{job.name}"} | resources.options
    indices = submission.given[job.name]
    # Parts of one job run beside each other, and share its bound.
    most = -(-resources.own["max-parallel"] // job.n_parts)
    options["array"] = ",".join(map(str, indices)) + (f"%{most}" if most else "")
    options["output"] = f"{logs}/{job.name}.%a.slurm"
    options["open-mode"] = "append"
    options["signal"] = f"B:USR1@{resources.own['signal-seconds']}"
    options["comment"] = options.get("comment", submission.context["title"])
    return options


def hand_in(submission: Submission, conf: ClusterConf) -> None:
    """Give all jobs to sbatch, each bound to those it comes after, if nodes see their folders.

    When one is refused, those handed in before are cancelled.
    """
    folder, shared = submission.folder, submission.context["shared"]
    for path, word in shared.items():
        write_text(Path(path) / MARKER, word)
    check_shared(shared, conf.of(submission.jobs[0].stage))
    write_text(folder / "logs" / ".keep", "")
    for job in submission.jobs:
        write_text(folder / "scripts" / f"{job.name}.sh", script_of(submission, job, conf))
    submission.save()
    for job in submission.jobs:
        try:
            submission.ids[job.name] = _sbatch(submission, job)
        except CanopyError:
            if submission.ids:
                ask("scancel", *map(str, submission.ids.values()))
            raise
        submission.save()


def sbatch_options(submission: Submission, job: Job) -> list[str]:
    """Options of sbatch beside those in the script."""
    options = ["--parsable", "--requeue", f"--chdir={submission.root}"]
    before = [submission.ids[name] for name in job.after if name in submission.given]
    if before:
        options += [f"--dependency=afterok:{':'.join(map(str, before))}"]
        options += ["--kill-on-invalid-dep=yes"]
    return options


def _sbatch(submission: Submission, job: Job) -> int:
    script = submission.folder / "scripts" / f"{job.name}.sh"
    answer = ask("sbatch", *sbatch_options(submission, job), str(script)).strip()
    number = answer.splitlines()[-1].split(";")[0] if answer else ""
    if not number.isdigit():
        raise CanopyError(f"sbatch answered {answer!r} for {job.name}, no number of a job")
    return int(number)


def check_idle(home: Home) -> None:
    """Refuse a run of which jobs are on the cluster already."""
    for folder in home.submissions():
        live = live_ids(Submission.load(folder))
        if live:
            raise CanopyError(
                f"{folder}: {len(live)} of its jobs are on the cluster still (first: {live[0]}); "
                "wait for them, or bin/cluster.py cancel"
            )


def marked(folders: list[Path]) -> dict[str, str]:
    """Folders that all nodes must share, each with the word its marker holds."""
    found = {}
    for folder in folders:
        path = folder / MARKER
        word = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        # Another run may use the folder as well: its word stays.
        found[str(folder)] = word if re.fullmatch(r"[0-9a-f]{16}", word) else secrets.token_hex(8)
    return found
