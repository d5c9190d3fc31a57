"""The steps of training: a batch's loss and gradients, the optimiser, the moving average."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from local.config import Config
from local.io.errors import CanopyError
from local.io.files import write_json
from local.io.seeds import named_seed, seed_torch
from local.jobs.gpu_memory import advise_batch_size, explain_oom, peak_bytes
from local.jobs.interruption import Interrupted, leave_to_parent, requested
from local.models.checkpoint import load_weights, save_checkpoint
from local.models.task_contract import FoldData
from local.training.optimisation import lr_factor, make_optimizer
from local.training.progress import Progress
from local.training.ranks import Ranks, normalise_together
from local.training.resume_state import RandomState, training_state

log = logging.getLogger("canopy")

# The stacked examples of a batch, by name; and what each of them is (`Examples.describe`).
Tensors = dict[str, torch.Tensor]
Described = list[dict[str, Any]]
# Files of the step that ended a run because too many were not finite.
BAD_BATCH, BAD_STATE = "bad_batch.json", "bad_state.pt"


class Learner:
    """A fold's model, objective and optimiser, and how they learn from the batches of an epoch.

    Several ranks share each batch: each reads, augments (mixup included) and scores examples of its
    own. What the loss divides by is the whole batch's, gradients are averaged over the ranks, and
    so are the numbers by which anything is decided.
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
        self.recipe = fold_data.recipe
        model = fold_data.create_model()
        if initial is not None:
            load_weights(model, initial, config.model.init or "the weights of cycle 0")
        if not self.ranks.alone and self.device.type == "cuda":
            model = normalise_together(model)
        # The stubs of PyTorch know no memory format of modules.
        place: dict[str, Any] = {"memory_format": torch.channels_last}
        self.model = model.to(self.device, **place)
        self.ema = _averaged(self.model, config.train.ema_decay)
        self.n_batches = math.ceil(fold_data.n_examples / config.train.batch_size)
        self.steps_per_epoch = math.ceil(self.n_batches / config.train.accumulate)
        self.objective = fold_data.create_objective(self.model).to(self.device)
        self.optimizer = make_optimizer(self.model, self.objective, config.train, config.loss)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.amp_dtype = amp_dtype(config, self.device)
        autocast = self.device.type, self.amp_dtype
        batch_loss = BatchLoss(self.model, self.objective, fold_data.forward, autocast)
        self.batch_loss = self.ranks.wrap(batch_loss)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.amp_dtype == torch.float16
        )
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        self.random = RandomState(self.device)
        # Batches since the last optimiser step; of those whose gradients are waiting, the number in
        # the epoch and what their examples are.
        self._n_seen = 0
        self._waiting: list[tuple[int, Described]] = []

    # ----------------------------------------------------------------------------------- batches

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Learn from the batches of an epoch, or from those that are left of it."""
        self.model.train()
        if self.progress.step == 0:
            seed_torch(self.config.seed, self.fold_data.name, "epoch", epoch)
            self.random.augment.manual_seed(
                named_seed(self.config.seed, self.fold_data.name, "augment", epoch)
            )
        for tensors, described in self._batches(epoch, self.progress.step):
            self._seed_rank(epoch)
            with self._memory_advice(tensors):
                batch = self.fold_data.make_batch(tensors, self.random.augment)
                parts = self._step(batch, described)
            if parts is not None:
                self.progress.add(parts)
            if self._n_seen == 0:
                self._between_steps()
        self._update()
        return self.progress.means()

    def _seed_rank(self, epoch: int) -> None:
        """Seed what one of several ranks draws for a batch, which then needs no state to resume."""
        if self.ranks.size > 1:
            names = self.fold_data.name, "rank", self.ranks.rank, epoch, self.progress.step
            seed_torch(self.config.seed, *names)
            self.random.augment.manual_seed(named_seed(self.config.seed, *names, "augment"))

    def _between_steps(self) -> None:
        """Called where no gradient is waiting, so that the state is whole."""

    def _batches(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensors, Described]]:
        """The batches of an epoch from number `first` on; those before are not even read.

        Each comes with what all its examples are; of several ranks each reads its own.
        """
        examples = self.fold_data.examples(self.model, epoch)
        size, n = self.config.train.batch_size, len(examples)
        batches = [range(start, min(start + size, n)) for start in range(0, n, size)]
        loader: DataLoader[Any] = DataLoader(
            cast("Dataset[Any]", examples),
            batch_sampler=[list(self.ranks.own(batch)) for batch in batches[first:]],
            num_workers=self.config.train.n_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=leave_to_parent,
        )
        for batch, item in zip(batches[first:], self._read(loader, epoch), strict=True):
            on_device = {
                key: value.to(self.device, non_blocking=True) for key, value in item.items()
            }
            yield on_device, [examples.describe(place) for place in batch]

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

    def _step(self, batch: Any, described: Described) -> dict[str, float] | None:
        """Gradients of a batch, and the optimiser step when it is due.

        Returns the parts of the loss, or None when the loss or the gradient of the step was not
        finite and the batch was skipped.
        """
        number = self.progress.step
        self.progress.step += 1
        if self._n_seen == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self._n_seen += 1
        due = self._n_seen == self.config.train.accumulate
        last = due or self.progress.step == self.n_batches
        with nullcontext() if last else self.ranks.average_later(self.batch_loss):
            parts = self.batch_loss(batch)
            values = {name: float(value.detach()) for name, value in parts.items()}
            values = self.ranks.mean(values)
            good = math.isfinite(values["total"])
            if good:
                self.scaler.scale(parts["total"]).backward()
                self._waiting.append((number, described))
        if not good:
            self._bad_step([(number, described)], values)
            if last:
                self.ranks.average_gradients(self.batch_loss.parameters())
        if due:
            good &= self._update(values)
        return values if good else None

    def _update(self, values: dict[str, float] | None = None) -> bool:
        """Optimiser step on the mean of the gradients that wait, if any; whether it was made.

        `values` are the parts of the last batch's loss, for the record of a step that goes wrong.
        """
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
        finite = all(bool(torch.isfinite(norm)) for norm in norms)
        if not finite and not self._scaled_too_high():
            self._bad_step(waiting, values)
            return False
        self.progress.skipped += not finite
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not finite:
            # The scaler left out the step, maybe the very first; the schedule counts it still.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
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
        self, batches: list[tuple[int, Described]], values: dict[str, float] | None
    ) -> None:
        self.progress.bad_steps += 1
        self.progress.skipped += 1
        # Normalisation has seen the batch already: its statistics go back to their averages, or a
        # NaN would stay in them for good.
        with torch.no_grad():
            for own, kept in zip(self.model.buffers(), self.ema.module.buffers(), strict=True):
                own.copy_(kept)
        examples = [example for _, described in batches for example in described]
        names = ", ".join(example["recording_id"] for example in examples[:8])
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
        self, batches: list[tuple[int, Described]], values: dict[str, float] | None
    ) -> None:
        """Which windows the step was made of, and the state that met them."""
        windows = [
            {"batch": number, **example} for number, described in batches for example in described
        ]
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

    def _memory_advice(self, tensors: Tensors) -> Any:
        """What to say when a batch does not fit on the GPU."""
        if not self.ranks.alone:
            size = self.config.train.batch_size
            return explain_oom(self.fold_data.name, "train.batch_size", size, self.ranks.size)

        size = len(next(iter(tensors.values())))

        def probe(n: int) -> int:
            self.optimizer.zero_grad(set_to_none=True)

            def work() -> None:
                part = {key: value[:n] for key, value in tensors.items()}
                batch = self.fold_data.make_batch(part, self.random.augment)
                self.batch_loss(batch)["total"].backward()

            return peak_bytes(work) + self._moments_to_come()

        return advise_batch_size(self.fold_data.name, "train.batch_size", size, probe)

    def _moments_to_come(self) -> int:
        """Bytes that the optimiser will take with its first step (two moments a weight)."""
        if self.optimizer.state:
            return 0
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        return 2 * sum(p.numel() * p.element_size() for p in weights)

    # ------------------------------------------------------------------------------------- others

    def _lr_factor(self, step: int) -> float:
        return lr_factor(step, self.steps_per_epoch, self.config.train)


class BatchLoss(nn.Module):
    """A model and its loss as one module, so that one call leads to all that is learned.

    forward : the task's, of a model and a batch. autocast : device type, and the half precision
        that the model computes in, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: nn.Module,
        forward: Callable[[nn.Module, Any], Any],
        autocast: tuple[str, torch.dtype | None],
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self._forward = forward
        self._autocast = autocast

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        """Parts of the loss of a batch by name, and their sum as `total`."""
        with torch.autocast(*self._autocast, enabled=self._autocast[1] is not None):
            output = self._forward(self.model, batch)
        return self.objective(output, batch)


def amp_dtype(config: Config, device: torch.device) -> torch.dtype | None:
    """Half precision that is faster here: float16 on GPU, bfloat16 on CPUs that compute with it."""
    if not config.train.amp:
        return None
    if device.type == "cuda":
        return torch.float16
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if supported() else None


def _averaged(model: torch.nn.Module, decay: float) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
