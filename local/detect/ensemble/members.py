"""The runs of a blend: where their files lie, and whether they fit together."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from local.config import load_config
from local.data.tables import tables_digest
from local.inference.score_files import load_scores
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.files import as_written, read_json
from local.io.limits import safe_name
from local.stages.experiment import Experiment, submitted_cycle
from local.stages.run import Run
from local.stages.run_record import read_work

# Sections that decide how known labels are read, scores are measured and priors corrected.
_SHARED_SECTIONS = ("data", "prior", "score")


@dataclass(frozen=True)
class Member:
    """A finished run, the cycle of it that counts, and its recipe's name."""

    experiment: Experiment
    recipe: str
    cycle: int

    @property
    def name(self) -> str:
        """The run's folder, as it was given."""
        return str(self.experiment.run.exp)

    @cached_property
    def oof(self) -> tuple[Scores, np.ndarray]:
        """Out-of-fold scores and their clip logits (N, C), read when they are asked for."""
        return _load(self.experiment.run.cycle(self.cycle) / "oof.npz")

    @cached_property
    def test(self) -> tuple[Scores, np.ndarray]:
        """Test scores and their clip logits (N, C)."""
        return _load(self.experiment.run.cycle(self.cycle) / "test.npz")


def check_folders(runs: list[Path], out: Path, like: Path | None) -> None:
    """Refuse one run alone, a run given twice, and to write over something else than a blend."""
    folders = [folder.resolve() for folder in runs]
    if len(folders) < 2:
        raise CanopyError(f"a blend needs two runs or more, and only {runs[0]} is given")
    for row, folder in enumerate(folders):
        if folder in folders[:row]:
            raise CanopyError(f"{runs[row]} is given twice; give it a larger weight instead")
    if like is not None and like.resolve() not in folders:
        raise CanopyError(f"--like {like} is none of the runs that are blended")
    if out.resolve() in folders or (out / "config.yaml").exists():
        raise CanopyError(f"--out {out} is the folder of a run; give a folder of its own")
    if out.exists() and not out.is_dir():
        raise CanopyError(f"--out {out} is a file; give a folder")


def open_member(
    folder: Path, cycle: str = "submitted", datadir: Path | None = None, dumpdir: Path | None = None
) -> Member:
    """A finished run from its folder; data and dump lie where it noted them, or as given.

    Parameters
    ----------
    cycle : "submitted", the one that stage 5 handed in (where it did not run, the last); "last",
        the last finished one; or a number.
    """
    if not (folder / "config.yaml").is_file():
        raise CanopyError(f"{folder}: has no config.yaml, so it is no run; give folders EXPDIR/TAG")
    records = read_work(folder)
    with as_written(folder / "run.json"):
        record = list(records.values())[-1]
        recipe = safe_name(record["recipe"], "recipe")
        datadir, dumpdir = datadir or Path(record["datadir"]), dumpdir or Path(record["dumpdir"])
    run = Run(load_config(folder / "config.yaml"), datadir, dumpdir, folder, "cpu", 1, False)
    if not run.tables.is_dir():
        raise CanopyError(
            f"{folder}: its tables are not in {run.tables}; say where its dump lies with --dumpdir"
        )
    experiment = Experiment(run)
    done = experiment.cycles_done()
    if not done:
        raise CanopyError(f"{folder}: no scores yet; run stages 2 and 3 first")
    if cycle not in ("submitted", "last") and (not cycle.isdigit() or int(cycle) not in done):
        known = ", ".join(map(str, done))
        raise CanopyError(
            f"{folder}: --cycle is {cycle!r}, and finished are {known}; or give submitted or last"
        )
    chosen = int(cycle) if cycle.isdigit() else done[-1]
    if cycle == "submitted":
        chosen = _submitted(folder, done)
    return Member(experiment, recipe, chosen)


def _submitted(folder: Path, done: list[int]) -> int:
    """The cycle that stage 5 handed in; the last where it did not run, or is not of these."""
    path = folder / "results.json"
    if not path.is_file():
        return done[-1]
    with as_written(path):
        chosen = submitted_cycle(read_json(path))
    return chosen if chosen in done else done[-1]


def _load(path: Path) -> tuple[Scores, np.ndarray]:
    scores, members = load_scores(path)
    clip = members["clip_logit"].astype(np.float64)
    bad = np.argwhere(~np.isfinite(clip))
    if len(bad):
        row, column = bad[0]
        raise CanopyError(
            f"{path}: {scores.recording_ids[row]} has {clip[row, column]} for "
            f"{scores.labels[column]}, no finite logit; infer again"
        )
    return scores, clip


def check_alike(members: list[Member], like: Member | None) -> None:
    """Refuse runs that cannot be blended; the first difference is named.

    Equal must be: data folder, classes and their order, known labels, scored recordings in any
    order, and how priors are corrected and scores measured, unless `like` says whose settings hold.
    """
    first = like or members[0]
    for other in members:
        _refuse(first, other, _facts, "blend runs of the same data and preparation")
        if like is None:
            _refuse(first, other, _settings, "say with --like RUN_DIR whose settings hold")


def _refuse(first: Member, other: Member, facts_of: Any, remedy: str) -> None:
    ours, theirs = facts_of(first), facts_of(other)
    for what in ours | theirs:
        if ours.get(what) != theirs.get(what):
            raise CanopyError(
                f"{other.name} differs from {first.name} in {what}: {theirs.get(what)!r} against "
                f"{ours.get(what)!r}; {remedy}"
            )


def _facts(member: Member) -> dict[str, Any]:
    """What all runs of a blend must have in common, by its name."""
    run = member.experiment.run
    facts: dict[str, Any] = {"data folder": _source(run)}
    for kind, (scores, _) in (("oof", member.oof), ("test", member.test)):
        facts |= {f"class {i} of {kind}.npz": label for i, label in enumerate(scores.labels)}
        facts |= {f"recording {one!r} of {kind}.npz": True for one in scores.recording_ids}
    return facts | {"known labels (tables/events.csv)": tables_digest(run.tables, "events")[:12]}


def _settings(member: Member) -> dict[str, Any]:
    settings = member.experiment.run.config.model_dump(mode="json", include=set(_SHARED_SECTIONS))
    return {f"{name}.{key}": settings[name][key] for name in settings for key in settings[name]}


def _source(run: Run) -> str:
    """The raw data that the tables were made of."""
    source = run.tables / "source.json"
    if not source.exists():
        return str(run.datadir.resolve())
    with as_written(source):
        return str(read_json(source)["datadir"])
