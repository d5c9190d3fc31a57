"""What the stages of training, inference and relabelling agree on: who trains on what, who scores
whom, and where it is written. The leakage rules live here.
"""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from local.data.folds import read_folds
from local.data.reviewed import merge_reviewed, read_reviewed
from local.data.tables import EVENT_COLUMNS, Tables, check_events, read_table, read_tables
from local.features.store import FeatureStore
from local.io.errors import CanopyError
from local.io.files import as_written, file_digest, read_json, write_csv
from local.stages.inputs import stage_stamp
from local.stages.run import Run
from local.stages.stamps import Stamp
from local.tasks.task_registry import create_task

if TYPE_CHECKING:
    from local.models.task_contract import Outputs, Task

log = logging.getLogger("canopy")

# In the folder of the first cycle that was not made: why.
ENDED = "ended.json"


@dataclass(frozen=True)
class Experiment:
    """One run's tables, folds and dump, and the rules between them."""

    run: Run

    @cached_property
    def task(self) -> "Task":
        """What is learned."""
        return create_task(self.run.config)

    @cached_property
    def tables(self) -> Tables:
        """The prepared tables."""
        return read_tables(self.run.tables)

    @cached_property
    def dump(self) -> FeatureStore:
        """Features of stage 0."""
        return FeatureStore(self.run.features, self.run.config, self.run.cache)

    @cached_property
    def fold_of(self) -> dict[str, int]:
        """Fold of every recording."""
        folds = read_folds(
            self.run.exp / "folds.csv", self.tables.recordings, self.run.config.split.n_folds
        )
        return dict(zip(folds["recording_id"], folds["fold"].astype(int), strict=True))

    @property
    def folds(self) -> list[int]:
        """Numbers of all folds."""
        return list(range(self.run.config.split.n_folds))

    @cached_property
    def groups(self) -> dict[str, str]:
        """Group of every recording."""
        frame = self.tables.recordings
        return dict(zip(frame["recording_id"], frame["group"], strict=True))

    def ids(self, *subsets: str) -> list[str]:
        """Readable recordings of the subsets, in table order."""
        return [name for name in self.tables.subset(*subsets)["recording_id"] if name in self.dump]

    # ---------------------------------------------------------------------------- who sees what

    @property
    def reviewed_paths(self) -> list[Path]:
        """Files of reviewed rows."""
        return [self.run.datadir / name for name in self.run.config.data.reviewed]

    @cached_property
    def reviewed(self) -> pd.DataFrame:
        """Reviewed rows of the subsets that `data.reviewed_subsets` names."""
        durations = self.tables.recordings.set_index("recording_id")["duration"]
        rows = read_reviewed(self.reviewed_paths, durations, self.tables.labels)
        subsets = self.run.config.data.reviewed_subsets
        used = rows["recording_id"].isin(self.tables.subset(*subsets)["recording_id"])
        if not used.all():
            log.warning(
                "data.reviewed: %d of %d rows are left out, of recordings outside %s",
                *(int((~used).sum()), len(rows), ", ".join(subsets) or "any subset"),
            )
        return rows[used].reset_index(drop=True)

    @cached_property
    def known_events(self) -> pd.DataFrame:
        """Rows that people made: the recipe's and the reviewed ones. Models learn from them.

        Scores are taken on `tables.events`, the recipe's alone: reviewed rows lie where a model
        fired, and a run with them could not be compared with the run before.
        """
        events = self.tables.events[list(EVENT_COLUMNS)]
        return merge_reviewed(events, self.reviewed) if self.reviewed_paths else events

    @property
    def known_tables(self) -> Tables:
        """The prepared tables with `known_events` in place of the recipe's."""
        return replace(self.tables, events=self.known_events)

    def events(self, cycle: int) -> pd.DataFrame:
        """Known rows, and from cycle 1 on the pseudo rows made for that cycle, if it has such."""
        if cycle == 0 or self.run.config.relabel.kind == "soft":
            return self.known_events
        path = self.run.cycle(cycle) / "pseudo_events.csv"
        pseudo = read_table(path, EVENT_COLUMNS)
        durations = self.tables.recordings.set_index("recording_id")["duration"]
        check_events(pseudo, durations, self.tables.labels, path)
        return pd.concat([self.known_events, pseudo], ignore_index=True)

    def soft_ids(self, cycle: int) -> set[str]:
        """Recordings that have soft labels in a cycle."""
        if cycle == 0 or self.run.config.relabel.kind != "soft":
            return set()
        table = read_table(self.run.cycle(cycle) / "soft_recordings.csv", ("recording_id",))
        return set(table["recording_id"].astype(str))

    def training_ids(self, cycle: int, fold: int) -> list[str]:
        """Recordings that fold `fold` may draw windows from: never its own.

        Train recordings; also those of other subsets that have reviewed rows or, in later cycles,
        pseudo rows or soft labels.
        """
        names = set(self.ids("train")) | self.soft_ids(cycle)
        if cycle > 0:
            names |= set(self.events(cycle)["recording_id"])
        elif self.reviewed_paths:
            names |= set(self.reviewed["recording_id"])
        own = self.fold_of
        return [name for name in self.dump_ids if name in names and own[name] != fold]

    def background_ids(self, fold: int) -> list[str]:
        """Unlabelled recordings of other folds that are laid under windows, where that is asked."""
        augment = self.run.config.augment
        if augment.background_p == 0 or augment.background_from != "unlabelled":
            return []
        return [name for name in self.ids("unlabelled") if self.fold_of[name] != fold]

    @cached_property
    def dump_ids(self) -> list[str]:
        """All readable recordings in table order."""
        return [name for name in self.tables.recordings["recording_id"] if name in self.dump]

    def held_out_ids(self, fold: int) -> list[str]:
        """Train recordings of the fold."""
        return [name for name in self.ids("train") if self.fold_of[name] == fold]

    def write_seen(self, cycle: int, fold: int) -> Path:
        """Note which recordings and groups a fold's model sees in training."""
        names = list(dict.fromkeys([*self.training_ids(cycle, fold), *self.background_ids(fold)]))
        path = self.run.fold(cycle, fold) / "seen.csv"
        groups = [self.groups[name] for name in names]
        write_csv(path, pd.DataFrame({"recording_id": names, "group": groups}))
        return path

    def seen_groups(self, cycle: int, fold: int) -> set[str]:
        """Groups that a fold's model saw, and those its starting weights saw."""
        folders = self.seen_folders(cycle, fold).values()
        return set[str]().union(*map(_read_seen, folders))

    def seen_folders(self, cycle: int, fold: int) -> dict[str, Path]:
        """Folders whose `seen.csv` lists what a fold's model and its starting weights saw."""
        folders = {"own": self.run.fold(cycle, fold)}
        if cycle > 0 and self.run.config.relabel.start == "cycle0":
            return {**self.seen_folders(0, fold), "cycle0": self.run.fold(0, fold), **folders}
        for key, path in self.first_weights(fold).items():
            if (path.parent / "seen.csv").is_file():
                folders[key] = path.parent
        return folders

    def first_weights(self, fold: int) -> dict[str, Path]:
        """Files that a fold takes first weights from, by the key that names them."""
        model = self.run.config.model
        named = {"model.init": model.init_of(fold)}
        weights = model.params.get("weights")
        named["model.params.weights"] = Path(weights) if isinstance(weights, str) else None
        return {key: path for key, path in named.items() if path is not None}

    # ---------------------------------------------------------------------------- who scores whom

    def scored_ids(self, cycle: int, fold: int) -> list[str]:
        """Recordings a fold's model scores: all that its training did not see, and all of test."""
        seen = self.seen_groups(cycle, fold)
        test = set(self.ids("test"))
        return [name for name in self.dump_ids if name in test or self.groups[name] not in seen]

    def merge_unseen(self, cycle: int, parts: "dict[int, Outputs]") -> "tuple[Outputs, np.ndarray]":
        """Outputs for every recording of models that never saw its group, and which took part.

        Returns
        -------
        outputs : of the recordings that at least one of the given folds may score.
        used : (N, K) bool, fold k took part; K is the number of folds of the split.
        """
        seen = {fold: self.seen_groups(cycle, fold) for fold in parts}
        chosen = {
            name: tuple(fold for fold in parts if self.groups[name] not in seen[fold])
            for name in self.dump_ids
        }
        names = [name for name in self.dump_ids if chosen[name]]
        none, merged = next(iter(parts.values())).take([]), []
        for folds in sorted({chosen[name] for name in names}):
            group = [name for name in names if chosen[name] == folds]
            merged.append(self.task.combine([parts[fold].take(group) for fold in folds]))
        used = np.zeros((len(names), len(self.folds)), dtype=bool)
        for row, name in enumerate(names):
            used[row, list(chosen[name])] = True
        return none.join(merged).take(names), used

    def merge_test(self, parts: "dict[int, Outputs]") -> "Outputs":
        """What all folds say together of the test recordings; of none where there are none."""
        names = self.ids("test")
        return self.task.combine([outputs.take(names) for outputs in parts.values()])

    def ended(self, cycle: int) -> str:
        """Why the cycles ended before this one, in words; "" where they did not.

        Stage 4 of the first cycle that is not made writes it down in that cycle's folder.
        """
        for earlier in range(1, cycle + 1):
            path = self.run.cycle(earlier) / ENDED
            if path.is_file():
                with as_written(path):
                    return str(read_json(path)["reason"])
        return ""

    def cycles_done(self) -> list[int]:
        """Cycles up to the last whose outputs are there, each made from those of the one before."""
        done: list[int] = []
        for cycle in [0, *(cycle for cycle in self.task.revised_cycles if cycle > 0)]:
            folder = self.run.cycle(cycle)
            if self.ended(cycle):
                break
            if not (folder / "merge.done.json").exists():
                break
            if cycle > 0 and not _follows(folder, self.run.cycle(cycle - 1)):
                log.warning("%s was made from other scores than those of the cycle before", folder)
                break
            done.append(cycle)
        return done

    # ------------------------------------------------------------------------------------ stamps

    def stamp(self, stage: str, cycle: int = 0, fold: int = 0, **parts: Any) -> Stamp:
        """The mark that a stage is done with these settings and inputs; see `stage_stamp`."""
        return stage_stamp(self, stage, cycle, fold, **parts)

    def require_trained(self, cycle: int, fold: int) -> None:
        """Refuse a model that is not there, or was trained with other settings or tables."""
        if not self.stamp("train", cycle, fold).matches():
            raise CanopyError(
                f"{self.run.fold(cycle, fold)}: no model that was trained with these settings on "
                "these tables; run stage 2 first"
            )


def is_over(run: Run, cycle: int) -> bool:
    """Whether cycles ended before this one, with a line that says why: nothing is to be done."""
    why = Experiment(run).ended(cycle)
    if why:
        log.info("no cycle %d: %s", cycle, why)
    return bool(why)


def submitted_cycle(results: dict[str, Any]) -> int:
    """The cycle that is handed in, of results.json."""
    last: int = results["cycles"][-1]["cycle"]
    return int(results.get("submitted", {}).get("cycle", last))


def _follows(folder: Path, before: Path) -> bool:
    """Whether what a cycle learns from came from the outputs that the one before has now."""
    stamp = folder / "relabel.done.json"
    if not stamp.exists():
        return False
    with as_written(stamp):
        made_from = read_json(stamp)["notes"].get("made_from")
    return made_from == file_digest(before / "oof.npz")


def _read_seen(folder: Path) -> set[str]:
    """Groups that `seen.csv` in a fold's folder lists."""
    return set(read_table(folder / "seen.csv", ("recording_id", "group"))["group"])
