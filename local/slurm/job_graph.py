"""A run as jobs: which, of which tasks, after which, and what each task calls."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from local.slurm.conf import ClusterConf

# Slurm's arrays hold 1001 tasks, unless a site says otherwise (MaxArraySize).
MAX_TASKS = 1000


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
    """What is asked of the stages; `seeds` None runs the configuration's under the plain tag."""

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
    n_cycles: int
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
    """The jobs so far; each comes after the one before it."""

    def __init__(self, request: RunRequest, conf: ClusterConf) -> None:
        self.request, self.conf = request, conf
        self.jobs: list[Job] = []

    def add(self, name: str, stage: str, tasks: list[Task], threads_of: str = "") -> None:
        after = [self.jobs[-1].name] if self.jobs else []
        self.jobs.append(Job(name, stage, tasks, after, threads_of or stage))

    def call(self, script: str, stage: str, which: tuple[str, list[str]], *more: str) -> list[str]:
        """A stage's script with the options that all take."""
        request, (tag, overrides) = self.request, which
        command = [script, "--recipe", request.recipe, "--conf", str(request.conf), "--tag", tag]
        command += ["--datadir", str(request.datadir), "--dumpdir", str(request.dumpdir)]
        command += ["--expdir", str(request.expdir), "--device", request.device]
        command += ["--nj", str(self.conf.of(stage).cpus)]
        if request.cache is not None and stage in ("train", "infer"):
            command += ["--cache", request.cache]
        for text in [*request.overrides, *overrides]:
            command += ["--set", text]
        return [*command, *more]

    def each(self, suffix: str = "") -> list[tuple[str, tuple[str, list[str]]]]:
        """Name of a task and its tag, for each seed."""
        tags = self.request.tags()
        if self.request.seeds is None:
            return [(suffix or "all", tags[0])]
        names = [f"seed{seed}" for seed in self.request.seeds]
        return [("-".join(filter(None, (n, suffix))), t) for n, t in zip(names, tags, strict=True)]


def plan_run(request: RunRequest, conf: ClusterConf) -> list[Job]:
    """Jobs of the stages asked for, in an order in which they can run."""
    build = _Builder(request, conf)
    stages = range(request.first, request.last + 1)
    _prepare(build, stages)
    if 0 in stages:
        _preprocess(build)
    if 1 in stages:
        tasks = [
            Task(
                name, [build.call("bin/split.py", "split", tag)], [f"{_exp(build, tag)}/folds.csv"]
            )
            for name, tag in build.each()
        ]
        build.add("split", "split", tasks)
    if 2 in stages:
        _train(build, 0)
    if 3 in stages:
        _infer(build, 0)
    if 4 in stages:
        for cycle in range(1, request.n_cycles + 1):
            _relabel(build, cycle)
            _train(build, cycle)
            _infer(build, cycle)
    if 5 in stages:
        tasks = [
            Task(
                name,
                [build.call("bin/submit.py", "submit", tag)],
                [f"{_exp(build, tag)}/{file}" for file in ("submission.csv", "submit.done.json")],
            )
            for name, tag in build.each()
        ]
        build.add("submit", "submit", tasks)
    return in_arrays(build.jobs)


def _exp(build: _Builder, tag: tuple[str, list[str]]) -> str:
    return str(build.request.expdir / tag[0])


def _prepare(build: _Builder, stages: range) -> None:
    request = build.request
    tag = request.tags()[0]
    check = build.call("bin/check_config.py", "prepare", tag)
    commands = [[*check, "--stages", " ".join(map(str, stages))]]
    if 0 in stages:
        script = f"recipes/{request.recipe}/prepare.py"
        tables = request.dumpdir / "tables"
        command = [script, "--datadir", str(request.datadir), "--out", str(tables)]
        command += ["--conf", str(request.conf), "--nj", str(build.conf.of("prepare").cpus)]
        for text in request.overrides:
            command += ["--set", text]
        commands.append(command)
    stamps = [f"{request.dumpdir}/tables/prepare.done.json"] if 0 in stages else []
    build.add("prepare", "prepare", [Task("all", commands, stamps)])


def _preprocess(build: _Builder) -> None:
    """Shares of the recordings, then the manifest of all."""
    n = build.conf.of("preprocess").own["shards"]
    tag = build.request.tags()[0]
    if n > 1:
        shards = [
            Task(
                f"shard{k}of{n}",
                [build.call("bin/preprocess.py", "preprocess", tag, "--shard", f"{k}/{n}")],
            )
            for k in range(n)
        ]
        build.add("preprocess", "preprocess", shards)
    whole = Task("all", [build.call("bin/preprocess.py", "preprocess", tag)], ["DUMP/manifest.csv"])
    build.add("manifest" if n > 1 else "preprocess", "preprocess", [whole])


def _train(build: _Builder, cycle: int) -> None:
    tasks = []
    for fold in build.request.folds:
        for name, tag in build.each(f"fold{fold}"):
            options = ["--cycle", str(cycle), "--worker", "--folds", str(fold)]
            # Given only where they change anything: a task is known again by its command.
            asked = build.conf.of("train")
            for option, number in (("--ranks", asked.own["ranks"]), ("--n-nodes", asked.nodes)):
                options += [option, str(number)] if number > 1 else []
            folder = f"{_exp(build, tag)}/cycle{cycle}/fold{fold}"
            leaves = [f"{folder}/train.done.json", f"{folder}/best.pt"]
            tasks.append(
                Task(name, [build.call("bin/sed_train.py", "train", tag, *options)], leaves)
            )
    build.add(f"train-cycle{cycle}", "train", tasks)


def _infer(build: _Builder, cycle: int) -> None:
    """Folds, in shares where asked for, then what they make together."""
    n = build.conf.of("infer").own["shards"]
    shards, folds = [], []
    for fold in build.request.folds:
        options = ("--cycle", str(cycle), "--worker", "--folds", str(fold))
        for name, tag in build.each(f"fold{fold}"):
            command = build.call("bin/sed_infer.py", "infer", tag, *options)
            folder = f"{_exp(build, tag)}/cycle{cycle}/fold{fold}"
            leaves = [f"{folder}/infer.done.json", f"{folder}/scores.npz"]
            folds.append(Task(name, [command], leaves))
            for k in range(n):
                shards.append(Task(f"{name}-shard{k}of{n}", [[*command, "--shard", f"{k}/{n}"]]))
    if n > 1:
        build.add(f"infer-cycle{cycle}", "infer", shards)
    build.add(f"{'gather' if n > 1 else 'infer'}-cycle{cycle}", "infer", folds)
    which = () if build.request.all_folds else ("--folds", " ".join(map(str, build.request.folds)))
    merged = []
    for name, tag in build.each():
        command = build.call("bin/sed_infer.py", "merge", tag, "--cycle", str(cycle), *which)
        folder = f"{_exp(build, tag)}/cycle{cycle}"
        merged.append(Task(name, [command], [f"{folder}/oof.npz", f"{folder}/merge.done.json"]))
    build.add(f"merge-cycle{cycle}", "merge", merged, "infer")


def _relabel(build: _Builder, cycle: int) -> None:
    tasks = [
        Task(
            name,
            [build.call("bin/relabel.py", "relabel", tag, "--cycle", str(cycle))],
            [f"{_exp(build, tag)}/cycle{cycle}/pseudo_events.csv"],
        )
        for name, tag in build.each()
    ]
    build.add(f"relabel-cycle{cycle}", "relabel", tasks)


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
