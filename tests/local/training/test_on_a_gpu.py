"""A fold on a CUDA device: it learns, resumes, scores as the CPU does, and says what would fit."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from local.features.front_ends.front_end_registry import front_end_of
from local.inference.score_recordings import score_recordings
from local.io.errors import CanopyError
from local.jobs.gpu_memory import advise_batch_size, peak_bytes
from local.models.checkpoint import load_checkpoint, load_model
from local.stages.experiment import Experiment
from local.tasks.detection_fold import DetectionFold
from local.training.epoch_plan import make_training_set
from local.training.fold_loop import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Half precision, mixing, noise and what else draws numbers on the device.
SETTINGS = {
    "train__amp": True,
    "train__n_epochs": 6,
    "train__save_minutes": 0.0,
    "loss__frame_weight": 1.0,
    "augment__mixup_alpha": 0.4,
    "augment__gain_db": 3.0,
    "augment__noise_std": 0.1,
    "augment__freq_masks": 1,
}


class PlugPulledError(Exception):
    """Somebody pulls the plug."""


@dataclass(frozen=True)
class Fold(DetectionFold):
    """A fold whose process dies after so many batches."""

    dies_after: tuple[int, ...] = ()

    def make_batch(self, tensors, rng):
        made.append(1)
        if len(made) in self.dies_after:
            raise PlugPulledError
        return super().make_batch(tensors, rng)


made: list[int] = []


@pytest.fixture
def fold_of(toy):
    """Function: folder, batches to die after -> fold 0 of the toy, on the GPU."""
    run = toy(**SETTINGS).run
    experiment = Experiment(run)
    names = experiment.training_ids(0, 0)

    def make(folder, *dies_after):
        folder.mkdir(exist_ok=True)
        made.clear()
        return Fold(
            name="cycle0/fold0",
            training_set=make_training_set(
                experiment.tables, experiment.tables.events, names, experiment.dump
            ),
            held_out=experiment.held_out_ids(0),
            events=experiment.tables.events,
            labels=experiment.tables.labels,
            dump=experiment.dump,
            folder=folder,
            device="cuda",
            dies_after=dies_after,
        )

    return make


def test_a_fold_learns_in_half_precision_and_scores_as_on_the_cpu(fold_of, tmp_path):
    fold = fold_of(tmp_path / "fold")
    Trainer(fold, fold.config).run()
    log = pd.read_csv(fold.folder / "log.csv")
    # At most while the scale of half precision finds its size.
    assert log["skipped_steps"].iloc[1:].sum() == 0
    assert log["loss_total"].iloc[-1] < 0.9 * log["loss_total"].iloc[0]
    assert log["valid_span_auc"].iloc[-1] > 0.8
    scores = {}
    for device in ("cpu", "cuda"):
        model = load_model(fold.folder / "best.pt", fold.labels, device)
        scores[device] = score_recordings(model, fold.dump, fold.held_out, fold.labels, device)
    np.testing.assert_allclose(scores["cuda"].window, scores["cpu"].window, atol=0.02)
    for found, expected in zip(scores["cuda"].frames, scores["cpu"].frames, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_killed_fold_resumes_with_scaler_and_generators_of_the_device(fold_of, tmp_path):
    whole, broken = fold_of(tmp_path / "whole"), tmp_path / "broken"
    Trainer(whole, whole.config).run()
    for dies_after in (6, 9):
        fold = fold_of(broken, dies_after)
        with pytest.raises(PlugPulledError):
            Trainer(fold, fold.config).run()
    fold = fold_of(broken)
    Trainer(fold, fold.config).run()
    expected = load_checkpoint(whole.folder / "last.pt")
    found = load_checkpoint(broken / "last.pt")
    for key in ("epoch", "step", "bad_steps"):
        assert found["progress"][key] == expected["progress"][key]
    assert found["scaler"] == expected["scaler"]
    # Sums on a GPU are not made in a fixed order.
    for name, value in load_checkpoint(whole.folder / "best.pt")["model"].items():
        other = load_checkpoint(broken / "best.pt")["model"][name]
        torch.testing.assert_close(other, value, rtol=2e-2, atol=2e-3)


def test_out_of_memory_names_a_batch_size_that_fits():
    def take(n: int) -> torch.Tensor:
        return torch.zeros(n, 2**30, dtype=torch.uint8, device="cuda")

    free, _ = torch.cuda.mem_get_info()
    too_many = 2 * (free // 2**30) + 8
    advice = advise_batch_size(
        "fold 0", "train.batch_size", too_many, lambda n: peak_bytes(lambda: take(n))
    )
    match = r"set train\.batch_size to \d+, which would fit"
    with pytest.raises(CanopyError, match=match) as told, advice:
        take(too_many)
    advised = int(str(told.value).split("batch_size to ")[1].split(",")[0])
    assert 1 <= advised < too_many
    assert take(advised).numel() > 0


@pytest.mark.parametrize("n_fft", [128, 2048])
def test_features_of_the_device_are_those_of_the_cpu(toy_config, n_fft):
    front_end = front_end_of(toy_config(audio__sample_rate=32_000, features__n_fft=n_fft))
    rng = np.random.default_rng(1)
    blocks = [rng.standard_normal(500_000).astype(np.float32) for _ in range(3)]
    there = np.concatenate(list(front_end.stream(blocks, "cuda")), axis=-1)
    here = np.concatenate(list(front_end.stream(blocks, "cpu")), axis=-1)
    np.testing.assert_allclose(there, here, atol=1e-3)
    # And of whole pieces, as augmentation of waveforms makes them.
    wave = torch.from_numpy(blocks[0][None, :100_000])
    torch.testing.assert_close(
        front_end.excerpt(wave.cuda()).cpu(), front_end.excerpt(wave), rtol=0, atol=1e-3
    )
