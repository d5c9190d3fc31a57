"""Faults of the configuration and the tables are told before any work."""

import pandas as pd
import pytest

from local.io.errors import CanopyError
from local.models import create_model
from local.models.checkpoint import model_state, save_checkpoint
from local.stages.checks import check_config, check_data


def test_a_sound_configuration_passes(toy, toy_config):
    check_config(toy_config())
    check_data(toy().run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features__n_mels": 128}, "mel"),
        (
            {"score__metric": "accuracy"},
            r"score\.metric is 'accuracy', expected one of auroc, lwlrap",
        ),
        (
            {"inference__keep_frames": False},
            r"inference\.keep_frames is false, but relabelling needs scores over time",
        ),
        (
            {"relabel": {"kind": "events", "pseudo_mixup": 0.5}},
            r"relabel\.pseudo_mixup is 0\.5, which mixes windows with soft labels; set",
        ),
        (
            {"relabel": {"drop_path": 0.2}},
            r"relabel\.drop_path is 0\.2, but model crnn has no stochastic depth; set it to null",
        ),
        (
            {
                "relabel": {"drop_path": 0.2},
                "model": {"name": "timm", "params": {"backbone": "densenet121"}},
            },
            r"timm's densenet121 has no stochastic depth; leave out relabel\.drop_path",
        ),
        ({"model__name": "crn"}, r"model\.name is 'crn', expected one of .*crnn"),
        (
            {"model": {"name": "crnn", "params": {"chanels": [4]}}},
            r"model\.params\.chanels.*channels",
        ),
        (
            {"model": {"name": "crnn", "params": {"channels": [4], "pool": [[2, 2], [2, 2]]}}},
            "channels has 1 blocks, pool 2",
        ),
        (
            {"model": {"name": "crnn", "params": {"channels": [4], "pool": [[16, 2]]}}},
            r"model\.params do not fit windows of 20 frames and 8 bands",
        ),
        (
            {"features": {"kind": "wave"}},
            r"model\.name crnn takes a spectrogram, features\.kind wave makes a waveform",
        ),
        (
            {"inference__window_frames": 20, "inference__overlap_frames": 25},
            r"inference\.overlap is 25 frames",
        ),
        ({"inference__window_frames": 1}, "shorter than one output frame of 2"),
        (
            {"loss__activity_weight": 0.5},
            r"loss\.activity_weight is 0\.5.*params\.activity to true",
        ),
    ],
)
def test_faults_of_the_configuration(toy_config, changes, words):
    with pytest.raises(CanopyError, match=words) as fault:
        check_config(toy_config(**changes))
    assert "\n" not in str(fault.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"given\.csv: no such file; check prior\.given"),
        ("label,prevalence\na,0.5\nb,0.1\n", "no prevalence of c; every class needs a row"),
        ("label,prevalence\na,0.5\nb,0.1\nc,0.1\nd,0.1\n", "row 5: label 'd' is not a class"),
        ("label,prevalence\nc,0.5\na,0.1\nb,1.5\n", "row 4: prevalence '1.5' must be a number"),
        ("label,prevalence\nc,0.5\na,0.1\nb,0.2\n", None),
    ],
)
def test_a_given_prevalence_is_read_before_any_work(toy, tmp_path, text, words):
    """Rows may stand in any order: they are taken by label."""
    run = toy(prior={"method": "given", "given": "given.csv"}).run
    if text is not None:
        (tmp_path / "data" / "given.csv").write_text(text)
    if words is None:
        check_data(run)
        return
    with pytest.raises(CanopyError, match=words) as fault:
        check_data(run)
    assert "\n" not in str(fault.value)


def test_a_weight_for_a_class_that_is_not_in_the_tables(toy):
    check_data(toy(loss__positive_weight={"b": 2.0}).run)
    with pytest.raises(CanopyError, match=r"loss\.positive_weight names the class 'd'"):
        check_data(toy(loss__positive_weight={"d": 2.0}).run)


@pytest.mark.parametrize("short", ["refuse", "repeat", "silence"])
def test_a_recording_shorter_than_the_window(toy, short):
    run = toy(window__length_s=7.0, window__short=short).run
    if short != "refuse":
        check_data(run)
        return
    with pytest.raises(
        CanopyError,
        match=r"recording r00 lasts 6\.000 s, less than window\.length_s 7; .*window\.short",
    ):
        check_data(run)


def test_a_class_with_fewer_groups_than_folds(toy):
    run = toy().run
    path = run.tables / "events.csv"
    events = pd.read_csv(path)
    kept = (events["label"] != "b") | (events["polarity"] < 0) | (events["recording_id"] < "r03")
    events[kept].to_csv(path, index=False)
    with pytest.raises(CanopyError, match=r"folds \(3\), found b: 1; drop the class"):
        check_data(run)


def test_tables_that_are_not_there_yet_are_no_fault(toy):
    run = toy().run
    (run.tables / "recordings.csv").unlink()
    check_data(run)


@pytest.mark.parametrize(
    ("name", "labels", "words"),
    [
        ("own", ["a", "c", "b"], r"start\.pt: .*first difference is class 2, c there and b here"),
        (
            "transformer",
            ["a", "b", "c"],
            r"start\.pt: has no weights for blocks.*fit is transformer",
        ),
        ("missing", [], r"start\.pt: no such checkpoint"),
    ],
)
def test_a_start_of_another_model_or_class_list(toy, tmp_path, name, labels, words):
    path = tmp_path / "start.pt"
    run = toy(model__init=str(path)).run
    own = run.config.model
    if name != "missing":
        kind, params = (own.name, own.params) if name == "own" else (name, {})
        model = create_model(kind, params, len(labels), 8)
        recipe = {"name": kind, "params": params, "n_classes": 3, "n_bands": 8, "labels": labels}
        save_checkpoint(path, model_state(model, recipe))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CanopyError, match=words) as fault:
        check_data(run)
    assert "\n" not in str(fault.value)
    assert sorted(tmp_path.rglob("*")) == before
    if name == "own":
        save_checkpoint(path, model_state(model, {**recipe, "labels": ["a", "b", "c"]}))
        check_data(run)
