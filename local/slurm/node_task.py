"""One task on its node: its commands one after another, its signals, its mark, its going on."""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from local.io.errors import CanopyError
from local.io.files import write_json
from local.jobs.interruption import EXIT_CONTINUE, bound_to_this_process, requested
from local.slurm.conf import OWN
from local.slurm.job_graph import Job, Task
from local.slurm.sent_jobs import Home, Submission, left_of, task_print
from local.slurm.site import ask

_POLL_S = 0.2
_TAIL_BYTES = 1 << 14
# Slurm ends a job that it requeues; until then it must not end by itself.
_WAIT_FOR_END_S = 90


def run_task(folder: Path, job_name: str, index: int) -> int:
    """Run a task of a submission; its exit code."""
    submission = Submission.load(folder)
    job = submission.job(job_name)
    task = job.tasks[index]
    home = Home(folder.parent)
    state = _begin(folder, job, task)
    path = home.task_file(job.name, task.name)
    log = submission.log(job.name, task.name)
    write_json(path, state)
    _rename(submission, job, task)
    code, reason = 0, ""
    with open(log, "ab") as stream:
        for command in task.commands:
            code = _call(command, stream)
            if code != 0:
                break
    if code != 0:
        reason = reason_of(log, code)
    state |= {"code": code, "ended": _now(), "reason": reason, "status": "failed"}
    if code == 0:
        context = _now_known(submission.context)
        state |= {
            "status": "done",
            "print": task_print(task, context),
            "left": left_of(task, context),
        }
    elif code == EXIT_CONTINUE:
        state["status"] = "stopped"
        if requested() == "SIGUSR1":
            return _requeue(path, state, submission.context.get("max_requeues", {}).get(job.stage))
    write_json(path, state)
    return code


def _begin(folder: Path, job: Job, task: Task) -> dict[str, Any]:
    return {
        "submission": folder.name,
        "status": "running",
        "job": job.name,
        "task": task.name,
        "slurm_job": _slurm_id(),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "host": socket.gethostname(),
        "began": _now(),
    }


def _slurm_id() -> str:
    """Id of this array element: the plain number of one of them stands for the whole array."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID", "")


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _now_known(context: dict[str, Any]) -> dict[str, Any]:
    """The context with what only the finished preparation tells: the folder of the dump."""
    from local.slurm.request import dump_folder

    return {**context, "dump": dump_folder(context)}


def _rename(submission: Submission, job: Job, task: Task) -> None:
    """Tell the queue which task this is; a queue that does not want to know is no fault."""
    name = f"{submission.context['title']}-{job.name}-{task.name}"
    if number := _slurm_id():
        try:
            ask("scontrol", "update", f"JobId={number}", f"JobName={name}")
        except CanopyError as error:
            print(f"the job keeps its name: {error}", file=sys.stderr)


def _call(command: list[str], stream: Any) -> int:
    """Run one command; a signal to this process asks it to stop, and is waited for."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=stream,
        stderr=stream,
        env=os.environ | bound_to_this_process(),
    )
    asked = False
    while True:
        try:
            code = process.wait(timeout=_POLL_S)
            break
        except subprocess.TimeoutExpired:
            if requested() and not asked:
                process.terminate()
                asked = True
    if code in (-signal.SIGTERM, -signal.SIGUSR1) or (asked and code < 0):
        # It died of the request before it listened, for Slurm asks all of a job at once.
        return EXIT_CONTINUE
    return code if code >= 0 else 128 - code


def reason_of(log: Path, code: int) -> str:
    """The last words of a log that tell of an error."""
    with open(log, "rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    words = [line for line in lines if line.strip()]
    errors = [line for line in words if line.startswith(("error:", "MemoryError"))]
    last = (errors or words or [""])[-1].strip()
    return f"exit code {code}: {last}" if last else f"exit code {code}"


def _requeue(path: Path, state: dict[str, Any], most: int | None) -> int:
    """Ask Slurm to run this task again from what it saved, a bounded number of times."""
    most = OWN["max-requeues"] if most is None else most
    if state["restarts"] >= most:
        state["reason"] = (
            f"ran into its time limit {state['restarts'] + 1} times, max-requeues is {most}; the "
            "same command goes on, better with more time"
        )
        write_json(path, state)
        return EXIT_CONTINUE
    write_json(path, {**state, "status": "requeued"})
    try:
        ask("scontrol", "requeue", state["slurm_job"])
    except CanopyError as error:
        write_json(path, {**state, "reason": f"stopped at its time limit, not requeued: {error}"})
        return EXIT_CONTINUE
    time.sleep(_WAIT_FOR_END_S)
    return EXIT_CONTINUE
