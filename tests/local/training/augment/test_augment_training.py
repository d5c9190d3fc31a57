"""Training with augmentation on: it resumes exactly, reads alike with workers, and learns."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml

import local.training.fold_loop
from local.config import Config
from local.data.tables import EVENT_COLUMNS, RECORDING_COLUMNS, Tables, write_tables
from local.features.npz import stretched_folder
from local.io.errors import CanopyError
from local.models.checkpoint import load_checkpoint
from local.stages.experiment import Experiment
from local.stages.stage_options import stage_parser
from local.stages.starting import start
from local.tasks.detection_fold import DetectionFold
from local.training.augment.input_kind import check_augment
from local.training.epoch_plan import make_training_set
from local.training.fold_loop import Trainer

RATE = 8000
SETTINGS = {
    "audio": {"sample_rate": RATE},
    "features": {
        "n_fft": 256,
        "hop_length": 80,
        "n_mels": 16,
        "keep_wave": True,
        "stretches": [0.9, 1.1],
    },
    "split": {"n_folds": 2},
    "window": {
        "length_s": 0.8,
        "short": "repeat",
        "p_stretched": 0.5,
        "balance_batches": True,
        "min_visible_s": 0.1,
    },
    "model": {
        "name": "crnn",
        "params": {"channels": [8, 8], "pool": [[2, 2], [2, 2]], "depth": 1, "gru": 0},
    },
    "augment": {
        "mixup_lambda": 0.6,
        "mixup_at": "last",
        "freq_masks": 1,
        "freq_mask_spares_calls": True,
        "shift_s": 0.3,
        "stretch": [0.9, 1.1],
        "pitch_bands": 1,
        "noise_p": 0.5,
        "background_p": 0.5,
        "wave_p": 0.5,
        "wave_pitch": [-1, 1],
    },
    "train": {
        "n_epochs": 2,
        "windows_per_epoch": 24,
        "batch_size": 8,
        "validate_every": 2,
        "amp": False,
        "ema_decay": 0.5,
    },
    "inference": {"tta": {"stretches": [1.1]}},
    "score": {"n_bootstrap": 0},
}


@pytest.fixture
def corpus(tmp_path, script):
    """Function: changes of SETTINGS -> the Run, with stages 0 and 1 done by their scripts."""
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    recordings, events = [], []
    for i in range(8):
        name, onset, label = f"r{i}", 0.4 + 0.1 * (i % 3), "ab"[i % 2]
        wave = rng.normal(0, 0.01, 2 * RATE)
        time = np.arange(int(0.5 * RATE)) / RATE
        first = int(onset * RATE)
        wave[first : first + len(time)] += 0.2 * np.sin(2 * np.pi * (800, 2200)[i % 2] * time)
        soundfile.write(data / f"{name}.wav", wave, RATE)
        subset = "train" if i < 6 else "test"
        recordings.append((name, f"{name}.wav", subset, 2.0, float(RATE), 1.0, name))
        if subset == "train":
            band = (600.0, 1000.0) if label == "a" else (2000.0, 2500.0)
            events.append((name, label, onset, onset + 0.5, *band, 1, 1.0, "tp"))
            events.append((name, "ba"[i % 2], 1.1, 1.9, np.nan, np.nan, -1, 1.0, "fp"))
    classes = pd.DataFrame({"label": ["a", "b"], "name": ["a", "b"]})
    tables = Tables(
        pd.DataFrame(recordings, columns=list(RECORDING_COLUMNS)),
        pd.DataFrame(events, columns=list(EVENT_COLUMNS)),
        classes.assign(low_freq=np.nan, high_freq=np.nan),
    )
    write_tables(tmp_path / "dump" / "tables", tables, data)

    def make(**changes):
        settings = {key: dict(value) for key, value in SETTINGS.items()}
        settings["relabel"] = {"n_cycles": 0}
        for key, value in changes.items():
            section, _, name = key.partition("__")
            settings[section][name] = value
        conf = tmp_path / "version.yaml"
        conf.write_text(yaml.safe_dump(settings))
        options = ["--recipe", "toy", "--conf", str(conf), "--device", "cpu", "--nj", "1"]
        for name, folder in (("datadir", "data"), ("dumpdir", "dump"), ("expdir", "exp")):
            options += [f"--{name}", str(tmp_path / folder)]
        for stage in ("preprocess", "split"):
            assert script(stage).main(options) == 0
        return start(stage_parser(None).parse_args(options), "test")

    return make


def train(run, folder):
    experiment = Experiment(run)
    folder.mkdir(parents=True, exist_ok=True)
    names = experiment.training_ids(0, 0)
    fold_data = DetectionFold(
        name="cycle0/fold0",
        training_set=make_training_set(
            experiment.tables, experiment.tables.events, names, experiment.dump
        ),
        held_out=experiment.held_out_ids(0),
        events=experiment.tables.events,
        labels=experiment.tables.labels,
        dump=experiment.dump,
        folder=folder,
        device="cpu",
    )
    trainer = Trainer(fold_data, run.config)
    trainer.run()
    return trainer


def test_stage_0_makes_every_dump_once(corpus, caplog):
    run = corpus()
    folders = [stretched_folder(run.features, factor) for factor in (1.0, 0.9, 1.1)]
    for folder, factor in zip(folders, (1.0, 0.9, 1.1), strict=True):
        manifest = pd.read_csv(folder / "manifest.csv")
        assert manifest["status"].tolist() == ["ok"] * 8
        np.testing.assert_allclose(manifest["duration"], 2.0 * factor)
        assert (manifest["n_frames"] == 1 + round(2 * RATE * factor) // 80).all()
        assert (folder / "preprocess.done.json").is_file()
    times = {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("*.npz")}
    corpus()
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.slow
def test_training_with_everything_on_resumes_exactly(corpus, tmp_path, monkeypatch):
    run = corpus()
    train(run, tmp_path / "unbroken")
    step = Trainer._step

    class PlugPulledError(Exception):
        pass

    def dying(self, batch, rows):
        if self.progress.epoch == 1:
            raise PlugPulledError
        return step(self, batch, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(PlugPulledError):
            train(run, tmp_path / "broken")
    assert load_checkpoint(tmp_path / "broken" / "last.pt")["progress"]["epoch"] == 1
    torch.rand(3)
    train(run, tmp_path / "broken")
    whole, resumed = (tmp_path / name / "best.pt" for name in ("unbroken", "broken"))
    assert whole.read_bytes() == resumed.read_bytes()
    log = pd.read_csv(tmp_path / "unbroken" / "log.csv")
    assert np.isfinite(log["loss_total"]).all()


@pytest.mark.slow
def test_workers_train_the_same_model(corpus, tmp_path):
    for n in (0, 2):
        train(corpus(train__n_workers=n), tmp_path / f"w{n}")
    one, two = (tmp_path / f"w{n}" / "best.pt" for n in (0, 2))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "off"),
    [
        ("augment__mixup_lambda", None),
        ("augment__shift_s", 0.0),
        ("augment__stretch", None),
        ("augment__pitch_bands", 0),
        ("augment__noise_p", 0.0),
        ("augment__background_p", 0.0),
        ("augment__freq_mask_spares_calls", False),
        ("augment__wave_pitch", [-0.0, 0.0]),
        ("window__p_stretched", 0.0),
        ("window__balance_batches", False),
    ],
)
def test_each_of_them_reaches_the_network(corpus, tmp_path, monkeypatch, key, off):
    """With one of them off the network, or its targets, differ.

    Pins defect 2 of earlier systems: augmentation was configured and never ran.
    """
    seen = []

    def noted(self, batch, rows):
        if batch.mix is None:
            mixed = torch.zeros(1)
        else:
            mixed = batch.mix(torch.arange(float(len(batch.x))).view(-1, 1, 1).clone())
        seen[-1].append([batch.x, batch.frame_target, batch.frame_mask, mixed])

    monkeypatch.setattr(local.training.fold_loop.Trainer, "_step", noted)
    monkeypatch.setattr(
        local.training.fold_loop.Trainer,
        "_validate",
        lambda self: {"valid": 0.0} | ({"valid_span_auc": 0.0}),
    )
    for changes in ({}, {}, {key: off}):
        seen.append([])
        train(corpus(**{"train__n_epochs": 1, **changes}), tmp_path / f"t{len(seen)}")
    flat = [torch.cat([part.flatten() for step in run for part in step]) for run in seen]
    assert torch.equal(flat[0], flat[1])
    assert flat[0].shape != flat[2].shape or not torch.equal(flat[0], flat[2])


def test_the_model_gets_the_mix(corpus, tmp_path, monkeypatch):
    """What is mixed is what the head sees, with the partner and share of the targets."""
    run = corpus(train__n_epochs=1)
    given = []
    forward = local.models.crnn.Crnn.forward

    def noted(self, x, mix=None):
        if self.training:
            given.append(mix is not None)
        return forward(self, x, mix)

    monkeypatch.setattr(local.models.crnn.Crnn, "forward", noted)
    train(run, tmp_path / "fold")
    assert given == [True] * 3


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"window": {"p_stretched": 0.5}}, "window.p_stretched reads stretched dumps"),
        ({"inference": {"tta": {"stretches": [0.9]}}}, "stretches has 0.9, which features"),
        ({"augment": {"wave_p": 0.5, "wave_pitch": [0, 1]}}, "set features.keep_wave"),
        ({"augment": {"wave_p": 0.5}}, "waveforms that nothing would change"),
        ({"augment": {"wave_pitch": [0, 1]}}, "set wave_p"),
        ({"augment": {"stretch": [1.1, 0.9]}}, "lower bound first"),
        ({"augment": {"stretch": [0.1, 1]}}, "greater than or equal to 0.5"),
        ({"features": {"stretches": [1.0]}}, "not 1, which is the plain dump"),
        ({"features": {"stretches": [0.9, 0.9]}}, "each factor once"),
        ({"features": {"kind": "wave", "keep_wave": True}}, "leave features.keep_wave out"),
        (
            {"features": {"kind": "wave"}, "augment": {"pitch_bands": 2}},
            "augment.pitch_bands works on spectrograms only, features.kind wave makes a waveform",
        ),
        (
            {"window": {"balance_batches": True, "balance_classes": False}},
            "balance_batches goes with balance_classes",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_told(changes, word):
    with pytest.raises((ValueError, CanopyError), match=word.replace(".", r"\.")):
        check_augment(Config.model_validate(changes))
