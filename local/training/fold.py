"""The epochs of one fold: from the last checkpoint to the model that is kept.

The order of data is a function of (seed, cycle, fold, epoch, step), and a checkpoint holds the
rest, so a run that was stopped, wherever that was, goes on as if it had not been. Weights that are
used are an exponential moving average.
"""

import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from local.checkpoint import (
    STATES,
    load_checkpoint,
    load_last,
    model_state,
    save_checkpoint,
    save_last,
    save_step,
)
from local.config import Config
from local.errors import CanopyError
from local.files import remove_leftovers, write_csv
from local.inference import Scores, clip_logits, score_recordings
from local.interruption import Interrupted, stop_if_asked
from local.scoring import score_known
from local.training.state import load_training_state, training_state
from local.training.steps import BAD_BATCH, BAD_STATE, Learner
from local.training.task import FoldTask, Progress

log = logging.getLogger("canopy")


class Trainer(Learner):
    """Trains one fold: `Trainer(task, config).run()` ends with `best.pt` in the task's folder."""

    def __init__(
        self, task: FoldTask, config: Config, initial: dict[str, torch.Tensor] | None = None
    ) -> None:
        super().__init__(task, config, initial)
        self._saved_at = time.monotonic()
        self._timing: list[dict[str, float]] = []

    # ------------------------------------------------------------------------------------- run

    def run(self) -> None:
        """Train to the last epoch, from the last checkpoint when there is one.

        Raises
        ------
        Interrupted
            A signal asked for it; the state is saved.
        """
        remove_leftovers(self.task.folder)
        self._resume()
        n_epochs = self.config.train.n_epochs
        # Takes seconds to import, which inference need not wait for.
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(
            str(self.task.folder / "tensorboard"), purge_step=self.progress.epoch
        )
        bar = tqdm(
            total=n_epochs,
            initial=self.progress.epoch,
            desc=self.task.name,
            disable=None,
            leave=False,
        )
        try:
            while self.progress.epoch < n_epochs:
                self._epoch(writer)
                bar.update()
        except Interrupted:
            self._save_step()
            raise
        finally:
            bar.close()
            writer.close()
        for name in (BAD_BATCH, BAD_STATE):
            (self.task.folder / name).unlink(missing_ok=True)

    def _epoch(self, writer: Any) -> None:
        epoch, first = self.progress.epoch, self.progress.step
        begun = time.monotonic()
        losses = self._train_epoch(epoch)
        seconds = time.monotonic() - begun
        row: dict[str, Any] = {"epoch": epoch + 1, **losses}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["skipped_steps"] = self.progress.skipped
        last = epoch + 1 == self.config.train.n_epochs
        row.update(self._validate() if last or self._is_due(epoch) else _not_validated())
        n_windows = max(0, self.n_windows - first * self.config.train.batch_size)
        speed = {
            "epoch": epoch + 1,
            "seconds": seconds,
            "windows_per_s": n_windows / max(seconds, 1e-9),
        }
        self.history.append(row)
        self._timing.append(speed)
        self.progress.end_epoch()
        self._keep(row)
        for key, value in (row | speed).items():
            if key != "epoch" and math.isfinite(value):
                writer.add_scalar(key, value, epoch + 1)
        log.info("%s %s", self.task.name, _line(row | speed, self.config.train.n_epochs))

    def _is_due(self, epoch: int) -> bool:
        return (epoch + 1) % self.config.train.validate_every == 0

    # ------------------------------------------------------------------------------- validation

    def _validate(self) -> dict[str, float]:
        """Score the held-out fold with the inference that stage 3 uses."""
        # What the last step needed would not be done again for a run that is stopped in here.
        stop_if_asked(f"the validation after epoch {self.progress.epoch + 1} of {self.task.name}")
        if not self.task.held_out:
            return _not_validated()
        model = self.ema.module.eval()
        scores: Scores = score_recordings(
            model, self.task.dump, self.task.held_out, self.task.labels, self.task.device
        )
        clip = clip_logits(scores, self.config.inference.pool)
        quiet = self.config.model_copy(
            update={"score": self.config.score.model_copy(update={"n_bootstrap": 0})}
        )
        known = score_known(scores, clip, self.task.events, quiet)
        return {"valid": known["value"], "valid_span_auc": known.get("span_auc", math.nan)}

    # -------------------------------------------------------------------------- what is kept

    def _keep(self, row: dict[str, Any]) -> None:
        """Write what an epoch leaves: the model first, the state that says it is done last."""
        folder = self.task.folder
        by_score = self.config.train.select == "best"
        score = row["valid"] if by_score else float(self.progress.epoch)
        if math.isfinite(score) and score > self.progress.best_score:
            self.progress.best_score = score
            if by_score or self.progress.epoch == self.config.train.n_epochs:
                self.progress.best_epoch = row["epoch"]
                self._save_best()
        if by_score and self.progress.epoch == self.config.train.n_epochs:
            self._require_best(folder)
        self._write_logs()
        save_last(folder, training_state(self))
        self._saved_at = time.monotonic()

    def _save_best(self) -> None:
        state = model_state(self.ema.module, self.recipe)
        epoch = self.progress.best_epoch
        save_checkpoint(self.task.folder / "best.pt", {**state, "epoch": epoch})

    def _write_logs(self) -> None:
        """What every run of these settings writes alike, and what the clock says of this one."""
        write_csv(self.task.folder / "log.csv", pd.DataFrame(self.history))
        write_csv(self.task.folder / "timing.csv", pd.DataFrame(self._timing))

    def _require_best(self, folder: Path) -> None:
        if self.progress.best_epoch == 0:
            raise CanopyError(
                f"{self.task.name}: train.select is best, but no epoch had a validation score (no "
                "known positives in the held-out fold); set train.select to none"
            )

    def _between_steps(self) -> None:
        stop_if_asked(self._place(self.progress.epoch))
        if time.monotonic() - self._saved_at >= 60 * self.config.train.save_minutes:
            self._save_step()

    def _save_step(self) -> None:
        """Save the state within an epoch, where there is one to speak of that is whole."""
        # With gradients waiting, what was saved before stands.
        if self.progress.step > 0 and self._n_seen == 0:
            save_step(self.task.folder, training_state(self))
        self._saved_at = time.monotonic()

    # ----------------------------------------------------------------------------------- resume

    def _resume(self) -> None:
        folder = self.task.folder
        state = load_last(folder)
        if state is None:
            return
        stands = Progress(**state["progress"])
        best_is_there = self._best_is_there(stands)
        # At the end of the very epoch that was chosen the state holds the model.
        if not best_is_there and (stands.step > 0 or stands.epoch != stands.best_epoch):
            log.warning("%s: training begins anew, nothing else holds best.pt", self.task.name)
            for name in STATES:
                (folder / name).unlink(missing_ok=True)
            return
        load_training_state(self, state)
        self._timing = _read_timing(folder / "timing.csv", stands.epoch)
        if not best_is_there:
            self._save_best()
        if self.history:
            # A later one was written for an epoch that is done again.
            self._write_logs()
        place = (self.task.name, stands.epoch, stands.step)
        log.info("%s: going on after epoch %d and %d batches", *place)

    def _best_is_there(self, stands: Progress) -> bool:
        """Whether `best.pt` is what the state says, or becomes so.

        A later one than the state knows is of an epoch that is done again, and comes out the same.
        """
        if stands.best_epoch == 0:
            return True
        path = self.task.folder / "best.pt"
        try:
            found = int(load_checkpoint(path).get("epoch", 0))
        except CanopyError as error:
            log.warning("%s", error)
            return False
        if found < stands.best_epoch:
            log.warning("%s is of epoch %d, not of epoch %d", path, found, stands.best_epoch)
        return found >= stands.best_epoch


def _read_timing(path: Path, n_epochs: int) -> list[dict[str, float]]:
    """Rows of the first `n_epochs`; none when the file cannot be read, as nothing depends on it."""
    try:
        timing = pd.read_csv(path)
        rows = timing[timing["epoch"] <= n_epochs]
        return rows[["epoch", "seconds", "windows_per_s"]].to_dict("records")
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _not_validated() -> dict[str, float]:
    return {"valid": math.nan, "valid_span_auc": math.nan}


def _line(row: dict[str, Any], n_epochs: int) -> str:
    losses = " ".join(f"{key} {row[key]:.4f}" for key in row if key.startswith("loss_"))
    line = f"epoch {row['epoch']}/{n_epochs} {losses} lr {row['lr']:.2e}"
    line += f" {row['windows_per_s']:.0f} windows/s"
    if np.isfinite(row["valid"]):
        line += f" valid {row['valid']:.4f} span AUC {row['valid_span_auc']:.4f}"
    return line
