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

import pandas as pd
import torch
from tqdm import tqdm

from local.config import Config
from local.io.errors import CanopyError, MachineError
from local.io.files import remove_leftovers, write_csv
from local.jobs.interruption import Interrupted, requested
from local.jobs.shards import Shard
from local.models.checkpoint import (
    STATES,
    load_checkpoint,
    load_last,
    model_state,
    save_checkpoint,
    save_last,
    save_step,
)
from local.models.task_contract import FoldData, Outputs
from local.training.progress import Progress
from local.training.ranks import Ranks
from local.training.resume_state import load_training_state, training_state
from local.training.steps import BAD_BATCH, BAD_STATE, Learner

log = logging.getLogger("canopy")

# Who asked to stop, where it was another rank that was asked.
OF_ANOTHER = "a signal to another rank"


class Trainer(Learner):
    """Trains one fold: `Trainer(fold_data, config).run()` ends with `best.pt` in its folder."""

    def __init__(
        self,
        fold_data: FoldData,
        config: Config,
        initial: dict[str, torch.Tensor] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(fold_data, config, initial, ranks)
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
        if self.ranks.first:
            remove_leftovers(self.fold_data.folder)
        self._resume()
        n_epochs = self.config.train.n_epochs
        writer = self._writer() if self.ranks.first else None
        bar = tqdm(
            total=n_epochs,
            initial=self.progress.epoch,
            desc=self.fold_data.name,
            disable=None if self.ranks.first else True,
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
            if writer is not None:
                writer.close()
        if self.ranks.first:
            for name in (BAD_BATCH, BAD_STATE):
                (self.fold_data.folder / name).unlink(missing_ok=True)

    def _writer(self) -> Any:
        # Takes seconds to import, which inference need not wait for.
        from torch.utils.tensorboard import SummaryWriter

        folder = self.fold_data.folder / "tensorboard"
        return SummaryWriter(str(folder), purge_step=self.progress.epoch)

    def _epoch(self, writer: Any) -> None:
        epoch, first = self.progress.epoch, self.progress.step
        begun = time.monotonic()
        losses = self._train_epoch(epoch)
        seconds = time.monotonic() - begun
        row: dict[str, Any] = {"epoch": epoch + 1, **losses}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["skipped_steps"] = self.progress.skipped
        last = epoch + 1 == self.config.train.n_epochs
        row.update(
            self._validate() if last or self._is_due(epoch) else self.fold_data.measure(None)
        )
        n_windows = max(0, self.fold_data.n_examples - first * self.config.train.batch_size)
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
            if writer is not None and key != "epoch" and math.isfinite(value):
                writer.add_scalar(key, value, epoch + 1)
        log.info("%s %s", self.fold_data.name, _line(row | speed, self.config.train.n_epochs))

    def _is_due(self, epoch: int) -> bool:
        return (epoch + 1) % self.config.train.validate_every == 0

    # ------------------------------------------------------------------------------- validation

    def _validate(self) -> dict[str, float]:
        """Score the held-out fold with the inference that stage 3 uses."""
        # What the last step needed would not be done again for a run that is stopped in here.
        self._stop_if_asked(
            f"the validation after epoch {self.progress.epoch + 1} of {self.fold_data.name}"
        )
        if not self.fold_data.held_out:
            return self.fold_data.measure(None)
        outputs = self._held_out_outputs(self.ema.module.eval())
        found = self.fold_data.measure(outputs if self.ranks.first else None)
        return self.ranks.of_first(found)

    def _held_out_outputs(self, model: torch.nn.Module) -> Outputs:
        """Outputs for the held-out fold; ranks make shares of it and have all of it then."""
        fold_data, ranks = self.fold_data, self.ranks
        if ranks.alone:
            return fold_data.score(model)
        ranks.share_buffers(model)
        part: Any = None
        stopped = False
        try:
            part = fold_data.score(model, Shard(ranks.rank, ranks.size))
        except Interrupted:
            stopped = True
        if ranks.any(stopped)[0]:
            raise Interrupted(requested() or OF_ANOTHER, f"the validation of {fold_data.name}")
        first, *others = ranks.gather(part)
        return first.join(others).take(fold_data.held_out)

    # -------------------------------------------------------------------------- what is kept

    def _keep(self, row: dict[str, Any]) -> None:
        """Write what an epoch leaves: the model first, the state that says it is done last."""
        folder = self.fold_data.folder
        by_score = self.config.train.select == "best"
        score = row["valid"] if by_score else float(self.progress.epoch)
        if math.isfinite(score) and score > self.progress.best_score:
            self.progress.best_score = score
            if by_score or self.progress.epoch == self.config.train.n_epochs:
                self.progress.best_epoch = row["epoch"]
                self._save_best()
        if by_score and self.progress.epoch == self.config.train.n_epochs:
            self._require_best(folder)
        if self.ranks.first:
            self._write_logs()
            save_last(folder, training_state(self))
        self._saved_at = time.monotonic()

    def _save_best(self) -> None:
        if not self.ranks.first:
            return
        state = model_state(self.ema.module, self.recipe)
        epoch = self.progress.best_epoch
        save_checkpoint(self.fold_data.folder / "best.pt", {**state, "epoch": epoch})

    def _write_logs(self) -> None:
        """What every run of these settings writes alike, and what the clock says of this one."""
        write_csv(self.fold_data.folder / "log.csv", pd.DataFrame(self.history))
        write_csv(self.fold_data.folder / "timing.csv", pd.DataFrame(self._timing))

    def _require_best(self, folder: Path) -> None:
        if self.progress.best_epoch == 0:
            raise CanopyError(
                f"{self.fold_data.name}: train.select is best, but no epoch had a validation score "
                "(nothing is known of the held-out fold); set train.select to none"
            )

    def _between_steps(self) -> None:
        since = time.monotonic() - self._saved_at
        due = self.ranks.first and since >= 60 * self.config.train.save_minutes
        stop, due = self.ranks.any(bool(requested()), due)
        if stop:
            raise Interrupted(requested() or OF_ANOTHER, self._place(self.progress.epoch))
        if due:
            self._save_step()

    def _stop_if_asked(self, place: str) -> None:
        """All ranks stop where one was asked to."""
        if self.ranks.any(bool(requested()))[0]:
            raise Interrupted(requested() or OF_ANOTHER, place)

    def _save_step(self) -> None:
        """Save the state within an epoch, where there is one to speak of that is whole."""
        # With gradients waiting, what was saved before stands.
        if self.ranks.first and self.progress.step > 0 and self._n_seen == 0:
            save_step(self.fold_data.folder, training_state(self))
        self._saved_at = time.monotonic()

    # ----------------------------------------------------------------------------------- resume

    def _resume(self) -> None:
        # One reads, or sets aside what is damaged; all go on from what it found.
        found, best_is_there = self._found_state() if self.ranks.first else (None, True)
        state = self.ranks.of_first(found)
        if state is None:
            return
        stands = Progress(**state["progress"])
        load_training_state(self, state)
        if self.ranks.first:
            self._timing = _read_timing(self.fold_data.folder / "timing.csv", stands.epoch)
            if not best_is_there:
                self._save_best()
            if self.history:
                # A later one was written for an epoch that is done again.
                self._write_logs()
        place = (self.fold_data.name, stands.epoch, stands.step)
        log.info("%s: going on after epoch %d and %d batches", *place)

    def _found_state(self) -> tuple[dict[str, Any] | None, bool]:
        """The furthest state that is whole, if its `best.pt` can be had; whether that is there."""
        folder = self.fold_data.folder
        state = load_last(folder)
        if state is None:
            return None, True
        stands = Progress(**state["progress"])
        best_is_there = self._best_is_there(stands)
        # At the end of the very epoch that was chosen the state holds the model.
        holds_best = stands.step == 0 and stands.epoch == stands.best_epoch
        if not best_is_there and not holds_best:
            log.warning("%s: training begins anew, nothing else holds best.pt", self.fold_data.name)
            for name in STATES:
                (folder / name).unlink(missing_ok=True)
            return None, True
        return state, best_is_there

    def _best_is_there(self, stands: Progress) -> bool:
        """Whether `best.pt` is what the state says, or becomes so.

        A later one than the state knows is of an epoch that is done again, and comes out the same.
        """
        if stands.best_epoch == 0:
            return True
        path = self.fold_data.folder / "best.pt"
        try:
            found = int(load_checkpoint(path).get("epoch", 0))
        except MachineError:
            raise
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


def _line(row: dict[str, Any], n_epochs: int) -> str:
    losses = " ".join(f"{key} {row[key]:.4f}" for key in row if key.startswith("loss_"))
    line = f"epoch {row['epoch']}/{n_epochs} {losses} lr {row['lr']:.2e}"
    line += f" {row['windows_per_s']:.0f} windows/s"
    measured = [key for key in row if key.startswith("valid") and math.isfinite(row[key])]
    return line + "".join(f" {key} {row[key]:.4f}" for key in measured)
