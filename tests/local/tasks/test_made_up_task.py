"""A task that is nothing like detection goes through all stages: it touches no file but this one.

It regresses one number a recording, the mean level of its features, from short windows. Members and
windows are averaged; stage 4 calibrates: it fits scale and offset on out-of-fold outputs; stage 5
writes a csv. It has no class, no time and no model of the registry.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from torch import nn

from local.config import load_config
from local.config.relevance import Dependencies
from local.data.tables import EVENT_COLUMNS, RECORDING_COLUMNS, Tables, read_table, write_tables
from local.features.store import FeatureStore
from local.io.archives import read_npz
from local.io.errors import CanopyError
from local.io.files import read_json, write_csv, write_json, write_npz
from local.io.seeds import generator
from local.jobs.interruption import Interrupted
from local.models.checkpoint import load_checkpoint
from local.models.task_contract import ReportSection, Submission, Trial
from local.stages.checks import check_config
from local.tasks.task_registry import create_task, register
from local.training.profiling import profile_step

WINDOW = 10


class LevelModel(nn.Module):
    """(B, 8, T) features -> (B,) levels."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = nn.Linear(8, 1)

    def forward(self, x):
        return self.bands(x.mean(dim=2))[:, 0]


class SquaredError(nn.Module):
    def forward(self, output, batch):
        error = (output - batch["level"]).square().mean()
        return {"square": error, "total": error}


@dataclass
class Levels:
    """One number a recording."""

    recording_ids: list[str]
    level: np.ndarray

    def take(self, names):
        rows = [self.recording_ids.index(name) for name in names]
        return Levels(list(names), self.level[rows])

    def join(self, others):
        parts = [self, *others]
        names = [name for part in parts for name in part.recording_ids]
        return Levels(names, np.concatenate([part.level for part in parts]))


def true_levels(dump, names):
    return np.array([dump.crop(name, 0, dump.n_frames(name)).mean() for name in names])


class Windows(torch.utils.data.Dataset):
    def __init__(self, fold, plan):
        self.fold, self.plan = fold, plan

    def __len__(self):
        return len(self.plan)

    def __getitem__(self, item):
        row, start = self.plan[item]
        name = self.fold.names[row]
        x = torch.from_numpy(self.fold.dump.crop(name, int(start), WINDOW))
        return {"x": x, "level": torch.tensor(self.fold.levels[row], dtype=torch.float32)}

    def describe(self, item):
        row, start = self.plan[item]
        return {"recording_id": self.fold.names[row], "first_frame": int(start)}


@dataclass
class LevelFold:
    task: "LevelTask"
    name: str
    folder: Path
    device: str
    held_out: list[str]
    names: list[str]
    dump: FeatureStore

    n_examples = 24

    def __post_init__(self):
        self.recipe = {"name": "level"}
        self.levels = true_levels(self.dump, self.names)

    def create_model(self):
        return LevelModel()

    def create_objective(self, model):
        return SquaredError()

    def examples(self, model, epoch):
        rng = generator(self.task.config.seed, self.name, "plan", epoch)
        rows = rng.integers(0, len(self.names), self.n_examples)
        return Windows(self, np.stack([rows, rng.integers(0, 10, len(rows))], axis=1))

    def make_batch(self, tensors, rng):
        self.task.before_batch()
        noise = torch.randn(tensors["x"].shape, generator=rng)
        return {**tensors, "x": tensors["x"] + 0.01 * noise}

    def forward(self, model, batch):
        return model(batch["x"])

    def score(self, model, shard=None):
        return score(model, self.dump, self.held_out, 2)

    def measure(self, outputs):
        if outputs is None:
            return {"valid": math.nan}
        found = outputs.level - true_levels(self.dump, outputs.recording_ids)
        return {"valid": -float(np.sqrt(np.mean(found**2)))}


@torch.inference_mode()
def score(model, dump, names, n_windows):
    """Mean over the first windows of each recording."""
    levels = []
    for name in names:
        crops = [dump.crop(name, k * WINDOW, WINDOW) for k in range(n_windows)]
        levels.append(float(model(torch.from_numpy(np.stack(crops))).mean()))
    return Levels(list(names), np.array(levels))


class LevelTask:
    # Its stage 4 goes by no threshold; of the other stages it has nothing else to say.
    dependencies: ClassVar = {
        "relabel": Dependencies(
            version=1,
            matters="task task_params",
            unread="""seed prepare audio features data split window model loss augment train
                inference relabel prior score events report""",
            files="before/oof.npz features/manifest.csv",
        )
    }

    def __init__(self, config):
        self.config = config
        self.n_windows = config.task_params.get("n_windows", 2)
        self.before_batch = lambda: None

    def check_config(self):
        if self.n_windows < 1:
            raise CanopyError("task_params.n_windows must be 1 or more")

    def check_tables(self, tables, datadir):
        pass

    def trial(self, n, device):
        x = torch.zeros(n, 8, WINDOW, device=device)
        return Trial(LevelModel().to(device), x, torch.sum, f"{n} windows")

    def load_initial(self, experiment, path):
        return load_checkpoint(path)["model"]

    def fold_data(self, experiment, cycle, fold):
        return LevelFold(
            self,
            f"cycle{cycle}/fold{fold}",
            experiment.run.fold(cycle, fold),
            experiment.run.device,
            experiment.held_out_ids(fold),
            experiment.training_ids(cycle, fold),
            experiment.dump,
        )

    def load_model(self, experiment, path):
        model = LevelModel()
        model.load_state_dict(load_checkpoint(path)["model"])
        return model.to(experiment.run.device).eval()

    def score(self, experiment, model, names, progress, kept, shard):
        found = kept.get(names)
        if found is None:
            found = score(model, experiment.dump, names, self.n_windows)
            kept.add(found)
        return found

    def save(self, path, outputs, merged=False, **arrays):
        names = np.array(outputs.recording_ids, dtype=np.str_)
        write_npz(path, recording_id=names, level=outputs.level, **arrays)

    def load(self, path):
        arrays = read_npz(path)
        return Levels(arrays["recording_id"].tolist(), arrays["level"]), arrays

    def combine(self, parts):
        return Levels(parts[0].recording_ids, np.mean([part.level for part in parts], axis=0))

    def further(self, experiment, cycle, fold):
        return None

    def write_further(self, experiment, cycle, fold, model):
        raise NotImplementedError

    revised_cycles = (0,)

    def stop_reason(self, experiment, cycle):
        return ""

    def revise(self, experiment, cycle, outputs):
        outputs = outputs.take(experiment.ids("train"))
        truth = true_levels(experiment.dump, outputs.recording_ids)
        scale, offset = np.polyfit(outputs.level, truth, 1)
        path = experiment.run.cycle(cycle) / "calibration.json"
        write_json(path, {"scale": scale, "offset": offset})
        return [path]

    def submit(self, experiment, cycles):
        run, scores = experiment.run, {}
        line = read_json(run.cycle(0) / "calibration.json")
        for name in ("oof", "test"):
            outputs, _ = self.load(run.cycle(0) / f"{name}.npz")
            truth = true_levels(experiment.dump, outputs.recording_ids)
            calibrated = line["scale"] * outputs.level + line["offset"]
            error = float(np.sqrt(np.mean((calibrated - truth) ** 2)))
            scores[name] = {"value": error, "low": math.nan, "high": math.nan, "n": len(truth)}
        table = pd.DataFrame({"recording_id": outputs.recording_ids, "level": calibrated})
        write_csv(run.exp / "levels.csv", table)
        results = {"metric": "error", "cycles": [{"cycle": 0, "scores": scores}], "line": line}
        return Submission(results, [run.exp / "levels.csv"], f"error {error:.3f}")

    def report(self, experiment, results):
        rows = tuple(results["line"].items())
        line = ReportSection("Scale & offset", "Fitted.", columns=("what", "value"), rows=rows)
        return ["scores", line, "training", "provenance"]


@pytest.fixture(autouse=True)
def level():
    """Function: what to do before a batch; the task is registered by one line."""
    calls = []

    def make(config):
        task = LevelTask(config)
        task.before_batch = lambda: [call() for call in calls]
        return task

    register("level", make)
    return calls


@pytest.fixture
def stage(tmp_path, script):
    """Function: script, options -> its exit code, on ten recordings of noise in five groups."""
    rng = np.random.default_rng(2)
    names = [f"r{i}" for i in range(8)] + ["t0", "t1"]
    (tmp_path / "data").mkdir()
    for position, name in enumerate(names):
        wave = rng.normal(0, 0.01 * 1.5**position, 3000)
        soundfile.write(tmp_path / "data" / f"{name}.wav", wave, 1000, subtype="FLOAT")
    recordings = pd.DataFrame({"recording_id": names}).assign(
        path=[f"{name}.wav" for name in names],
        subset=["train"] * 8 + ["test"] * 2,
        group=[f"g{i // 2}" for i in range(8)] + ["h", "h"],
        duration=3.0,
        sample_rate=1000.0,
        channels=1.0,
    )
    events = (
        recordings[["recording_id"]]
        .iloc[:8]
        .assign(label="sound", onset=0.0, offset=3.0, polarity=1, weight=1.0, source="made")
    )
    events = events.assign(low_freq=np.nan, high_freq=np.nan)
    classes = pd.DataFrame(
        {"label": ["sound"], "name": ["sound"], "low_freq": [np.nan], "high_freq": [np.nan]}
    )
    tables = Tables(recordings[list(RECORDING_COLUMNS)], events[list(EVENT_COLUMNS)], classes)
    write_tables(tmp_path / "dump" / "tables", tables, tmp_path / "data")
    settings = {
        "task": "level",
        "task_params": {"n_windows": 2},
        "audio": {"sample_rate": 1000},
        "features": {"n_fft": 128, "hop_length": 100, "n_mels": 8, "f_min_hz": 10},
        "split": {"n_folds": 2},
        "train": {"n_epochs": 3, "batch_size": 6, "lr": 0.05, "select": "best", "n_workers": 0},
    }
    (tmp_path / "level.yaml").write_text(yaml.safe_dump(settings))

    def call(name, *more, exp="exp"):
        options = ["--conf", str(tmp_path / "level.yaml"), "--device", "cpu", "--nj", "1"]
        for option, folder in (("datadir", "data"), ("dumpdir", "dump"), ("expdir", exp)):
            options += [f"--{option}", str(tmp_path / folder)]
        return script(name).main([*options, *more])

    return call


def train_both(stage, **where):
    for name in ("preprocess", "split"):
        assert stage(name, **where) == 0
    assert stage("sed_train", "--worker", **where) == 0


@pytest.mark.slow
def test_all_stages(stage, tmp_path):
    train_both(stage)
    assert stage("sed_infer", "--worker") == 0
    assert stage("sed_infer") == 0
    assert stage("relabel", "--cycle", "0") == 0
    before = (tmp_path / "exp/level/cycle0/relabel.done.json").stat().st_mtime_ns
    assert stage("relabel", "--cycle", "0", "--set", "relabel.threshold=0.3") == 0
    assert (tmp_path / "exp/level/cycle0/relabel.done.json").stat().st_mtime_ns == before
    assert stage("submit") == 0
    exp = tmp_path / "exp" / "level"
    # Out-of-fold: of each recording by the fold that did not see its group.
    fold_of = read_table(exp / "folds.csv", ("recording_id", "fold")).set_index("recording_id")
    arrays = read_npz(exp / "cycle0" / "oof.npz")
    for name, used in zip(arrays["recording_id"], arrays["used"], strict=True):
        if name.startswith("r"):
            assert np.flatnonzero(used).tolist() == [int(fold_of["fold"][name])]
    tested = read_npz(exp / "cycle0" / "test.npz")
    parts = [read_npz(exp / "cycle0" / f"fold{k}" / "scores.npz") for k in range(2)]
    mean = [
        np.mean([p["level"][p["recording_id"].tolist().index(name)] for p in parts])
        for name in ("t0", "t1")
    ]
    np.testing.assert_allclose(tested["level"], mean)
    # What it hands in, and what is told of it.
    results = read_json(exp / "results.json")
    assert results["run"]["seed"] == 0
    levels = pd.read_csv(exp / "levels.csv")
    expected = results["line"]["scale"] * tested["level"] + results["line"]["offset"]
    np.testing.assert_allclose(levels["level"], expected)
    page = (exp / "report.html").read_text()
    assert "Scale &amp; offset" in page
    assert "What pseudo labels changed" not in page
    ledger = pd.read_csv(tmp_path / "exp" / "ledger.csv", dtype=str)
    assert float(ledger["cv"][0]) == pytest.approx(
        results["cycles"][0]["scores"]["oof"]["value"], abs=1e-6
    )
    log = pd.read_csv(exp / "cycle0" / "fold0" / "log.csv")
    assert {"loss_square", "valid"} <= set(log.columns)
    # A second time nothing is done.
    before = {path: path.stat().st_mtime_ns for path in exp.rglob("*.npz")}
    assert [stage("sed_train", "--worker"), stage("sed_infer"), stage("submit")] == [0, 0, 0]
    assert {path: path.stat().st_mtime_ns for path in exp.rglob("*.npz")} == before


@pytest.mark.slow
def test_training_that_was_stopped_goes_on_exactly(stage, level, tmp_path):
    train_both(stage)
    count = []

    def stop():
        count.append(1)
        # The third batch of the second epoch, of four.
        if len(count) == 7:
            raise Interrupted("SIGTERM", "a batch")

    level.append(stop)
    for name in ("preprocess", "split"):
        assert stage(name, exp="other") == 0
    with pytest.raises(Interrupted):
        stage("sed_train", "--worker", exp="other")
    step = load_checkpoint(tmp_path / "other/level/cycle0/fold0/step.pt")["progress"]
    assert (step["epoch"], step["step"]) == (1, 2)
    level.clear()
    assert stage("sed_train", "--worker", exp="other") == 0
    for fold in range(2):
        for file in ("best.pt", "log.csv"):
            paths = [tmp_path / exp / f"level/cycle0/fold{fold}/{file}" for exp in ("exp", "other")]
            assert paths[0].read_bytes() == paths[1].read_bytes()


def test_its_settings_are_checked_and_its_step_is_measured(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("task: level\ntask_params: {n_windows: 0}\n")
    with pytest.raises(CanopyError, match=r"task_params\.n_windows"):
        check_config(load_config(path))
    path.write_text("task: level\n")
    check_config(load_config(path))
    trial = create_task(load_config(path)).trial(2, torch.device("cpu"))
    assert profile_step(trial, None, 1).kept_bytes > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: detecton", "task is 'detecton', expected one of .*; the nearest is detection"),
        ("task_params: {arena: 1}", r"task_params\.arena: detection has no settings there"),
    ],
)
def test_what_no_task_knows_is_refused(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(CanopyError, match=words):
        check_config(load_config(path))
