"""What one fold of sound event detection learns from and is judged by."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from local.config import Config
from local.features.front_ends.front_end import check_input
from local.features.store import FeatureStore
from local.inference.score_recordings import score_recordings
from local.inference.scores import Scores, clip_logits
from local.io.seeds import generator
from local.jobs.shards import Shard
from local.labels.soft_labels import SOFT_LABELS, load_soft_labels
from local.labels.windows import training_window
from local.models import SedModel, SedOutput, create_model, with_drop_path
from local.scoring.event_rules.event_measures import validation_measures
from local.scoring.known_labels import score_known
from local.training.augment.batch import Batch
from local.training.augment.chain import augment
from local.training.augment.input_kind import InputKind
from local.training.epoch_plan import (
    TrainingSet,
    draw_kinds,
    make_training_set,
    plan_epoch,
)
from local.training.examples import WindowDataset
from local.training.losses.objective import Objective
from local.training.partners import draw_partners, mixes_pseudo
from local.training.window_reading import vary_epoch

if TYPE_CHECKING:
    from local.models.task_contract import Experiment


@dataclass(frozen=True)
class DetectionFold:
    """`local.models.task_contract.FoldData` of detection: windows with clip and frame targets.

    training_set : what windows are drawn from. events : rows that held-out recordings are judged
    by. labels : classes in the order of the outputs. drop_path : stochastic depth in place of what
    the model says.
    """

    name: str
    training_set: TrainingSet
    held_out: list[str]
    events: pd.DataFrame
    labels: list[str]
    dump: FeatureStore
    folder: Path
    device: str
    drop_path: float | None = None

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return self.dump.config

    @property
    def n_examples(self) -> int:
        """`train.windows_per_epoch`, or as many as there are known events."""
        train = self.config.train
        known = int((self.training_set.event_kind < 2).sum())
        return train.windows_per_epoch or max(train.batch_size, known)

    @property
    def recipe(self) -> dict[str, Any]:
        """What `create_model` of the registry takes, and the labels."""
        model = self.config.model
        return {
            "name": model.name,
            "params": model.model_dump(mode="json")["params"],
            "n_classes": len(self.labels),
            "n_bands": self.dump.front_end.n_bands,
            "labels": self.labels,
        }

    def create_model(self) -> SedModel:
        """The configured model; one that takes other features than there are is refused."""
        given, front_end = self.config.model, self.dump.front_end
        params = with_drop_path(given.name, given.params, self.drop_path)
        model = create_model(given.name, params, len(self.labels), front_end.n_bands)
        check_input(front_end, given.name, model.input)
        return model

    def create_objective(self, model: SedModel) -> Objective:
        """The configured sum of losses over clips and frames."""

        def probe() -> SedOutput:
            """The model's output for a window of silence, as in use: nothing of it changes."""
            front_end, window = self.dump.front_end, training_window(self.dump, model.step)
            silence = torch.zeros(1, *front_end.axes, window, device=self.device)
            with torch.no_grad():
                output = model.eval()(front_end.as_input(silence))
            model.train()
            return output

        loss = self.config.loss
        if self.training_set.soft is not None or self.config.data.annotation == "complete":
            # All that is unknown still are edges of calls, where absence is the wrong thing to
            # teach; and so few cells would share the whole weight.
            loss = loss.model_copy(update={"unknown_weight": 0.0})
        return Objective(loss, self.labels, probe)

    def examples(self, model: SedModel, epoch: int) -> WindowDataset:
        """The windows of an epoch."""
        config, window = self.config, training_window(self.dump, model.step)
        drawn = self.training_set, config, window, self.n_examples
        variations = vary_epoch(*drawn, generator(config.seed, self.name, "vary", epoch))
        plan = plan_epoch(
            *drawn,
            generator(config.seed, self.name, "plan", epoch),
            variations.dump_factor,
            variations.factor,
        )
        if mixes_pseudo(self.training_set, config):
            kinds = draw_kinds(
                *(self.training_set, config, self.n_examples),
                generator(config.seed, self.name, "plan", epoch),
            )
            rng = generator(config.seed, self.name, "partners", epoch)
            partner = draw_partners(self.training_set, config, window, kinds, rng)
            variations = replace(variations, partner=partner)
        n_classes = len(self.labels)
        return WindowDataset(
            self.training_set, self.dump, plan, window, model.step, n_classes, variations
        )

    @cached_property
    def _input_kind(self) -> InputKind:
        return InputKind.of(self.config, torch.device(self.device))

    def make_batch(self, tensors: dict[str, torch.Tensor], rng: torch.Generator) -> Batch:
        """The batch, changed as the section `augment` says."""
        batch = Batch(**tensors)  # type: ignore[arg-type]
        return augment(batch, self.config.augment, rng, self._input_kind)

    def forward(self, model: SedModel, batch: Batch) -> SedOutput:
        """Scores of the windows, whose features may be mixed on the way."""
        x, mix = batch.x, batch.mix
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return model(x) if mix is None else model(x, mix=mix)

    def score(self, model: SedModel, shard: Shard | None = None) -> Scores:
        """Scores of the held-out recordings by the sliding windows of stage 3."""
        return score_recordings(
            model, self.dump, self.held_out, self.labels, self.device, shard=shard
        )

    def measure(self, outputs: Scores | None) -> dict[str, float]:
        """The metric and the span AUC on known labels, and measures of events if asked for."""
        config = self.config
        found = {"valid": math.nan, "valid_span_auc": math.nan}
        if outputs is not None:
            quiet = config.model_copy(
                update={"score": config.score.model_copy(update={"n_bootstrap": 0})}
            )
            clip = clip_logits(outputs, config.inference.pool)
            known = score_known(outputs, clip, self.events, quiet)
            found = {"valid": known["value"], "valid_span_auc": known.get("span_auc", math.nan)}
        return found | validation_measures(outputs, self.events, config)


def make_fold(experiment: "Experiment", cycle: int, fold: int) -> DetectionFold:
    """The windows that a fold may draw in a cycle; its features are brought near first."""
    names, held_out = experiment.training_ids(cycle, fold), experiment.held_out_ids(fold)
    background_ids = experiment.background_ids(fold)
    tables, dump = experiment.tables, experiment.dump
    dump.bring([*names, *background_ids, *held_out])
    events, soft = experiment.events(cycle), None
    if experiment.soft_ids(cycle):
        soft = load_soft_labels(experiment.run.cycle(cycle) / SOFT_LABELS)
    return DetectionFold(
        name=f"cycle{cycle}/fold{fold}",
        training_set=make_training_set(tables, events, names, dump, background_ids, soft),
        held_out=held_out,
        events=tables.events,
        labels=tables.labels,
        dump=dump,
        folder=experiment.run.fold(cycle, fold),
        device=experiment.run.device,
        drop_path=experiment.run.config.relabel.drop_path if cycle > 0 else None,
    )
