"""What each stage depends on: every key of the configuration, and what the code really reads."""

import numpy as np
import pytest
import soundfile
import yaml

from local.config import Config, Section
from local.config.relevance import flat_settings, longest_prefix
from local.features.front_ends.front_end_registry import front_end_of
from local.report.collect import build_report
from local.report.html import write_report
from local.stages.dependencies import STAGES
from local.stages.experiment import Experiment
from local.stages.infer import infer_fold, merge
from local.stages.inputs import stage_settings
from local.stages.preprocess import make_dump
from local.stages.relabel import relabel
from local.stages.split import split
from local.stages.submit import submit
from local.stages.train import train_fold

# Each key, another value for it, the stages whose stamp changes with it: first in a plain
# configuration and cycle 0, after the bar also where every condition of the table holds, in cycle
# 1. Values of keys that decide a condition (-) are in SWITCHES.
FRONT_END = "preprocess train infer further submit"
KEYS = f"""
seed                            1           split train further submit
task                            other       train infer further merge relabel submit
task_params.size                2           train infer further merge relabel submit
prepare.size                    small       prepare
audio.sample_rate               16000       prepare {FRONT_END}
audio.other_rates               refuse      preprocess
audio.channel                   first       {FRONT_END}
audio.max_invalid_share         0.5         preprocess
features.kind                   other        {FRONT_END}
features.n_fft                  1024        {FRONT_END}
features.win_length             512         {FRONT_END}
features.hop_length             256         {FRONT_END}
features.n_mels                 64          {FRONT_END}
features.f_min_hz               10.0        {FRONT_END}
features.f_max_hz               9000.0      {FRONT_END}
features.mel_scale              htk         {FRONT_END}
features.floor                  1.0e-6      {FRONT_END}
features.dtype                  float32     {FRONT_END}
features.keep_wave              true        preprocess
features.stretches              [0.9]       | train
features.params.depth           2           {FRONT_END}
data.annotation                 complete    train submit | relabel
data.short_calls                refuse      -
data.reviewed                   -           train submit relabel
data.reviewed_subsets           [test]      | train submit relabel
split.n_folds                   3           prepare split train merge relabel submit
window.length_s                 2.0         train infer further submit
window.short                    repeat      train infer further
window.p_positive               0.5         train
window.p_negative               0.5         train
window.p_pseudo                 0.5         train
window.p_random                 0.5         train
window.balance_classes          false       train
window.balance_batches          true        train
window.p_stretched              0.1         train
window.whole                    true        train infer further
window.min_visible_share        0.1         train
window.min_visible_s            0.1         train
window.negative_cover           0.1         train
model.name                      cnn14       train submit
model.params.gru                7           train
model.params.weights            other.pt    -
model.init                      other.pt    -
loss.clip_weight                0.1         train
loss.frame_weight               0.1         train
loss.cells                      focal       train
loss.focal_gamma                1.0         train
loss.focal_alpha                0.1         train
loss.focal_on                   positives   train
loss.positive_weight            2.0         train
loss.normalise                  positives   train
loss.masked                     false       train
loss.negative_beta              0.5         train
loss.unknown_weight             0.5         train
loss.unknown_target             0.5         train
loss.unknown_beta               0.5         train
loss.lsep_weight                0.5         train
loss.activity_weight            0.5         train
loss.activity_unknown           absent      train
loss.centre_weight              0.5         train
loss.centre_lr                  0.5         train
augment.mixup_alpha             0.5         train
augment.mixup_lambda            0.5         train
augment.mixup_p                 0.5         train
augment.mixup_at                last        train
augment.mixup_target            soft        train
augment.gain_db                 1.0         train
augment.freq_masks              1           train
augment.freq_mask_share         0.5         train
augment.freq_mask_spares_calls  true        train
augment.time_masks              1           train
augment.time_mask_share         0.5         train
augment.noise_std               0.5         train
augment.shift_s                 0.5         train
augment.stretch                 [0.9, 1.1]  train
augment.pitch_bands             1           train
augment.noise_p                 0.5         train
augment.noise_snr_db            [1.0, 2.0]  train
augment.noise_colour            pink        train
augment.noise_gusts             0.5         train
augment.background_p            0.5         train
augment.background_snr_db       [1.0, 2.0]  train
augment.background_from         random      train
augment.background_faint_db     1.0         train
augment.wave_p                  0.5         train
augment.wave_pitch              [0.0, 1.0]  train
train.n_epochs                  7           train
train.windows_per_epoch         7           train
train.batch_size                7           train
train.accumulate                7           train
train.optimizer                 sgd         train
train.momentum                  0.5         train
train.lr                        0.5         train
train.lr_head                   0.5         train
train.weight_decay              0.5         train
train.schedule                  noam        train
train.step_epochs               7.0         train
train.step_factor               0.1         train
train.warmup_share              0.5         train
train.grad_clip                 0.5         train
train.ema_decay                 0.5         train
train.amp                       false       train
train.validate_every            7           | train
train.select                    -           train
train.max_bad_steps             7           -
train.n_workers                 7           -
train.save_minutes              7.0         -
inference.window_s              7.0         infer further | train
inference.window_frames         7           infer further | train
inference.overlap_s             7.0         infer | train
inference.overlap_frames        7           infer | train
inference.stitch                mean        infer | train
inference.pool.source           window      merge further | train relabel submit
inference.pool.method           topk        merge further | train relabel submit
inference.pool.seconds          7.0         merge further | train relabel submit
inference.tta.shifts_s          [0.1]       infer | train
inference.tta.speeds            [0.9]       infer | train
inference.tta.stretches         [0.9]       infer | train
inference.tta.gains_db          [0.9]       infer | train
inference.tta.flip              true        infer | train
inference.tta.lengths_s         [0.9]       infer | train
inference.batch_size            7           -
inference.keep_frames           false       merge
relabel.n_cycles                7           -
relabel.kind                    soft        relabel submit | train
relabel.power                   2.0         -
relabel.threshold               0.7         relabel submit
relabel.low_threshold           0.1         relabel submit
relabel.min_duration_s          7.0         relabel submit
relabel.max_gap_s               7.0         relabel submit
relabel.weight                  0.1         relabel
relabel.subsets                 [test]      relabel
relabel.negative_below          0.1         relabel
relabel.prevalence_share        0.1         relabel
relabel.max_per_confirmed       7.0         relabel
relabel.pseudo_mixup            0.5         -
relabel.pseudo_mixup_kind       substitute  -
relabel.drop_path               0.5         | train
relabel.use_prior               -           relabel
relabel.max_fall                0.5         -
relabel.start                   -           | train
prior.method                    given       submit | relabel
prior.given                     other.csv   -
prior.n_insertions              7           further | relabel submit
prior.strength                  0.1         | relabel submit
prior.max_odds_ratio            7.0         | relabel submit
prior.least_auc                 0.5         | relabel submit
score.metric                    map         submit | train
score.n_bootstrap               7           submit
score.test_truth                other.csv   -
score.train_truth               other.csv   -
score.test_events               other.csv   -
events.tune                     -           submit
events.ious                     [0.1]       | submit
events.thresholds               [0.1]       | submit
events.drops                    [0.1]       | submit
events.durations_s              [0.1]       | submit
events.gaps_s                   [0.1]       | submit
events.copies                   copy-*      | submit
events.collar_s                 7.0         | submit
events.segment_s                7.0         | submit
report.n_recordings             7           submit
report.time_expansion           7.0         submit
"""
PLAIN = {
    "task_params": {"size": 1},
    "prepare": {"size": "tiny"},
    "features": {"kind": "toy", "params": {"depth": 1}},
    "model": {"init": "first.pt", "params": {"gru": 1, "weights": "w.pt"}},
    "relabel": {"kind": "events", "start": "scratch"},
}
RICH = PLAIN | {
    "features": {"kind": "toy", "params": {"depth": 1}, "stretches": [1.1]},
    "train": {"select": "best"},
    "window": {"p_stretched": 0.5},
    "data": {"annotation": "complete", "reviewed": ["a.csv"]},
    "prior": {"method": "estimated"},
    "relabel": {"kind": "events", "use_prior": True, "start": "cycle0"},
    "events": {"tune": True},
}
# Another value than in PLAIN, and than in RICH.
SWITCHES = {
    "data.reviewed": (["b.csv"], []),
    "train.select": ("best", "none"),
    "relabel.use_prior": (True, False),
    "relabel.start": ("cycle0", "scratch"),
    "events.tune": (True, False),
    "data.annotation": ("complete", "partial"),
}


def _name(value) -> str:
    """The name of a case, the same in every process: sets have no order of their own."""
    return ",".join(sorted(value)) if isinstance(value, set | frozenset) else str(value)


def rows():
    for line in KEYS.strip().splitlines():
        key, rest = line.split(maxsplit=1)
        at = rest.index("]") + 1 if rest.startswith("[") else rest.index(" ")
        plain, _, more = rest[at:].partition("|")
        value = yaml.safe_load(rest[:at])
        both = set(plain.split()) - {"-"}
        yield key, value, both, both | set(more.split())


def with_value(config: Section, key: str, value):
    """The configuration with another value; whether the whole can be is not asked."""
    name, _, rest = key.partition(".")
    old = getattr(config, name)
    if rest and isinstance(old, Section):
        value = with_value(old, rest, value)
    elif rest:
        value = {**old, rest: value}
    elif isinstance(old, tuple):
        value = tuple(value)
    return config.model_copy(update={name: value})


def depends(config: Config, cycle: int):
    return {
        stage: (needs.settings(config, cycle), needs.read_files(config, cycle))
        for stage, needs in STAGES.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value", "plain", "rich"), list(rows()), ids=_name)
def test_every_key_changes_the_stamps_of_the_stages_that_it_matters_to(key, value, plain, rich):
    for n, (settings, cycle, expected) in enumerate([(PLAIN, 0, plain), (RICH, 1, rich)]):
        config = Config.model_validate(settings)
        other = with_value(config, key, SWITCHES[key][n] if key in SWITCHES else value)
        assert flat_settings(other) != flat_settings(config)
        before, after = depends(config, cycle), depends(other, cycle)
        changed = {stage for stage in before if before[stage] != after[stage]}
        assert changed == expected, (key, n)


def test_every_key_has_a_row_and_every_stage_decides_it_once():
    """A new key fails here until the table says, and this test, whether it matters."""
    config = Config.model_validate(RICH)
    keys = set(flat_settings(config))
    assert {key for key, *_ in rows()} == keys
    for needs in STAGES.values():
        first = [*needs.matters.split(), *needs.unread.split(), *needs.harmless]
        assert len(first) == len(set(first))
        # Each name is of something.
        more = [name for one in needs.when for name in one.matters.split()]
        assert not [n for n in first + more if not any(longest_prefix(k, {n}) for k in keys)]


def test_an_undecided_key_is_refused():
    class WithNew(Config):
        colour: Section = Section()
        taste: int = 1

    for needs in STAGES.values():
        with pytest.raises(ValueError, match=r"taste: say in dependencies\.py whether it matters"):
            needs.settings(WithNew())


def test_a_front_end_goes_by_its_own_keys_and_by_its_version(monkeypatch):
    """Waveforms have no mel bands; a kind that makes other numbers raises its version."""
    needs = STAGES["train"]
    for kind, same in (("wave", True), ("logmel", False)):
        one, other = (
            Config.model_validate({"features": {"kind": kind, "n_mels": n}}) for n in (64, 128)
        )
        assert (stage_settings(needs, one) == stage_settings(needs, other)) == same
    before = stage_settings(needs, one)
    monkeypatch.setattr(type(front_end_of(one)), "version", 99)
    assert stage_settings(needs, one) != before
    assert stage_settings(STAGES["merge"], one) == stage_settings(STAGES["merge"], other)


def test_another_sound_of_the_same_length_is_another_training(toy):
    made = toy()
    run, experiment = made.run, Experiment(made.run)

    def stamp(seed):
        rng = np.random.default_rng(seed)
        for path in experiment.tables.recordings["path"]:
            soundfile.write(run.datadir / path, 0.1 * rng.normal(size=6000), 1000, subtype="PCM_16")
        make_dump(run, experiment.tables, run.features, 1.0, None)
        return experiment.stamp("train").made_of

    assert stamp(1) == stamp(1)
    assert stamp(1)["inputs"] != stamp(2)["inputs"]


# ------------------------------------------------------------------------- what the code reads


@pytest.fixture
def reading(monkeypatch):
    """Function: call -> the keys that are read in it, other than to make a stamp or run.json."""
    places = {type(section): f"{name}." for name, section in _sections("", Config())} | {Config: ""}
    found, quiet = set(), []
    read = Section.__getattribute__

    def noted(self, name):
        value = read(self, name)
        place = places.get(type(self))
        is_key = place is not None and name in type(self).model_fields
        if is_key and not quiet and not isinstance(value, Section):
            found.add(place + name)
        return value

    stamp = Experiment.stamp

    def stamped(*args, **kwargs):
        quiet.append(1)
        try:
            return stamp(*args, **kwargs)
        finally:
            quiet.pop()

    monkeypatch.setattr(Experiment, "stamp", stamped)
    monkeypatch.setattr(Section, "__getattribute__", noted)

    def keys(call):
        found.clear()
        call()
        return set(found)

    return keys


def _sections(prefix, section):
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield prefix + name, value
            yield from _sections(f"{prefix}{name}.", value)


QUICK = {
    "train__n_epochs": 1,
    "train__windows_per_epoch": 16,
    "relabel__threshold": 0.05,
    "score__n_bootstrap": 5,
    "report__n_recordings": 1,
}
KINDS = {
    "plain": {},
    "rich": {
        "train__select": "best",
        "train__validate_every": 1,
        "features__stretches": [0.9],
        "window__p_stretched": 0.5,
        "inference__tta": {"stretches": [0.9]},
        "data__annotation": "complete",
        "augment": {"mixup_alpha": 0.5, "background_p": 0.5, "noise_p": 0.5, "time_masks": 1},
        "loss": {"cells": "focal", "centre_weight": 0.1},
        "prior__method": "estimated",
        "relabel__use_prior": True,
        "relabel__start": "cycle0",
        "relabel__prevalence_share": 0.9,
        "events__tune": True,
    },
}


def write_page(experiment, results):
    return write_report(experiment.run.exp / "report.html", build_report(experiment, results))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_stage_reads_matters_or_is_said_to_be_harmless(toy, reading, kind):
    """A stage that comes to read another key must say so in the table."""
    made = toy(**QUICK, **KINDS[kind])
    run, experiment = made.run, Experiment(made.run)
    rng = np.random.default_rng(3)
    for path in experiment.tables.recordings["path"]:
        soundfile.write(run.datadir / path, 0.1 * rng.normal(size=6000), 1000, subtype="PCM_16")
    odd = {}
    for stages, call in {
        "preprocess": lambda: make_dump(run, experiment.tables, run.features, 1.0, None),
        "split": lambda: split(run),
        "train": lambda: [train_fold(run, 0, fold) for fold in range(3)],
        "infer further": lambda: [infer_fold(run, 0, fold) for fold in range(3)],
        "merge": lambda: merge(experiment, 0, [0, 1, 2]),
        "relabel": lambda: relabel(run, 1),
        "submit": lambda: submit(run, write_page),
    }.items():
        read = reading(call)
        assert read
        allowed = set()
        for needs in map(STAGES.get, stages.split()):
            matters = {key for key, name in needs.deciding(run.config, 0).items() if name}
            # Settings whose keys somebody else's schema knows are read as one.
            allowed |= matters | set(needs.matters.split())
            allowed |= set(needs.harmless)
        odd[stages] = {key for key in read if not longest_prefix(key, allowed)}
    assert not any(odd.values()), "stages read what the table says is not read"
