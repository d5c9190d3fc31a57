"""The files that a stage reads, and its stamp: where the names in `dependencies` lie in a run."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.config import Config
from local.config.relevance import Dependencies, flat_settings
from local.features.front_ends.front_end_registry import front_end_of
from local.features.npz import stretched_folder
from local.io.errors import CanopyError
from local.stages.dependencies import dependencies
from local.stages.run import Run
from local.stages.stamps import Stamp

if TYPE_CHECKING:
    from local.stages.experiment import Experiment

# Where the stamp of a stage lies: for each fold, for each cycle, or once.
_FOLD_STAGES, _CYCLE_STAGES = ("train", "infer", "further"), ("merge", "relabel")


def stage_stamp(
    experiment: "Experiment",
    stage: str,
    cycle: int = 0,
    fold: int = 0,
    *,
    folds: Iterable[int] | None = None,
    cycles: Iterable[int] = (),
) -> Stamp:
    """The stamp of a stage of a run.

    Parameters
    ----------
    cycle, fold : what the stage works on, where it works by cycle or by fold.
    folds : folds that are put together; all by default.
    cycles : cycles that are put together.
    """
    run = experiment.run
    needs = dependencies(experiment.task)[stage]
    settings = stage_settings(needs, run.config, cycle)
    folds = experiment.folds if folds is None else list(folds)
    folder, settings["cycle"] = run.exp, cycle
    if stage in _FOLD_STAGES:
        folder, settings["fold"] = run.fold(cycle, fold), fold
    elif stage in _CYCLE_STAGES:
        folder, settings["folds"] = run.cycle(cycle), folds
    finder = _Finder(experiment, cycle, fold, folds, list(cycles))
    inputs = dict(finder.find(needs.read_files(run.config, cycle)))
    return Stamp(folder / f"{stage}.done.json", needs.version, settings, inputs)


def stage_settings(needs: Dependencies, config: Config, cycle: int = 0) -> dict[str, Any]:
    """The settings that matter to a stage: of those of the front end what its kind goes by."""
    settings, front_end = needs.settings(config, cycle), front_end_of(config)
    used = {"kind", "params", "keep_wave", "stretches", *front_end.settings["features"]}
    unused = {f"features.{name}" for name in type(config.features).model_fields} - {
        f"features.{name}" for name in used
    }
    if "features.kind" in settings:
        settings["front end's version"] = [front_end.version, front_end.settings["schema"]]
    return {key: value for key, value in settings.items() if key not in unused}


class _Finder:
    """Finds files by the names that `dependencies` has for them."""

    def __init__(
        self,
        experiment: "Experiment",
        cycle: int,
        fold: int,
        folds: list[int],
        cycles: list[int],
    ) -> None:
        self._experiment = experiment
        run = experiment.run
        before = max(0, cycle - 1)
        self._fold = fold
        # Folders of a place, by the name that what lies there has in a stamp.
        self._places: dict[str, dict[str, Path]] = {
            "tables": {"tables": run.tables},
            "features": {"features": run.features},
            "exp": {"exp": run.exp},
            "cycle": {"cycle": run.cycle(cycle)},
            "before": {"before": run.cycle(before)},
            "earlier": {f"cycle{c}": run.cycle(c) for c in range(before)},
            "next": {"next": run.cycle(max(cycles, default=0) + 1)},
            "fold": {"fold": run.fold(cycle, fold)},
            "cycle0-fold": {"cycle0": run.fold(0, fold)},
            "folds": {f"fold{k}": run.fold(cycle, k) for k in folds},
            "before-folds": {f"fold{k}": run.fold(before, k) for k in folds},
            "cycles": {f"cycle{c}": run.cycle(c) for c in cycles},
            "later-cycles": {f"cycle{c}": run.cycle(c) for c in cycles if c > 0},
            "cycles-folds": {f"cycle{c}/fold{k}": run.fold(c, k) for c in cycles for k in folds},
            "stretched": _stretched(run, run.config.features.stretches),
            "stretched-views": _stretched(run, run.config.inference.tta.stretches),
            "seen": experiment.seen_folders(cycle, fold),
            "seen-folds": self._seen([cycle], folds),
            "before-seen-folds": self._seen([before], folds),
            "cycles-seen-folds": self._seen(cycles, folds),
        }

    def _seen(self, cycles: list[int], folds: list[int]) -> dict[str, Path]:
        """Folders of the notes on what several models saw."""
        return {
            f"cycle{cycle}/fold{fold}/{name}": folder
            for cycle in cycles
            for fold in folds
            for name, folder in self._experiment.seen_folders(cycle, fold).items()
        }

    def find(self, names: list[str]) -> Iterator[tuple[str, Path | None]]:
        """Each file by its name in the stamp; None for one that need not be there and is not."""
        for text in names:
            place, _, name = text.rstrip("?").partition("/")
            found = self._named_by(name) if place == "key" else self._in(place, name)
            for role, path in found.items():
                there = path.is_file()
                if place == "key" and not there and not text.endswith("?"):
                    raise CanopyError(
                        f"{name}: {path} is missing; put the file there, for results depend on it"
                    )
                yield role, path if there or not text.endswith("?") else None

    def _in(self, place: str, name: str) -> dict[str, Path]:
        return {f"{role}/{name}": folder / name for role, folder in self._places[place].items()}

    def _named_by(self, key: str) -> dict[str, Path]:
        """Files that a key of the configuration names."""
        if key in ("model.init", "model.params.weights"):
            weights = self._experiment.first_weights(self._fold)
            return {key: weights[key]} if key in weights else {}
        run = self._experiment.run
        value: Any = flat_settings(run.config)[key]
        names = value if isinstance(value, list) else [value] if value else []
        return {f"{key}.{n}": run.datadir / name for n, name in enumerate(names)}


def _stretched(run: Run, factors: Iterable[float]) -> dict[str, Path]:
    return {f"x{factor:g}": stretched_folder(run.features, factor) for factor in factors}
