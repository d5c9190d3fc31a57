"""A new kind is one file: what is made up here goes through the stages."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.config import Config, Section, load_config
from local.detect.detectors import ModelSpec, Request, load
from local.features.corpus import estimate_bytes, make_features
from local.features.front_ends.front_end import FrontEnd, register
from local.features.front_ends.front_end_registry import front_end_of
from local.features.store import FeatureStore
from local.inference.score_files import load_scores
from local.inference.score_recordings import score_recordings
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.models import SedModel, SedOutput
from local.models.checkpoint import load_checkpoint
from local.stages.checks import check_config
from local.stages.experiment import Experiment
from local.stages.infer import infer_fold, merge
from local.stages.preprocess import preprocess
from local.stages.split import split
from local.stages.train import train_fold

RATE = 1000


class ConstantParams(Section):
    """Settings of the kind below."""

    value: float = -3.0
    n_bands: int = 8


@register
class ConstantFrontEnd(FrontEnd):
    """The same numbers whatever sounds: every hop that is whole, from the first sample on."""

    kind = "constant"
    schema = ConstantParams

    @property
    def axes(self):
        return (self.params.n_bands,)

    @property
    def fill(self):
        return self.params.value

    def n_frames(self, n_samples):
        return n_samples // self.hop_length

    def stream(self, blocks, device="cpu"):
        rest = 0
        for block in blocks:
            n, rest = divmod(rest + len(block), self.hop_length)
            yield np.full((self.params.n_bands, n), self.params.value, np.float32)


@register
class PairsFrontEnd(FrontEnd):
    """Of two channels: mean and largest products over hops at three lags, from the whole file."""

    kind = "pairs"
    input = "pairs"
    can_stream = False
    n_channels = 2
    begin = 0.0
    axes = (2, 3)

    def n_frames(self, n_samples):
        return n_samples // self.hop_length

    def whole(self, samples, device="cpu"):
        n = self.n_frames(samples.shape[1])
        one, other = samples[:, : n * self.hop_length].reshape(2, n, -1)
        products = np.stack([one * np.roll(other, lag, axis=1) for lag in (-1, 0, 1)])
        return np.stack([products.mean(axis=2), products.max(axis=2)]).astype(np.float32)


def test_what_the_base_class_reads_tells_features_apart(tmp_path):
    (tmp_path / "v.yaml").write_text("features: {kind: constant}\n")
    settings = ([], ["features.hop_length=64"], ["features.dtype=float32"])
    ids = {front_end_of(load_config(tmp_path / "v.yaml", more)).id for more in settings}
    assert len(ids) == 3


@pytest.mark.slow
def test_a_made_up_front_end_goes_through_the_stages(toy):
    features = {"kind": "constant", "hop_length": 100, "params": {"value": -2.5}}
    run = toy(features=features, augment={"freq_masks": 1, "time_masks": 1}).run
    check_config(run.config)
    for path in run.features.iterdir():
        path.unlink()  # what the toy made up
    for name in pd.read_csv(run.tables / "recordings.csv")["recording_id"]:
        wave = np.random.default_rng(0).normal(0, 0.1, 6 * RATE)
        soundfile.write(run.datadir / f"{name}.wav", wave, RATE)
    preprocess(run, None)
    dump = FeatureStore(run.features, run.config)
    assert dump.n_frames("r00") == 60
    np.testing.assert_array_equal(dump.crop("r00", 10, 20), np.full((8, 20), -2.5))
    split(run)
    for fold in range(3):
        train_fold(run, 0, fold)
        infer_fold(run, 0, fold)
    merge(Experiment(run), 0, [0, 1, 2])
    assert load_checkpoint(run.fold(0, 0) / "best.pt")["recipe"]["n_bands"] == 8
    scores, _ = load_scores(run.cycle(0) / "test.npz")
    assert scores.start_s == 0.0
    assert scores.hop_s == pytest.approx(0.2)
    assert scores.frames[0].shape == (3, 30)


class PairsModel(SedModel):
    """One score a frame, of the largest number in it."""

    input = "pairs"
    step = 2

    def forward(self, x, mix=None):
        assert x.shape[1:3] == (2, 3)
        cells = x.flatten(1, 2).amax(dim=1, keepdim=True)
        cells = cells.unflatten(-1, (-1, 2)).mean(-1)
        return SedOutput(cells, cells.amax(-1), None, cells.mean(-1))


def pairs_config(**features):
    return Config.model_validate(
        {
            "audio": {"sample_rate": RATE},
            "features": {"kind": "pairs", "hop_length": 50, "dtype": "float32", **features},
            "window": {"length_s": 0.5, "short": "silence"},
            "inference": {"overlap_frames": 0},
        }
    )


def test_several_axes_and_channels_and_a_whole_recording_at_once(tmp_path):
    config = pairs_config()
    wave = np.random.default_rng(0).normal(0, 0.1, (2, 1234)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave.T, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", wave[0], RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "fast.wav", np.repeat(wave, 2, axis=1).T, 2 * RATE, subtype="FLOAT")
    recordings = pd.DataFrame({"recording_id": ["a", "mono", "fast"], "duration": 1.234})
    recordings["path"] = recordings["recording_id"] + ".wav"
    folder = tmp_path / "dump"
    manifest, stats, _ = make_features(recordings, tmp_path, folder, config, "cpu", 1)
    assert manifest["n_frames"].tolist() == [24, 0, 24]
    assert "mono.wav: has 1 channel, features.kind needs 2" in manifest["reason"][1]
    assert stats.mean.shape == (6,)
    write_csv(folder / "manifest.csv", manifest)
    expected = front_end_of(config).whole(wave)
    dump = FeatureStore(folder, config)
    np.testing.assert_array_equal(dump.crop("a", 3, 9), expected[..., 3:12])
    assert dump.crop("a", 20, 10).shape == (2, 3, 10)
    assert estimate_bytes(1.2, config) == 24 * 6 * 4
    scores = score_recordings(PairsModel(), dump, ["a"], ["call"], "cpu")
    largest = expected.reshape(6, 24).max(axis=0).reshape(12, 2).mean(axis=1)
    np.testing.assert_allclose(scores.frames[0][0], largest, atol=1e-6)


def test_detection_reads_one_channel():
    model = ModelSpec(
        path=Path("model"),
        classes=pd.DataFrame({"label": ["call"]}),
        config=pairs_config(),
        step=2,
        graphs=[],
        any_length=True,
        load=lambda: [PairsModel()],
        evidence=lambda: None,
        shift=lambda: None,
        files=[],
    )
    with pytest.raises(CanopyError, match=r"features\.kind pairs hears 2 channels"):
        load(Request([model.path]), [model])


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"kind": "constnt"}, "features.kind is 'constnt', expected one of constant, logmel, .*"),
        ({"kind": "constant", "params": {"vale": 1}}, "unknown key features.params.vale; .* value"),
        ({"kind": "constant", "params": {"value": "x"}}, "features.params.value.*found 'x'"),
        ({"params": {"value": 1}}, "unknown key features.params.value"),
        ({"kind": "pairs", "stretches": [0.9]}, "features.stretches plays one channel"),
        ({"kind": "pairs"}, "model.name crnn takes a spectrogram, features.kind pairs makes a pa"),
    ],
)
def test_settings_of_a_kind_are_checked_by_its_own_schema(features, words):
    with pytest.raises(CanopyError, match=words):
        check_config(Config.model_validate({"audio": {"sample_rate": 1000}, "features": features}))


def test_another_kind_takes_no_settings_over(tmp_path):
    (tmp_path / "a.yaml").write_text("features: {kind: constant, params: {value: 1}}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nfeatures: {kind: logmel}\n")
    assert load_config(tmp_path / "a.yaml").features.params == {"value": 1}
    assert load_config(tmp_path / "b.yaml").features.params == {}
    again = load_config(tmp_path / "a.yaml", ["features.params.n_bands=4"])
    assert front_end_of(again).axes == (4,)


@pytest.mark.parametrize(
    "augment",
    [{"gain_db": 6}, {"noise_p": 0.5}, {"background_p": 0.5}, {"freq_mask_spares_calls": True}],
)
def test_augmentation_that_features_do_not_allow_is_refused(augment, toy_config):
    features = {"kind": "constant", "hop_length": 100}
    if "freq_mask_spares_calls" in augment:
        augment["freq_masks"] = 1
    with pytest.raises(CanopyError, match=rf"augment\.{next(iter(augment))} needs"):
        check_config(toy_config(features=features, augment=augment))


def test_the_id_follows_what_shapes_the_numbers_and_the_version(monkeypatch):
    def id_of(**sections):
        return front_end_of(Config.model_validate(sections)).id

    base = id_of()
    assert len(base) == 10
    assert int(base, 16) >= 0
    same = [
        {"seed": 9, "audio": {"max_invalid_share": 0.5}, "window": {"length_s": 3}},
        {"features": {"stretches": [0.9]}},
    ]
    assert {id_of(**sections) for sections in same} == {base}
    others = [
        {"features": {"n_mels": 64}},
        {"features": {"dtype": "float32"}},
        {"features": {"keep_wave": True}},
        {"audio": {"channel": "first"}},
        {"features": {"kind": "wave"}},
        {"features": {"kind": "constant"}},
        {"features": {"kind": "constant", "params": {"value": 1.0}}},
    ]
    assert len({base, *(id_of(**sections) for sections in others)}) == 8
    # What a kind does not read is no part of it.
    wave = {"kind": "wave"}
    assert id_of(features=wave) == id_of(features={**wave, "n_mels": 3, "floor": 1e-3})
    front_end = front_end_of(Config(features={"kind": "constant"}))
    monkeypatch.setattr(ConstantFrontEnd, "version", 2)
    assert ConstantFrontEnd(front_end.audio, front_end.features).id != front_end.id
