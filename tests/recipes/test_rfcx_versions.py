"""Every shipped version: checked at its full size, then trained, saved, loaded and used.

The latter on a tiny simulated competition, with its own front end, model, loss and augmentation.
Only windows, epochs and batches are smaller, nothing is fetched, and the widest network is thinner.
"""

import importlib.util
import math
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from local.config import Config, load_config
from local.features.front_ends.front_end_registry import front_end_of
from local.inference.score_files import load_scores
from local.io.seeds import seed_torch
from local.labels.windows import n_cells, window_frames, window_starts
from local.models import create_model, without_pretrained
from local.models.checkpoint import load_checkpoint, load_model
from local.stages.experiment import Experiment
from local.stages.infer import merge
from local.stages.run import Run
from local.stages.stage_options import stage_parser
from local.stages.starting import start
from local.tasks import detection_fold
from recipes.demo.competition import simulate
from recipes.demo.settings import settings_from

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# Ultrasound needs other recordings than the bench's: tests/local/config/test_config.py steps one.
SHIPPED = sorted(
    path.relative_to(ROOT).as_posix()
    for recipe in ("demo", "mine", "rfcx")
    for path in (ROOT / "conf" / recipe).glob("*.yaml")
)
# What versions build on; it names no front end or model of its own.
BASES = {"conf/rfcx/base.yaml"}
VERSIONS = [name for name in SHIPPED if name not in BASES]
DATA = {
    "size": "tiny",
    "n_train": 8,
    "n_test": 2,
    "duration_s": 3.0,
    "sample_rate": 48000,
    "species": [3, 13, 16],
    "n_tp_per_class": 4,
    "n_train_sites": 4,
    "n_test_sites": 1,
}
SMALL = (
    *("split.n_folds=2", "window.length_s=1.4", "score.n_bootstrap=0"),
    *("inference.window_frames=null", "inference.overlap_frames=null", "inference.batch_size=4"),
    *("train.n_epochs=1", "train.windows_per_epoch=4", "train.batch_size=2", "train.n_workers=0"),
    "model.init=null",
)


def load(script: str) -> ModuleType:
    path = ROOT / script
    spec = importlib.util.spec_from_file_location(f"version_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smaller(name: str) -> list[str]:
    """Overrides that make a version of this model small and keep it from the network."""
    model = load_config(ROOT / name).model
    changes = list(SMALL)
    if model.params.get("pretrained"):
        changes.append("model.params.pretrained=false")
    if model.name == "cnn14":
        changes.append("model.params.channels=[4, 8, 8, 16, 16, 32]")
    return changes


class Bench:
    """The stages on one data folder and one dump folder, in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.dump = folder / "data", folder / "dump"
        self.exp = folder / "exp"
        names = ("preprocess", "split", "sed_train", "sed_infer", "relabel", "check_config")
        self.scripts = {name: load(f"bin/{name}.py") for name in names}
        simulate(settings_from(DATA), self.data, 1)
        prepare = load("recipes/rfcx/prepare.py")
        options = ["--datadir", str(self.data), "--out", str(self.dump / "tables")]
        assert prepare.main([*options, "--conf", str(ROOT / "conf/rfcx/laptop.yaml")]) == 0

    def options(self, name: str, changes: list[str], tag: str | None = None) -> list[str]:
        options = ["--recipe", "rfcx", "--conf", str(ROOT / name), "--device", "cpu", "--nj", "1"]
        options += ["--datadir", str(self.data), "--dumpdir", str(self.dump)]
        options += ["--expdir", str(self.exp), "--tag", tag or Path(name).stem]
        return options + [word for change in changes for word in ("--set", change)]

    def ready(self, name: str, changes: list[str], tag: str | None = None) -> tuple[list[str], Run]:
        """Stages 0 and 1; features are made once a front end."""
        options = self.options(name, changes, tag)
        for stage in ("preprocess", "split"):
            assert self.scripts[stage].main(options) == 0
        return options, start(stage_parser(None).parse_args(options), "test")

    def train(self, options: list[str], fold: int = 0, cycle: int = 0) -> None:
        where = ["--cycle", str(cycle), "--worker", "--folds", str(fold)]
        assert self.scripts["sed_train"].main([*options, *where]) == 0

    def infer(self, options: list[str], fold: int = 0, cycle: int = 0) -> None:
        where = ["--cycle", str(cycle), "--worker", "--folds", str(fold)]
        assert self.scripts["sed_infer"].main([*options, *where]) == 0


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    n_threads = torch.get_num_threads()
    yield Bench(tmp_path_factory.mktemp("versions"))
    torch.set_num_threads(n_threads)


def parts_of(config: Config) -> set[str]:
    """Columns of log.csv that the version's loss must have."""
    loss = config.loss
    weights = {
        "clip": loss.clip_weight,
        "frame": loss.frame_weight,
        "activity": loss.activity_weight,
        "centre": loss.centre_weight,
    }
    parts = {part for part, weight in weights.items() if weight > 0}
    if loss.unknown_weight > 0:
        parts |= {f"{part}_unknown" for part in parts & {"clip", "frame"}}
    return {f"loss_{part}" for part in (*parts, "total")}


def fresh(run: Run, n_classes: int) -> torch.nn.Module:
    """The model of fold 0 as training began it."""
    config = run.config
    seed_torch(config.seed, "cycle0/fold0", "weights")
    params = without_pretrained(config.model.params)
    return create_model(config.model.name, params, n_classes, config.features.n_mels)


# ------------------------------------------------------------------------------------------ every


@pytest.mark.parametrize("name", SHIPPED)
def test_the_check_passes_at_full_size_without_data(bench, tmp_path, name, capsys):
    options = ["--recipe", "rfcx", "--conf", str(ROOT / name), "--device", "cpu"]
    for folder in ("datadir", "dumpdir", "expdir"):
        options += [f"--{folder}", str(tmp_path / folder)]
    assert bench.scripts["check_config"].main(options) == 0
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize("name", VERSIONS)
def test_a_step_a_checkpoint_and_scores(bench, name):
    """Forward, backward, save, load, infer.

    Pins defect 22 of earlier systems: shipped versions crashed when they were run.
    """
    options, run = bench.ready(name, smaller(name))
    bench.train(options)
    folder = run.fold(0, 0)
    log = pd.read_csv(folder / "log.csv")
    assert {column for column in log if column.startswith("loss_")} == parts_of(run.config)
    assert np.isfinite(log["loss_total"]).all()

    experiment = Experiment(run)
    labels = experiment.tables.labels
    model = load_model(folder / "best.pt", labels, "cpu")
    before = dict(fresh(run, len(labels)).named_parameters())
    assert any(not torch.equal(value, before[key]) for key, value in model.named_parameters())
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    averaged = load_checkpoint(folder / "last.pt")["ema"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, averaged[f"module.{key}"]), key

    bench.infer(options)
    scores, _ = load_scores(folder / "scores.npz")
    assert scores.labels == labels
    assert set(scores.recording_ids) == set(experiment.scored_ids(0, 0))
    assert len(scores.recording_ids) >= 4
    assert np.isfinite(scores.window).all()
    for recording_id, frames in zip(scores.recording_ids, scores.frames, strict=True):
        n_frames = experiment.dump.n_frames(recording_id)
        assert frames.shape == (len(labels), n_cells(n_frames, model.step))
        assert np.isfinite(frames).all()
    shutil.rmtree(run.exp)


# ------------------------------------------------------------------------- what they have in common


def test_every_fold_has_the_same_configuration_and_mixup(bench, monkeypatch):
    """Fold 0 turned mixup off and halved its batches, and the others inherited that.

    Pins defect 1 of earlier systems: one fold changed the settings of those after it.
    """
    real, seen, settings = detection_fold.augment, [], []

    def spy(batch, config, *more):
        mixed = real(batch, config, *more)
        seen.append((config, len(batch.x), not torch.equal(mixed.x, batch.x)))
        return mixed

    monkeypatch.setattr(detection_fold, "augment", spy)
    small = ["model.name=crnn", "model.params.activity=true", "model.params.gru=0"]
    small += ["train.windows_per_epoch=32", "train.batch_size=16"]
    kept = [change for change in SMALL if not change.startswith("train.w")]
    name = "conf/rfcx/eff_v023.yaml"
    options, run = bench.ready(name, [*kept, *small], tag="folds")
    for fold in (0, 1):
        bench.train(options, fold)
        settings.append(Experiment(run).stamp("train", 0, fold).made_of["settings"])
        assert settings[fold].pop("fold") == fold
    assert settings[0] == settings[1]
    asked = load_config(ROOT / name).augment
    assert asked.mixup_alpha == 0.1
    assert seen == [(asked, 16, True)] * 4


def test_a_later_stage_begins_with_the_weights_of_the_first(bench):
    first, second = (f"conf/rfcx/second_stage{stage}.yaml" for stage in (1, 2))
    options, run = bench.ready(first, smaller(first))
    bench.train(options)
    path = run.fold(0, 0) / "best.pt"
    still = [*smaller(second), f"model.init={path}", "train.lr=1.0e-12"]
    options, later = bench.ready(second, still)
    bench.train(options)
    labels = Experiment(run).tables.labels
    before = dict(load_model(path, labels, "cpu").named_parameters())
    after = load_model(later.fold(0, 0) / "best.pt", labels, "cpu")
    for key, value in after.named_parameters():
        torch.testing.assert_close(value, before[key], rtol=0, atol=1e-9)


@pytest.mark.parametrize("stage", [2, 3])
def test_each_fold_is_asked_to_go_on_from_its_own_first_stage(stage):
    """Any other fold's model has seen what this one holds out."""
    config = load_config(ROOT / f"conf/rfcx/second_stage{stage}.yaml")
    assert config.model.init == "exp/rfcx/second_stage1/cycle0/fold{fold}/best.pt"
    assert config.relabel.n_cycles == 0 or config.relabel.start == "scratch"


def test_the_third_stage_relabels(bench):
    """Cycle 1 of its own pseudo rows, from out-of-fold scores alone."""
    name = "conf/rfcx/second_stage3.yaml"
    changes = [*smaller(name), "relabel.threshold=0.2", "relabel.min_duration_s=0.01"]
    options, run = bench.ready(name, changes)
    for fold in (0, 1):
        bench.train(options, fold)
        bench.infer(options, fold)
    merge(Experiment(run), 0, [0, 1])
    assert bench.scripts["relabel"].main([*options, "--cycle", "1"]) == 0
    pseudo = pd.read_csv(run.cycle(1) / "pseudo_events.csv")
    assert len(pseudo) > 0
    assert set(pseudo["polarity"]) == {1.0}
    assert set(pseudo["weight"]) == {0.5}
    bench.train(options, cycle=1)
    assert np.isfinite(pd.read_csv(run.fold(1, 0) / "log.csv")["loss_total"]).all()


# --------------------------------------------------------------------------------- what they were


@pytest.mark.parametrize(
    ("name", "n_frames", "step", "starts"),
    [
        ("first", 5626, 32, [767 * k for k in range(7)]),
        ("eff_v031", 5626, 32, [767 * k for k in range(7)]),
        ("conformer_v003", 5626, 1, [*range(0, 4861, 270), 5114]),
        ("second_stage1", 3751, 32, [*range(0, 3073, 256), 3239]),
    ],
)
def test_windows_over_a_minute_are_those_of_then(name, n_frames, step, starts):
    config = load_config(ROOT / f"conf/rfcx/{name}.yaml")
    hop_s = front_end_of(config).hop_s
    assert n_frames == int(60 / hop_s) + 1
    settings = config.inference
    assert window_frames(config.window.length_s, hop_s, step) == settings.window_frames
    found = window_starts(n_frames, settings.window_frames, settings.overlap_frames)
    assert found.tolist() == starts


def test_the_steps_of_then():
    """3,000, 10,000 and 5,000 optimiser steps; the highest rate of Noam's rule."""
    for name, n_steps, rate in (
        ("eff_v031", 3000, 8e-4),
        ("cnn14_v014", 3000, 2e-4),
        ("transformer_v003", 10000, 0.1 / math.sqrt(128 * 8000)),
        ("conformer_v003", 5000, 1 / math.sqrt(144 * 4000)),
    ):
        train = load_config(ROOT / f"conf/rfcx/{name}.yaml").train
        steps = train.windows_per_epoch / (train.batch_size * train.accumulate)
        assert steps * train.n_epochs == n_steps
        assert train.lr == pytest.approx(rate, rel=1e-3)


def test_the_page_lists_the_versions():
    page = (ROOT / "recipes/rfcx/README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(conf/rfcx/[a-z0-9_]+\.yaml)`", page, re.M))
    assert listed == {name for name in SHIPPED if name.startswith("conf/rfcx/")} - BASES - {
        "conf/rfcx/first.yaml",
        "conf/rfcx/second.yaml",
    }
