"""Stage 3: sliding-window inference of every fold, and what the folds' scores make together."""

import logging
from argparse import Namespace
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from local.inference.score_files import PartialScores
from local.io.errors import CanopyError
from local.io.files import fingerprint
from local.jobs.devices import set_threads
from local.jobs.locks import lock_folder
from local.jobs.shards import Shard
from local.stages.experiment import Experiment, is_over
from local.stages.fold_processes import run_folds
from local.stages.run import Run
from local.stages.run_record import note_work
from local.stages.stage_options import chosen_folds

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("canopy")


def infer_as_worker(run: Run, args: Namespace, shard: Shard | None) -> None:
    """Score with the folds asked for one after another in this process, or a share of one's."""
    set_threads()
    if is_over(run, args.cycle):
        return
    folds = chosen_folds(args.folds, run.config.split.n_folds)
    if shard is not None and len(folds) > 1:
        raise CanopyError("--shard goes with one fold; name it, as in --folds 0")
    for fold in folds:
        folder = run.fold(args.cycle, fold)
        with lock_folder(folder, f"fold {fold}", shared=shard is not None):
            infer_fold(run, args.cycle, fold, shard)


def infer_folds(run: Run, args: Namespace, argv: list[str]) -> None:
    """Score with the folds asked for, in processes of their own, then merge them."""
    experiment = Experiment(run)
    if is_over(run, args.cycle):
        return
    folds = chosen_folds(args.folds, run.config.split.n_folds)
    for fold in folds:
        experiment.require_trained(args.cycle, fold)
    waiting = [fold for fold in folds if not _is_done(experiment, args.cycle, fold)]
    for fold in set(folds) - set(waiting):
        PartialScores.discard(run.fold(args.cycle, fold))
    run_folds(run, waiting, args.n_gpus, argv)
    merge(experiment, args.cycle, folds)


def _is_done(experiment: Experiment, cycle: int, fold: int) -> bool:
    scored = experiment.stamp("infer", cycle, fold).is_done(experiment.run.force)
    return scored and _has_further(experiment, cycle, fold)


def _has_further(experiment: Experiment, cycle: int, fold: int) -> bool:
    """Whether the task's further file of a fold is there, or there is to be none."""
    if experiment.task.further(experiment, cycle, fold) is None:
        return True
    run = experiment.run
    scores = run.fold(cycle, fold) / "scores.npz"
    return scores.is_file() and experiment.stamp("further", cycle, fold).is_done(run.force)


def infer_fold(run: Run, cycle: int, fold: int, shard: Shard | None = None) -> None:
    """Score with one fold's model, then make the task's further file, if it has one."""
    experiment = Experiment(run)
    model = experiment.task.load_model(experiment, run.fold(cycle, fold) / "best.pt")
    if not experiment.stamp("infer", cycle, fold).is_done(run.force):
        score_fold(experiment, cycle, fold, model, shard)
    if shard is None and not _has_further(experiment, cycle, fold):
        _make_further(experiment, cycle, fold, model)


def _make_further(experiment: Experiment, cycle: int, fold: int, model: "nn.Module") -> None:
    task, stamp = experiment.task, experiment.stamp("further", cycle, fold)
    stamp.clear()
    note_work(experiment.run, "infer")
    task.write_further(experiment, cycle, fold, model)
    stamp.write([path for path in [task.further(experiment, cycle, fold)] if path is not None])


def score_fold(
    experiment: Experiment, cycle: int, fold: int, model: "nn.Module", shard: Shard | None
) -> None:
    """Score all that a fold's model may score, or a share of it."""
    run, task = experiment.run, experiment.task
    folder = run.fold(cycle, fold)
    stamp = experiment.stamp("infer", cycle, fold)
    stamp.clear()
    note_work(run, "infer")
    names = experiment.scored_ids(cycle, fold)
    progress = f"infer cycle{cycle}/fold{fold}"
    # The number of threads decides the last digits, as it does from one run to another.
    made_by = {
        "stamp": stamp.fingerprint,
        "recordings": names,
        "device": run.device,
        "threads": torch.get_num_threads(),
    }
    kept = PartialScores(folder, fingerprint(made_by), shard, task.save, task.load)
    with closing(kept):
        outputs = task.score(experiment, model, names, progress, kept, shard)
    if shard is not None:
        return
    task.save(folder / "scores.npz", outputs)
    stamp.write([folder / "scores.npz"])
    kept.remove()
    log.info("cycle%d/fold%d: %d recordings scored", cycle, fold, len(names))


def merge(experiment: Experiment, cycle: int, folds: list[int]) -> None:
    """Write the out-of-fold and test scores of a cycle."""
    run, task, folder = experiment.run, experiment.task, experiment.run.cycle(cycle)
    paths = [run.fold(cycle, fold) / "scores.npz" for fold in folds]
    stamp = experiment.stamp("merge", cycle, folds=folds)
    if stamp.is_done(run.force):
        return
    stamp.clear()
    note_work(run, "infer")
    parts = {fold: task.load(path)[0] for fold, path in zip(folds, paths, strict=True)}
    unseen, used = experiment.merge_unseen(cycle, parts)
    task.save(folder / "oof.npz", unseen, merged=True, used=used)
    test = experiment.merge_test(parts)
    task.save(folder / "test.npz", test, merged=True)
    stamp.write([folder / "oof.npz", folder / "test.npz"])
    log.info("cycle%d: %d out-of-fold, %d test", cycle, len(used), len(test.recording_ids))
