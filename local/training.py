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

from local.augment import Batch, augment
from local.checkpoint import load_last, load_weights, model_state, save_checkpoint, save_last
from local.config import Config
from local.dataset import Dump, Pool, WindowDataset, plan_epoch, window_frames
from local.errors import CanopyError
from local.files import write_csv
from local.inference import Scores, clip_logits, score_recordings
from local.losses import total_loss
from local.models import SedModel, create_model
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
        self.window = window_frames(config, self.model.step)
        self.n_windows = config.train.windows_per_epoch or max(
            config.train.batch_size, int((task.pool.event_kind < 2).sum())
        )
        self.steps_per_epoch = math.ceil(self.n_windows / config.train.batch_size)
        self.optimizer = _optimizer(self.model, config)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.amp_dtype = amp_dtype(config, self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.amp_dtype == torch.float16
        )
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []

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
            batch = augment(batch, self.config.augment, augment_rng)
            parts = self._step(batch, rows)
            if parts is None:
                continue
            n_steps += 1
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
        return {f"loss_{name}": value / max(1, n_steps) for name, value in sums.items()}

    def _batches(self, epoch: int) -> Iterator[tuple[Batch, torch.Tensor]]:
        rng = generator(self.config.seed, self.task.name, "plan", epoch)
        plan = plan_epoch(self.task.pool, self.config, self.window, self.n_windows, rng)
        dataset = WindowDataset(
            self.task.pool,
            self.task.dump,
            plan,
            self.window,
            self.model.step,
            len(self.task.labels),
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
        """One optimiser step; None when the loss was not finite and the step was skipped."""
        x = batch.x
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            output = self.model(x)
        parts = total_loss(output, batch, self.config.loss)
        total = parts["total"]
        self.optimizer.zero_grad(set_to_none=True)
        if not torch.isfinite(total):
            self._bad_step(rows)
            return None
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.train.grad_clip, error_if_nonfinite=False
        )
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            self._bad_step(rows)
            return None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.ema.update_parameters(self.model)
        return {name: float(value.detach()) for name, value in parts.items()}

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
        """Linear warm-up, then half a cosine down to zero at the last step."""
        total = self.steps_per_epoch * self.config.train.n_epochs
        warmup = max(1, round(self.config.train.warmup_share * total))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

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


def _optimizer(model: SedModel, config: Config) -> torch.optim.AdamW:
    """AdamW; weights of layers decay, biases and normalisation do not."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.train.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.train.lr)


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
