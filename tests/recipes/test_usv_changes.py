"""Changed and simulated recordings: levels are what they say, calls stay where they are marked."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.signal import stft

from local.data.tables import Tables
from recipes.usv import changes, versions
from recipes.usv.changes import TRIED, Sound, any_of_them, floor_of
from recipes.usv.simulate import SHAPES, make_call, simulated

RATE = 250_000
CALLS = np.array([[0.1, 0.15], [0.3, 0.42], [0.6, 0.61]])


def recording(level=0.002, call=0.03, seconds=1.0, seed=0) -> Sound:
    """White noise with three tones of 60 kHz."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = level * rng.standard_normal(len(time))
    for onset, offset in CALLS:
        wave += call * np.sin(2 * np.pi * 60e3 * time) * ((time >= onset) & (time < offset))
    return Sound(wave, RATE, CALLS)


def power_of(wave, low, high, start=0.0, stop=1.0) -> float:
    hertz, times, cells = stft(wave, RATE, nperseg=512)
    inside = np.abs(cells[(hertz >= low) & (hertz <= high)]) ** 2
    return float(inside[:, (times >= start) & (times <= stop)].mean())


def decibels(ratio: float) -> float:
    return 10 * np.log10(ratio)


def test_the_floor_of_white_noise_is_its_power_whatever_calls():
    _, quiet = floor_of(recording(call=0.0))
    _, loud = floor_of(recording(call=0.3))
    assert decibels(loud[40:220].mean() / quiet[40:220].mean()) == pytest.approx(0.0, abs=0.3)
    expected = changes._white_power(0.002**2, RATE)
    assert decibels(quiet[40:220].mean() / expected) == pytest.approx(0.0, abs=0.3)


@pytest.mark.parametrize("down_db", [3.0, 6.0, 12.0])
def test_calls_are_lowered_and_nothing_else(down_db):
    sound = recording()
    lower = changes.lower_calls(sound, np.random.default_rng(0), down_db)
    assert len(lower.wave) == len(sound.wave)
    for onset, offset in CALLS[:2]:
        inside = onset + 0.004, offset - 0.004
        before, after = (power_of(one.wave, 58e3, 62e3, *inside) for one in (sound, lower))
        assert decibels(before / after) == pytest.approx(down_db, abs=0.7)
    silent = slice(round(0.45 * RATE), round(0.58 * RATE))
    np.testing.assert_allclose(lower.wave[silent], sound.wave[silent], atol=1e-9)
    other = [power_of(one.wave, 90e3, 110e3, 0.31, 0.41) for one in (sound, lower)]
    assert decibels(other[0] / other[1]) == pytest.approx(0.0, abs=0.8)


@pytest.mark.parametrize("above_db", [0.0, 10.0])
@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_noise_stands_so_far_above_the_floor(above_db, slope):
    sound = recording()
    noisy = changes.noise(sound, np.random.default_rng(1), above_db, slope)
    middle = power_of(sound.wave, 45e3, 49e3, 0.45, 0.58)
    added = power_of(noisy.wave - sound.wave, 45e3, 49e3)
    assert decibels(added / middle) == pytest.approx(above_db, abs=0.7)
    ends = [power_of(noisy.wave - sound.wave, at - 2e3, at + 2e3) for at in (30e3, 90e3)]
    assert decibels(ends[1] / ends[0]) == pytest.approx(slope * decibels(3), abs=0.7)


def test_lines_are_steady_narrow_and_as_loud_as_they_say():
    sound = recording(call=0.0)
    added = changes.lines(sound, np.random.default_rng(3), 20.0, n=1).wave - sound.wave
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    assert 20e3 < np.argmax(spectrum) < 110e3
    assert spectrum.max() > 0.3 * spectrum.sum()
    assert decibels(np.mean(added**2) / (0.002**2 / 125)) == pytest.approx(20.0, abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRIED))
def test_every_change_is_finite_and_keeps_calls_inside(name):
    sound = recording()
    changed = TRIED[name](sound, np.random.default_rng(4))
    assert np.isfinite(changed.wave).all()
    assert changed.calls.shape == sound.calls.shape
    assert changed.calls.max() <= len(changed.wave) / RATE
    again = TRIED[name](sound, np.random.default_rng(4))
    np.testing.assert_array_equal(changed.wave, again.wave)
    if name.startswith("played"):
        factor = float(name.split()[1])
        assert len(changed.wave) == pytest.approx(factor * RATE, rel=0.01)
        loud = power_of(
            changed.wave, 60e3 / factor - 2e3, 60e3 / factor + 2e3, 0.32 * factor, 0.4 * factor
        )
        assert loud > 20 * power_of(changed.wave, 90e3, 110e3)


def test_recorders_clip_and_count_in_steps():
    loud = changes.recorder(recording(), None, gain_db=40.0)
    assert loud.wave.max() == 1 - 2.0**-15
    assert loud.wave.min() == -1
    coarse = changes.recorder(recording(), None, bits=8, offset=0.25).wave
    np.testing.assert_array_equal(coarse * 128, np.round(coarse * 128))
    assert coarse.mean() == pytest.approx(0.25, abs=0.01)


def test_silence_can_be_changed_too():
    silent = Sound(np.zeros(RATE // 5), RATE, np.zeros((0, 2)))
    for change in TRIED.values():
        assert np.isfinite(change(silent, np.random.default_rng(0)).wave).all()


def test_copies_for_training_differ_and_follow_from_their_seed():
    sound = recording()
    first, second = (any_of_them(sound, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(first.wave[:1000], second.wave[:1000])
    np.testing.assert_array_equal(any_of_them(sound, np.random.default_rng(0)).wave, first.wave)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape):
    rng = np.random.default_rng(5)
    wave, pitch = make_call(shape, round(0.05 * RATE), RATE, rng)
    assert np.mean(wave**2) == pytest.approx(1.0)
    assert 25e3 <= pitch.min() <= pitch.max() <= 115e3
    jumps = np.abs(np.diff(pitch)) > 1e3
    assert jumps.any() == (shape == "jump")


def test_simulated_calls_stand_out_by_their_level_over_the_noise_of_the_recording():
    source = recording(call=0.3, seconds=2.0)
    made = simulated(source, np.random.default_rng(6), 4.0, (15.0, 15.0), ("flat",))
    assert len(made.wave) == 4 * RATE
    assert len(made.calls) >= 10
    assert (np.diff(made.calls.ravel()) > 0).all()
    _, floor = floor_of(source)
    _, own = floor_of(made)
    assert decibels(own[40:220].mean() / floor[40:220].mean()) == pytest.approx(0.0, abs=0.5)
    inside = [np.var(made.wave[round(a * RATE) : round(b * RATE)]) for a, b in made.calls]
    # White noise of 0.002: its power in 4 kHz, and the whole of it beneath the call.
    expected = 0.002**2 * (4e3 / (RATE / 2) * 10**1.5 + 1)
    assert decibels(np.mean(inside) / expected) == pytest.approx(0.0, abs=0.7)


def test_systems_are_compared_over_versions_and_the_first_is_apart():
    rows, calls = [], []
    for original in ("rec_1", "rec_2"):
        for version in ("as it is", "noisy", "faint"):
            for draw in range(2):
                name = f"{original}-{version}-{draw}"
                rows.append((name, version, original, "x.wav", RATE, 1.0))
                calls += [(name, "call", 0.1, 0.2), (name, "call", 0.5, 0.6)]
    sounds = pd.DataFrame(rows, columns=list(versions.RECORDINGS))
    truth = pd.DataFrame(calls, columns=["recording_id", "label", "onset", "offset"])
    right = truth.assign(score=0.9)
    # Nothing is found in the faint ones, and in noisy ones half of each call.
    worse = right[~right["recording_id"].str.contains("faint")].copy()
    worse.loc[worse["recording_id"].str.contains("noisy"), "offset"] -= 0.06
    table = versions.measure({"a": right, "b": worse}, truth, sounds, ["call"], 50)
    found = table.set_index(["version", "system"])
    assert (found.xs("a", level="system")[["f1_any", "f1_iou_0.5"]] == 1.0).all(axis=None)
    assert found.loc[("noisy", "b"), ["f1_any", "f1_iou_0.5"]].tolist() == [1.0, 0.0]
    assert found.loc[("faint", "b"), ["f1_any", "found"]].tolist() == [0.0, 0]
    mean = found.loc[("mean of all others", "b")]
    assert mean[["calls", "found"]].tolist() == [16, 8]
    assert mean[["f1_any", "f1_iou_0.5"]].tolist() == [0.5, 0.0]
    assert mean["f1_any_less_first"] == mean["f1_any_less_first_low"] == -0.5


@pytest.mark.slow
def test_versions_are_made_of_originals_alone_and_follow_from_their_seed(tmp_path):
    sound = recording()
    changes.write_sound(tmp_path / "rec_1.wav", sound)
    shared = {"subset": "train", "duration": 1.0, "sample_rate": RATE, "channels": 1}
    rows = [
        {"recording_id": name, "path": "rec_1.wav", "group": "rec_1", **shared}
        for name in ("rec_1", "copy-changed0-rec_1")
    ]
    calls = pd.DataFrame(CALLS, columns=["onset", "offset"]).assign(recording_id="rec_1")
    classes = pd.DataFrame({"label": ["call"]})
    tables = Tables(pd.DataFrame(rows), calls.assign(label="call"), classes)
    made = []
    for name in ("a", "b"):
        chosen = ["as it is", "white noise +6 dB", "other shapes, 5 to 20 dB"]
        args = SimpleNamespace(datadir=tmp_path, out=tmp_path / name, versions=chosen)
        args.draws, args.seed = 2, 0
        sounds, truth = versions.make_versions(args, tables)
        assert len(sounds) == 6
        assert set(sounds["original"]) == {"rec_1"}
        assert truth["recording_id"].nunique() == 6
        made.append([(args.out / path).read_bytes() for path in sounds["path"]])
    assert made[0] == made[1]
    assert made[0][2] != made[0][3]
