"""The steps of training: a batch's loss and gradients, the optimiser, the moving average."""

import logging
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from local.config import Config
from local.features.store import FeatureStore
from local.io.errors import CanopyError
from local.io.files import write_json
from local.io.seeds import generator, named_seed, seed_torch
from local.jobs.gpu_memory import advise_batch_size, explain_oom, peak_bytes
from local.jobs.interruption import Interrupted, leave_to_parent, requested
from local.labels.windows import training_window
from local.models import SedModel, SedOutput, create_model
from local.models.checkpoint import load_weights, save_checkpoint
from local.training.augment.batch import Batch
from local.training.augment.chain import augment
from local.training.augment.input_kind import FrontEnd
from local.training.epoch_plan import plan_epoch
from local.training.examples import WindowDataset
from local.training.fold_data import FoldData, Progress
from local.training.losses.objective import Objective
from local.training.optimisation import lr_factor, make_optimizer
from local.training.ranks import Ranks
from local.training.resume_state import RandomState, training_state
from local.training.variation import vary_epoch
from local.training.whole_batch import score_whole_batch

log = logging.getLogger("canopy")

# Files of the step that ended a run because too many were not finite.
BAD_BATCH, BAD_STATE = "bad_batch.json", "bad_state.pt"


class Learner:
    """A fold's model, objective and optimiser, and how they learn from the batches of an epoch.

    Several ranks read a part of each batch each, tell each other what they read, change the whole
    batch alike, as its windows are mixed with one another, and run the model on their parts. The
    loss is that of the whole batch on each, so whatever it divides by is what it is in one process;
    so are its numbers, and what is decided by them.
    """

    def __init__(
        self,
        fold_data: FoldData,
        config: Config,
        initial: dict[str, torch.Tensor] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.fold_data = fold_data
        self.ranks = ranks or Ranks()
        self.config = config
        self.device = torch.device(fold_data.device)
        seed_torch(config.seed, fold_data.name, "weights")
        self.recipe = {
            "name": config.model.name,
            "params": config.model.model_dump(mode="json")["params"],
            "n_classes": len(fold_data.labels),
            "n_bands": fold_data.dump.n_bands,
            "labels": fold_data.labels,
        }
        model = create_model(
            config.model.name, config.model.params, len(fold_data.labels), fold_data.dump.n_bands
        )
        if initial is not None:
            load_weights(model, initial, config.model.init or "the weights of cycle 0")
        _check_input(model, fold_data.dump)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.ema = _averaged(self.model, config.train.ema_decay)
        self.window = training_window(fold_data.dump, self.model.step)
        self.front_end = FrontEnd.of(config, self.device)
        self.n_windows = config.train.windows_per_epoch or max(
            config.train.batch_size, int((fold_data.training_set.event_kind < 2).sum())
        )
        n_batches = math.ceil(self.n_windows / config.train.batch_size)
        self.steps_per_epoch = math.ceil(n_batches / config.train.accumulate)
        self.objective = Objective(config.loss, fold_data.labels, self._probe).to(self.device)
        self.optimizer = make_optimizer(self.model, self.objective, config.train, config.loss)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.amp_dtype = amp_dtype(config, self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.amp_dtype == torch.float16
        )
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        self.random = RandomState(self.device)
        # Batches since the last optimiser step; of those whose gradients are waiting, the number in
        # the epoch and the rows.
        self._n_seen = 0
        self._waiting: list[tuple[int, torch.Tensor]] = []
        self._plan = np.zeros((0, 2), dtype=np.int64)

    # ----------------------------------------------------------------------------------- batches

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Learn from the batches of an epoch, or from those that are left of it."""
        self.model.train()
        if self.progress.step == 0:
            seed_torch(self.config.seed, self.fold_data.name, "epoch", epoch)
            self.random.augment.manual_seed(
                named_seed(self.config.seed, self.fold_data.name, "augment", epoch)
            )
        for batch, rows in self._batches(epoch, self.progress.step):
            with self._memory_advice(batch):
                changed = augment(batch, self.config.augment, self.random.augment, self.front_end)
                parts = self._step(changed, rows)
            if parts is not None:
                self.progress.add(parts)
            if self._n_seen == 0:
                self._between_steps()
        self._update()
        return self.progress.means()

    def _between_steps(self) -> None:
        """Called where no gradient is waiting, so that the state is whole."""

    def _batches(self, epoch: int, first: int = 0) -> Iterator[tuple[Batch, torch.Tensor]]:
        """The batches of an epoch from number `first` on; those before are not even read."""
        rng = generator(self.config.seed, self.fold_data.name, "plan", epoch)
        vary_rng = generator(self.config.seed, self.fold_data.name, "vary", epoch)
        drawn = self.fold_data.training_set, self.config, self.window, self.n_windows
        variations = vary_epoch(*drawn, vary_rng)
        plan = plan_epoch(*drawn, rng, variations.dump_factor, variations.factor)
        self._plan = plan
        dataset = WindowDataset(
            self.fold_data.training_set,
            self.fold_data.dump,
            plan,
            self.window,
            self.model.step,
            len(self.fold_data.labels),
            variations,
        )
        size, n = self.config.train.batch_size, len(plan)
        batches = [range(start, min(start + size, n)) for start in range(0, n, size)]
        loader = DataLoader(
            dataset,
            batch_sampler=[
                [batch[item] for item in self.ranks.of_batch(len(batch))] for batch in batches
            ][first:],
            num_workers=self.config.train.n_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=leave_to_parent,
        )
        for batch, item in zip(batches[first:], self._read(loader, epoch), strict=True):
            del item["row"]
            on_device = {
                key: value.to(self.device, non_blocking=True) for key, value in item.items()
            }
            on_device = self.ranks.gather_items(on_device, len(batch))
            yield Batch(**on_device), torch.as_tensor(plan[batch.start : batch.stop, 0])

    def _read(self, loader: DataLoader, epoch: int) -> Iterator[dict[str, torch.Tensor]]:
        """What the loader reads; a worker that a signal took with it is no fault."""
        items = iter(loader)
        # Making the iterator draws a number; what was saved was saved after that.
        self.random.restore()
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except RuntimeError:
                if requested():
                    raise Interrupted(requested(), self._place(epoch)) from None
                raise
            yield item

    def _place(self, epoch: int) -> str:
        return f"epoch {epoch + 1}, batch {self.progress.step} of {self.fold_data.name}"

    # ------------------------------------------------------------------------------------- steps

    def _loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        x = batch.x
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            if self.ranks.alone:
                output = self.model(x) if batch.mix is None else self.model(x, mix=batch.mix)
            else:
                place = self.ranks.rank, self.progress.epoch, self.progress.step
                seed = named_seed(self.config.seed, self.fold_data.name, "rank", *place)
                output = score_whole_batch(self.model, x, batch.mix, self.ranks, seed)
        return self.objective(output, batch)

    def _step(self, batch: Batch, rows: torch.Tensor) -> dict[str, float] | None:
        """Gradients of a batch, and the optimiser step when it is due.

        Returns the parts of the loss, or None when the loss or the gradient of the step was not
        finite and the batch was skipped.
        """
        number = self.progress.step
        self.progress.step += 1
        parts = self._loss(batch)
        total = parts["total"]
        if self._n_seen == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self._n_seen += 1
        values = {name: float(value.detach()) for name, value in parts.items()}
        values = self.ranks.numbers_of_first(values)
        good = math.isfinite(values["total"])
        if good:
            self.scaler.scale(total).backward()
            self._waiting.append((number, rows))
        else:
            self._bad_step([(number, rows)], values)
        if self._n_seen == self.config.train.accumulate:
            good &= self._update(values)
        return values if good else None

    def _update(self, values: dict[str, float] | None = None) -> bool:
        """Optimiser step on the mean of the gradients that wait, if any; whether it was made.

        `values` are the parts of the last batch's loss, for the record of a step that goes wrong.
        """
        waiting, self._waiting, self._n_seen = self._waiting, [], 0
        if not waiting:
            return False
        self.ranks.average_gradients((*self.model.parameters(), *self.objective.parameters()))
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
        finite = all(bool(torch.isfinite(norm)) for norm in norms)
        if not finite and not self._scaled_too_high():
            self._bad_step(waiting, values)
            return False
        self.progress.skipped += not finite
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.ema.update_parameters(self.model)
        return True

    def _scaled_too_high(self) -> bool:
        """Whether the scale of half precision may be why a gradient is not finite.

        The scaler then leaves the step out and halves the scale. At a scale of 1 and below it is
        the gradient itself.
        """
        if not self.scaler.is_enabled():
            return False
        high = self.scaler.get_scale() > 1.0
        if not high:
            self.scaler.update()
        return high

    # ----------------------------------------------------------------------------- what goes wrong

    def _bad_step(
        self, batches: list[tuple[int, torch.Tensor]], values: dict[str, float] | None
    ) -> None:
        self.progress.bad_steps += 1
        self.progress.skipped += 1
        # Normalisation has seen the batch already: its statistics go back to their averages, or a
        # NaN would stay in them for good.
        with torch.no_grad():
            for own, kept in zip(self.model.buffers(), self.ema.module.buffers(), strict=True):
                own.copy_(kept)
        rows = torch.cat([rows for _, rows in batches]).tolist()
        names = ", ".join(self.fold_data.training_set.recording_ids[row] for row in rows[:8])
        log.warning(
            "%s: loss or gradient not finite, step skipped (%d so far); recordings %s ...",
            self.fold_data.name,
            self.progress.bad_steps,
            names,
        )
        if self.progress.bad_steps > self.config.train.max_bad_steps:
            folder = self.fold_data.folder
            if self.ranks.first:
                self._write_bad_batch(batches, values)
            raise CanopyError(
                f"{self.fold_data.name}: {self.progress.bad_steps} steps were not finite, more "
                f"than train.max_bad_steps {self.config.train.max_bad_steps}; last batch: {names}; "
                f"its windows are listed in {folder / BAD_BATCH}, the state is in {BAD_STATE} "
                "beside it; lower train.lr or look at these recordings"
            )

    def _write_bad_batch(
        self, batches: list[tuple[int, torch.Tensor]], values: dict[str, float] | None
    ) -> None:
        """Which windows the step was made of, and the state that met them."""
        windows = []
        for number, rows in batches:
            first = number * self.config.train.batch_size
            plan = self._plan[first : first + len(rows)]
            known = plan[:, 0].tolist() == rows.tolist()
            for item, row in enumerate(rows.tolist()):
                start = float(plan[item, 1]) * self.config.hop_s if known else None
                name = self.fold_data.training_set.recording_ids[row]
                windows.append({"batch": number, "recording_id": name, "onset": start})
        finite = {name: math.isfinite(value) for name, value in (values or {}).items()}
        record = {
            "epoch": self.progress.epoch + 1,
            "optimizer_step": self.scheduler.last_epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "bad_steps": self.progress.bad_steps,
            # JSON has no infinity: what is not finite is null.
            "loss": values or {},
            "not_finite": [name for name, fine in finite.items() if not fine] or ["gradient"],
            "windows": windows,
        }
        write_json(self.fold_data.folder / BAD_BATCH, record)
        save_checkpoint(self.fold_data.folder / BAD_STATE, training_state(self))

    def _memory_advice(self, batch: Batch) -> Any:
        """What to say when a batch does not fit on the GPU."""
        if not self.ranks.alone:
            return explain_oom(
                self.fold_data.name, "train.batch_size", len(batch.x), self.ranks.size
            )

        def probe(n: int) -> int:
            first = {
                field.name: value[:n]
                for field in fields(batch)
                if isinstance(value := getattr(batch, field.name), torch.Tensor)
            }
            self.optimizer.zero_grad(set_to_none=True)

            def work() -> None:
                part = replace(batch, **first, mix=None)
                part = augment(part, self.config.augment, self.random.augment, self.front_end)
                self._loss(part)["total"].backward()

            return peak_bytes(work) + self._moments_to_come()

        return advise_batch_size(self.fold_data.name, "train.batch_size", len(batch.x), probe)

    def _moments_to_come(self) -> int:
        """Bytes that the optimiser will take with its first step (two moments a weight)."""
        if self.optimizer.state:
            return 0
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        return 2 * sum(p.numel() * p.element_size() for p in weights)

    # ------------------------------------------------------------------------------------- others

    def _lr_factor(self, step: int) -> float:
        return lr_factor(step, self.steps_per_epoch, self.config.train)

    def _probe(self) -> SedOutput:
        """What the model says of a window of silence, as in use: nothing of it changes."""
        n_bands = self.fold_data.dump.n_bands
        shape = (1, 1, n_bands, self.window) if self.fold_data.dump.centred else (1, self.window)
        with torch.no_grad():
            output = self.model.eval()(torch.zeros(shape, device=self.device))
        self.model.train()
        return output


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


def _check_input(model: SedModel, dump: FeatureStore) -> None:
    kind = dump.config.features.kind
    if model.input != kind:
        raise CanopyError(
            f"model.name {dump.config.model.name} takes {model.input}, features.kind is {kind}; "
            "change one of them"
        )
