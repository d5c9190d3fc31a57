"""A run as jobs: the graph of its stages, cut into tasks, each job after the one before it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from local.slurm.conf import ClusterConf
from local.stages.stage_graph import CHECK, PARTS, Part, Work, command, order

# Slurm's arrays hold 1001 tasks, unless a site says otherwise (MaxArraySize).
MAX_TASKS = 1000
# What needs nothing is done in one job with the check of the configuration.
_FIRST = next(part for part in PARTS.values() if not part.needs)


@dataclass(frozen=True)
class Task:
    """One element of an array: the commands it gives, in order, and the files they leave.

    commands: options of Python, the script first. leaves: relative to the working folder.
    """

    name: str
    commands: list[list[str]]
    leaves: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One job of Slurm; of several tasks it is an array.

    after: names of the jobs that must have ended well. stage: whose resources it asks for.
    threads_of: the stage by whose threads it computes. n_parts: jobs that it is one of, where there
    were too many tasks for one.
    """

    name: str
    stage: str
    tasks: list[Task]
    after: list[str]
    threads_of: str = ""
    n_parts: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        tasks = [vars(task) for task in self.tasks]
        return {**vars(self), "tasks": tasks}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Job":
        """What `to_dict` gave."""
        return Job(**{**values, "tasks": [Task(**task) for task in values["tasks"]]})


@dataclass(frozen=True)
class RunRequest:
    """What is asked of the stages; `seeds` None runs the configuration's under the plain tag.

    cycles : of stage 4, see `Task.revised_cycles`.
    """

    recipe: str
    conf: Path
    tag: str
    datadir: Path
    dumpdir: Path
    expdir: Path
    device: str
    overrides: list[str]
    first: int
    last: int
    folds: list[int]
    all_folds: bool
    cycles: list[int]
    seeds: list[int] | None = None
    cache: str | None = None

    @property
    def exp(self) -> Path:
        """Folder of the run; with several seeds, of what they share."""
        return self.expdir / self.tag

    def tags(self) -> list[tuple[str, list[str]]]:
        """Tags and the settings that are theirs."""
        if self.seeds is None:
            return [(self.tag, [])]
        return [(f"{self.tag}-seed{seed}", [f"seed={seed}"]) for seed in self.seeds]


def in_arrays(jobs: list[Job], most: int = MAX_TASKS) -> list[Job]:
    """The same jobs, those of more than `most` tasks as several: `detect-part1`, `detect-part2`."""
    parts = {job.name: range(0, len(job.tasks), most) for job in jobs}
    names = {
        name: [f"{name}-part{number}" for number in range(1, len(begins) + 1)]
        if len(begins) > 1
        else [name]
        for name, begins in parts.items()
    }
    return [
        replace(
            job,
            name=name,
            tasks=job.tasks[begin : begin + most],
            after=[part for before in job.after for part in names[before]],
            n_parts=len(parts[job.name]),
        )
        for job in jobs
        for name, begin in zip(names[job.name], parts[job.name], strict=True)
    ]


class _Builder:
    """The jobs so far; each comes after the one before it, for all work in the run's folder."""

    def __init__(self, request: RunRequest, conf: ClusterConf) -> None:
        self.request, self.conf = request, conf
        self.jobs: list[Job] = []

    def add(self, name: str, part: Part, tasks: list[Task]) -> None:
        """A further job."""
        after = [self.jobs[-1].name] if self.jobs else []
        self.jobs.append(Job(name, part.name, tasks, after, part.gathers or part.name))

    def runs(self, part: Part) -> list[tuple[str, str, list[str]]]:
        """For each run that a part is done for: its name among the seeds, its tag, its settings."""
        tags = self.request.tags()
        if self.request.seeds is None or part.per == "dump":
            return [("", *tags[0])]
        names = [f"seed{seed}" for seed in self.request.seeds]
        return [(name, *tag) for name, tag in zip(names, tags, strict=True)]

    def call(self, part: Part, tag: str, overrides: list[str], **more: Any) -> list[str]:
        """The script of a part with its options."""
        request, asked = self.request, self.conf.of((_FIRST if part is CHECK else part).name)
        values = {
            **{name: getattr(request, name) for name in ("recipe", "conf", "device", "cache")},
            **{name: getattr(request, name) for name in ("datadir", "dumpdir", "expdir")},
            "tag": tag,
            "out": request.dumpdir / "tables",
            "set": [*request.overrides, *overrides],
            "nj": asked.cpus,
            # Given only where they change anything: a task is known again by its command.
            "folds": "" if request.all_folds else " ".join(map(str, request.folds)),
            "ranks": asked.own["ranks"] if asked.own["ranks"] > 1 else None,
            "n-nodes": asked.nodes if asked.nodes > 1 else None,
        }
        return command(part, values | more)

    def tasks(self, part: Part, cycle: int) -> list[Task]:
        """The tasks of a part: one for each dump, run or fold."""
        folds = self.request.folds if part.per == "fold" else [None]
        found = []
        for fold in folds:
            for seed, tag, overrides in self.runs(part):
                name, one = seed, {}
                if fold is not None:
                    name, one = "-".join(filter(None, (seed, f"fold{fold}"))), {"folds": fold}
                words = self.call(part, tag, overrides, cycle=cycle, **one)
                words += ["--worker"] if one else []
                found.append(Task(name or "all", [words], self.leaves(part, tag, cycle, fold)))
        return found

    def leaves(self, part: Part, tag: str, cycle: int, fold: int | None) -> list[str]:
        """The files that a task leaves."""
        exp = self.request.expdir / tag
        places = {
            "tables": self.request.dumpdir / "tables",
            "features": "DUMP",
            "exp": exp,
            "cycle": exp / f"cycle{cycle}",
            "fold": exp / f"cycle{cycle}" / f"fold{fold}",
        }
        return [name.format(**places) for name in part.leaves]

    def add_part(self, part: Part, cycle: int) -> None:
        """The jobs of a part: its tasks in shares, where that is asked for, and whole."""
        n = self.conf.of(part.name).own["shards"] if part.shares else 1
        end = f"-cycle{cycle}" if part.per in ("cycle", "fold") else ""
        tasks = self.tasks(part, cycle)
        if n > 1:
            self.add(
                f"{part.name}{end}",
                part,
                [
                    Task(_share(task.name, k, n), [[*task.commands[0], "--shard", f"{k}/{n}"]])
                    for task in tasks
                    for k in range(n)
                ],
            )
        self.add(f"{part.shares if n > 1 else part.name}{end}", part, tasks)

    def add_first(self, works: list[Work]) -> None:
        """One task that checks all that the others will need, after what needs nothing itself."""
        (_, tag, overrides) = self.runs(_FIRST)[0]
        stages = " ".join(str(n) for n in dict.fromkeys(work.stage.number for work in works))
        check = self.call(CHECK, tag, overrides, stages=stages)
        tasks = [task for work in works for task in self.tasks(work.part, 0) if not work.part.needs]
        commands = [check, *(words for task in tasks for words in task.commands)]
        leaves = [name for task in tasks for name in task.leaves]
        self.add(_FIRST.name, _FIRST, [Task("all", commands, leaves)])


def _share(task: str, k: int, n: int) -> str:
    return f"shard{k}of{n}" if task == "all" else f"{task}-shard{k}of{n}"


def plan_run(request: RunRequest, conf: ClusterConf) -> list[Job]:
    """Jobs of the stages asked for, in an order in which they can run."""
    build = _Builder(request, conf)
    works = order(range(request.first, request.last + 1), request.cycles)
    build.add_first(works)
    for work in works:
        if work.part.needs:
            build.add_part(work.part, work.cycle)
    return in_arrays(build.jobs)


def plan_detect(options: list[str], out: Path, conf: ClusterConf) -> list[Job]:
    """Jobs of `bin/detect.py OPTIONS`: shares of the recordings, then the tables of all."""
    n = conf.of("detect").own["shards"]
    command = ["bin/detect.py", *options]
    shards = [Task(f"shard{k}of{n}", [[*command, "--shard", f"{k}/{n}"]]) for k in range(n)]
    whole = Task("all", [command], [f"{out}/detect.json"])
    if n == 1:
        return [Job("detect", "detect", [whole], [], "detect")]
    first = Job("detect", "detect", shards, [], "detect")
    return in_arrays([first, Job("gather", "detect", [whole], ["detect"], "detect")])
