"""bin/blend.py on made-up runs: what it writes, and that a fault is told and writes nothing.

The runs lie in the folders of a toy experiment, as stages 0 to 3 would leave them.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from local.config import dump_config
from local.data.tables import read_table
from local.detect.ensemble.members import open_member
from local.inference.score_files import load_scores, save_scores
from local.inference.scores import Scores, clip_logits
from local.io.files import read_json, write_csv, write_json, write_text
from local.relabel.prior_correction import prior_correction
from local.report.ledger import COLUMNS, fill_in, read_ledger
from local.scoring.metrics.lwlrap import lwlrap
from local.stages.experiment import Experiment
from local.stages.run_record import note_work
from local.stages.stage_options import stage_parser
from local.stages.starting import start
from local.tasks.detection_evidence import fold_evidence
from local.tasks.detection_results import collect, corrected_test
from tests.scripts import caller

LABELS = ["a", "b", "c"]


@pytest.fixture
def blend(capsys):
    return caller("blend", capsys)


@pytest.fixture
def runs(toy, tmp_path):
    """Function: names -> folders of runs of one experiment, with scores that differ by seed."""
    made = toy(score={"n_bootstrap": 20})

    def make(*names, **changes):
        folders = []
        for seed, name in enumerate(names):
            run = start(stage_parser(None).parse_args([*made.options, "--tag", name]), "test")
            note_work(run, "infer")
            folder = run.exp
            config = run.config.model_copy(update=changes)
            write_text(folder / "config.yaml", dump_config(config))
            shutil.copy(made.run.exp / "folds.csv", folder)
            write_scores(folder, Experiment(run), seed)
            folders.append(folder)
        return folders

    make.made, make.out = made, tmp_path / "out"
    return make


def write_scores(folder, experiment, seed, hop_s=0.2, keep_frames=True, names=None, labels=LABELS):
    """oof.npz, test.npz and each fold's scores.npz of cycle 0; labels of train are audible."""
    rng = np.random.default_rng(seed)
    events = experiment.tables.events
    events = events[events["polarity"] > 0]
    sung = set(zip(events["recording_id"], events["label"], strict=True))
    frames = {}
    for name in names or experiment.dump_ids:
        here = rng.normal(size=(len(labels), round(6 / hop_s))).astype(np.float32)
        for row, label in enumerate(labels):
            here[row] += 1.0 * ((name, label) in sung)
        frames[name] = here
    every = list(frames)
    test = [name for name in every if name.startswith("t")]

    def save(path, ids):
        window = np.stack([frames[name].max(axis=1) for name in ids])
        scores = Scores(ids, list(labels), [frames[n] for n in ids], window, hop_s, -0.05)
        clip = clip_logits(scores, experiment.run.config.inference.pool)
        save_scores(path, scores, clip, keep_frames)

    cycle = folder / "cycle0"
    save(cycle / "oof.npz", every)
    save(cycle / "test.npz", test)
    for fold in experiment.folds:
        experiment.write_seen(0, fold)
        save(cycle / f"fold{fold}" / "scores.npz", every)
    write_json(cycle / "merge.done.json", {})


def clips(folder, kind):
    scores, members = load_scores(folder / "cycle0" / f"{kind}.npz")
    return scores, members["clip_logit"].astype(float)


def test_a_blend_is_the_mean_and_is_corrected_once(blend, runs):
    folders = runs("one", "two")
    code, out, _ = blend(*folders, "--out", runs.out)
    assert code == 0
    for kind in ("oof", "test"):
        (first, a), (_, b) = (clips(folder, kind) for folder in folders)
        scores, members = load_scores(runs.out / f"{kind}.npz")
        assert scores.recording_ids == first.recording_ids
        expected = logit((expit(a) + expit(b)) / 2)
        np.testing.assert_allclose(members["clip_logit"], expected, atol=1e-5)
        others = [load_scores(folder / "cycle0" / f"{kind}.npz")[0] for folder in folders]
        for row in (0, 3):
            pair = [expit(other.frames[row].astype(float)) for other in others]
            np.testing.assert_allclose(expit(scores.frames[row]), sum(pair) / 2, atol=1e-5)
        assert (scores.hop_s, scores.start_s) == (0.2, -0.05)
    record = read_json(runs.out / "blend.json")
    assert [one["weight"] for one in record["members"]] == [0.5, 0.5]
    assert [one["tag"] for one in record["members"]] == ["one", "two"]
    # The members' scores are those of stage 5, the blend's that of its own file.
    for folder, one in zip(folders, record["members"], strict=True):
        known = collect(open_member(folder).experiment, [0])["cycles"][0]["scores"]["oof_known"]
        for name in ("value", "low", "high", "span_auc"):
            assert one["oof"][name] == pytest.approx(known[name])
    assert record["oof"]["value"] == pytest.approx(oof_score(runs, runs.out))
    assert f"{record['oof']['value']:.4f}" in out
    gain = record["gain_over_best"]
    best = max(one["oof"]["value"] for one in record["members"])
    assert gain["value"] == pytest.approx(record["oof"]["value"] - best)
    assert gain["low"] <= gain["value"] <= gain["high"]
    # No correction is configured: the submission is the blend.
    submission = pd.read_csv(runs.out / "submission.csv", index_col=0)
    scores, members = load_scores(runs.out / "test.npz")
    values = submission.loc[scores.recording_ids, LABELS].to_numpy()
    np.testing.assert_allclose(values, expit(members["clip_logit"].astype(float)), atol=1e-6)
    assert record["run"]["seed"] == 0


def oof_score(runs, folder):
    scores, members = load_scores(folder / "oof.npz")
    events = runs.made.tables.events
    events = events[(events["polarity"] > 0)]
    truth = np.array(
        [
            [
                ((events["recording_id"] == name) & (events["label"] == label)).any()
                for label in LABELS
            ]
            for name in scores.recording_ids
        ]
    )
    return lwlrap(truth[truth.any(axis=1)], members["clip_logit"][truth.any(axis=1)])


def test_the_prior_correction_is_that_of_stage_5_on_the_blend(blend, runs):
    prior = type(runs.made.run.config.prior)(
        method="estimated", strength=0.75, n_insertions=0, least_auc=0.0
    )
    folders = runs("one", "two", prior=prior)
    assert blend(*folders, "--out", runs.out, "--weights", "3,1").code == 0
    members = [open_member(folder) for folder in folders]
    scores, stored = load_scores(runs.out / "test.npz")
    evidence = [fold for one in members for fold in fold_evidence(one.experiment, 0)]
    expected = prior_correction(
        members[0].experiment.tables.labels,
        stored["clip_logit"].astype(float),
        members[0].experiment.run.config,
        runs.made.run.datadir,
        evidence,
    )
    record = read_json(runs.out / "blend.json")
    np.testing.assert_allclose(record["prior"]["shift"], expected.shift, atol=1e-5)
    assert np.abs(expected.shift).max() > 0.01
    submission = pd.read_csv(runs.out / "submission.csv", index_col=0).loc[scores.recording_ids]
    ours = logit(submission[LABELS].to_numpy()) - stored["clip_logit"]
    np.testing.assert_allclose(ours, np.tile(expected.shift, (len(ours), 1)), atol=1e-4)


def test_a_run_alone_in_a_blend_gives_its_own_submission(blend, runs):
    # All the weight on one run: what stage 5 gives for it, correction and all.
    prior = type(runs.made.run.config.prior)(method="estimated", n_insertions=0)
    folders = runs("one", "two", prior=prior)
    assert blend(*folders, "--out", runs.out, "--weights", "0,1").code == 0
    member = open_member(folders[1])
    _, (ids, own), correction = corrected_test(member.experiment, 0)
    submission = pd.read_csv(runs.out / "submission.csv", index_col=0).loc[ids, LABELS]
    np.testing.assert_allclose(submission, expit(own + correction.shift), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["probability", "rank", "logit"])
def test_fitted_weights_and_what_they_are_worth(blend, runs, method):
    folders = runs("one", "two", "three")
    options = ["--weights", "fit", "--method", method]
    code, out, _ = blend(*folders, "--out", runs.out, *options)
    assert code == 0
    record = read_json(runs.out / "blend.json")
    assert sum(one["weight"] for one in record["members"]) == pytest.approx(1)
    assert set(record["weights_without_fold"]) == {"0", "1", "2"}
    best = max(one["oof"]["value"] for one in record["members"])
    assert record["oof"]["value"] >= best - 1e-6
    assert record["oof"]["value"] >= record["oof_cross_fitted"]["value"] - 0.05
    assert "blend, cross fitted" in out


def test_song_types_are_merged_and_the_sample_is_joined(blend, runs):
    folders = runs("one", "two")
    tables = runs.made.run.tables
    columns = pd.DataFrame({"label": LABELS, "column": ["s0", "s1", "s0"]})
    write_csv(tables / "submission_columns.csv", columns)
    ids = ["t5", "t1", "t0", "t2", "t4", "t3", "lost"]
    sample = pd.DataFrame({"recording_id": ids, "s1": 0, "s0": 0})
    write_csv(tables / "sample_submission.csv", sample)
    code, _, err = blend(*folders, "--out", runs.out)
    assert code == 0
    assert "1 test recordings were unreadable" in err
    submission = pd.read_csv(runs.out / "submission.csv")
    assert submission.columns.tolist() == ["recording_id", "s1", "s0"]
    assert submission["recording_id"].tolist() == ids
    scores, members = load_scores(runs.out / "test.npz")
    row = scores.recording_ids.index("t5")
    expected = expit(members["clip_logit"][row][[0, 2]].max())
    assert submission["s0"][0] == pytest.approx(expected, abs=1e-6)


def test_recordings_in_another_order_are_joined_by_id(blend, runs):
    folders = runs("one", "two")
    assert blend(*folders, "--out", runs.out).code == 0
    before = load_scores(runs.out / "oof.npz")[1]
    other = open_member(folders[1]).experiment
    write_scores_again(folders[1], other)
    assert blend(*folders, "--out", runs.out).code == 0
    after = load_scores(runs.out / "oof.npz")[1]
    for name in ("clip_logit", "frame_logit", "window_logit"):
        np.testing.assert_array_equal(before[name], after[name])


def write_scores_again(folder, experiment):
    """The same scores, rows from last to first."""
    for kind in ("oof", "test"):
        path = folder / "cycle0" / f"{kind}.npz"
        scores, members = load_scores(path)
        turned = scores.take(scores.recording_ids[::-1])
        save_scores(path, turned, members["clip_logit"][::-1], True)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"hop_s": 0.1}, "time steps of"), ({"keep_frames": False}, "keeps none")],
)
def test_frames_that_do_not_fit_are_left_out_and_it_says_so(blend, runs, change, words):
    folders = runs("one", "two")
    write_scores(folders[1], open_member(folders[1]).experiment, 9, **change)
    code, _, err = blend(*folders, "--out", runs.out)
    assert code == 0
    assert "scores over time are left out" in err
    assert words in err
    assert "frame_logit" not in load_scores(runs.out / "oof.npz")[1]
    assert words in read_json(runs.out / "blend.json")["frames"]


# ------------------------------------------------------------------------------------------ faults


@pytest.mark.slow
def test_faults_of_the_runs_are_one_sentence_and_write_nothing(blend, runs, tmp_path):
    first, second = runs("one", "two")
    experiment = open_member(second).experiment

    def fault(*options):
        ran = blend(first, second, "--out", runs.out, *options)
        assert (ran.code, ran.out) == (1, "")
        assert not runs.out.exists()
        return ran.err

    names = experiment.dump_ids
    write_scores(second, experiment, 1, names=names[:4] + names[5:])
    assert "recording 'r04' of oof.npz: None against True" in fault()
    write_scores(second, experiment, 1, labels=["a", "c", "b"])
    assert "class 1 of oof.npz: 'c' against 'b'" in fault()
    write_scores(second, experiment, 1, labels=["a", "b"])
    assert "class 2 of oof.npz: None against 'c'" in fault()
    write_scores(second, experiment, 1)

    config = (second / "config.yaml").read_text()
    (second / "config.yaml").write_text(config.replace("strength: null", "strength: 0.5"))
    assert "prior.strength: 0.5 against None" in fault()
    assert "--like" in fault()
    (second / "config.yaml").write_text(config)

    other = tmp_path / "dump2"
    shutil.copytree(runs.made.run.dumpdir, other)
    record = json.loads((second / "run.json").read_text())
    elsewhere = {stage: one | {"dumpdir": str(other)} for stage, one in record.items()}
    write_json(second / "run.json", elsewhere)
    events = read_table(other / "tables" / "events.csv", ("label",))
    write_csv(other / "tables" / "events.csv", events.iloc[:-1])
    assert "differs from" in fault()
    assert "known labels" in fault()
    write_csv(other / "tables" / "events.csv", events)
    write_json(other / "tables" / "source.json", {"datadir": "/elsewhere"})
    assert "data folder: '/elsewhere' against" in fault()
    shutil.rmtree(other)
    assert "--dumpdir" in fault()
    write_json(second / "run.json", record)

    assert "--weights is 'best'" in fault("--weights", "best")
    assert "2 runs need 2 weights" in fault("--weights", "1,2,1")
    assert "--cycle is '1', and finished are 0" in fault("--cycle", "1")
    assert "is none of the runs" in fault("--like", tmp_path)
    stored = dict(np.load(second / "cycle0" / "test.npz"))
    stored["clip_logit"][1, 2] = np.inf
    np.savez(second / "cycle0" / "test.npz", **stored)
    assert "t1 has inf for c" in fault()
    (second / "cycle0" / "test.npz").write_bytes(b"no npz")
    assert "not readable as npz" in fault()
    (second / "cycle0" / "merge.done.json").unlink()
    assert "no scores yet" in fault()
    (second / "config.yaml").unlink()
    assert "so it is no run" in fault()


def test_faults_of_the_options(blend, runs):
    first, second = runs("one", "two")
    for options, words in (
        ((first, "--out", runs.out), "needs two runs"),
        ((first, second, first, "--out", runs.out), "is given twice"),
        ((first, second, "--out", first), "is the folder of a run"),
        ((first, second, "--out", first / "config.yaml"), "is a file"),
    ):
        code, _, found = blend(*options)
        assert code == 1
        assert words in found
    assert not runs.out.exists()


def test_like_says_whose_settings_hold(blend, runs):
    first, second = runs("one", "two")
    config = (second / "config.yaml").read_text()
    (second / "config.yaml").write_text(config.replace("n_bootstrap: 20", "n_bootstrap: 30"))
    assert blend(first, second, "--out", runs.out).code == 1
    assert blend(first, second, "--out", runs.out, "--like", second).code == 0
    assert read_json(runs.out / "blend.json")["settings_of"] == str(second)


def test_runs_of_an_earlier_version_say_their_places_as_well(blend, runs):
    folders = runs("one", "two")
    for folder in folders:
        (record,) = read_json(folder / "run.json").values()
        write_json(folder / "run.json", record)
    assert blend(*folders, "--out", runs.out).code == 0


@pytest.mark.slow
def test_a_blend_is_noted_where_its_runs_are(blend, runs):
    folders = runs("one", "two")
    path = runs.made.run.exp.parent / "ledger.csv"
    assert blend(*folders, "--out", runs.out).code == 0
    assert not path.exists()
    write_csv(path, pd.DataFrame(columns=list(COLUMNS)))
    assert blend(*folders, "--out", runs.out, "--weights", "fit").code == 0
    fill_in(path, "out", {"public": 0.9}, recipe="toy")
    assert blend(*folders, "--out", runs.out, "--weights", "fit").code == 0
    ledger = read_ledger(path)
    assert ledger[["recipe", "tag", "public"]].to_numpy().tolist() == [["toy", "out", "0.9"]]
    record = read_json(runs.out / "blend.json")
    assert float(ledger["cv"][0]) == pytest.approx(record["oof_cross_fitted"]["value"], abs=1e-6)
