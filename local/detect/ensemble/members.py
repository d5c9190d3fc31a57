"""The runs of a blend: where their files lie, and whether they fit together."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from local.config import load_config
from local.data.tables import tables_digest
from local.inference.score_files import (
    load_scores,
)
from local.inference.scores import (
    Scores,
)
from local.io.errors import CanopyError
from local.io.files import as_written, read_json
from local.io.limits import safe_name
from local.stages.experiment import Experiment
from local.stages.options import stage_parser
from local.stages.places import Run
from local.stages.results import cycles_done

# Sections that decide how known labels are read, scores are measured and priors corrected.
_SHARED_SECTIONS = ("data", "prior", "score")


@dataclass(frozen=True)
class Member:
    """A run, the cycle of it that is blended, and its recipe's name."""

    experiment: Experiment
    cycle: int
    recipe: str

    @property
    def name(self) -> str:
        """The run's folder, as it was given."""
        return str(self.experiment.run.exp)

    def scores(self, kind: str) -> tuple[Scores, np.ndarray]:
        """Scores of `kind` "oof" or "test", and their clip logits (N, C)."""
        return self._oof if kind == "oof" else self._test

    @cached_property
    def _oof(self) -> tuple[Scores, np.ndarray]:
        return self._load("oof")

    @cached_property
    def _test(self) -> tuple[Scores, np.ndarray]:
        return self._load("test")

    def _load(self, kind: str) -> tuple[Scores, np.ndarray]:
        path = self.experiment.run.cycle(self.cycle) / f"{kind}.npz"
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


def open_member(
    folder: Path, cycle: str = "last", datadir: Path | None = None, dumpdir: Path | None = None
) -> Member:
    """A finished run from its folder.

    Where its data and dump lie is taken from its run.json unless they are given.

    Parameters
    ----------
    cycle : "last" or a number.
    """
    if not (folder / "config.yaml").is_file():
        raise CanopyError(f"{folder}: no config.yaml, so it is no run; give folders EXPDIR/TAG")
    places = _places(folder)
    run = Run(
        config=load_config(folder / "config.yaml"),
        datadir=datadir or places["datadir"],
        dumpdir=dumpdir or places["dumpdir"],
        exp=folder,
        device="cpu",
        nj=1,
        force=False,
    )
    if not run.tables.is_dir():
        raise CanopyError(
            f"{folder}: its tables are not in {run.tables}; say where its dump lies with --dumpdir"
        )
    experiment = Experiment(run)
    done = cycles_done(experiment)
    if not done:
        raise CanopyError(f"{folder}: no scores yet; run stages 2 and 3 first")
    if cycle != "last" and (not cycle.isdigit() or int(cycle) not in done):
        known = ", ".join(map(str, done))
        raise CanopyError(f"{folder}: --cycle is {cycle!r}, and finished are {known}; or give last")
    return Member(experiment, done[-1] if cycle == "last" else int(cycle), places["recipe"])


def _places(folder: Path) -> dict[str, Any]:
    """Data, dump and recipe of a run: as noted, or for older runs as its last command said."""
    path = folder / "run.json"
    record = read_json(path)
    with as_written(path):
        if {"recipe", "datadir", "dumpdir"} <= set(record):
            places = {name: Path(record[name]) for name in ("datadir", "dumpdir")}
            return {**places, "recipe": safe_name(record["recipe"], "recipe")}
        command = list(map(str, record.get("command", [])))[1:]
    options, _ = stage_parser(None).parse_known_args(command)
    return {
        "datadir": options.datadir or Path("data") / options.recipe,
        "dumpdir": options.dumpdir or Path("dump") / options.recipe,
        "recipe": options.recipe,
    }


# ----------------------------------------------------------------------------- what must be equal


def check_alike(members: list[Member], like: Member) -> None:
    """Refuse runs that cannot be blended; the first difference to `like` is named.

    Equal must be: data folder, classes and their order, known labels, scored recordings in any
    order. How priors are corrected and scores measured is compared by `check_sections`.
    """
    for other in members:
        if other is like:
            continue
        _same(like, other, "data folder", _source)
        _same_labels(like, other)
        _same(
            *(like, other, "known labels (tables/events.csv)"),
            lambda one: tables_digest(one.experiment.run.tables, "events")[:12],
        )
        for kind in ("oof", "test"):
            _same_recordings(like, other, kind)


def check_sections(members: list[Member]) -> None:
    """Refuse runs whose prior correction or scoring differ."""
    first = members[0]
    for other in members[1:]:
        for section in _SHARED_SECTIONS:
            ours, theirs = (_section(one, section) for one in (first, other))
            for key, value in ours.items():
                if theirs[key] != value:
                    raise CanopyError(
                        f"{other.name} has {section}.{key} {theirs[key]!r} and {first.name} "
                        f"{value!r}; say with --like RUN_DIR whose settings hold for the blend"
                    )


def _section(member: Member, name: str) -> dict[str, Any]:
    return getattr(member.experiment.run.config, name).model_dump(mode="json")


def _source(member: Member) -> str:
    run = member.experiment.run
    source = run.tables / "source.json"
    if not source.exists():
        return str(run.datadir.resolve())
    with as_written(source):
        return str(read_json(source)["datadir"])


def _same(first: Member, other: Member, what: str, value: Callable[[Member], Any]) -> None:
    ours, theirs = value(first), value(other)
    if ours != theirs:
        raise CanopyError(
            f"{other.name} differs from {first.name} in its {what}: {theirs} against {ours}; blend "
            "runs of the same data and preparation"
        )


def _same_labels(first: Member, other: Member) -> None:
    for kind in ("oof", "test"):
        ours, theirs = first.scores(kind)[0].labels, other.scores(kind)[0].labels
        if len(ours) != len(theirs):
            raise CanopyError(
                f"{other.name} has {len(theirs)} classes and {first.name} {len(ours)}; blend runs "
                "of the same classes"
            )
        for place, (label, found) in enumerate(zip(ours, theirs, strict=True)):
            if label != found:
                raise CanopyError(
                    f"class {place} is {found!r} in {other.name} and {label!r} in {first.name}; "
                    "blend runs of the same classes in the same order"
                )


def _same_recordings(first: Member, other: Member, kind: str) -> None:
    ours, theirs = (one.scores(kind)[0].recording_ids for one in (first, other))
    odd = sorted(set(ours) ^ set(theirs))
    if odd:
        holder, lacking = (first, other) if odd[0] in set(ours) else (other, first)
        raise CanopyError(
            f"{kind}.npz of {holder.name} has recording {odd[0]!r} and that of {lacking.name} has "
            f"not ({len(odd)} such recordings); blend runs that scored the same recordings"
        )
