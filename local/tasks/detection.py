"""Sound event detection: which classes call, from when to when, from labels that are partial.

An example is a window with targets and masks for the clip and its frames; a model scores both. The
windows of a recording are stitched, models are averaged in probability. Stage 4 makes pseudo labels
for another cycle of training; stage 5 corrects priors and writes submission.csv.

PyTorch is imported where it is used: it takes seconds, and a stage with nothing to do needs none.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from local.config import Config, Suggestion
from local.config.relevance import Dependencies
from local.io.errors import CanopyError

if TYPE_CHECKING:
    import torch

    from local.data.tables import Tables
    from local.inference.score_files import PartialScores
    from local.inference.scores import Scores
    from local.jobs.shards import Shard
    from local.models import SedModel
    from local.models.task_contract import Experiment, ReportSection, Submission, Trial
    from local.tasks.detection_fold import DetectionFold

# Sections of the page, in its words and order.
REPORT = (
    "scores",
    "events",
    "recordings",
    "classes",
    "confusion",
    "calibration",
    "changes",
    "prevalence",
    "training",
    "provenance",
)


class Detection:
    """`local.models.task_contract.Task`: sound events from windows of features."""

    # The table of `local.stages.dependencies` is that of detection.
    dependencies: ClassVar[dict[str, Dependencies]] = {}

    def __init__(self, config: Config) -> None:
        self.config = config
        for key in config.task_params:
            raise CanopyError(
                f"task_params.{key}: detection has no settings there, but sections of its own; "
                "remove it"
            )

    def check_config(self) -> None:
        """Metric, model and windows must fit each other; the model scores a window of noise."""
        from local.tasks.detection_checks import check_config

        check_config(self.config)

    def check_tables(self, tables: "Tables", datadir: Path) -> None:
        """Classes, reviewed rows, priors, first weights and windows must fit the tables."""
        from local.tasks.detection_checks import check_tables

        check_tables(self.config, tables, datadir)

    def suggest(self, tables: "Tables", given: dict[str, Any]) -> list[Suggestion]:
        """Band, cells, windows, lengths of events, epochs, by what is annotated."""
        from local.data.annotated import Annotated
        from local.tasks.detection_suggestions import suggest

        return suggest(Annotated.of(tables), given)

    def trial(self, n: int, device: "torch.device") -> "Trial":
        """The model with windows of noise; the loss is the mean square of the frame logits."""
        from local.tasks.detection_checks import trial

        return trial(self.config, n, device)

    # ------------------------------------------------------------------------------------ stage 2

    def load_initial(self, experiment: "Experiment", path: Path) -> "dict[str, torch.Tensor]":
        """Weights of a trained model of the same classes."""
        from local.tasks.detection_checks import load_fitting

        return load_fitting(self.config, path, experiment.tables.labels)

    def fold_data(self, experiment: "Experiment", cycle: int, fold: int) -> "DetectionFold":
        """Windows of the recordings that the fold may learn from."""
        from local.tasks.detection_fold import make_fold

        return make_fold(experiment, cycle, fold)

    # ------------------------------------------------------------------------------------ stage 3

    def load_model(self, experiment: "Experiment", path: Path) -> "SedModel":
        """The model of a fold, which must have the classes of the tables."""
        from local.models.checkpoint import load_model

        return load_model(path, experiment.tables.labels, experiment.run.device)

    def score(
        self,
        experiment: "Experiment",
        model: "SedModel",
        names: list[str],
        progress: str | None,
        kept: "PartialScores | None",
        shard: "Shard | None",
    ) -> "Scores":
        """Scores over time by sliding windows."""
        from local.inference.score_recordings import score_recordings

        labels, device = experiment.tables.labels, experiment.run.device
        return score_recordings(
            model, experiment.dump, names, labels, device, progress, kept, shard
        )

    def save(self, path: Path, outputs: "Scores", merged: bool = False, **arrays: Any) -> None:
        """Scores over time and one a recording; merged ones over time only if they are kept."""
        from local.inference.score_files import save_scores
        from local.inference.scores import clip_logits

        inference = self.config.inference
        keep_frames = inference.keep_frames or not merged
        clip = clip_logits(outputs, inference.pool)
        save_scores(path, outputs, clip, keep_frames, **arrays)

    def load(self, path: Path) -> "tuple[Scores, dict[str, Any]]":
        """Scores, and the members of the file."""
        from local.inference.score_files import load_scores

        return load_scores(path)

    def combine(self, parts: "list[Scores]") -> "Scores":
        """The mean in probability."""
        from local.inference.scores import average_scores

        return average_scores(parts)

    def further(self, experiment: "Experiment", cycle: int, fold: int) -> Path | None:
        """Scores of inserted calls, where prevalence is estimated with them."""
        from local.tasks.detection_evidence import inserted_path

        return inserted_path(experiment, cycle, fold)

    def write_further(
        self, experiment: "Experiment", cycle: int, fold: int, model: "SedModel"
    ) -> None:
        """Insert held-out calls in test recordings and score them."""
        from local.tasks.detection_evidence import insert_fold

        insert_fold(experiment, cycle, fold, model)

    # ------------------------------------------------------------------------------ stages 4 and 5

    @property
    def revised_cycles(self) -> list[int]:
        """`relabel.n_cycles` cycles of pseudo labels."""
        return list(range(1, self.config.relabel.n_cycles + 1))

    def stop_reason(self, experiment: "Experiment", cycle: int) -> str:
        """That out-of-fold evidence fell by more than `relabel.max_fall`."""
        from local.tasks.detection_rounds import stop_reason

        return stop_reason(experiment, cycle)

    def revise(self, experiment: "Experiment", cycle: int, outputs: "Scores") -> list[Path]:
        """Soft labels or pseudo events."""
        from local.tasks.detection_relabel import write_labels

        return write_labels(experiment, cycle, outputs)

    def submit(self, experiment: "Experiment", cycles: list[int]) -> "Submission":
        """submission.csv, and with `events.tune` a rule and events."""
        from local.tasks.detection_submit import submit

        return submit(experiment, cycles)

    def report(
        self, experiment: "Experiment", results: dict[str, Any]
    ) -> "list[str | ReportSection]":
        """All that the page has."""
        return list(REPORT)
