"""From a run to a published folder, and what detects from either, by way of the scripts."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from local.detect.ensemble.members import open_member
from local.detect.publish.export import publish, run_evidence, run_shift, trained_folds
from local.detect.publish.folder import read_published
from local.inference.score_files import save_scores
from local.inference.scores import Scores, clip_logits
from local.io.errors import CanopyError
from local.io.files import write_json
from local.jobs import locks
from local.jobs.locks import lock_folder
from local.models import create_model
from local.models.checkpoint import model_state, save_checkpoint
from local.scoring.event_rules.thresholds import ThresholdChoice, fit_thresholds
from local.stages.experiment import Experiment
from local.stages.run_record import note_work
from local.tasks.detection_submit import make_events
from tests.toy_detector import sound

LABELS = ["a", "b", "c"]
N_FOLDS = 3


@pytest.fixture
def finished(toy):
    """Function: changes -> a run whose folds have untrained networks and made-up scores.

    Out-of-fold scores tell class a without error: 3 where a confirmed row lies, else -3.
    """

    def make(keep_frames=True, **changes):
        made = toy(relabel={"n_cycles": 0}, **changes)
        experiment = Experiment(made.run)
        events = made.tables.events
        rng = np.random.default_rng(1)
        for kind, ids in (("oof", experiment.dump_ids), ("test", experiment.ids("test"))):
            frames = [rng.normal(size=(3, 30)).astype(np.float32) for _ in ids]
            for name, frame in zip(ids, frames, strict=True):
                frame[0] = -3
                rows = events[(events["recording_id"] == name) & (events["label"] == "a")]
                for row in rows[rows["polarity"] > 0].itertuples():
                    frame[0, int(row.onset / 0.2) + 1 : int(row.offset / 0.2) - 1] = 3
            window = np.stack([frame.max(axis=1) for frame in frames])
            scores = Scores(list(ids), LABELS, frames, window, 0.2, -0.05)
            clip = clip_logits(scores, made.run.config.inference.pool)
            extra = {"used": np.ones((len(ids), N_FOLDS), dtype=bool)} if kind == "oof" else {}
            save_scores(made.run.cycle(0) / f"{kind}.npz", scores, clip, keep_frames, **extra)
        write_json(made.run.cycle(0) / "merge.done.json", {})
        note_work(made.run, "infer")
        params = made.run.config.model.params
        recipe = {"name": "crnn", "params": params, "n_classes": 3, "n_bands": 8, "labels": LABELS}
        for fold in range(N_FOLDS):
            torch.manual_seed(fold)
            path = made.run.fold(0, fold) / "best.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(path, model_state(create_model("crnn", params, 3, 8), recipe))
        return SimpleNamespace(experiment=experiment, exp=made.run.exp, run=made.run)

    return make


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "rec"
    folder.mkdir()
    for index in range(2):
        soundfile.write(folder / f"x{index}.wav", sound(7.3, index), 1000, subtype="FLOAT")
    return folder


def call(script, name, *options):
    return script(name).main([str(option) for option in options])


def scores_of(out, name="x0"):
    with np.load(out / "scores" / f"{name}.npz", allow_pickle=False) as stored:
        return stored["frame_logit"].astype(np.float64)


def test_evidence_is_that_of_the_known_rows(finished):
    made = finished()
    evidence = run_evidence(made.experiment, 0)
    events = made.experiment.tables.events
    for label in LABELS:
        rows = events[events["label"] == label]
        assert len(evidence.classes[label].positive) == (rows["polarity"] > 0).sum() == 6
        assert len(evidence.classes[label].negative) == (rows["polarity"] < 0).sum() == 6
    assert set(evidence.classes["a"].positive) == {3.0}
    assert set(evidence.classes["a"].negative) == {-3.0}
    # 18 train recordings; those without labels are not counted, though they have scores.
    assert evidence.hours == pytest.approx(18 * 30 * 0.2 / 3600)
    row = fit_thresholds(LABELS, ThresholdChoice("best-f1"), evidence).iloc[0]
    assert (row["f1"], row["false_alarms_per_hour"]) == (1.0, 0.0)
    assert -3 < row["logit"] < 3


def test_complete_annotation_adds_the_sound_between_calls(finished):
    partial = run_evidence(finished().experiment, 0)
    complete = run_evidence(finished(data={"annotation": "complete"}).experiment, 0)
    assert len(complete.classes["a"].negative) > len(partial.classes["a"].negative) + 18
    assert set(complete.classes["a"].negative) == {-3.0}


def test_no_evidence_without_scores_over_time(finished):
    assert run_evidence(finished(keep_frames=False).experiment, 0) is None


def test_the_shift_is_that_of_the_cycle(tmp_path):
    assert run_shift(tmp_path, 0) is None  # not submitted yet
    cycles = [
        {"cycle": 0, "prior": {"method": "none", "shift": [0.0, 0.0]}},
        {"cycle": 1, "prior": {"method": "em", "shift": [0.5, -1.0]}},
    ]
    write_json(tmp_path / "results.json", {"cycles": cycles})
    assert run_shift(tmp_path, 0) is None
    assert run_shift(tmp_path, 1).tolist() == [0.5, -1.0]
    assert run_shift(tmp_path, 2) is None


def test_all_folds_or_those_named(finished):
    made = finished()
    assert len(trained_folds(made.experiment, 0)) == N_FOLDS
    (one,) = trained_folds(made.experiment, 0, [2])
    assert one == made.run.fold(0, 2) / "best.pt"
    one.unlink()
    with pytest.raises(CanopyError, match=r"fold2/best\.pt: no such model; run stage 2"):
        trained_folds(made.experiment, 0)


@pytest.mark.slow
def test_run_checkpoint_and_published_folder_detect_alike(finished, recordings, tmp_path, script):
    made, out = finished(), tmp_path / "out"
    shift = {"method": "em", "shift": [1.0, 0.0, -1.0]}
    write_json(made.exp / "results.json", {"cycles": [{"cycle": 0, "prior": shift, "scores": {}}],
        "metric": "lwlrap"})  # fmt: skip
    assert call(script, "export", made.exp, "--out", tmp_path / "pub") == 0
    how = ("--scores", "npz", "--format", "csv")
    for name, model, *more in (
        ("run", made.exp),
        ("onnx", tmp_path / "pub", "--engine", "onnx"),
        ("torch", tmp_path / "pub", "--engine", "torch"),
        ("fold1", made.run.fold(0, 1) / "best.pt"),
        ("shifted", made.exp, "--prior", "run"),
    ):
        assert call(script, "detect", model, recordings, "--out", out / name, *how, *more) == 0
    run = scores_of(out / "run")
    assert run.shape == (3, 37)
    np.testing.assert_array_equal(scores_of(out / "torch"), run)
    np.testing.assert_allclose(scores_of(out / "onnx"), run, rtol=0, atol=1e-4)
    assert np.ptp(run) > 1e-2
    assert np.abs(scores_of(out / "fold1") - run).max() > 1e-3
    shifted = scores_of(out / "shifted") - run
    np.testing.assert_allclose(shifted, np.tile([[1.0], [0.0], [-1.0]], 37), atol=1e-5)
    # One evidence, so one table of thresholds; a checkpoint alone has none.
    tables = {name: pd.read_csv(out / name / "thresholds.csv") for name in ("run", "onnx", "fold1")}
    pd.testing.assert_frame_equal(tables["run"], tables["onnx"])
    assert tables["run"]["f1"].iloc[0] == 1.0
    assert tables["fold1"]["threshold"].tolist() == [0.5] * 3


def test_the_card_says_what_it_is(finished, tmp_path):
    made = finished()
    names = publish(open_member(made.exp), tmp_path / "pub", [0, 2], with_onnx=False)
    assert sorted(path.name for path in (tmp_path / "pub").iterdir()) == sorted(
        [*names, "SHA256SUMS"]
    )
    card = (tmp_path / "pub" / "README.md").read_text(encoding="utf-8")
    assert "networks: 2 of `crnn`" in card
    assert "one channel at 1000 Hz; log-mel, 8 bands" in card
    assert "the run had not been submitted" in card
    assert "| train | 18 | 0.03 | 6 |" in card
    assert "18 confirmed and 18 rejected spans" in card
    assert "| a | a | 6 | 6 | 0." in card
    model = read_published(tmp_path / "pub")
    assert [files.weights.name for files in model.networks] == names[:2]
    assert model.shift is None
    assert model.config.inference.window_frames == 20
    assert str(tmp_path) not in (tmp_path / "pub" / "model.json").read_text()


@pytest.mark.slow
def test_a_publication_that_was_broken_off_is_no_model_and_goes_on(
    finished, tmp_path, script, monkeypatch
):
    made, out = finished(), tmp_path / "pub"
    options = (made.exp, "--out", out, "--no-onnx")

    def full(*given):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("local.detect.publish.export.model_card", full)
        with pytest.raises(OSError, match="No space"):
            call(script, "export", *options)
    assert (out / "model.json").is_file()
    with pytest.raises(CanopyError, match=r"not finished; give the command of bin/export\.py"):
        read_published(out)
    call(script, "export", *options)
    read_published(out)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_two_cannot_publish_at_once(finished, tmp_path, script):
    made, out = finished(), tmp_path / "pub"
    with lock_folder(out, "x"):
        locks._held.clear()  # as if another process had it
        with pytest.raises(CanopyError, match="this model is being worked on by process"):
            call(script, "export", made.exp, "--out", out, "--no-onnx")


def test_export_writes_over_nothing_unasked(finished, tmp_path, script):
    made, out = finished(), tmp_path / "pub"
    options = (made.exp, "--out", out, "--no-onnx")
    call(script, "export", *options)
    with pytest.raises(CanopyError, match=r"is there already; give another --out, or --force"):
        call(script, "export", *options)
    call(script, "export", *options, "--force", "--folds", "1")
    assert [path.name for path in out.glob("fold*")] == ["fold1.safetensors"]
    read_published(out)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    with pytest.raises(CanopyError, match="holds something else"):
        call(script, "export", made.exp, "--out", other, "--force")
    with pytest.raises(CanopyError, match="7"):
        call(script, "export", made.exp, "--out", tmp_path / "new", "--folds", "7")
    assert not (tmp_path / "new").exists()


def test_a_run_without_its_data_or_scores_is_refused(finished, recordings, tmp_path, script):
    made = finished()
    with pytest.raises(CanopyError, match="so it is no run"):
        call(script, "export", tmp_path, "--out", tmp_path / "pub")
    lonely = shutil.copy(made.run.fold(0, 0) / "best.pt", tmp_path / "best.pt")
    with pytest.raises(CanopyError, match=r"no config.yaml above it.*--conf"):
        call(script, "detect", lonely, recordings, "--out", tmp_path / "x")
    conf = ("--conf", made.exp / "config.yaml")
    assert call(script, "detect", lonely, recordings, "--out", tmp_path / "x", *conf) == 0
    (made.run.cycle(0) / "merge.done.json").unlink()
    with pytest.raises(CanopyError, match="no scores yet"):
        call(script, "detect", made.exp, recordings, "--out", tmp_path / "y")


def tuned_run(finished):
    """A run of complete annotation whose stage 5 has made events."""
    events = {"tune": True, "thresholds": [0.3, 0.6], "durations_s": [0.3], "gaps_s": [0.0]}
    made = finished(data={"annotation": "complete"}, events=events, score={"n_bootstrap": 20})
    results = {"cycles": [{"cycle": 0, "prior": {"method": "none"}, "scores": {}}]}
    files = make_events(made.experiment, 0, results)
    write_json(made.exp / "results.json", {**results, "metric": "lwlrap"})
    return made, files, results


@pytest.mark.slow
def test_stage_5_makes_events_where_the_configuration_asks(finished):
    made, files, results = tuned_run(finished)
    assert [path.name for path in files] == ["rule.json", "oof_events.csv", "test_events.csv"]
    told = results["events"]
    assert told["n"] == 18
    assert told["n_true"] == 18
    for one in told["f1"]:
        assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
    found = pd.read_csv(made.exp / "oof_events.csv")
    assert len(found) == told["n_found"]
    # Class a is told without error, so its six calls are among what was found.
    assert (found["label"] == "a").sum() == 6
    off = finished(data={"annotation": "complete"}, events={"tune": False})
    assert make_events(off.experiment, 0, results) == []
    # What an earlier stage 5 fitted is no longer true.
    assert not (off.exp / "rule.json").exists()


@pytest.mark.slow
def test_detection_goes_by_the_rule_and_options_go_before(
    finished, recordings, tmp_path, script, capsys
):
    made, _, results = tuned_run(finished)
    rule = results["events"]["rule"]
    assert call(script, "export", made.exp, "--out", tmp_path / "pub") == 0
    assert read_published(tmp_path / "pub").rule.model_dump() == rule
    for model in (made.exp, tmp_path / "pub"):
        out = tmp_path / f"out-{model.name}"
        assert call(script, "detect", model, recordings, "--out", out) == 0
        table = pd.read_csv(out / "thresholds.csv")
        assert table["threshold"].tolist() == pytest.approx([rule["threshold"]] * 3)
        assert "the model's rule of events: --threshold" in capsys.readouterr().err
    out = tmp_path / "given"
    given = ("--threshold", 0.9, "--max-gap", 0.2)
    assert call(script, "detect", made.exp, recordings, "--out", out, *given) == 0
    assert pd.read_csv(out / "thresholds.csv")["threshold"].tolist() == pytest.approx([0.9] * 3)
    assert "as given: threshold, max_gap" in capsys.readouterr().err
    # Scores that were made anew have no rule yet.
    scores = made.run.cycle(0) / "oof.npz"
    with np.load(scores, allow_pickle=False) as stored:
        members = {name: stored[name] for name in stored.files}
    np.savez(scores, **{name: members[name] for name in reversed(members)})
    assert call(script, "detect", made.exp, recordings, "--out", tmp_path / "stale") == 0
    assert "fitted on other scores" in capsys.readouterr().err
