"""Settings that go by the recordings of a subset that has none: one sentence, or all goes on.

Scores are made up in place of training, so that every stage after it is reached.
"""

import numpy as np
import pandas as pd
import pytest

from local.features.front_ends.front_end_registry import front_end_of
from local.inference.score_files import save_scores
from local.inference.scores import Scores, clip_logits
from local.io.errors import CanopyError
from local.report.collect import build_report
from local.report.html import write_report
from local.stages.checks import check_data
from local.stages.experiment import Experiment
from local.stages.infer import merge
from local.stages.relabel import relabel
from local.stages.submit import submit
from local.training.epoch_plan import make_training_set, plan_epoch
from local.training.window_reading import vary_epoch

pytestmark = pytest.mark.slow


def without(made, subset, how):
    """Take the recordings of a subset out of the tables, or make them unreadable."""
    path = made.run.tables / "recordings.csv"
    recordings = pd.read_csv(path)
    mine = recordings["subset"] == subset
    if how == "absent":
        recordings[~mine].to_csv(path, index=False)
        folds = pd.read_csv(made.run.exp / "folds.csv")
        kept = folds["recording_id"].isin(recordings["recording_id"][~mine])
        folds[kept].to_csv(made.run.exp / "folds.csv", index=False)
        return
    manifest = pd.read_csv(made.run.features / "manifest.csv")
    bad = manifest["recording_id"].isin(recordings["recording_id"][mine])
    manifest["status"] = np.where(bad, "invalid", "ok")
    manifest["reason"] = np.where(bad, "damaged", "")
    manifest.to_csv(made.run.features / "manifest.csv", index=False)


def make_scores(made, cycle):
    """What stages 2 and 3 leave, with scores drawn at random."""
    experiment, rng = Experiment(made.run), np.random.default_rng(0)
    labels, config = experiment.tables.labels, made.run.config
    for fold in experiment.folds:
        experiment.write_seen(cycle, fold)
        names = experiment.scored_ids(cycle, fold)
        frames = [rng.normal(-1, 2, (3, 30)).astype(np.float32) for _ in names]
        window = np.zeros((len(names), 3), dtype=np.float32)
        scores = Scores(names, labels, frames, window, 2 * front_end_of(config).hop_s, -0.05)
        path = made.run.fold(cycle, fold) / "scores.npz"
        save_scores(path, scores, clip_logits(scores, config.inference.pool), True)
    merge(experiment, cycle, experiment.folds)


def all_stages(made):
    """Checks, the windows of an epoch, and stages 3 to 5 with one cycle."""
    check_data(made.run)
    experiment, config = Experiment(made.run), made.run.config
    names = experiment.training_ids(0, 0)
    training_set = make_training_set(
        experiment.known_tables,
        experiment.events(0),
        names,
        experiment.dump,
        experiment.background_ids(0),
    )
    plan_epoch(training_set, config, 20, 16, np.random.default_rng(0))
    vary_epoch(training_set, config, 20, 16, np.random.default_rng(0))
    make_scores(made, 0)
    if config.relabel.n_cycles:
        relabel(made.run, 1)
        make_scores(made, 1)
    page = made.run.exp / "report.html"
    submit(made.run, lambda *results: write_report(page, build_report(*results)))


GIVEN = {"prior__method": "given", "prior__given": "prevalence.csv"}
SHARE = {"relabel__prevalence_share": 0.5}
REVIEWED = {"data__reviewed": ["reviewed.csv"]}


ESTIMATED = {"prior__method": "estimated", "prior__n_insertions": 0, **SHARE}


# Settings, the subset that has no recordings, and what is said of it before any work; or None.
ABSENT = [
    ({}, "test", None),
    ({**GIVEN, **SHARE, "relabel__use_prior": True}, "test", None),
    ({"events__tune": True, "data__annotation": "complete"}, "test", None),
    ({"relabel__subsets": ["train", "test", "unlabelled"]}, "unlabelled", None),
    ({"relabel__subsets": ["unlabelled"], "relabel__n_cycles": 0}, "unlabelled", None),
    ({"relabel__subsets": ["unlabelled"]}, "unlabelled", "relabel.subsets .* set .*n_cycles to 0"),
    ({"relabel__subsets": []}, "test", "relabel.subsets .* .none is named"),
    ({**GIVEN, **SHARE, "relabel__subsets": ["test"]}, "test", "relabel.subsets .* subset test"),
    (ESTIMATED, "test", "prior.method estimated .* test, .* none or given"),
    ({**REVIEWED, "data__reviewed_subsets": ["test"]}, "test", "data.reviewed_subsets .* test"),
    (
        {"augment__background_p": 0.5, "augment__background_from": "unlabelled"},
        "unlabelled",
        "augment.background_from .* none; set it to random or negative",
    ),
]
# The same where there are some, of which none can be read: what is said by the stage that meets it.
UNREADABLE = [
    *ABSENT[:5],
    ({"relabel__subsets": ["unlabelled"]}, "unlabelled", "no recording of it is readable"),
    ({**GIVEN, **SHARE, "relabel__subsets": ["test"]}, "test", "no recording of it is readable"),
    ({**REVIEWED, "data__reviewed_subsets": ["test"]}, "test", None),
    (ABSENT[-1][0], "unlabelled", "this fold has no readable recordings of that subset"),
    (ESTIMATED, "test", "prior.method is estimated, but no test recording is read"),
]


@pytest.mark.parametrize(
    ("how", "changes", "subset", "words"),
    [("absent", *case) for case in ABSENT] + [("unreadable", *case) for case in UNREADABLE],
)
def test_a_setting_that_goes_by_a_subset_without_recordings(
    toy, tmp_path, how, changes, subset, words
):
    made = toy(**changes, train__windows_per_epoch=16, report__n_recordings=2)
    data = tmp_path / "data"
    (data / "prevalence.csv").write_text("label,prevalence\na,0.5\nb,0.1\nc,0.1\n")
    columns = "recording_id,label,onset,offset,low_freq,high_freq,polarity,weight,source\n"
    of_test = "" if how == "absent" else "t3,a,1,2,,,1,1,review\n"
    (data / "reviewed.csv").write_text(f"{columns}{of_test}r01,a,1,2,,,1,1,review\n")
    without(made, subset, how)
    if words is None:
        all_stages(made)
        assert (made.run.exp / "report.html").is_file()
        return
    with pytest.raises(CanopyError, match=words) as fault:
        all_stages(made)
    assert "\n" not in str(fault.value)
    if how == "absent":
        assert not made.run.cycle(0).exists()
