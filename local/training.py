"""The training loop of one fold.

The order of data is a function of (seed, cycle, fold, epoch), so a run that was stopped goes on
from its last checkpoint as if it had not been. Weights that are used are an exponential moving
average.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from local.augment import Batch, FrontEnd, augment
from local.checkpoint import load_last, load_weights, model_state, save_checkpoint, save_last
from local.config import Config
from local.dataset import (
    Dump,
    Pool,
    WindowDataset,
    plan_epoch,
    training_window,
    vary_epoch,
)
from local.errors import CanopyError
from local.files import write_csv
from local.inference import Scores, clip_logits, score_recordings
from local.losses import Objective
from local.models import SedModel, SedOutput, create_model
from local.optimisation import lr_factor, make_optimizer
from local.scoring import score_known
from local.seeds import generator, named_seed, seed_torch

log = logging.getLogger("canopy")


@dataclass
class Progress:
    """Where training stands; part of every checkpoint."""

    epoch: int = 0
    bad_steps: int = 0
    best_score: float = -math.inf


@dataclass(frozen=True)
class FoldTask:
    """What one fold trains on and is tried on."""

    name: str
    pool: Pool
    held_out: list[str]
    events: pd.DataFrame
    labels: list[str]
    dump: Dump
    folder: Path
    device: str


class Trainer:
    """Trains one fold: `Trainer(task, config).run()` ends with `best.pt` in the task's folder."""

    def __init__(
        self, task: FoldTask, config: Config, initial: dict[str, torch.Tensor] | None = None
    ) -> None:
        self.task = task
        self.config = config
        self.device = torch.device(task.device)
        seed_torch(config.seed, task.name, "weights")
        self.recipe = {
            "name": config.model.name,
            "params": config.model.params,
            "n_classes": len(task.labels),
            "n_bands": task.dump.n_bands,
            "labels": task.labels,
        }
        model = create_model(
            config.model.name, config.model.params, len(task.labels), task.dump.n_bands
        )
        if initial is not None:
            load_weights(model, initial, config.model.init or "the weights of cycle 0")
        _check_input(model, task.dump)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.ema = _averaged(self.model, config.train.ema_decay)
        self.window = training_window(task.dump, self.model.step)
        self.front_end = FrontEnd.of(config, self.device)
        self.n_windows = config.train.windows_per_epoch or max(
            config.train.batch_size, int((task.pool.event_kind < 2).sum())
        )
        n_batches = math.ceil(self.n_windows / config.train.batch_size)
        self.steps_per_epoch = math.ceil(n_batches / config.train.accumulate)
        self.objective = Objective(config.loss, task.labels, self._probe).to(self.device)
        self.optimizer = make_optimizer(self.model, self.objective, config.train)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.amp_dtype = amp_dtype(config, self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.amp_dtype == torch.float16
        )
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        # Batches since the last optimiser step, and the rows of those whose gradients are waiting.
        self._n_seen = 0
        self._waiting: list[torch.Tensor] = []

    # ------------------------------------------------------------------------------------- run

    def run(self) -> None:
        """Train to the last epoch, from the last checkpoint when there is one."""
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
        finally:
            bar.close()
            writer.close()

    def _epoch(self, writer: Any) -> None:
        epoch = self.progress.epoch
        begun = time.monotonic()
        seed_torch(self.config.seed, self.task.name, "epoch", epoch)
        losses = self._train_epoch(epoch)
        row: dict[str, Any] = {"epoch": epoch + 1, **losses}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["windows_per_s"] = self.n_windows / (time.monotonic() - begun)
        last = epoch + 1 == self.config.train.n_epochs
        row.update(self._validate() if last or self._is_due(epoch) else _not_validated())
        self.history.append(row)
        self.progress.epoch += 1
        self._keep(row)
        for key, value in row.items():
            if key != "epoch" and math.isfinite(value):
                writer.add_scalar(key, value, epoch + 1)
        log.info("%s %s", self.task.name, _line(row, self.config.train.n_epochs))

    def _is_due(self, epoch: int) -> bool:
        return (epoch + 1) % self.config.train.validate_every == 0

    # ----------------------------------------------------------------------------------- train

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        sums: dict[str, float] = {}
        n_steps = 0
        augment_rng = torch.Generator().manual_seed(
            named_seed(self.config.seed, self.task.name, "augment", epoch)
        )
        for batch, rows in self._batches(epoch):
            batch = augment(batch, self.config.augment, augment_rng, self.front_end)
            parts = self._step(batch, rows)
            if parts is None:
                continue
            n_steps += 1
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
        self._update()
        return {f"loss_{name}": value / max(1, n_steps) for name, value in sums.items()}

    def _batches(self, epoch: int) -> Iterator[tuple[Batch, torch.Tensor]]:
        rng = generator(self.config.seed, self.task.name, "plan", epoch)
        vary_rng = generator(self.config.seed, self.task.name, "vary", epoch)
        drawn = self.task.pool, self.config, self.window, self.n_windows
        variations = vary_epoch(*drawn, vary_rng)
        plan = plan_epoch(*drawn, rng, variations.dump_factor, variations.factor)
        dataset = WindowDataset(
            self.task.pool,
            self.task.dump,
            plan,
            self.window,
            self.model.step,
            len(self.task.labels),
            variations,
        )
        loader = DataLoader(
            dataset,
            batch_size=self.config.train.batch_size,
            num_workers=self.config.train.n_workers,
            pin_memory=self.device.type == "cuda",
        )
        for item in loader:
            rows = item.pop("row")
            on_device = {
                key: value.to(self.device, non_blocking=True) for key, value in item.items()
            }
            yield Batch(**on_device), rows

    def _step(self, batch: Batch, rows: torch.Tensor) -> dict[str, float] | None:
        """Gradients of a batch, and the optimiser step when it is due.

        Returns the parts of the loss, or None when the loss or the gradient of the step was not
        finite and the batch was skipped.
        """
        x = batch.x
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            output = self.model(x) if batch.mix is None else self.model(x, mix=batch.mix)
        parts = self.objective(output, batch)
        total = parts["total"]
        if self._n_seen == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self._n_seen += 1
        good = bool(torch.isfinite(total))
        if good:
            self.scaler.scale(total).backward()
            self._waiting.append(rows)
        else:
            self._bad_step(rows)
        if self._n_seen == self.config.train.accumulate:
            good &= self._update()
        return {name: float(value.detach()) for name, value in parts.items()} if good else None

    def _update(self) -> bool:
        """Optimiser step on the mean of the gradients that wait, if any; whether it was made."""
        waiting, self._waiting, self._n_seen = self._waiting, [], 0
        if not waiting:
            return False
        self.scaler.unscale_(self.optimizer)
        # Each by itself: what the loss learns must not take from the norm that the model may have.
        learned = [list(module.parameters()) for module in (self.model, self.objective)]
        if len(waiting) > 1:
            for parameter in (*learned[0], *learned[1]):
                if parameter.grad is not None:
                    parameter.grad /= len(waiting)
        norms = [
            torch.nn.utils.clip_grad_norm_(
                parameters, self.config.train.grad_clip, error_if_nonfinite=False
            )
            for parameters in learned
            if parameters
        ]
        if not self.scaler.is_enabled() and not all(torch.isfinite(norm) for norm in norms):
            self._bad_step(torch.cat(waiting))
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.ema.update_parameters(self.model)
        return True

    def _bad_step(self, rows: torch.Tensor) -> None:
        self.progress.bad_steps += 1
        # Normalisation has seen the batch already: its statistics go back to their averages, or a
        # NaN would stay in them for good.
        with torch.no_grad():
            for own, kept in zip(self.model.buffers(), self.ema.module.buffers(), strict=True):
                own.copy_(kept)
        names = ", ".join(self.task.pool.recording_ids[row] for row in rows.tolist()[:8])
        log.warning(
            "%s: loss or gradient not finite, step skipped (%d so far); recordings %s ...",
            self.task.name,
            self.progress.bad_steps,
            names,
        )
        if self.progress.bad_steps > self.config.train.max_bad_steps:
            raise CanopyError(
                f"{self.task.name}: {self.progress.bad_steps} steps were not finite, more than "
                f"train.max_bad_steps {self.config.train.max_bad_steps}; last batch: {names}; "
                "lower train.lr or look at these recordings"
            )

    def _lr_factor(self, step: int) -> float:
        return lr_factor(step, self.steps_per_epoch, self.config.train)

    def _probe(self) -> SedOutput:
        """What the model says of a window of silence, as in use: nothing of it changes."""
        n_bands = self.task.dump.n_bands
        shape = (1, 1, n_bands, self.window) if self.task.dump.centred else (1, self.window)
        with torch.no_grad():
            output = self.model.eval()(torch.zeros(shape, device=self.device))
        self.model.train()
        return output

    # ------------------------------------------------------------------------ validate and keep

    def _validate(self) -> dict[str, float]:
        """Score the held-out fold with the inference that stage 3 uses."""
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

    def _keep(self, row: dict[str, Any]) -> None:
        folder = self.task.folder
        by_score = self.config.train.select == "best"
        score = row["valid"] if by_score else float(self.progress.epoch)
        if math.isfinite(score) and score > self.progress.best_score:
            self.progress.best_score = score
            if by_score or self.progress.epoch == self.config.train.n_epochs:
                state = model_state(self.ema.module, self.recipe)
                save_checkpoint(folder / "best.pt", {**state, "epoch": row["epoch"]})
        if by_score and self.progress.epoch == self.config.train.n_epochs:
            self._require_best(folder)
        write_csv(folder / "log.csv", pd.DataFrame(self.history))
        save_last(folder, self._state())

    def _require_best(self, folder: Path) -> None:
        if not (folder / "best.pt").exists():
            raise CanopyError(
                f"{self.task.name}: train.select is best, but no epoch had a validation score (no "
                "known positives in the held-out fold); set train.select to none"
            )

    def _state(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "weights": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            "history": self.history,
        }

    def _resume(self) -> None:
        state = load_last(self.task.folder)
        if state is None:
            return
        self.model.load_state_dict(state["weights"])
        self.objective.load_state_dict(state["objective"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self.history = state["history"]
        log.info("%s: going on after epoch %d", self.task.name, self.progress.epoch)


def amp_dtype(config: Config, device: torch.device) -> torch.dtype | None:
    """Half precision that is faster here: float16 on GPU, bfloat16 on CPUs that compute with it."""
    if not config.train.amp:
        return None
    if device.type == "cuda":
        return torch.float16
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if supported() else None


def _averaged(model: SedModel, decay: float) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _check_input(model: SedModel, dump: Dump) -> None:
    kind = dump.config.features.kind
    if model.input != kind:
        raise CanopyError(
            f"model.name {dump.config.model.name} takes {model.input}, features.kind is {kind}; "
            "change one of them"
        )


def _not_validated() -> dict[str, float]:
    return {"valid": math.nan, "valid_span_auc": math.nan}


def _line(row: dict[str, Any], n_epochs: int) -> str:
    losses = " ".join(f"{key} {row[key]:.4f}" for key in row if key.startswith("loss_"))
    line = f"epoch {row['epoch']}/{n_epochs} {losses} lr {row['lr']:.2e}"
    line += f" {row['windows_per_s']:.0f} windows/s"
    if np.isfinite(row["valid"]):
        line += f" valid {row['valid']:.4f} span AUC {row['valid_span_auc']:.4f}"
    return line
