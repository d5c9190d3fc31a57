"""A stage whose results change raises its version: small results of each, from made-up inputs.

Each stage has inputs of its own, so that a change of one stage is told of that stage alone.
"""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from local.features.npz import stretched_folder
from local.inference.score_files import save_scores
from local.inference.scores import Scores
from local.io.archives import read_npz
from local.io.files import read_json, write_csv, write_json
from local.models import create_model
from local.models.checkpoint import load_checkpoint, model_state, save_checkpoint
from local.stages.dependencies import STAGES
from local.stages.experiment import Experiment
from local.stages.infer import infer_fold, merge
from local.stages.preprocess import make_dump
from local.stages.relabel import relabel
from local.stages.split import split
from local.stages.submit import submit
from local.stages.train import train_fold
from tests.golden import check, summary

LABELS = ["a", "b", "c"]


def held(stage, found, **tolerance):
    """Hold what a stage, or one kind of it, made against what is kept."""
    check(stage, STAGES[stage.split()[0]].version, found, **tolerance)


# ------------------------------------------------------------------------------ stages 0, 1 and 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("logmel", {"features__stretches": [0.9]}),
        ("wave", {"features__kind": "wave"}),
        ("linear", {"features__mel_scale": "linear", "audio__channel": 1}),
    ],
)
def test_preprocess(toy, kind, changes):
    made = toy(**changes)
    run, tables = made.run, Experiment(made.run).tables
    time = np.arange(13000) / 2000
    # Two channels, of another rate than the features: a rising tone, and another.
    tones = [0.3 * np.sin(2 * np.pi * (100 + 20 * k * time) * time) for k in (1, 2)]
    noise = np.random.default_rng(4).normal(0, 0.01, (len(time), 2))
    for path in tables.recordings["path"]:
        soundfile.write(run.datadir / path, np.stack(tones, axis=1) + noise, 2000, subtype="PCM_16")
    found = {}
    for factor in (1.0, *run.config.features.stretches):
        folder = stretched_folder(run.features, factor)
        make_dump(run, tables, folder, factor, None)
        manifest = pd.read_csv(folder / "manifest.csv")
        with np.load(folder / "r03.npz") as arrays:
            found[f"x{factor:g}"] = {
                "manifest": manifest.iloc[3][["n_frames", "duration", "status"]].tolist(),
                **{name: summary(arrays[name]) for name in ("feats", "wave") if name in arrays},
            }
    held(f"preprocess {kind}", found, rel=1e-3, abs_=0.02 if kind != "wave" else 2.0)


def test_split(toy):
    run = toy().run
    (run.exp / "folds.csv").unlink()
    split(run)
    folds = pd.read_csv(run.exp / "folds.csv")
    held("split", dict(zip(folds["recording_id"], folds["fold"], strict=True)))


# SGD: its steps are as smooth as the gradients. No dropout, whose draws differ between processors.
LEARN = {
    "train__n_epochs": 2,
    "train__windows_per_epoch": 48,
    "train__validate_every": 2,
    "train__optimizer": "sgd",
    "train__momentum": 0.5,
    "train__lr": 0.02,
    "train__weight_decay": 0.01,
}
PARAMS = {"channels": [8, 8], "pool": [[2, 2], [1, 1]], "depth": 1, "gru": 0}
KINDS = {
    "plain": {"augment": {"gain_db": 6.0, "time_masks": 1, "freq_masks": 1, "shift_s": 0.3}},
    "mixed": {
        "augment": {"mixup_lambda": 0.6, "background_p": 0.5, "noise_p": 0.5, "pitch_bands": 1},
        "loss": {"cells": "focal", "lsep_weight": 0.1, "unknown_weight": 0.1},
        "window": {"length_s": 1.6, "balance_batches": True, "negative_cover": 0.5},
        "train__schedule": "step",
        "train__accumulate": 2,
    },
    "stretched": {
        "features__stretches": [0.9],
        "window__p_stretched": 0.6,
        "augment": {"stretch": [0.9, 1.1], "mixup_lambda": 0.5, "mixup_target": "soft"},
        "loss": {"centre_weight": 0.01, "activity_weight": 0.2, "positive_weight": 2.0},
        "model__params": {**PARAMS, "activity": True},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_train(toy, kind):
    """Losses show what is learned from and how, the size of weights what became of it."""
    run = toy(**LEARN, **KINDS[kind]).run
    train_fold(run, 0, 0)
    log = pd.read_csv(run.fold(0, 0) / "log.csv")
    names = [name for name in log if name.startswith("loss_")] + ["lr", "skipped_steps"]
    weights = load_checkpoint(run.fold(0, 0) / "best.pt")["model"]
    found = {name: log[name].to_numpy() for name in names} | {
        "seen": pd.read_csv(run.fold(0, 0) / "seen.csv")["recording_id"].tolist(),
        "weights": {
            key: [list(value.shape), float(value.double().norm())]
            for key, value in weights.items()
            if value.is_floating_point()
        },
    }
    held(f"train {kind}", found, rel=1e-3, abs_=2e-5)


# -------------------------------------------------------------------------------------- stage 3


def made_up_model(run, fold=0):
    """best.pt and seen.csv of a fold, of weights that nobody trained."""
    recipe = {"name": "crnn", "params": PARAMS, "n_classes": 3, "n_bands": 8, "labels": LABELS}
    model = create_model("crnn", PARAMS, 3, 8)
    rng = np.random.default_rng(6)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.from_numpy(rng.normal(0, 0.4, tuple(value.shape))))
    folder = run.fold(0, fold)
    folder.mkdir(parents=True)
    save_checkpoint(folder / "best.pt", {**model_state(model, recipe), "epoch": 1})
    Experiment(run).write_seen(0, fold)
    return model.eval()


def made_up_scores(made, names, seed, n_frames=30):
    """Scores over time that are higher where something calls."""
    rng = np.random.default_rng(seed)
    frames = []
    for name in names:
        logit = rng.normal(-2, 1, (3, n_frames))
        for label, onset, offset in made.calls[name]:
            logit[label, round(onset / 0.2) : round(offset / 0.2)] += 3
        frames.append(logit.astype(np.float32))
    window = np.stack([logit.mean(axis=1) for logit in frames])
    return Scores(list(names), LABELS, frames, window, 0.2, -0.05)


def save(path, scores, **extra):
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = np.stack([frames.max(axis=1) for frames in scores.frames])
    save_scores(path, scores, clip, True, **extra)


def scores_in(path):
    arrays = read_npz(path)
    return {
        "recordings": " ".join(arrays["recording_id"]),
        **{name: summary(arrays[name]) for name in ("clip_logit", "window_logit", "frame_logit")},
        "time": [float(arrays["frame_hop_s"]), float(arrays["frame_start_s"])],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("plain", {}),
        (
            "views",
            {
                "features__stretches": [0.9],
                "inference": {
                    "stitch": "mean",
                    "overlap_s": 0.5,
                    "pool": {"method": "topk", "seconds": 1.5},
                    "tta": {
                        "shifts_s": [0.0, 0.3],
                        "speeds": [1.0, 1.1],
                        "stretches": [0.9],
                        "gains_db": [0.0, 3.0],
                        "flip": True,
                        "lengths_s": [1.0],
                    },
                },
            },
        ),
    ],
)
def test_infer(toy, kind, changes):
    run = toy(**changes).run
    made_up_model(run)
    infer_fold(run, 0, 0)
    held(f"infer {kind}", scores_in(run.fold(0, 0) / "scores.npz"), rel=1e-3, abs_=1e-3)


def test_further(toy):
    made = toy(prior={"method": "estimated", "n_insertions": 4})
    run, experiment = made.run, Experiment(made.run)
    model = made_up_model(run)
    save(run.fold(0, 0) / "scores.npz", made_up_scores(made, experiment.dump_ids, 1))
    experiment.task.write_further(experiment, 0, 0, model)
    found = read_npz(run.fold(0, 0) / "inserted.npz")
    held("further", summary(found["logit"]), rel=1e-3, abs_=1e-3)


def test_merge(toy):
    made = toy(inference__pool={"method": "smooth_max", "seconds": 0.6})
    run, experiment = made.run, Experiment(made.run)
    for fold in experiment.folds:
        experiment.write_seen(0, fold)
        names = experiment.scored_ids(0, fold)
        save(run.fold(0, fold) / "scores.npz", made_up_scores(made, names, fold))
    merge(experiment, 0, experiment.folds)
    used = read_npz(run.cycle(0) / "oof.npz")["used"]
    found = {name: scores_in(run.cycle(0) / f"{name}.npz") for name in ("oof", "test")}
    held("merge", {**found, "used": used.astype(int)})


# ------------------------------------------------------------------------------- stages 4 and 5


@pytest.fixture
def scored(toy):
    """Function: cycles, changes -> the toy with made-up scores of all folds and cycles."""

    def make(n_cycles=1, **changes):
        made = toy(**changes)
        run, experiment = made.run, Experiment(made.run)
        fold_of = experiment.fold_of
        for cycle in range(n_cycles):
            names, test = experiment.dump_ids, experiment.ids("test")
            used = np.eye(3, dtype=bool)[[fold_of[name] for name in names]]
            save(run.cycle(cycle) / "oof.npz", made_up_scores(made, names, cycle), used=used)
            save(run.cycle(cycle) / "test.npz", made_up_scores(made, test, 9 + cycle))
            write_json(run.cycle(cycle) / "merge.done.json", {})
            for fold in experiment.folds:
                folder = run.fold(cycle, fold)
                experiment.write_seen(cycle, fold)
                save(folder / "scores.npz", made_up_scores(made, names, 20 + fold))
                rng = np.random.default_rng(30 + fold)
                logit = rng.normal(1, 1, (5, 3)).astype(np.float32)
                np.savez(folder / "inserted.npz", label=np.array(LABELS), logit=logit)
        return made, experiment

    return make


RELABEL = {"threshold": 0.6, "low_threshold": 0.3, "negative_below": 0.02, "subsets": ["train"]}
RELABEL |= {"kind": "events"}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("plain", {"relabel": RELABEL}),
        (
            "priors",
            {
                "relabel": {**RELABEL, "use_prior": True, "prevalence_share": 0.8},
                "prior": {"method": "estimated", "n_insertions": 5},
            },
        ),
    ],
)
def test_relabel(scored, kind, changes):
    made, _ = scored(**changes)
    relabel(made.run, 1)
    events = pd.read_csv(made.run.cycle(1) / "pseudo_events.csv")
    found = {
        "rows": len(events),
        "by": events.groupby(["label", "polarity"]).size().reset_index().to_numpy().tolist(),
        "recordings": " ".join(events["recording_id"].head(20)),
        **{name: summary(events[name]) for name in ("onset", "offset", "weight")},
    }
    held(f"relabel {kind}", found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("plain", {}),
        ("estimated", {"prior": {"method": "estimated", "n_insertions": 5}}),
        ("events", {"data__annotation": "complete", "events": {"tune": True}}),
    ],
)
def test_submit(scored, kind, changes):
    score = {"n_bootstrap": 50, "test_truth": "truth.csv", "metric": "map"}
    made, experiment = scored(score=score, **changes)
    run = made.run
    truth = pd.DataFrame(np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 1]], columns=LABELS)
    write_csv(run.datadir / "truth.csv", truth.assign(recording_id=experiment.ids("test")))
    submit(run, lambda *_: [])
    results = read_json(run.exp / "results.json")
    found = {
        "submission": pd.read_csv(run.exp / "submission.csv").to_numpy().tolist(),
        "results": {key: value for key, value in results.items() if key != "run"},
    }
    if kind == "events":
        # There where its library is.
        found["results"]["cycles"][-1]["events"]["oof_events"]["measures"].pop("psds1", None)
        found["rule"] = read_json(run.exp / "rule.json")["rule"]
    held(f"submit {kind}", found)
