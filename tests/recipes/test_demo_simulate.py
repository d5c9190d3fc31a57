"""The simulated competition: same bytes from the same seed, truth that is true, faults in words."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.io.errors import CanopyError
from recipes.demo import competition
from recipes.demo.backgrounds import tilted
from recipes.demo.competition import BOX_COLUMNS, RECORD, simulate
from recipes.demo.planning import class_prevalence, make_plans
from recipes.demo.settings import PUBLISHED_PREVALENCE, settings_from
from recipes.demo.simulate import main
from recipes.demo.synthetic import SyntheticVoices

pytestmark = pytest.mark.slow

TINY = {"size": "tiny", "seed": 3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "tiny"
    assert simulate(settings_from(TINY), out)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_layout_is_the_competitions(tiny):
    settings = settings_from(TINY)
    box = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
    for name in ("train_tp.csv", "train_fp.csv"):
        table = pd.read_csv(tiny / name, dtype={"recording_id": str})
        assert list(table.columns) == box
        assert (table["t_min"] < table["t_max"]).all()
        assert table["t_max"].max() <= settings.duration_s
        assert (table["f_min"] < table["f_max"]).all()
        assert table["f_max"].max() <= settings.sample_rate / 2
    sample = pd.read_csv(tiny / "sample_submission.csv", dtype={"recording_id": str})
    assert list(sample.columns) == ["recording_id", *(f"s{c}" for c in range(6))]
    assert (sample.iloc[:, 1:] == 0.5).all(axis=None)
    assert sample["recording_id"].is_monotonic_increasing
    for subset, n in (("train", 36), ("test", 12)):
        files = sorted((tiny / subset).glob("*.flac"))
        assert len(files) == n
        assert all(re.fullmatch(r"[0-9a-f]{9}", file.stem) for file in files)
        info = soundfile.info(files[0])
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames == 6 * 16000
    assert [file.stem for file in sorted((tiny / "test").glob("*"))] == list(sample["recording_id"])


def test_true_positives_are_true_calls(tiny):
    kinds = {"recording_id": str}
    tp = pd.read_csv(tiny / "train_tp.csv", dtype=kinds)
    events = pd.read_csv(tiny / "truth" / "train_events.csv", dtype=kinds)
    assert len(tp.merge(events, on=list(BOX_COLUMNS))) == len(tp)
    counts = tp.groupby(["species_id", "songtype_id"]).size()
    assert len(counts) == 7  # six species, one with two song types
    assert counts.min() >= 3
    assert len(events) > 2 * len(tp)  # most calls are unlabelled


def test_false_positives_never_touch_a_true_call_of_their_class(tiny):
    kinds = {"recording_id": str}
    fp = pd.read_csv(tiny / "train_fp.csv", dtype=kinds)
    events = pd.read_csv(tiny / "truth" / "train_events.csv", dtype=kinds)
    pairs = fp.merge(events, on=["recording_id", "species_id"])
    assert len(pairs) > 0
    touches = (pairs["t_min_x"] < pairs["t_max_y"]) & (pairs["t_max_x"] > pairs["t_min_y"])
    assert not touches.any()
    tp = pd.read_csv(tiny / "train_tp.csv", dtype=kinds)
    assert len(fp) == pytest.approx(3.0 * len(tp), abs=len(tp) / 2)
    assert set(tp["recording_id"]) | set(fp["recording_id"]) == {
        path.stem for path in (tiny / "train").glob("*.flac")
    }


@pytest.mark.parametrize("subset", ["train", "test"])
def test_clip_truth_is_the_events(tiny, subset):
    events = pd.read_csv(tiny / "truth" / f"{subset}_events.csv", dtype={"recording_id": str})
    clips = pd.read_csv(tiny / "truth" / f"{subset}_clips.csv", dtype={"recording_id": str})
    seen = {(row.recording_id, f"s{row.species_id}") for row in events.itertuples()}
    cells = clips.set_index("recording_id").stack()
    assert {cell for cell, value in cells.items() if value == 1} == seen
    assert set(cells.unique()) <= {0, 1}
    assert (clips.set_index("recording_id").sum(axis=1) >= 1).all()


def test_sites_are_disjoint_or_shared_as_asked(tiny):
    sites = pd.read_csv(tiny / "sites.csv", dtype=str).set_index("recording_id")["site"]
    train = {sites[path.stem] for path in (tiny / "train").glob("*.flac")}
    test = {sites[path.stem] for path in (tiny / "test").glob("*.flac")}
    assert (len(train), len(test), train & test) == (6, 3, set())
    shared = settings_from({**TINY, "shared_sites": 1.0})
    plans, _ = make_plans(shared, SyntheticVoices(shared).pairs)
    by_subset = {name: {p.site for p in plans if p.subset == name} for name in ("train", "test")}
    assert by_subset["test"] <= by_subset["train"]


def test_test_prevalence_is_the_published_one():
    settings = settings_from({"n_test": 500, "n_train": 60, "n_tp_per_class": 3})
    pairs = SyntheticVoices(settings).pairs
    plans, prevalence = make_plans(settings, pairs)
    assert tuple(prevalence) == PUBLISHED_PREVALENCE
    test = [{pairs[pair][0] for pair, _ in p.calls} for p in plans if p.subset == "test"]
    shares = np.array([np.mean([c in present for present in test]) for c in range(24)])
    # Rounded counts; rows that would be empty take their class from another recording.
    np.testing.assert_allclose(shares, prevalence, atol=1 / 500)
    assert all(test)


def test_conditions_of_the_test_change_test_recordings_alone(tiny, tmp_path):
    changed = {"test_snr_db": -12.0, "test_rain": 1.0, "test_slope_db": -6.0}
    before = digests(tiny)
    for key, value in changed.items():
        out = tmp_path / key
        assert simulate(settings_from({**TINY, key: value}), out)
        after = digests(out)
        sounds = [name for name in before if name.endswith(".flac")]
        same = {name for name in sounds if before[name] == after[name]}
        assert same == {name for name in sounds if name.startswith("train/")}
        # Which calls there are stays; only their level over the noise may be another.
        events = [pd.read_csv(folder / "truth/test_events.csv") for folder in (tiny, out)]
        assert events[0].iloc[:, :7].equals(events[1].iloc[:, :7])
        if key == "test_snr_db":
            lower = events[0]["snr_db"] - events[1]["snr_db"]
            # No call is fainter than -6 dB.
            free = events[1]["snr_db"] > -6
            assert free.sum() > 5
            assert np.allclose(lower[free], 12, atol=0.02)


def test_another_recorder_tilts_the_spectrum():
    rng, rate = np.random.default_rng(0), 16000
    wave = rng.standard_normal(rate).astype(np.float32)
    gain = np.abs(np.fft.rfft(tilted(wave, rate, -5.0))) / np.abs(np.fft.rfft(wave))
    for hertz, expected in ((500, 5.0), (1000, 0.0), (2000, -5.0), (4000, -10.0)):
        assert 20 * np.log10(gain[hertz]) == pytest.approx(expected, abs=0.01)


def test_prevalence_of_other_class_counts_is_skewed():
    vector = class_prevalence(settings_from({**TINY, "seed": 5}), 10)
    assert vector.max() > 0.85
    assert (vector < 0.08).sum() >= 3
    assert not np.array_equal(vector, class_prevalence(settings_from({**TINY, "seed": 6}), 10))
    with pytest.raises(CanopyError, match=r"2 values for 6 classes"):
        class_prevalence(settings_from({**TINY, "prevalence": [0.5, 0.5]}), 6)


def test_labels_are_balanced_and_mostly_one_a_recording():
    settings = settings_from({"n_train": 300, "n_tp_per_class": 9, "n_test": 5})
    pairs = SyntheticVoices(settings).pairs
    plans, _ = make_plans(settings, pairs)
    labelled = [[pair for pair, marked in plan.calls if marked] for plan in plans]
    counts = np.bincount([pair for row in labelled for pair in row], minlength=len(pairs))
    assert (counts == 9).all()
    sizes = np.bincount([len(row) for row in labelled])
    assert sizes[1] > 0.85 * sizes[1:].sum()
    assert all(not row for row, plan in zip(labelled, plans, strict=True) if plan.subset == "test")


def test_full_has_the_real_counts():
    settings = settings_from({"size": "full"})
    pairs = SyntheticVoices(settings).pairs
    assert len(pairs) == 26
    assert sum(settings.n_tp_per_class) == 1216
    assert settings.n_tp_per_class[pairs.index((17, 4))] == 28
    assert round(1216 * settings.fp_ratio) == pytest.approx(7781, abs=2)
    assert (settings.n_train, settings.n_test, settings.sample_rate) == (4727, 1992, 48000)


def test_same_seed_same_bytes_whatever_the_number_of_processes(tiny, tmp_path):
    simulate(settings_from(TINY), tmp_path / "again", nj=2)
    assert digests(tmp_path / "again") == digests(tiny)
    simulate(settings_from({**TINY, "seed": 4}), tmp_path / "other")
    sounds = [{p.stem for p in (d / "train").iterdir()} for d in (tiny, tmp_path / "other")]
    assert not sounds[0] & sounds[1]


def test_an_interrupted_simulation_goes_on(tiny, tmp_path, monkeypatch):
    out = tmp_path / "cut"
    mix = competition.mix_recording
    calls = []

    def fails_at_eleven(plan, *rest):
        calls.append(plan.recording_id)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return mix(plan, *rest)

    monkeypatch.setattr(competition, "mix_recording", fails_at_eleven)
    with pytest.raises(KeyboardInterrupt):
        simulate(settings_from(TINY), out)
    assert not (out / RECORD).exists()
    first = calls[0]
    # A sound cut short by the end of the machine, and what a killed writer leaves behind.
    damaged = out / "train" / f"{calls[1]}.flac"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (out / "train" / ".abc.abcdefgh.tmp.flac").write_bytes(b"")
    calls[:] = calls[:0]
    monkeypatch.setattr(
        competition, "mix_recording", lambda plan, *rest: (calls.append(plan), mix(plan, *rest))[1]
    )
    assert simulate(settings_from(TINY), out)
    assert len(calls) == 48 - 9
    assert first not in [plan.recording_id for plan in calls]
    assert digests(out) == digests(tiny)
    assert not simulate(settings_from(TINY), out)


def test_a_lost_recording_is_made_again(tmp_path):
    settings = settings_from({**TINY, "n_train": 24, "n_test": 3})
    simulate(settings, tmp_path / "d")
    before = digests(tmp_path / "d")
    next((tmp_path / "d" / "test").iterdir()).unlink()
    assert simulate(settings, tmp_path / "d")
    assert digests(tmp_path / "d") == before


def test_a_folder_that_holds_something_else_is_left_alone(tiny, tmp_path):
    with pytest.raises(CanopyError, match="other settings; give another --datadir"):
        simulate(settings_from({**TINY, "seed": 4}), tiny)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CanopyError, match="no simulation; give another --datadir"):
        simulate(settings_from(TINY), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_trian": 3}, "n_trian.*n_train"),
        ({"size": "huge"}, "size"),
        ({"sample_rate": 16000}, "species 0 calls up to 8250 Hz"),
        ({"background": ["rain"]}, "background and sources go with clips"),
        ({"species": [3, 3]}, "species"),
        ({"fp_ratio": -1}, "fp_ratio"),
    ],
)
def test_wrong_settings_are_told(given, message):
    with pytest.raises(CanopyError, match=message):
        settings_from(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_tp_per_class": 37}, "37 but there are 36 train recordings"),
        ({"n_tp_per_class": [3, 3]}, "2 numbers for 7 pairs"),
    ],
)
def test_labels_that_cannot_be_given_are_told(given, message):
    settings = settings_from({**TINY, **given})
    with pytest.raises(CanopyError, match=message):
        make_plans(settings, SyntheticVoices(settings).pairs)


def test_given_values_win_over_the_preset():
    settings = settings_from({"size": "tiny", "n_test": 5})
    assert (settings.n_test, settings.n_train, settings.sample_rate) == (5, 36, 16000)


def test_command_line(tmp_path, capsys):
    options = ["--size", "tiny", "--n-train", "24", "--n-test", "3", "--nj", "1"]
    options += ["--species", "3", "17", "13", "--n-tp-per-class", "4", "--fp-ratio", "2.5"]
    assert main(["--out", str(tmp_path / "d"), *options]) == 0
    assert "27 recordings" in capsys.readouterr().out
    record = json.loads((tmp_path / "d" / RECORD).read_text())
    assert record["settings"]["species"] == [3, 17, 13]
    assert list(record["classes"]) == ["s0", "s1", "s2"]
    counts = [len(pd.read_csv(tmp_path / "d" / f"train_{kind}.csv")) for kind in ("tp", "fp")]
    assert counts == [16, 40]
    assert main(["--out", str(tmp_path / "d"), *options]) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path / "d"), "--specise", "3"])
