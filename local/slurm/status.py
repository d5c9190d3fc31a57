"""How a submission stands: what tasks wrote of themselves, and what the queue says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from local.io.errors import CanopyError
from local.slurm.job_graph import Job
from local.slurm.sent_jobs import Home, Submission
from local.slurm.site import ask

# Whatever else the queue says of a job (SIGNALING, REQUEUED, COMPLETING ...), it is there still.
_ENDED = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("BOOT_FAIL", "DEADLINE", "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED", ""),
)
_WORDS = {
    "TIMEOUT": "killed at its time limit",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "killed for want of memory; ask for more mem",
    "PREEMPTED": "preempted",
}


@dataclass(frozen=True)
class TaskState:
    """One task. state: waiting, running, done, failed, cancelled, lost or requeued."""

    job: str
    task: str
    slurm_id: str
    state: str
    words: str
    log: Path


def queue_of(ids: list[int]) -> dict[tuple[int, int], tuple[str, str]]:
    """State and reason of the array elements of jobs, as far as the queue still knows them.

    The queue forgets ended jobs after minutes; where accounts are kept, those tell of older ones.
    """
    wanted, found = set(ids), {}
    if not wanted:
        return {}
    accounts = _accounts(ids)
    listing = ask("squeue", "--noheader", "--states=all", "--array", "--format=%F|%K|%T|%r")
    for line in listing.splitlines():
        number, index, state, reason = [*line.strip().split("|", 3), "", "", ""][:4]
        if number.isdigit() and int(number) in wanted and index.isdigit():
            found[int(number), int(index)] = (state, reason)
    return accounts | found


def _accounts(ids: list[int]) -> dict[tuple[int, int], tuple[str, str]]:
    """The same from sacct; empty where no accounts are kept."""
    try:
        listing = ask(
            *("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State"),
            *("--jobs", ",".join(map(str, ids))),
        )
    except CanopyError:
        return {}
    found = {}
    for line in listing.splitlines():
        name, _, state = line.partition("|")
        number, _, index = name.partition("_")
        if number.isdigit() and index.isdigit():
            found[int(number), int(index)] = (state.split()[0], "")
    return found


def live_ids(submission: Submission) -> list[str]:
    """Array elements that wait or run."""
    queue = queue_of(list(submission.ids.values()))
    return [
        f"{number}_{index}" for (number, index), (state, _) in queue.items() if state not in _ENDED
    ]


def states_of(home: Home, submission: Submission) -> list[TaskState]:
    """All tasks of a submission, in the order of the jobs."""
    queue = queue_of(list(submission.ids.values()))
    found: list[TaskState] = []
    for job in submission.jobs:
        culprit = _culprit(found, job)
        for index in submission.given[job.name]:
            found.append(_state_of(home, submission, job, index, queue, culprit))
    return found


def _culprit(found: list[TaskState], job: Job) -> str:
    """The first task before a job that did not end well; "" for none."""
    bad = [
        state
        for state in found
        if state.job in job.after and state.state in ("failed", "cancelled", "lost")
    ]
    if not bad:
        return ""
    first = bad[0]
    if first.words.startswith("follows on "):
        return first.words.removeprefix("follows on ").split(",")[0]
    return f"{first.job}-{first.task}"


def _state_of(
    home: Home,
    submission: Submission,
    job: Job,
    index: int,
    queue: dict[tuple[int, int], tuple[str, str]],
    culprit: str,
) -> TaskState:
    task, number = job.tasks[index], submission.ids.get(job.name, 0)
    own = home.task_state(job.name, task.name)
    if own.get("submission") != submission.folder.name:
        own = {}
    queued, reason = queue.get((number, index), ("", ""))
    if not queued and f"{number}_{index}" in submission.cancelled and own.get("status") != "done":
        queued = "CANCELLED"
    state, words = _judge(own, queued, reason, culprit)
    log = submission.log(job.name, task.name)
    if not log.is_file():
        log = submission.slurm_log(job.name, index)
        if state == "failed" and not own:
            words = _slurm_words(log) or words
    return TaskState(job.name, task.name, f"{number}_{index}", state, words, log)


def _judge(own: dict[str, Any], queued: str, reason: str, culprit: str) -> tuple[str, str]:
    """State and words, of what the task wrote and what the queue says."""
    status = own.get("status", "")
    if status == "done":
        return "done", ""
    again = f"after {own['restarts']} restarts" if own.get("restarts") else ""
    if queued == "PENDING":
        if status == "requeued" or own:
            return "requeued", "goes on from what it saved"
        return (
            ("cancelled", f"follows on {culprit}, which did not end well")
            if (reason == "DependencyNeverSatisfied")
            else ("waiting", reason)
        )
    if queued not in _ENDED:
        return "running", again
    if queued == "CANCELLED" and own and status != "failed":
        return "cancelled", "by scancel"
    if status in ("failed", "stopped"):
        return "failed", own.get("reason", "")
    if culprit and not own:
        return "cancelled", f"follows on {culprit}, which did not end well"
    if queued == "CANCELLED":
        return "cancelled", "by scancel"
    if queued:
        return "failed", _WORDS.get(queued, queued.lower())
    if own:
        return "lost", f"ended on {own.get('host', 'its node')} without a word, as when killed"
    return (
        "lost",
        "the queue does not know it and it left no word; see whether the folder is shared",
    )


def _slurm_words(log: Path) -> str:
    if not log.is_file():
        return "left no log: is the folder one that login and compute nodes share"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""


def describe(home: Home, folder: Path) -> str:
    """A submission in words: a line a job, then what did not end well and where its log is."""
    submission = Submission.load(folder)
    states = states_of(home, submission)
    rows = []
    for job in submission.jobs:
        mine = [state.state for state in states if state.job == job.name]
        counts = {name: mine.count(name) for name in dict.fromkeys(mine)}
        words = ", ".join(f"{n} {name}" for name, n in counts.items())
        rows.append({"job": job.name, "id": submission.ids.get(job.name, "-"), "tasks": words})
    lines = [f"{folder}", pd.DataFrame(rows).to_string(index=False)]
    for state in states:
        if state.state in ("failed", "lost", "running", "requeued") or (
            state.state == "cancelled" and not state.words.startswith("follows")
        ):
            words = f": {state.words}" if state.words else ""
            lines.append(f"{state.job}-{state.task} ({state.slurm_id}) {state.state}{words}")
            lines.append(f"  {state.log}")
    followers = [state for state in states if state.words.startswith("follows")]
    if followers:
        names = list(dict.fromkeys(state.job for state in followers))
        lines.append(f"cancelled, {followers[0].words}: {', '.join(names)}")
    if any(state.state in ("failed", "lost", "cancelled") for state in states):
        lines.append("the command that handed it in goes on with what is not done")
    lines.append(f"logs: {submission.folder / 'logs'}")
    return "\n".join(lines)
